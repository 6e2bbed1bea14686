"""What a benchmark suite is: the rows that it computes, what each of them measured, and what others published.

A suite is one file that makes a :class:`Suite` and one line in ``benchmark_suites/__init__.py``. Only ``run_row``,
``combine`` and ``figures`` may import anything heavy, and only when they are called.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from boltzgen_diffclf.objective_names import sized_name

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ALL_SEEDS = "all"
"""The seed of a row that combines the seeds."""

COSTS = ("seconds", "training_seconds", "network_evaluations", "energy_evaluations")
"""Metrics that are averaged over the seeds and have no error bar."""


@dataclass(frozen=True)
class RowSpec:
    """One row to compute: what a resumable stage is named after."""

    suite: str
    target: str
    dim: int
    objective: str
    seed: int

    @property
    def stage(self) -> str:
        """Name of the row's stage in the run folder."""
        return f"{self.suite}-{self.target}-d{self.dim}-{self.objective}-seed{self.seed}"

    @classmethod
    def from_stage(cls, suite: str, stage: str) -> RowSpec | None:
        """Return the row of a suite that a stage is named after; None where it is no row of it."""
        match = re.fullmatch(rf"{re.escape(suite)}-(\w+)-d(\d+)-([\w.]+)-seed(\d+)", stage)
        spec = match and cls(suite, match[1], int(match[2]), match[3], int(match[4]))
        return spec if spec and spec.stage == stage else None


@dataclass(frozen=True)
class Metric:
    """One measured number.

    Attributes:
        name: of what was measured; those of :data:`COSTS` say what the row cost, and ``name@place`` is one point of a
            curve, which the CSV and the figures show and the tables of the page do not.
        value: the number.
        stderr: its standard error, where one is known.
        limit: the exact answer, or the best that any model can reach, where one is known.
    """

    name: str
    value: float
    stderr: float | None = None
    limit: float | None = None


@dataclass(frozen=True)
class Published:
    """A number that others printed, in the sign and unit of ours."""

    target: str
    dim: int
    objective: str
    metric: str
    value: float
    stderr: float | None
    source: str


@dataclass(frozen=True)
class TableRow:
    """One line of ``results.csv``.

    Attributes:
        seed: of one row, ``all`` for the combination of the seeds, empty for published numbers.
        published: where a published number was printed; empty for ours.
    """

    suite: str
    target: str
    dim: int
    objective: str
    seed: str
    metric: str
    value: float
    stderr: float | None
    limit: float | None
    published: str


@dataclass(frozen=True)
class Block:
    """Rows that are computed together: every combination of what is named here."""

    target: str
    dims: tuple[int, ...]
    objectives: tuple[str, ...]
    seeds: tuple[int, ...] = (0, 1, 2)

    def holds(self, dim: int | None, objective: str | None, target: str | None) -> bool:
        """Return whether the block has this dimension, this objective and this target; None is any."""
        return (
            (dim is None or dim in self.dims)
            and (objective is None or objective in self.objectives)
            and (target is None or target == self.target)
        )


@dataclass(frozen=True)
class Preset:
    """What one size of a suite computes.

    Attributes:
        blocks: of rows, where the user does not choose.
        sizes: ``samples``, ``steps`` and whatever else the suite has to know.
    """

    blocks: tuple[Block, ...]
    sizes: Mapping[str, int]


@dataclass(frozen=True)
class RowContext:
    """What a row is given besides its name.

    Attributes:
        sizes: those of the preset, with the user's own in their place.
        checkpoints: folder for the state of a training that may be killed.
        advance: called with the fraction of the row that has been done since the last call.
        device: where to compute.
    """

    sizes: Mapping[str, int]
    checkpoints: Path
    advance: Callable[[float], None]
    device: str

    def checkpoint(self, spec: RowSpec) -> Path:
        """Return where the state of a row's training lies."""
        return self.checkpoints / f"{spec.stage}.safetensors"


class StepProgress:
    """Turns the counts of a training into the fractions that a row tells."""

    def __init__(self, context: RowContext) -> None:
        self.context, self.done = context, 0

    def report(self, step: int, steps: int, record: Mapping[str, float]) -> None:
        """Tell how far the training has come since the last call."""
        self.context.advance((step - self.done) / steps)
        self.done = step


@dataclass(frozen=True)
class SuiteFigure:
    """A figure of the page, and a PNG file of that name."""

    name: str
    caption: str
    figure: Figure


@dataclass(frozen=True)
class Suite:
    """A family of rows that answer one question.

    Attributes:
        name: on the command line.
        question: what the suite answers, one sentence for the page.
        objectives: name of each to what it is.
        dims: that may be asked for.
        presets: name to sizes.
        run_row: computes one row.
        figures: from all lines of the table, published ones included.
        more_targets: that may be asked for beside those of the presets.
        published: numbers to stand beside ours.
        combine: from the metrics of each seed of a row to those of all.
        headline: the metric that the terminal and the page show first.
        conclusion: from all lines of the table to what they say, in sentences; empty where they say nothing.
        findings: from all lines of the table to lines that only all of them together give.
    """

    name: str
    question: str
    objectives: Mapping[str, str]
    dims: tuple[int, ...]
    presets: Mapping[str, Preset]
    run_row: Callable[[RowSpec, RowContext], list[Metric]]
    figures: Callable[[Sequence[TableRow]], list[SuiteFigure]]
    combine: Callable[[Sequence[Sequence[Metric]]], list[Metric]]
    more_targets: tuple[str, ...] = ()
    published: tuple[Published, ...] = ()
    headline: str = "delta_f"
    conclusion: Callable[[Sequence[TableRow]], str] | None = None
    findings: Callable[[Sequence[TableRow]], list[TableRow]] | None = None

    @property
    def targets(self) -> tuple[str, ...]:
        """Targets that may be asked for."""
        blocks = [block for preset in self.presets.values() for block in preset.blocks]
        return tuple(dict.fromkeys((*(block.target for block in blocks), *self.more_targets)))

    def place(self, objective: str) -> tuple[int, float] | None:
        """Return where an objective comes in the table, one of any size right behind its like; None: there is none.

        Raises:
            InputError: a size that makes no sense, in the name of an objective that the suite has.
        """
        names = list(self.objectives)
        if objective in self.objectives:
            return names.index(objective), 0.0
        sized = sized_name(objective) if objective.partition("_")[0] in self.objectives else None
        return sized and (names.index(sized.base), sized.size)

    def rows(
        self,
        preset: str,
        dims: tuple[int, ...] = (),
        objectives: tuple[str, ...] = (),
        seeds: tuple[int, ...] = (),
        targets: tuple[str, ...] = (),
    ) -> list[RowSpec]:
        """Return the rows of a preset, each once.

        What is given chooses among the blocks, so that a dimension comes with the objectives that the preset affords
        in it; what no block holds replaces the choice of every block.
        """
        specs: dict[RowSpec, None] = {}
        blocks = self.presets[preset].blocks
        for block in blocks:
            choices = dims or block.dims, objectives or block.objectives, targets or (block.target,)
            for dim, objective, target in itertools.product(*choices):
                given = dim if dims else None, objective if objectives else None, target if targets else None
                if block.holds(dim, objective, target) or not any(one.holds(*given) for one in blocks):
                    chosen = seeds or block.seeds
                    specs |= {RowSpec(self.name, target, dim, objective, seed): None for seed in chosen}
        return list(specs)
