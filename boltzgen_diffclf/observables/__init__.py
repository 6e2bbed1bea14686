"""Observables: torsions, Ramachandran surfaces, basin populations, and how far a model is from the truth."""

from boltzgen_diffclf.observables.basins import conformer_free_energy, in_basin, population
from boltzgen_diffclf.observables.chirality import handedness, stereocentres
from boltzgen_diffclf.observables.discrepancy import (
    root_wasserstein_1,
    sliced_kolmogorov_smirnov,
    sliced_wasserstein_2,
    squared_mmd,
    wasserstein_1,
    wasserstein_2,
)
from boltzgen_diffclf.observables.divergences import (
    AboveFloor,
    divergence_above_floor,
    noise_floor,
    pooled_range_jensen_shannon,
    ramachandran_jensen_shannon,
    ramachandran_pmf_error,
)
from boltzgen_diffclf.observables.fisher import FisherDivergence, fisher_divergence
from boltzgen_diffclf.observables.integrity import Integrity, integrity
from boltzgen_diffclf.observables.likelihood import kullback_leibler, level_effective_fractions
from boltzgen_diffclf.observables.modes import (
    ModeErrors,
    ModeWeights,
    assigned_modes,
    energy_mode_weights,
    mode_error_floor,
    mode_errors,
    sampled_mode_weights,
)
from boltzgen_diffclf.observables.ramachandran import (
    FreeEnergyProfile,
    FreeEnergySurface,
    free_energy_profile,
    free_energy_surface,
    surface_difference,
)
from boltzgen_diffclf.observables.torsions import paired_torsions, torsion_angles

__all__ = [
    "AboveFloor",
    "FisherDivergence",
    "FreeEnergyProfile",
    "FreeEnergySurface",
    "Integrity",
    "ModeErrors",
    "ModeWeights",
    "assigned_modes",
    "conformer_free_energy",
    "divergence_above_floor",
    "energy_mode_weights",
    "fisher_divergence",
    "free_energy_profile",
    "free_energy_surface",
    "handedness",
    "in_basin",
    "integrity",
    "kullback_leibler",
    "level_effective_fractions",
    "mode_error_floor",
    "mode_errors",
    "noise_floor",
    "paired_torsions",
    "pooled_range_jensen_shannon",
    "population",
    "ramachandran_jensen_shannon",
    "ramachandran_pmf_error",
    "root_wasserstein_1",
    "sampled_mode_weights",
    "sliced_kolmogorov_smirnov",
    "sliced_wasserstein_2",
    "squared_mmd",
    "stereocentres",
    "surface_difference",
    "torsion_angles",
    "wasserstein_1",
    "wasserstein_2",
]
