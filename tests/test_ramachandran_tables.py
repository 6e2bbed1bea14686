"""Every number of the Ramachandran page stands in its own row and column, beside what is published of it."""

from __future__ import annotations

import math

import systems
from workflows.ramachandran import ALL_SEEDS, REFERENCE, RamachandranRow
from workflows.report import molecule_tables
from workflows.report import ramachandran_tables as tables
from workflows.report.ramachandran_numbers import Numbers
from workflows.report.tables import Table


def numbers_of(values: dict[tuple[str, str], tuple[float, float | None, float | None]]) -> Numbers:
    """Return the numbers of objective and metric: value, noise floor and error."""
    rows = {
        (objective, metric): RamachandranRow(
            "aldp-ildn", "backbone", objective, ALL_SEEDS, metric, value, floor, None, error, 3
        )
        for (objective, metric), (value, floor, error) in values.items()
    }
    objectives = [objective for objective in ("dsm", "dsm_diffclf") if any(key[0] == objective for key in rows)]
    return Numbers(rows, objectives, ["iid", "langevin"])


def cells(table: Table) -> dict[tuple[str, ...], dict[str, str]]:
    """Return the cells of a table by its words and its columns."""
    return {
        (line.kind, *line.cells[: table.words]): dict(
            zip(table.columns[table.words :], line.cells[table.words :], strict=True)
        )
        for line in table.lines
    }


def test_distances_stand_above_what_others_print_of_the_same() -> None:
    found = cells(
        tables.distance_table(
            numbers_of(
                {
                    ("dsm", "iid_js"): (0.0111, 0.0085, 0.0002),
                    ("dsm", "iid_js_pooled_range"): (0.0122, 0.0086, None),
                    ("dsm", "langevin_pmf_error"): (2.25, 0.102, 0.14),
                    ("dsm", "training_seconds"): (642.0, None, 21.0),
                }
            ),
            published=True,
        )
    )
    ours, above, theirs, floor = (
        found["", "dsm"], found["", "above the floor"], found["published", "dsm"], found["headline", "noise floor"]
    )  # fmt: skip
    assert ours["JS, generated"] == "0.0111"
    assert ours["JS, pooled range, generated"] == "0.0122"
    assert ours["PMF error, Langevin"] == "2.25"
    assert ours["training"] == "10 min 42 s"
    assert above["JS, generated"].startswith("0.0026")
    assert above["PMF error, Langevin"].startswith("2.15")
    # Theirs have the limits of the pooled range.
    assert theirs["JS, generated"] == ""
    assert theirs["JS, pooled range, generated"] == "0.00810 ± 0.00030"
    assert theirs["JS, pooled range, Langevin"] == "0.070 ± 0.052"
    assert theirs["PMF error, generated"] == "0.0950 ± 0.0030"
    assert theirs["training"] == "3.3 GPU h"
    assert floor["PMF error, Langevin"] == "0.102"


def test_conformers_are_held_against_the_reference_and_what_is_published_at_their_temperature() -> None:
    metric, aldp = "delta_f[phi > 0]", systems.load("aldp")
    numbers = numbers_of(
        {
            (REFERENCE, f"{REFERENCE}_{metric}"): (4.5, None, 0.3),
            ("dsm", f"iid_{metric}"): (5.5, None, 0.4),
        }
    )
    table = next(
        one for one in molecule_tables.conformer_tables(numbers, aldp, "nonpolar", 300.0) if "'phi > 0'" in one.caption
    )
    found = cells(table)
    assert found["headline", "reference", ""]["kT"] == "4.50 ± 0.30"
    assert found["", "generated", "dsm"]["kT"] == "5.50 ± 0.40"
    assert found["", "generated", "dsm"]["minus the reference, in standard errors"] == "+2.0"
    assert found["", "Langevin", "dsm"]["kT"] == "none: one of the two was never seen, or no sample is left"
    assert found["published", "published", "reference"]["kT"] == "4.250 ± 0.050"
    hotter = next(iter(molecule_tables.conformer_tables(numbers, aldp, "nonpolar", 350.0)))
    assert not [line for line in hotter.lines if line.kind == "published"]


def test_weights_before_and_after_the_bridge_and_what_is_no_molecule() -> None:
    numbers = numbers_of(
        {
            ("dsm", "ess_fraction_before"): (0.01, None, None),
            ("dsm", "ess_fraction_after"): (0.04, None, None),
            ("dsm", "pareto_k_after"): (0.53, None, None),
            ("dsm", "clipped_after"): (2.0, None, None),
            ("dsm", "mirrored_weight"): (0.003, None, None),
            ("dsm", "iid_sunken"): (0.02, None, None),
            ("dsm", "langevin_broken"): (0.44, None, None),
            ("dsm", "langevin_bins_within_2_stderr"): (0.94, 0.955, 0.015),
            ("dsm", "langevin_largest_deviation"): (math.inf, None, None),
        }
    )
    weights = cells(molecule_tables.weight_table(numbers))
    assert weights["", "dsm", "at one stroke"]["effective fraction"] == "0.01"
    after = weights["", "dsm", "after the bridge"]
    assert (after["effective fraction"], after["Pareto k̂"], after["to be clipped"]) == ("0.04", "0.53", "2")
    assert after["share of mirror images"] == "0.3 %"
    molecules = cells(molecule_tables.molecule_table(numbers))
    assert molecules["", "generated", "dsm"]["in a hole"] == "2 %"
    assert molecules["", "Langevin", "dsm"]["lost"] == "44 %"
    agreement = cells(tables.agreement_table(numbers))["", "dsm", "Langevin"]
    assert list(agreement.values()) == ["94 %", "95.50 ± 1.50 %", "one of them was never visited"]
