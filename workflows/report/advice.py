"""The verdict of a run and the advice to a chemist, in sentences made of the result's own numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping

from workflows.report.rounding import count, in_units, with_error
from workflows.results import EstimatorRow, LegResult, SolvationResult, is_finite, most_precise
from workflows.solvation_estimators import yardstick
from workflows.trust import SMALLEST_OVERLAP

WORTHWHILE = 0.8
"""Share of the yardstick's error below which a learned row is worth its cost."""

RECOMMENDED_SIGMAS = 2.0
"""Combined errors from the yardstick beyond which a learned row is not recommended."""

ENOUGH = {
    "mbar": ("the two states overlap well enough", "the states do not overlap"),
    "population": (
        "the walkers cross between the two conformers often enough",
        "they hardly ever cross; two-state estimators, which need a configuration in common, give nothing here",
    ),
}
"""Why a classical row is enough, and where it would not be."""

EFFECTIVE_SAMPLES = {
    "mbar, fep": "Kish's effective size of the weights of the worse end, divided by how much "
    "larger the walkers make the variance",
    "population, bar, ais": "as many independent frames or works would give the same standard error",
    "learned and ablation rows": "configurations of the path, or works along it, of all replicates together, and never "
    "more than the independent frames of both ends by the slowest watched quantity",
}
"""What the effective samples of each family of rows are; they compare only within a family."""


SUBJECTS = {
    "conformers": "Free energy between conformers of",
    "forcefield": "Free energy between force fields of",
}
"""What a page with one of these legs is about; every other one is about a solvation."""

PAIR_CONVENTIONS = {
    "conformers": "A and B are the two parts of one state, with the same energy and nothing in common: the difference "
    "is minus the logarithm of the ratio of their populations.",
    "forcefield": "A and B are one state of the same atoms under two force fields: the difference is that of their "
    "configurational integrals, energies taken as each force field gives them, constants included.",
}
"""What the ends of these legs are."""

SOLVATION_CONVENTIONS = (
    "total = vacuum → implicit, nonpolar = vacuum → nonpolar (vacuum with the surface-area term), polar = nonpolar → "
    "implicit, so that total = nonpolar + polar."
)


def main_leg(result: SolvationResult) -> str:
    """Return the leg that the first line speaks of: the total where it was computed."""
    return "total" if "total" in result.legs else next(iter(result.legs))


def subject(result: SolvationResult) -> str:
    """Return what the page is about, in a few words that the name of the molecule ends."""
    return SUBJECTS.get(main_leg(result), "Solvation free energy of")


def conventions(result: SolvationResult) -> str:
    """Return what the ends of the legs are, in a sentence."""
    return PAIR_CONVENTIONS.get(main_leg(result), SOLVATION_CONVENTIONS)


def sign_in_words(leg: LegResult) -> str:
    """Return what the sign of a leg means, in a sentence."""
    a, b = leg.states
    return (
        f"Every value is F(B) − F(A) of its leg, here F({b}) − F({a}): a negative one means that the molecule is "
        f"more stable in the state “{b}” than in the state “{a}”."
    )


def answer(result: SolvationResult, leg_name: str) -> dict[str, str] | None:
    """Return a leg's headline in kT, kJ/mol and kcal/mol, or None where none may be named."""
    headline = result.legs[leg_name].headline
    if headline is None:
        return None
    return in_units(headline.value_kT, headline.stderr_kT, result.temperature_kelvin)


def yardstick_row(name: str, leg: LegResult) -> str | None:
    """Return the classical row that the others of a leg are held against: the one that decides, where it has a value.

    Else the most precise one whose overlap, where it has any, allows its error bar to be believed; None without such.
    """
    decides = yardstick(name)
    if decides in leg.estimators and is_finite(leg.estimators[decides]):
        return decides
    believed = {
        key: row for key, row in leg.estimators.items() if row.overlap is None or row.overlap >= SMALLEST_OVERLAP
    }
    return most_precise(believed, "classical")


def recommend(name: str, leg: LegResult) -> str:
    """Return which route a chemist should use for this leg, and why, in plain words."""
    classical, learned = yardstick_row(name, leg), most_precise(leg.estimators, "learned")
    if classical is None and learned is None:
        return "No route gave a value with an error bar: see the reasons above."
    if learned is None or classical is None:
        only = classical or learned or ""
        row = leg.estimators[only]
        return (
            f"Only one kind of route was run ({only}: {with_error(row.value_kT, row.stderr_kT)} kT), so this run "
            "compares nothing: add the other kind to --estimators before choosing."
        )
    return _compare(leg, classical)


def _compare(leg: LegResult, classical: str) -> str:
    yardstick = leg.estimators[classical]
    rows = {name: row for name, row in leg.estimators.items() if row.role == "learned" and is_finite(row)}
    far = {name: row for name, row in rows.items() if _errors_apart(row, yardstick) > RECOMMENDED_SIGMAS}
    learned = most_precise({name: row for name, row in rows.items() if name not in far}, "learned")
    facts = "; ".join(_facts(name, leg.estimators[name]) for name in (classical, learned) if name is not None)
    closing = f"{facts}.{_warning(far, classical, yardstick)}"
    if leg.headline is None:
        return f"Neither route should be used as it stands: the reasons above come first. {closing}"
    if learned is None:
        return (
            f"Use the classical route, {classical}: no learned row lies within {RECOMMENDED_SIGMAS:.0f} combined "
            f"errors of it. {closing}"
        )
    if rows[learned].stderr_kT > WORTHWHILE * yardstick.stderr_kT:
        why, elsewhere = ENOUGH.get(classical, ENOUGH["mbar"])
        return (
            f"Use the classical route, {classical}: on this system it is as precise as any and far cheaper, because "
            f"{why}. {closing} Keep the learned route as an independent check; it earns its cost where {elsewhere}."
        )
    return (
        f"Use the learned route, {learned}: here it is the more precise one, and the classical yardstick agrees "
        f"with it. {closing}"
    )


def _errors_apart(row: EstimatorRow, yardstick: EstimatorRow) -> float:
    return abs(row.value_kT - yardstick.value_kT) / math.hypot(row.stderr_kT, yardstick.stderr_kT)


def _warning(far: Mapping[str, EstimatorRow], classical: str, yardstick: EstimatorRow) -> str:
    """Return which learned rows not to use and how far off they are; empty where all are near."""
    if not far:
        return ""
    named = [
        f"{name} ({row.value_kT - yardstick.value_kT:+.3f} kT, {_errors_apart(row, yardstick):.1f} combined errors)"
        for name, row in far.items()
    ]
    return f" Not to be used, however small their error bars, because they are off {classical}: {', '.join(named)}."


def _facts(name: str, row: EstimatorRow) -> str:
    networks = f", {count(row.network_evaluations)} network evaluations" if row.network_evaluations else ""
    return (
        f"{name} gives {with_error(row.value_kT, row.stderr_kT)} kT for {count(row.energy_evaluations)} energy "
        f"evaluations{networks} and {row.seconds:.0f} s"
    )
