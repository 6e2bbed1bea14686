"""``workflows.ramachandran`` from trained energies to its table: each training and each sampling a stage."""

from __future__ import annotations

import csv
import dataclasses
import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch

from boltzgen_diffclf.errors import InputError
from boltzgen_diffclf.estimators.replicates import student_factor
from boltzgen_diffclf.files import atomic_path
from boltzgen_diffclf.samplers.resampling import effective_sample_size
from boltzgen_diffclf.streams import named_generator
from systems.beads import are_beads_alone, bead_system
from systems.conformers import overweighted
from systems.ensemble import ReferenceEnsemble, resample
from systems.user_trajectory import read_frames
from workflows import trust, trust_generators
from workflows.molecule_frames import sampled_frames, state_frames
from workflows.molecule_stages import MoleculeStages
from workflows.ramachandran import (
    ALL_SEEDS,
    LEARNED_FROM,
    REFERENCE,
    RamachandranConfig,
    RamachandranResult,
    RamachandranRow,
)
from workflows.ramachandran_folding import folded_starts
from workflows.ramachandran_metrics import Measured, own_metrics
from workflows.ramachandran_planes import Plane, torsion_planes
from workflows.ramachandran_published import published_value
from workflows.ramachandran_run import JudgedRun, Shown
from workflows.ramachandran_slow import slow_plane

NAMED = 3
"""Metrics that a warning names, of many."""


def frames_of(config: RamachandranConfig) -> tuple[ReferenceEnsemble, ReferenceEnsemble | None]:
    """Return the frames to learn from and the reference, which may be the same.

    Without a reference of its own, frames with a bias are judged by those of them that are held out.

    Raises:
        InputError: the file is wrong, or the system has no basin as that which is to be made too likely.
        RunFailedError: the sampling could not go on.
    """
    system = config.source.load()
    if config.overweight is not None:
        system.require_basin(config.overweight)
    if config.favour:
        biased = sampled_frames(config, config.frames, config.objectives)
        if config.reference is None and are_beads_alone(biased, system):
            raise InputError(
                f"frames of {biased.provenance.system} alone have no energies to take the bias away with: give "
                "--reference, frames of the state without it"
            )
        return biased, None if config.reference is None else state_frames(config, config.objectives)
    if config.frames is None:
        reference = state_frames(config, config.objectives)
        return reference, reference
    given = read_frames(config.frames, system, config.beads, config.state, config.temperature_kelvin)
    return given, state_frames(config, config.objectives)


def frames_to_learn(config: RamachandranConfig, frames: ReferenceEnsemble) -> ReferenceEnsemble:
    """Return the frames as networks learn from them: as they are, or with wrong weights on purpose.

    Raises:
        InputError: no frame lies in the basin that is to be made too likely.
    """
    if config.overweight is None:
        return frames
    generator = named_generator(0, "overweight")
    system = config.source.load()
    if are_beads_alone(frames, system):
        system = bead_system(system, config.beads)
        if config.overweight not in system.basins:
            raise InputError(
                f"--overweight '{config.overweight}' is of a torsion that --beads {config.beads} alone do not have: "
                "give frames of all atoms"
            )
    return overweighted(frames, system, config.overweight, config.overweight_factor, generator)


@dataclasses.dataclass(frozen=True, eq=False)
class Judging:
    """What samples are compared with.

    Attributes:
        frames: of the state, which nothing has learned from.
        in_time: the same walkers as they went, which slow coordinates are made of.
        walkers: all of the reference, or all with the bias, which have to agree with one another.
        unfit: why these are nothing to judge by, one sentence each.
    """

    frames: ReferenceEnsemble
    in_time: ReferenceEnsemble
    walkers: ReferenceEnsemble
    unfit: tuple[str, ...] = ()


def judging(
    stages: MoleculeStages, state: str, frames: ReferenceEnsemble, reference: ReferenceEnsemble | None
) -> Judging:
    """Return frames of a state to judge by: those of the reference, or, without one, those held out with the bias.

    The latter are drawn again, walker by walker, by the weights that take the bias away. What all walkers have wrong
    because they do not cross is then wrong in both halves: such a reference has to agree with itself.

    Args:
        stages: of the frames that are learned from.
        state: without a bias.
        frames: of which these are half, perhaps those of the reference.
        reference: frames of the state; walkers that were learned from do not judge.

    Raises:
        InputError: none of them was not learned from.
    """
    if reference is None:
        held_out = stages.held_out
        generator = named_generator(0, "without the bias")
        drawn = resample(held_out, stages.system, state, generator)
        frames_of_walkers = drawn.group.unique(return_counts=True)[1].double()
        left = trust_generators.check_walkers_left(
            float(effective_sample_size(frames_of_walkers.log())), held_out.n_groups
        )
        return Judging(drawn, held_out, frames, trust.failures([left, *_walkers_agree(held_out)]))
    judged = unlearned(reference, stages.training)
    if len(judged) == 0:
        raise InputError(
            "every walker of the reference has frames that are learned from, and nothing is left to judge by: leave "
            "--frames out, so that half of the walkers judge, or give other frames"
        )
    return Judging(judged, judged, reference)


def _walkers_agree(frames: ReferenceEnsemble) -> Iterator[trust.Check]:
    if "split_r_hat" in frames.diagnostics:
        yield trust.check_walkers("the reference", frames.diagnostics["split_r_hat"])


def unlearned(reference: ReferenceEnsemble, training: ReferenceEnsemble) -> ReferenceEnsemble:
    """Return the frames of the walkers of which no frame was learned from."""
    learned = {frame.tobytes() for frame in training.positions.numpy()}
    seen = torch.tensor([frame.tobytes() in learned for frame in reference.positions.numpy()])
    return reference.select((~torch.isin(reference.group, reference.group[seen])).nonzero()[:, 0])


