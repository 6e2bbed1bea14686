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
from boltzgen_diffclf.observables.distributions import (
    Histogram,
    histogram,
    histogram_divergence,
    histogram_overlap,
    marginal_divergences,
    reference_edges,
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
from boltzgen_diffclf.observables.geometry import angle_triples, bond_angles, distances
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
    surface_agreement,
    surface_difference,
    unvisited_share,
)
from boltzgen_diffclf.observables.slow_coordinates import (
    SlowCoordinates,
    distance_features,
    fit_slow_coordinates,
    plane_divergence,
    torsion_features,
)
from boltzgen_diffclf.observables.torsions import paired_torsions, torsion_angles

__all__ = [
    "AboveFloor",
    "FisherDivergence",
    "FreeEnergyProfile",
    "FreeEnergySurface",
    "Histogram",
    "Integrity",
    "ModeErrors",
    "ModeWeights",
    "SlowCoordinates",
    "angle_triples",
    "assigned_modes",
    "bond_angles",
    "conformer_free_energy",
    "distance_features",
    "distances",
    "divergence_above_floor",
    "energy_mode_weights",
    "fisher_divergence",
    "fit_slow_coordinates",
    "free_energy_profile",
    "free_energy_surface",
    "handedness",
    "histogram",
    "histogram_divergence",
    "histogram_overlap",
    "in_basin",
    "integrity",
    "kullback_leibler",
    "level_effective_fractions",
    "marginal_divergences",
    "mode_error_floor",
    "mode_errors",
    "noise_floor",
    "paired_torsions",
    "plane_divergence",
    "pooled_range_jensen_shannon",
    "population",
    "ramachandran_jensen_shannon",
    "ramachandran_pmf_error",
    "reference_edges",
    "root_wasserstein_1",
    "sampled_mode_weights",
    "sliced_kolmogorov_smirnov",
    "sliced_wasserstein_2",
    "squared_mmd",
    "stereocentres",
    "surface_agreement",
    "surface_difference",
    "torsion_angles",
    "torsion_features",
    "unvisited_share",
    "wasserstein_1",
    "wasserstein_2",
]
