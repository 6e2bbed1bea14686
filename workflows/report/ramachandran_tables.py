"""The tables of the Ramachandran page: numbers of ``results.csv`` in, texts out."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from systems.molecular import MolecularSystem
from workflows.progress import duration
from workflows.ramachandran import ALL_SEEDS, LEARNED_FROM, REFERENCE, RamachandranResult, RamachandranRow
from workflows.ramachandran_planes import DIVERGENCES
from workflows.ramachandran_published import CHAIN_DIVERGENCES, GPU_HOURS, SOURCE
from workflows.ramachandran_published import DIVERGENCES as PUBLISHED
from workflows.ramachandran_run import REWEIGHTED, samplers_of
from workflows.report import rounding
from workflows.report.tables import Line, Table

NAMES = {
    REFERENCE: "reference",
    "iid": "generated",
    REWEIGHTED: "reweighted",
    "langevin": "Langevin",
    "smc": "exp(−U)",
}
"""What the columns of the maps are called."""

HEADINGS = {"js": "JS", "js_pooled_range": "JS, pooled range", "pmf_error": "PMF error"}


RESIDUE_CAPTIONS = {"js": "JS [nats] of the maps", "pmf_error": "PMF error [kT²] of the maps"}

SHARES = {
    "stretched": "stretched",
    "clashing": "clashing",
    "mirrored": "mirrored",
    "sunken": "in a hole",
    "broken": "lost",
}
"""Columns of configurations that are no molecule, or chains and samples that a hole of the energy took."""

MARGINALS = {
    "bond_js": "bonds",
    "angle_js": "angles",
    "energy_js": "energy",
    "distance_js": "distances",
    "rmsd_js": "RMSD",
    "end_to_end_js": "end to end",
}
"""Bonds, angles and distances are means over all of them."""


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
        lines.append(Line(("above the floor", *(_above_floor(numbers.get(objective, name)) for name in metrics), "")))
        if published and objective in GPU_HOURS:
            cells = (_published(objective, metric) for metric in metrics)
            lines.append(Line((objective, *cells, f"{GPU_HOURS[objective]} GPU h"), "published", SOURCE))
    floors = (_floor(numbers, metric) for metric in metrics)
    lines.append(Line(("noise floor", *floors, ""), "headline"))
    return Table(
        "Distances from frames that were not learned from, means over the seeds", [*columns, "training"], lines
    )


def _above_floor(row: RamachandranRow | None) -> str:
    if row is None or row.noise_floor is None:
        return rounding.UNKNOWN
    return rounding.with_error(row.value - row.noise_floor, row.stderr)


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
            lines.append(Line((residue, *map(_above_floor, rows))))
        yield Table(f"{caption}: what is above the noise floor, means over the seeds", columns, lines)
    lines = []
    for residue in residues:
        rows = [numbers.get(objective, f"{label}_bins_within_2_stderr[{residue}]") for objective, label in named]
        lines.append(Line((residue, *map(_percent, rows))))
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
            within = _percent(numbers.get(objective, f"{label}_tica_bins_within_2_stderr"))
            floor = rounding.UNKNOWN if row is None else rounding.plain(row.noise_floor)
            value = numbers.text(objective, f"{label}_tica_js")
            lines.append(Line((NAMES[label], objective, value, floor, _above_floor(row), within)))
            if row is not None and row.published is not None:
                published = rounding.with_error(*CHAIN_DIVERGENCES[objective, row.metric])
                lines.append(Line((NAMES[label], objective, published, "", "", ""), "published", SOURCE))
    columns = ("from", "objective", "JS [nats]", "noise floor", "above the floor", "bins within two standard errors")
    return Table("Slow coordinates: distances from the reference, means over the seeds", columns, lines, words=2)


def folding_table(numbers: Numbers, folded_nm: float) -> Table:
    """Return folded fractions and folding free energies."""
    reference = [numbers.get(REFERENCE, f"{REFERENCE}_{name}") for name in ("folded_fraction", "folding_delta_f")]
    fraction = (
        rounding.UNKNOWN if reference[0] is None else rounding.with_error(reference[0].value, reference[0].stderr)
    )
    lines = [Line((NAMES[REFERENCE], "", fraction, _value(reference[1]), "", ""), "headline")]
    for objective in numbers.objectives:
        for label in numbers.labels:
            rows = [numbers.get(objective, f"{label}_{name}") for name in ("folded_fraction", "folding_delta_f")]
            fraction = rounding.UNKNOWN if rows[0] is None else rounding.with_error(rows[0].value, rows[0].stderr)
            difference = _with_floor(numbers.get(objective, f"{label}_contact_difference"))
            deviation = _deviation(rows[1], reference[1])
            lines.append(Line((NAMES[label], objective, fraction, _value(rows[1]), deviation, difference)))
    columns = (
        "from", "objective", "folded fraction", "F(folded) − F(rest) [kT]",
        "minus the reference, in standard errors", "contact maps differ by (floor)",
    )  # fmt: skip
    caption = f"Folded: the CA atoms deviate by less than {folded_nm:g} nm from the native ones; ± one standard error"
    return Table(caption, columns, lines, words=2)


def conformer_overview(numbers: Numbers, system: MolecularSystem) -> Table:
    """Return the free energies of the conformers of many residues, a basin a line."""
    named = [(objective, label) for objective in numbers.objectives for label in numbers.labels]
    lines = []
    for name, basin in system.basins.items():
        rows = [numbers.get(objective, f"{label}_delta_f[{name}]") for objective, label in named]
        arc = f"{basin.torsion} in ({basin.low:g}, {basin.high:g}) rad"
        frames = [numbers.get(REFERENCE, f"{label}_delta_f[{name}]") for label in (REFERENCE, LEARNED_FROM)]
        lines.append(Line((name, arc, *map(_value, (*frames, *rows)))))
    columns = (
        "conformer",
        "B",
        NAMES[REFERENCE],
        "learned from",
        *(f"{NAMES[label]}, {objective}" for objective, label in named),
    )
    caption = "Conformers, B against all the rest, A; F(B) − F(A) [kT] ± one standard error"
    return Table(caption, columns, lines, words=2)


def conformer_tables(
    numbers: Numbers, system: MolecularSystem, state: str, temperature_kelvin: float
) -> Iterator[Table]:
    """Yield a table for each basin: its free energy against all the rest, from every origin."""
    for name, basin in system.basins.items():
        metric = f"delta_f[{name}]"
        reference = numbers.get(REFERENCE, f"{REFERENCE}_{metric}")
        learned = numbers.get(REFERENCE, f"{LEARNED_FROM}_{metric}")
        lines = [
            Line(("reference", "", _value(reference), ""), "headline"),
            Line(("frames learned from", "", _value(learned), _deviation(learned, reference))),
        ]
        for objective in numbers.objectives:
            for label in numbers.labels:
                found = numbers.get(objective, f"{label}_{metric}")
                lines.append(Line((NAMES[label], objective, _value(found), _deviation(found, reference))))
        lines += [
            Line(("published", one.method, rounding.with_error(one.value, one.stderr), ""), "published", one.source)
            for one in basin.published.get(state, ())
            if one.temperature_kelvin == temperature_kelvin
        ]
        caption = (
            f"Conformer '{name}': B is {basin.torsion} in ({basin.low:g}, {basin.high:g}) rad, A all the rest; "
            "F(B) − F(A), ± one standard error"
        )
        yield Table(caption, ("from", "objective", "kT", "minus the reference, in standard errors"), lines, words=2)


def _value(row: RamachandranRow | None) -> str:
    return (
        "none: one of the two was never seen, or no sample is left"
        if row is None
        else rounding.with_error(row.value, row.stderr)
    )


def _deviation(row: RamachandranRow | None, reference: RamachandranRow | None) -> str:
    if row is None or reference is None or row.stderr is None or reference.stderr is None:
        return rounding.UNKNOWN
    return f"{(row.value - reference.value) / math.hypot(row.stderr, reference.stderr):+.1f}"


def weight_table(numbers: Numbers) -> Table:
    """Return what the weights are worth before and after the bridge."""
    columns = (
        "objective", "", "effective fraction", "families with weight", "Pareto k̂", "largest weight", "to be clipped",
        "share of mirror images",
    )  # fmt: skip
    lines = []
    for objective in numbers.objectives:
        for when, about in (("before", "at one stroke"), ("after", "after the bridge")):
            cells = (
                numbers.text(objective, f"{name}_{when}")
                for name in ("ess_fraction", "families", "pareto_k", "maximum_weight", "clipped")
            )
            mirrored = _percent(numbers.get(objective, "mirrored_weight")) if when == "after" else ""
            lines.append(Line((objective, about, *cells, mirrored)))
    caption = "Weights against the true energy, of families: all samples that descend from one noise count once"
    return Table(caption, columns, lines, words=2)


def agreement_table(numbers: Numbers) -> Table:
    """Return how many bins of the maps are those of the reference."""
    lines = [
        Line(
            (
                objective,
                NAMES[label],
                _percent(row := numbers.get(objective, f"{label}_bins_within_2_stderr")),
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


def molecule_table(numbers: Numbers) -> Table:
    """Return which configurations are no molecule, and how far bonds, angles and energies are from the reference."""
    every = list(itertools.product(numbers.objectives, numbers.labels))
    distances = {
        name: about
        for name, about in MARGINALS.items()
        if any(numbers.get(objective, f"{label}_{name}") for objective, label in every)
    }
    lines = [
        Line((NAMES[REFERENCE], "", *_shares(numbers, REFERENCE, REFERENCE), *("" for _ in distances)), "headline")
    ]
    for objective, label in every:
        rows = (numbers.get(objective, f"{label}_{name}") for name in distances)
        cells = (*_shares(numbers, objective, label), *map(_with_floor, rows))
        lines.append(Line((NAMES[label], objective, *cells)))
    columns = ("from", "objective", *SHARES.values(), *(f"{about} JS (floor)" for about in distances.values()))
    return Table("Shares of configurations, weighted where they have weights; JS in nats", columns, lines, words=2)


def _shares(numbers: Numbers, objective: str, label: str) -> list[str]:
    return [_percent(numbers.get(objective, f"{label}_{name}")) for name in SHARES]


def _with_floor(row: RamachandranRow | None) -> str:
    return rounding.UNKNOWN if row is None else f"{rounding.plain(row.value)} ({rounding.plain(row.noise_floor)})"


def _percent(row: RamachandranRow | None) -> str:
    return rounding.UNKNOWN if row is None else f"{rounding.plain(100 * row.value)} %"