def compute(
    config: RamachandranConfig, stages: MoleculeStages, by: Judging
) -> tuple[RamachandranResult, dict[str, Shown]]:
    """Return the table, and by objective what the page shows of its first seed.

    Args:
        config: settings.
        stages: of the frames that are learned from.
        by: what samples are compared with.

    Raises:
        RunFailedError: the run could not go on.
    """
    planes, missing = _planes(config, stages, by.in_time)
    starts = folded_starts(stages.system_of(by.walkers), by.walkers)
    runs = [
        JudgedRun(config, stages, by.frames, planes, starts, objective, seed)
        for objective in config.objectives
        for seed in config.seeds
    ]
    stages.folder.progress.plan({name: share for run in runs for name, share in run.shares.items()})
    rows: list[RamachandranRow] = []
    together: dict[tuple[str, str], list[Measured]] = {}
    shown: dict[str, Shown] = {}
    checks: list[trust.Check] = []
    warnings: list[trust.Check] = []
    for run in runs:
        seen, metrics = run.judged()
        for metric in metrics:
            rows.append(_row(config, stages, run.objective, str(run.seed), metric, 1))
            together.setdefault((run.objective, metric.metric), []).append(metric)
        checks += run.checks(seen)
        warnings += run.warnings(seen)
        shown.setdefault(run.objective, seen)
    if not by.unfit:
        warnings = [*_walkers_agree(by.frames), *warnings]
    first = next(iter(shown.values()))
    means = [
        _row(config, stages, objective, ALL_SEEDS, mean(several), len(several))
        for (objective, _), several in together.items()
    ]
    table = (*rows, *means, *_reference_rows(config, stages, first))
    write_csv(table, stages.folder.path / "results.csv")
    told = (*trust.failures(warnings), *_partial(means, len(config.seeds)), *missing)
    unconverged = "; ".join((*by.unfit, *trust.failures([] if starts is None else [starts.check()])))
    return RamachandranResult(config, table, stages.folder.path, trust.failures(checks), told, unconverged), shown


def _planes(
    config: RamachandranConfig, stages: MoleculeStages, in_time: ReferenceEnsemble
) -> tuple[tuple[Plane, ...], tuple[str, ...]]:
    """Return what maps are drawn over, and what a reader misses among them."""
    frames = dataclasses.replace(in_time, positions=stages.positions(in_time).float())
    try:
        slow = slow_plane(stages.beads, frames, config.tica_lag_frames)
    except InputError as error:
        return torsion_planes(stages.beads), (f"there are no slow coordinates: {error}.",)
    return (*torsion_planes(stages.beads), slow), ()


def _reference_rows(config: RamachandranConfig, stages: MoleculeStages, seen: Shown) -> Iterator[RamachandranRow]:
    """Yield what the frames that others are compared with show themselves, and those that were learned from."""
    own = own_metrics(seen.judge.reference, seen.findings[REFERENCE])
    learned = [told._replace(metric=f"{LEARNED_FROM}_{name}") for name, told in seen.judge.learned.items()]
    for metric in (*own, *learned):
        yield _row(config, stages, REFERENCE, ALL_SEEDS, metric, None)


def _row(
    config: RamachandranConfig,
    stages: MoleculeStages,
    objective: str,
    seed: str,
    found: Measured,
    n_seeds: int | None,
) -> RamachandranRow:
    published = published_value(
        stages.system, config.state, config.beads, config.temperature_kelvin, objective, found.metric
    )
    return RamachandranRow(
        config.system_name,
        config.beads,
        objective,
        seed,
        found.metric,
        found.value,
        found.noise_floor,
        published,
        found.error,
        n_seeds,
    )


def _partial(means: Sequence[RamachandranRow], n_seeds: int) -> Iterator[str]:
    """Yield a sentence for every objective of which some metrics are means of fewer seeds than there are."""
    lacking: dict[str, list[str]] = {}
    for row in means:
        if row.n_seeds is not None and row.n_seeds < n_seeds:
            lacking.setdefault(row.objective, []).append(row.metric)
    for objective, metrics in lacking.items():
        more = f" and {len(metrics) - NAMED} more" if len(metrics) > NAMED else ""
        yield (
            f"not all of the {n_seeds} seeds of {objective} have {', '.join(metrics[:NAMED])}{more}: the means are of "
            "those that do (n_seeds in results.csv)."
        )


def mean(seeds: Sequence[Measured]) -> Measured:
    """Return the mean of a metric over the seeds, its own error what they tell of themselves or their scatter.

    The scatter has Student's factor; what the seeds share is not lessened by their number.
    """
    floors = [one.noise_floor for one in seeds if one.noise_floor is not None]
    values = [one.value for one in seeds]
    told = [one.stderr for one in seeds if one.stderr is not None]
    errors = [math.sqrt(float(np.mean(np.square(told))) / len(seeds))] if told else []
    if len(values) > 1 and np.isfinite(values).all():
        errors.append(student_factor(len(values)) * float(np.std(values, ddof=1)) / math.sqrt(len(values)))
    return Measured(
        seeds[0].metric,
        float(np.mean(values)),
        float(np.mean(floors)) if floors else None,
        max(errors, default=None),
        max(one.shared for one in seeds),
    )


def write_csv(rows: Sequence[RamachandranRow], path: Path) -> None:
    """Write the table in long form, one number a line; a number that is not known is an empty cell."""
    with atomic_path(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as handle:
        writer = csv.DictWriter(handle, [field.name for field in dataclasses.fields(RamachandranRow)])
        writer.writeheader()
        writer.writerows(dataclasses.asdict(row) for row in rows)
