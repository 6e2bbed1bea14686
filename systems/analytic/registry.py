"""The analytic systems by name: a new one is a function and a line here."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from systems.analytic.double_well import DoubleWell, ManyWell
from systems.analytic.exact import AnalyticTarget
from systems.analytic.mixtures import gaussian, mixture_1d, mixture_2d, mog40, ring_of_clusters, two_modes
from systems.analytic.mueller_brown import MuellerBrown
from systems.analytic.pairs import MixturePair, crossed_mixtures, feat_mixtures

TARGETS: Mapping[str, Callable[..., AnalyticTarget]] = {
    "double_well": DoubleWell,
    "gaussian": gaussian,
    "many_well": ManyWell,
    "mixture_1d": mixture_1d,
    "mixture_2d": mixture_2d,
    "mog40": mog40,
    "mueller_brown": MuellerBrown,
    "ring_of_clusters": ring_of_clusters,
    "two_modes": two_modes,
}
"""Builders of single targets; all work without arguments."""

PAIRS: Mapping[str, Callable[..., MixturePair]] = {
    "crossed_mixtures": crossed_mixtures,
    "feat_mixtures": feat_mixtures,
}
"""Builders of two states with an exact ``delta_f``; all work without arguments."""
