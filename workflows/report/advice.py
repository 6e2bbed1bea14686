"""The verdict of a run and the advice to a chemist, in sentences made of the result's own numbers."""

from __future__ import annotations

import math

from workflows.report.rounding import count, in_units, with_error
from workflows.results import EstimatorRow, LegResult, SolvationResult, most_precise
from workflows.trust import AGREEMENT_SIGMAS

WORTHWHILE = 0.8
"""Share of the yardstick's error below which a learned row is worth its cost."""


def main_leg(result: SolvationResult) -> str:
    """Return the leg that the first line speaks of: the total where it was computed."""
    return "total" if "total" in result.legs else next(iter(result.legs))


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


def recommend(leg: LegResult) -> str:
    """Return which route a chemist should use for this leg, and why, in plain words."""
    classical, learned = most_precise(leg.estimators, "classical"), most_precise(leg.estimators, "learned")
    if classical is None and learned is None:
        return "No route gave a value with an error bar: see the reasons above."
    if learned is None or classical is None:
        only = classical or learned or ""
        row = leg.estimators[only]
        return (
            f"Only one kind of route was run ({only}: {with_error(row.value_kT, row.stderr_kT)} kT), so this run "
            "compares nothing: add the other kind to --estimators before choosing."
        )
    return _compare(classical, leg.estimators[classical], learned, leg.estimators[learned], leg.headline is not None)


def _compare(classical: str, yardstick: EstimatorRow, learned: str, network: EstimatorRow, trusted: bool) -> str:
    facts = f"{_facts(classical, yardstick)}; {_facts(learned, network)}."
    if not trusted:
        return f"Neither route should be used as it stands: the reasons above come first. {facts}"
    apart = abs(network.value_kT - yardstick.value_kT) / math.hypot(network.stderr_kT, yardstick.stderr_kT)
    if apart > AGREEMENT_SIGMAS or network.stderr_kT > WORTHWHILE * yardstick.stderr_kT:
        return (
            f"Use the classical route, {classical}: on this system it is as precise as any and far cheaper, because "
            f"the two states overlap well enough. {facts} Keep the learned route as an independent check; it earns its "
            "cost where the states do not overlap."
        )
    return (
        f"Use the learned route, {learned}: here it is the more precise one, and the classical yardstick agrees "
        f"with it. {facts}"
    )


def _facts(name: str, row: EstimatorRow) -> str:
    networks = f", {count(row.network_evaluations)} network evaluations" if row.network_evaluations else ""
    return (
        f"{name} gives {with_error(row.value_kT, row.stderr_kT)} kT for {count(row.energy_evaluations)} energy "
        f"evaluations{networks} and {row.seconds:.0f} s"
    )
