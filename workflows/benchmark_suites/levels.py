"""Suite ``levels``: how many noise levels a group, and which, where every step costs the same."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from workflows.benchmark_suites.seeds import over_seeds
from workflows.benchmark_suites.suite import (
    ALL_SEEDS,
    Block,
    Metric,
    Preset,
    RowContext,
    RowSpec,
    Suite,
    SuiteFigure,
    TableRow,
)

if TYPE_CHECKING:
    from boltzgen_diffclf.training.noised_problem import NoisedObjective
    from workflows.benchmark_suites.one_sided_training import OneSidedSizes

TARGET = "mog40"
DIMS = (2, 8, 32)
LOSS = "excess_classification.profiled_f"
MODES = "energy_mode_total_variation"
RECOMMENDED = "recommended_group_size"
AS_GOOD = "as_good_as_the_best"
"""1 where two standard errors do not tell the loss from the least one of that dimension, else 0."""


@dataclass(frozen=True)
class LevelChoice:
    """What a row is trained with.

    Attributes:
        group_size: levels a group.
        level_sampler: how they are chosen.
        objective: what is learned from them.
        layout: how all levels lie on the path, one of ``LEVEL_LAYOUTS``; None is even in time, as are those at which
            all rows are measured.
    """

    group_size: int
    level_sampler: str = "spaced"
    objective: str = "dsm_diffclf"
    layout: str | None = None


NUMBERS: Mapping[str, LevelChoice] = {f"n{n}": LevelChoice(n) for n in (2, 4, 8, 16, 32)}
"""Rows that differ in the number of levels a group."""

ONE_PASS = "one_pass"
CHOICES: Mapping[str, LevelChoice] = {
    **NUMBERS,
    ONE_PASS: LevelChoice(4, "scattered", "dsm_diffclf_all"),
    "n2_gap_aware": LevelChoice(2, "gap_aware"),
    "n4_neighbours": LevelChoice(4, "neighbours"),
    "n4_scattered": LevelChoice(4, "scattered"),
    "n4_log_snr": LevelChoice(4, layout="log_snr"),
    "n4_thermodynamic": LevelChoice(4, layout="thermodynamic"),
}
PLACED = ("n2", "n2_gap_aware", "n4", "n4_neighbours", "n4_scattered", "n4_log_snr", "n4_thermodynamic")
"""Rows to compare by how the levels of a group are chosen."""

OBJECTIVES = {
    **{
        name: f"denoising score matching, and classification among groups of {one.group_size} levels, "
        "about two units of thermodynamic length apart"
        for name, one in NUMBERS.items()
    },
    ONE_PASS: "the same among all levels, from one pass of a network whose trunk does not see the level, and has no "
    "wells in any dimension",
    "n2_gap_aware": "pairs of levels about one unit of thermodynamic length apart, the length that of the exact "
    "densities",
    "n4_neighbours": "groups of four neighbours",
    "n4_scattered": "groups of four from all over the path",
    "n4_log_snr": "n4, all levels laid out evenly in the log signal-to-noise ratio",
    "n4_thermodynamic": "n4, all levels laid out evenly in the thermodynamic length of the exact densities",
}
SIZES = {
    "samples": 60_000,
    "steps": 600,
    "evaluations": 4352,
    "averaged_steps": 60,
    "hidden": 128,
    "layers": 3,
    "levels": 128,
    "level_pool": 16,
    "measured": 1024,
    "particles": 512,
}
"""``evaluations`` are those of the network in one step: four groups of 32 levels, or 544 pairs. Networks are those of
the other suites, with wells where modes are far apart; that of one pass cannot have any."""

FULL_SIZES = {"steps": 4000, "averaged_steps": 400, "level_pool": 32, "measured": 2048}
PRESETS = {
    "quick": Preset((Block(TARGET, (8,), ("n2", "n4", "n8", "n32"), (0,)),), SIZES),
    "standard": Preset(
        (Block(TARGET, DIMS, (*NUMBERS, ONE_PASS)), Block(TARGET, (8, 32), PLACED)), {**SIZES, **FULL_SIZES}
    ),
}


def row_objective(choice: LevelChoice) -> NoisedObjective:
    """Return the objective of a row, its levels chosen as the row says, and learned from the first step.

    Preparing by denoising alone would cost a row of small groups more than one of large groups.
    """
    from boltzgen_diffclf.training.objectives import NOISED_OBJECTIVES

    named = NOISED_OBJECTIVES[choice.objective]
    return replace(named, group_size=choice.group_size, level_sampler=choice.level_sampler, pretraining=0.0)


def row_sizes(choice: LevelChoice, sizes: Mapping[str, int]) -> OneSidedSizes:
    """Return the sizes of a row: as many groups a step as the network evaluations of the suite allow."""
    from boltzgen_diffclf.training.noised_losses import Sizes
    from workflows.benchmark_suites.one_sided_training import OneSidedSizes

    # Where all levels are compared, the network gives them in one pass.
    price = row_objective(choice).evaluations(Sizes(choice.group_size, all_levels=1))
    rest = {name: size for name, size in sizes.items() if name != "evaluations"}
    return OneSidedSizes(groups=sizes["evaluations"] // price, group_size=choice.group_size, **rest)


def run_row(spec: RowSpec, context: RowContext) -> list[Metric]:
    """Return what one row measured."""
    from boltzgen_diffclf.paths import PATHS
    from workflows.benchmark_suites.one_sided import measure, train_as

    choice = CHOICES[spec.objective]
    sizes = row_sizes(choice, context.sizes)
    trained = train_as(row_objective(choice), sizes, PATHS["vp"], spec, context, choice.layout)
    return measure(trained, PATHS["vp"], spec.seed, sizes)


def conclusion(rows: Sequence[TableRow]) -> str:
    """Return which N is best in which dimension, how surely, and which to take."""
    losses = _losses(rows)
    if not losses:
        return ""
    as_good = {dim: _as_good(lines) for dim, lines in losses.items()}
    sentences = [_of_dimension(rows, dim, losses[dim], as_good[dim]) for dim in losses]
    taken, votes = _taken(losses)
    sentences.append(f"Take N = {taken}: it is among the best in {votes} of {len(losses)} dimensions.")
    seeds = {row.seed for row in rows if row.seed not in (ALL_SEEDS, "")}
    if len(seeds) == 1:
        sentences.append("With one seed the errors are those of the samples, not the scatter of trainings.")
    return " ".join(sentences)


def findings(rows: Sequence[TableRow]) -> list[TableRow]:
    """Return the recommended N as a line of each dimension, and whether each N is as good as the best one there."""
    losses = _losses(rows)
    if not losses:
        return []
    taken, _ = _taken(losses)
    found = []
    for lines in losses.values():
        good = _as_good(lines)
        numbers = [(n, AS_GOOD, float(n in good)) for n in lines]
        numbers += [(taken, RECOMMENDED, float(taken))] if taken in lines else []
        found += [
            replace(lines[n], metric=metric, value=value, stderr=None, limit=None) for n, metric, value in numbers
        ]
    return found


def _losses(rows: Sequence[TableRow]) -> dict[int, dict[int, TableRow]]:
    """Return the losses by dimension and N, where there is more than one N to compare."""
    dims = sorted({row.dim for row in rows})
    return {dim: lines for dim in dims if len(lines := numbered(rows, dim, LOSS)) > 1}


def _taken(losses: Mapping[int, Mapping[int, TableRow]]) -> tuple[int, int]:
    """Return the N to take, and in how many dimensions it is among the best."""
    as_good = [_as_good(lines) for lines in losses.values()]
    votes = {n: sum(n in good for good in as_good) for n in {n for lines in losses.values() for n in lines}}
    taken = min(votes, key=lambda n: (-votes[n], sum(_rank(n, lines) for lines in losses.values()), n))
    return taken, votes[taken]


def numbered(rows: Sequence[TableRow], dim: int, metric: str) -> dict[int, TableRow]:
    """Return the lines of one dimension and metric, all seeds together, by the number of levels a group."""
    found = {row.objective: row for row in rows if (row.dim, row.metric, row.seed) == (dim, metric, ALL_SEEDS)}
    return {one.group_size: found[name] for name, one in NUMBERS.items() if name in found}


def _of_dimension(rows: Sequence[TableRow], dim: int, losses: Mapping[int, TableRow], as_good: Sequence[int]) -> str:
    best = _least(losses)
    words = f"In {dim} dimensions N = {best} has the least excess classification loss, {_shown(losses[best])} nats"
    alike = [str(n) for n in as_good if n != best]
    words += f"; within two standard errors of it: N = {', '.join(alike)}" if alike else "; every other N is worse"
    modes = numbered(rows, dim, MODES)
    if modes:
        best = _least(modes)
        words += f". The mode weights of the energy are best for N = {best}, {_shown(modes[best])}"
    return words + "."


def _shown(row: TableRow) -> str:
    from workflows.report.rounding import with_error

    return with_error(row.value, row.stderr)


def _least(lines: Mapping[int, TableRow]) -> int:
    return min(lines, key=lambda n: lines[n].value)


def _as_good(lines: Mapping[int, TableRow]) -> list[int]:
    """Return the numbers that the errors do not tell from the best."""
    best = lines[_least(lines)]
    return [
        n for n, row in lines.items() if row.value - best.value <= 2 * math.hypot(row.stderr or 0.0, best.stderr or 0.0)
    ]


def _rank(n: int, lines: Mapping[int, TableRow]) -> int:
    order = sorted(lines, key=lambda one: lines[one].value)
    return order.index(n) if n in order else len(order)


def figures(rows: Sequence[TableRow]) -> list[SuiteFigure]:
    """Return loss and mode weights over the number of levels, and how the choice of levels compares."""
    from workflows.report.levels_figure import levels_figure

    caption = (
        "Left and middle: classification loss [nats] among all levels less that of the exact densities, with the level "
        "free energies profiled out, and total variation between the mode weights of exp(-U) at the least noise and "
        "the exact ones, over the number N of levels a group; every step has as many network evaluations. Dashed: what "
        "as many exact samples would score. Right: the same loss where the levels of a group are chosen otherwise, "
        "single seeds as ticks. Linear below 0.01, logarithmic above."
    )
    return [SuiteFigure("levels", caption, levels_figure(rows))]


LEVELS = Suite(
    name="levels",
    question="For a given number of network evaluations, among how many noise levels should an energy be classified, "
    "and which?",
    objectives=OBJECTIVES,
    dims=DIMS,
    presets=PRESETS,
    run_row=run_row,
    figures=figures,
    combine=over_seeds,
    headline=LOSS,
    conclusion=conclusion,
    findings=findings,
)
