"""Estimators: NumPy works, energy matrices or weights in, an :class:`Estimate` of F_B - F_A [kT] out."""

from boltzgen_diffclf.estimators.bar import bar, exponential_averaging
from boltzgen_diffclf.estimators.estimate import Estimate, Measurement
from boltzgen_diffclf.estimators.mbar import MbarResult, mbar
from boltzgen_diffclf.estimators.profile import (
    ProfiledFreeEnergies,
    chained_free_energies,
    classification_loss,
    profile_free_energies,
)
from boltzgen_diffclf.estimators.replicates import agree, combine_replicates
from boltzgen_diffclf.estimators.reweighting import free_energy_from_weights
from boltzgen_diffclf.estimators.thermodynamic_integration import thermodynamic_integration

__all__ = [
    "Estimate",
    "MbarResult",
    "Measurement",
    "ProfiledFreeEnergies",
    "agree",
    "bar",
    "chained_free_energies",
    "classification_loss",
    "combine_replicates",
    "exponential_averaging",
    "free_energy_from_weights",
    "mbar",
    "profile_free_energies",
    "thermodynamic_integration",
]
