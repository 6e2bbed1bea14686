"""The tables of the Ramachandran page on conformers, folds, weights and whole molecules: numbers in, texts out."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from systems.molecular import MolecularSystem
from workflows.ramachandran import LEARNED_FROM, REFERENCE
from workflows.report import rounding
from workflows.report.ramachandran_numbers import NAMES, Numbers, deviation_cell, kt_cell, percent_cell, with_floor_cell
from workflows.report.tables import Line, Table

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


def folding_table(numbers: Numbers, folded_nm: float) -> Table:
    """Return folded fractions and folding free energies."""
    reference = [numbers.get(REFERENCE, f"{REFERENCE}_{name}") for name in ("folded_fraction", "folding_delta_f")]
    fraction = (
        rounding.UNKNOWN if reference[0] is None else rounding.with_error(reference[0].value, reference[0].stderr)
    )
    lines = [Line((NAMES[REFERENCE], "", fraction, kt_cell(reference[1]), "", ""), "headline")]
    for objective in numbers.objectives:
        for label in numbers.labels:
            rows = [numbers.get(objective, f"{label}_{name}") for name in ("folded_fraction", "folding_delta_f")]
            fraction = rounding.UNKNOWN if rows[0] is None else rounding.with_error(rows[0].value, rows[0].stderr)
            difference = with_floor_cell(numbers.get(objective, f"{label}_contact_difference"))
            deviation = deviation_cell(rows[1], reference[1])
            lines.append(Line((NAMES[label], objective, fraction, kt_cell(rows[1]), deviation, difference)))
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
        lines.append(Line((name, arc, *map(kt_cell, (*frames, *rows)))))
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
            Line(("reference", "", kt_cell(reference), ""), "headline"),
            Line(("frames learned from", "", kt_cell(learned), deviation_cell(learned, reference))),
        ]
        for objective in numbers.objectives:
            for label in numbers.labels:
                found = numbers.get(objective, f"{label}_{metric}")
                lines.append(Line((NAMES[label], objective, kt_cell(found), deviation_cell(found, reference))))
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
            mirrored = percent_cell(numbers.get(objective, "mirrored_weight")) if when == "after" else ""
            lines.append(Line((objective, about, *cells, mirrored)))
    caption = "Weights against the true energy, of families: all samples that descend from one noise count once"
    return Table(caption, columns, lines, words=2)


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
        cells = (*_shares(numbers, objective, label), *map(with_floor_cell, rows))
        lines.append(Line((NAMES[label], objective, *cells)))
    columns = ("from", "objective", *SHARES.values(), *(f"{about} JS (floor)" for about in distances.values()))
    return Table("Shares of configurations, weighted where they have weights; JS in nats", columns, lines, words=2)


def _shares(numbers: Numbers, objective: str, label: str) -> list[str]:
    return [percent_cell(numbers.get(objective, f"{label}_{name}")) for name in SHARES]
