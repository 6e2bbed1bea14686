"""The numbers of ``results.csv`` that the tables of the Ramachandran page show, and how a cell says one."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from workflows.ramachandran import ALL_SEEDS, REFERENCE, RamachandranResult, RamachandranRow
from workflows.ramachandran_run import REWEIGHTED, samplers_of
from workflows.report import rounding

NAMES = {
    REFERENCE: "reference",
    "iid": "generated",
    REWEIGHTED: "reweighted",
    "langevin": "Langevin",
    "smc": "exp(−U)",
}
"""What the columns of the maps are called."""


@dataclass(frozen=True)
class Numbers:
    """The means over the seeds, by objective and metric."""

    rows: Mapping[tuple[str, str], RamachandranRow]
    objectives: Sequence[str]
    labels: Sequence[str]

    def get(self, objective: str, metric: str) -> RamachandranRow | None:
        """Return the line of a metric, None where there is none."""
        return self.rows.get((objective, metric))

    def text(self, objective: str, metric: str, digits: int = 3) -> str:
        """Return a value without its error."""
        row = self.get(objective, metric)
        return rounding.UNKNOWN if row is None else rounding.plain(row.value, digits)


def numbers_of(result: RamachandranResult) -> Numbers:
    """Return the lines that the tables show."""
    rows = {(row.objective, row.metric): row for row in result.rows if row.seed == ALL_SEEDS}
    labels = [*samplers_of(result.config.beads).values(), *([REWEIGHTED] if result.config.beads == "all" else [])]
    return Numbers(rows, result.config.objectives, labels)


def above_floor_cell(row: RamachandranRow | None) -> str:
    """Return what a distance is above its noise floor, with its error."""
    if row is None or row.noise_floor is None:
        return rounding.UNKNOWN
    return rounding.with_error(row.value - row.noise_floor, row.stderr)


def kt_cell(row: RamachandranRow | None) -> str:
    """Return a free energy with its error, or why there is none."""
    return (
        "none: one of the two was never seen, or no sample is left"
        if row is None
        else rounding.with_error(row.value, row.stderr)
    )


def deviation_cell(row: RamachandranRow | None, reference: RamachandranRow | None) -> str:
    """Return how many standard errors a free energy is from the reference."""
    if row is None or reference is None or row.stderr is None or reference.stderr is None:
        return rounding.UNKNOWN
    return f"{(row.value - reference.value) / math.hypot(row.stderr, reference.stderr):+.1f}"


def with_floor_cell(row: RamachandranRow | None) -> str:
    """Return a distance and its noise floor."""
    return rounding.UNKNOWN if row is None else f"{rounding.plain(row.value)} ({rounding.plain(row.noise_floor)})"


def percent_cell(row: RamachandranRow | None) -> str:
    """Return a share [%]."""
    return rounding.UNKNOWN if row is None else f"{rounding.plain(100 * row.value)} %"
