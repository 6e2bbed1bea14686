"""The rows of ``workflows.solvation`` that come from the reference ensembles alone, and what they rest on."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from boltzgen_diffclf.errors import NotTrustworthyError
from boltzgen_diffclf.estimators import Estimate
from boltzgen_diffclf.free_energy.classical import all_states_mbar, one_sided, subsample, two_state_bar
from boltzgen_diffclf.streams import split_seed
from systems.conformers import basin_free_energy
from systems.legs import Leg
from workflows.report.data import LegFigures, WorkValues
from workflows.results import EstimatorRow
from workflows.solvation_rows import make_row

if TYPE_CHECKING:
    from workflows.solvation_settings import SolvationConfig
    from workflows.solvation_stages import SolvationStages

MBAR_COLUMNS = 200_000
"""Frames of one ensemble that enter MBAR, evenly spread; two-state BAR takes them all."""

Answer = TypeVar("Answer")


@dataclass(eq=False)
class Classical:
    """What the reference ensembles of a leg say.

    Attributes:
        rows: by estimator.
        figures: of the leg; those of the learned path are added later.
        rests_on: states whose sampled frames the rows are made of, states between the ends included.
    """

    rows: dict[str, EstimatorRow] = field(default_factory=dict)
    figures: LegFigures = field(default_factory=LegFigures)
    rests_on: tuple[str, ...] = ()


def classical(stages: SolvationStages, leg: Leg) -> Classical:
    """Return the rows of the reference ensembles, their figures, and the states that were sampled for them."""
    found = Classical()
    if leg.divides is None:
        _add_mbar(stages, leg, found)
    else:
        _add_population(stages, leg, found)
    if len(stages.sources(leg)) == 2:
        _add_bar(stages, leg, found)
    else:
        _add_one_sided(stages, leg, found)
    if takes_the_straight_line(stages.config, leg):
        _add_straight_line(stages, leg, found)
    return found


def takes_the_straight_line(config: SolvationConfig, leg: Leg) -> bool:
    """Return whether a leg is annealed along the straight line of its energies; parts of one state have none."""
    return leg.divides is None and config.wants("ais")


def _generator(stages: SolvationStages, leg: Leg, name: str) -> np.random.Generator:
    return np.random.default_rng(split_seed(stages.config.seed, f"{name}/{leg.name}"))


def _add_mbar(stages: SolvationStages, leg: Leg, found: Classical) -> None:
    sampled = {name: stages.sampled(name) for name in stages.sources(leg)}
    found.rests_on = tuple(sampled)
    if not stages.config.wants("mbar"):
        return
    bridges = stages.bridges(leg, sampled)
    family = bridges.family(lambda ensemble: subsample(ensemble, MBAR_COLUMNS))
    result, seconds = _timed(lambda: all_states_mbar(bridges.states, family, _generator(stages, leg, "mbar")))
    evaluations = sum(rung.sampled.energies.size for rung in bridges.rungs)
    row = make_row(bridges.estimate(result, leg.state_a, leg.state_b), "classical", "mbar", evaluations, seconds)
    found.rows["mbar"] = replace(row, note="; ".join(filter(None, [row.note, bridges.note])))
    found.figures = LegFigures(overlap=result.overlap_matrix, overlap_labels=bridges.states)
    found.rests_on = tuple(rung.sampled.name for rung in bridges.rungs)


def _add_population(stages: SolvationStages, leg: Leg, found: Classical) -> None:
    """Add the share of the basin among the frames of the undivided state."""
    if leg.divides is None or not stages.config.wants("population"):
        return
    whole, basin = leg.divides.state, leg.divides.basin
    ensemble = stages.ensemble(whole)
    found.rests_on = (whole,)

    def estimate() -> Estimate:
        return basin_free_energy(stages.system, basin, ensemble.positions.numpy(), ensemble.group.numpy())

    found.rows["population"] = _row_or_reason(estimate, "population", len(ensemble))


def _add_bar(stages: SolvationStages, leg: Leg, found: Classical) -> None:
    a, b = (stages.sampled(name) for name in (leg.state_a, leg.state_b))
    states = stages.system.states
    row_a, row_b = states.index(leg.state_a), states.index(leg.state_b)
    if stages.config.wants("bar"):
        generator = _generator(stages, leg, "bar")
        row = _row_or_reason(
            lambda: two_state_bar(a, b, row_a, row_b, generator), "bar", 2 * (len(a.group) + len(b.group))
        )
        found.rows["bar"] = replace(row, note="; ".join([row.note, *stages.resampled(leg)]))
    work = WorkValues("reference frames", a.energies[row_b] - a.energies[row_a], b.energies[row_a] - b.energies[row_b])
    found.figures = replace(found.figures, work=(*found.figures.work, work))


def _add_one_sided(stages: SolvationStages, leg: Leg, found: Classical) -> None:
    (source,) = stages.sources(leg)
    if not stages.config.wants("fep"):
        return
    states = stages.system.states
    sampled, row_a, row_b = stages.sampled(source), states.index(leg.state_a), states.index(leg.state_b)
    found.rows["fep"] = _row_or_reason(lambda: one_sided(sampled, row_a, row_b), "fep", 2 * len(sampled.group))


def _add_straight_line(stages: SolvationStages, leg: Leg, found: Classical) -> None:
    annealed = stages.annealed(leg)
    fact = annealed.facts
    estimate = Estimate(fact["value"], fact["stderr"], fact["overlap"], fact["n_effective"], "AIS")
    found.rows["ais"] = make_row(estimate, "classical", "ais", fact["energy_evaluations"], fact["seconds"])
    straight = WorkValues("AIS, straight line", annealed.arrays["forward"], annealed.arrays["reverse"])
    found.figures = replace(found.figures, work=(*found.figures.work, straight))


def _row_or_reason(estimate: Callable[[], Estimate], name: str, evaluations: int) -> EstimatorRow:
    """Return the row of an estimate, or one without a value whose remark says why there is none."""
    try:
        result, seconds = _timed(estimate)
    except NotTrustworthyError as error:
        row = make_row(Estimate(math.nan, math.nan, 0.0, 0.0, name), "classical", name, evaluations, 0.0)
        return replace(row, note=f"{row.note}; no value: {error}")
    return make_row(result, "classical", name, evaluations, seconds)


def _timed(compute: Callable[[], Answer]) -> tuple[Answer, float]:
    begun = time.monotonic()
    return compute(), time.monotonic() - begun
