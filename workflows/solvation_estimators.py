"""The rows of ``workflows.solvation``: their names, and what each rests on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from workflows.solvation_settings import SolvationConfig

ESTIMATORS = (
    "mbar",
    "population",
    "bar",
    "fep",
    "ais",
    "no_network",
    "dsm_only",
    "diffclf_only",
    "dsm_diffclf",
    "exact_ends",
    "relaxed_mbar",
    "learned_ais",
    "cartesian",
)
"""Rows that ``--estimators`` can name."""

CLASSICAL = ("mbar", "population", "bar", "fep", "ais")
"""Rows that know nothing of a path in internal coordinates."""

FULL_LEARNED = "dsm_diffclf"

AFTER_TRAINING = ("exact_ends", "relaxed_mbar", "learned_ais")
"""Rows that start from the network of the full objective, which is trained for them."""

ABLATIONS = ("dsm_only", "diffclf_only")
"""Rows of networks that are trained on ``--ablation-legs`` alone."""

ONE_SIDED_LEGS = ("nonpolar",)
"""Legs with frames of one end alone: the other end is reached by reweighting them."""

CARTESIAN_LEGS = ("polar",)
"""Legs of the Cartesian route: the one that the published figure is of."""

DISJOINT_LEGS = ("conformers",)
"""Legs between parts of one state that share no configuration."""


def yardstick(leg: str) -> str:
    """Return the classical row that decides on a leg.

    >>> yardstick("total"), yardstick("conformers")
    ('mbar', 'population')
    """
    return "population" if leg in DISJOINT_LEGS else "mbar"


def what_is_missing(name: str, config: SolvationConfig) -> str | None:
    """Return why no leg would have a row of this name, one of :data:`ESTIMATORS`, and what to add; None where one has.

    >>> from workflows.solvation_settings import SolvationConfig
    >>> what_is_missing("cartesian", SolvationConfig())
    'the Cartesian network has no steps: add --cartesian-steps 600'
    """
    legs, ablation_legs = set(config.legs), set(config.ablation_legs)
    one_sided = set(ONE_SIDED_LEGS) if "nonpolar" not in config.trajectory_files else set()
    asked = " ".join(config.legs)
    if name in ABLATIONS and not legs & ablation_legs:
        return f"it is trained on --ablation-legs alone ({_listed(config.ablation_legs)}): add --ablation-legs {asked}"
    if name in ("mbar", "ais") and legs <= set(DISJOINT_LEGS):
        return f"the ends of the {asked} leg share no configuration: name population in its place, or add another --leg"
    if name == "population" and not legs & set(DISJOINT_LEGS):
        return f"the {asked} leg divides no state: name mbar in its place, or add --leg {DISJOINT_LEGS[0]}"
    if name == "bar" and legs <= one_sided:
        return f"the {asked} leg has frames of one end alone: name fep in its place, or add another --leg"
    if name == "fep" and not legs & one_sided:
        another = f", or add --leg {ONE_SIDED_LEGS[0]}" if one_sided else ""
        return f"the {asked} leg has frames of both ends: name bar in its place{another}"
    if name == "relaxed_mbar" and config.relaxation_steps == 0:
        return "nothing is relaxed: add --relaxation-steps 30"
    if name == "cartesian" and not legs & set(CARTESIAN_LEGS):
        return f"that route is taken on the {_listed(CARTESIAN_LEGS)} leg alone: add --leg {CARTESIAN_LEGS[0]}"
    if name == "cartesian" and config.cartesian_steps == 0:
        return "the Cartesian network has no steps: add --cartesian-steps 600"
    return None


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names) or "none"
