"""Paths: noising processes between two ends, and how their levels are drawn."""

from boltzgen_diffclf.paths.interpolant import StochasticInterpolant
from boltzgen_diffclf.paths.levels import arcsine_levels, neighbour_groups, scattered_groups

__all__ = ["StochasticInterpolant", "arcsine_levels", "neighbour_groups", "scattered_groups"]
