"""Systems whose answers are known: densities, samples and normalisers in closed form or by quadrature."""

from systems.analytic.double_well import DoubleWell, ManyWell
from systems.analytic.exact import AnalyticTarget
from systems.analytic.gaussian_mixture import GaussianMixture
from systems.analytic.harmonic import TiltedHarmonic, TiltedHarmonicPair
from systems.analytic.marginals import InterpolatedMarginals, MixtureMarginals, interpolated, noised
from systems.analytic.mixtures import (
    crossing_ellipses,
    gaussian,
    mixture_1d,
    mixture_2d,
    mog40,
    ring_of_clusters,
    standardised,
    two_modes,
)
from systems.analytic.mueller_brown import MuellerBrown
from systems.analytic.pairs import MixturePair, crossed_mixtures, feat_mixtures
from systems.analytic.plane import PlaneDensity
from systems.analytic.registry import PAIRS, TARGETS

__all__ = [
    "PAIRS",
    "TARGETS",
    "AnalyticTarget",
    "DoubleWell",
    "GaussianMixture",
    "InterpolatedMarginals",
    "ManyWell",
    "MixtureMarginals",
    "MixturePair",
    "MuellerBrown",
    "PlaneDensity",
    "TiltedHarmonic",
    "TiltedHarmonicPair",
    "crossed_mixtures",
    "crossing_ellipses",
    "feat_mixtures",
    "gaussian",
    "interpolated",
    "mixture_1d",
    "mixture_2d",
    "mog40",
    "noised",
    "ring_of_clusters",
    "standardised",
    "two_modes",
]
