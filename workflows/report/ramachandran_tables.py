"""The tables of the Ramachandran page on its maps: numbers of ``results.csv`` in, texts out."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from workflows.progress import duration
from workflows.ramachandran import RamachandranRow
from workflows.ramachandran_planes import DIVERGENCES
from workflows.ramachandran_published import CHAIN_DIVERGENCES, GPU_HOURS, SOURCE
from workflows.ramachandran_published import DIVERGENCES as PUBLISHED
from workflows.report import rounding
from workflows.report.ramachandran_numbers import NAMES, Numbers, above_floor_cell, percent_cell
from workflows.report.tables import Line, Table

HEADINGS = {"js": "JS", "js_pooled_range": "JS, pooled range", "pmf_error": "PMF error"}

RESIDUE_CAPTIONS = {"js": "JS [nats] of the maps", "pmf_error": "PMF error [kT²] of the maps"}


def distance_table(numbers: Numbers, published: bool) -> Table:
    """Return the table of divergences: ours, what is above the noise floor, what others print.

    Args:
        numbers: to show.
        published: whether the published lines are of these beads.
    """
    metrics = [f"{label}_{name}" for name in DIVERGENCES for label in numbers.labels]
    columns = ["objective", *(f"{HEADINGS[name]}, {NAMES[label]}" for name in DIVERGENCES for label in numbers.labels)]
    lines = []
    for objective in numbers.objectives:
        training = numbers.get(objective, "training_seconds")
        seconds = duration(training.value) if training else rounding.UNKNOWN
        lines.append(Line((objective, *(numbers.text(objective, metric) for metric in metrics), seconds)))
        lines.append(
            Line(("above the floor", *(above_floor_cell(numbers.get(objective, name)) for name in metrics), ""))
        )
        if published and objective in GPU_HOURS:
            cells = (_published(objective, metric) for metric in metrics)
            lines.append(Line((objective, *cells, f"{GPU_HOURS[objective]} GPU h"), "published", SOURCE))
    floors = (_floor(numbers, metric) for metric in metrics)
    lines.append(Line(("noise floor", *floors, ""), "headline"))
    return Table(
        "Distances from frames that were not learned from, means over the seeds", [*columns, "training"], lines
    )


def _published(objective: str, metric: str) -> str:
    # Theirs have the limits of the pooled samples.
    if metric.endswith("_js") or (objective, metric.replace("_js_pooled_range", "_js")) not in PUBLISHED:
        return ""
    return rounding.with_error(*PUBLISHED[objective, metric.replace("_js_pooled_range", "_js")])


def _floor(numbers: Numbers, metric: str) -> str:
    found = [numbers.get(objective, metric) for objective in numbers.objectives]
    floors = [row.noise_floor for row in found if row is not None and row.noise_floor is not None]
    return rounding.plain(sum(floors) / len(floors)) if floors else rounding.UNKNOWN


def residue_tables(numbers: Numbers, residues: Sequence[str]) -> Iterator[Table]:
    """Yield a table of each distance of the maps of several residues, a residue a line."""
    named = [(objective, label) for objective in numbers.objectives for label in numbers.labels]
    columns = ["residue", *(f"{NAMES[label]}, {objective}" for objective, label in named)]
    for name, caption in RESIDUE_CAPTIONS.items():
        lines = []
        for residue in residues:
            rows = [numbers.get(objective, f"{label}_{name}[{residue}]") for objective, label in named]
            lines.append(Line((residue, *map(above_floor_cell, rows))))
        yield Table(f"{caption}: what is above the noise floor, means over the seeds", columns, lines)
    lines = []
    for residue in residues:
        rows = [numbers.get(objective, f"{label}_bins_within_2_stderr[{residue}]") for objective, label in named]
        lines.append(Line((residue, *map(percent_cell, rows))))
    yield Table("Bins with 0.1 % of the reference or more that are within two standard errors of it", columns, lines)


def training_table(numbers: Numbers) -> Table:
    """Return how long the trainings took, means over the seeds."""
    found = {objective: numbers.get(objective, "training_seconds") for objective in numbers.objectives}
    lines = [Line((name, rounding.UNKNOWN if row is None else duration(row.value))) for name, row in found.items()]
    return Table("Trainings", ("objective", "time"), lines)


def slow_table(numbers: Numbers) -> Table:
    """Return how far samples are from the reference in the plane of the slow coordinates."""
    lines = []
    for objective in numbers.objectives:
        for label in numbers.labels:
            row = numbers.get(objective, f"{label}_tica_js")
            within = percent_cell(numbers.get(objective, f"{label}_tica_bins_within_2_stderr"))
            floor = rounding.UNKNOWN if row is None else rounding.plain(row.noise_floor)
            value = numbers.text(objective, f"{label}_tica_js")
            lines.append(Line((NAMES[label], objective, value, floor, above_floor_cell(row), within)))
            if row is not None and row.published is not None:
                published = rounding.with_error(*CHAIN_DIVERGENCES[objective, row.metric])
                lines.append(Line((NAMES[label], objective, published, "", "", ""), "published", SOURCE))
    columns = ("from", "objective", "JS [nats]", "noise floor", "above the floor", "bins within two standard errors")
    return Table("Slow coordinates: distances from the reference, means over the seeds", columns, lines, words=2)


def agreement_table(numbers: Numbers) -> Table:
    """Return how many bins of the maps are those of the reference."""
    lines = [
        Line(
            (
                objective,
                NAMES[label],
                percent_cell(row := numbers.get(objective, f"{label}_bins_within_2_stderr")),
                _of_halves(row),
                _deviation_of(numbers.get(objective, f"{label}_largest_deviation")),
            )
        )
        for objective in numbers.objectives
        for label in numbers.labels
    ]
    columns = (
        "objective", "from", "bins within two standard errors", "of two halves of the reference",
        "largest deviation [standard errors]",
    )  # fmt: skip
    return Table("Bins of the map that hold 0.1 % of the reference or more", columns, lines, words=2)


def _of_halves(row: RamachandranRow | None) -> str:
    """Return in what share of the bins halves of the reference agree, with its scatter from halving to halving."""
    if row is None or row.noise_floor is None or row.stderr is None:
        return rounding.UNKNOWN
    return f"{rounding.with_error(100 * row.noise_floor, 100 * row.stderr)} %"


def _deviation_of(row: RamachandranRow | None) -> str:
    if row is not None and math.isinf(row.value):
        return "one of them was never visited"
    return rounding.UNKNOWN if row is None else rounding.plain(row.value)
