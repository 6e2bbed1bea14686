"""Paths: noising processes between two ends or from data to noise, and how their levels are drawn."""

from boltzgen_diffclf.paths.diffusion import DiffusionPath, Edm, VarianceExploding, VariancePreserving
from boltzgen_diffclf.paths.interpolant import StochasticInterpolant
from boltzgen_diffclf.paths.levels import arcsine_levels, neighbour_groups, scattered_groups

__all__ = [
    "DiffusionPath",
    "Edm",
    "StochasticInterpolant",
    "VarianceExploding",
    "VariancePreserving",
    "arcsine_levels",
    "neighbour_groups",
    "scattered_groups",
]
