"""Paths: noising processes between two ends or from data to noise, and how their levels are drawn."""

from boltzgen_diffclf.paths.diffusion import (
    DiffusionPath,
    Edm,
    HasKernel,
    VarianceExploding,
    VariancePreserving,
    forward_kernel,
    unknown_share,
)
from boltzgen_diffclf.paths.interpolant import StochasticInterpolant
from boltzgen_diffclf.paths.level_groups import (
    gap_aware_pairs,
    gap_probabilities,
    neighbour_groups,
    scattered_groups,
    spaced_groups,
)
from boltzgen_diffclf.paths.levels import (
    accumulated_length,
    arcsine_levels,
    close_levels,
    fisher_information,
    length_at,
    log_snr_levels,
    thermodynamic_length,
    thermodynamic_levels,
    uniform_levels,
)
from boltzgen_diffclf.paths.named import LEVEL_LAYOUTS, PATHS, TimeInformation, path_levels

__all__ = [
    "LEVEL_LAYOUTS",
    "PATHS",
    "DiffusionPath",
    "Edm",
    "HasKernel",
    "StochasticInterpolant",
    "TimeInformation",
    "VarianceExploding",
    "VariancePreserving",
    "accumulated_length",
    "arcsine_levels",
    "close_levels",
    "fisher_information",
    "forward_kernel",
    "gap_aware_pairs",
    "gap_probabilities",
    "length_at",
    "log_snr_levels",
    "neighbour_groups",
    "path_levels",
    "scattered_groups",
    "spaced_groups",
    "thermodynamic_length",
    "thermodynamic_levels",
    "uniform_levels",
    "unknown_share",
]
