"""Observables: torsions, Ramachandran surfaces, basin populations, divergences of distributions."""

from boltzgen_diffclf.observables.basins import in_basin, population
from boltzgen_diffclf.observables.divergences import (
    noise_floor,
    ramachandran_jensen_shannon,
    ramachandran_pmf_error,
)
from boltzgen_diffclf.observables.ramachandran import FreeEnergySurface, free_energy_surface, surface_difference
from boltzgen_diffclf.observables.torsions import paired_torsions, torsion_angles

__all__ = [
    "FreeEnergySurface",
    "free_energy_surface",
    "in_basin",
    "noise_floor",
    "paired_torsions",
    "population",
    "ramachandran_jensen_shannon",
    "ramachandran_pmf_error",
    "surface_difference",
    "torsion_angles",
]
