"""Heavier hydrogens for longer time steps: averages over configurations do not depend on the masses."""

from __future__ import annotations

import openmm
import torch
from jaxtyping import Float
from torch import Tensor

from systems.molecular import MolecularSystem


def masses_with_hydrogens(system: MolecularSystem, hydrogen_mass_amu: float) -> Float[Tensor, " atoms"]:
    """Return the masses [amu] with those of hydrogens replaced."""
    masses = system.masses.clone()
    masses[torch.tensor([element == "H" for element in system.elements])] = hydrogen_mass_amu
    return masses


def with_hydrogen_mass(system: MolecularSystem, state: str, hydrogen_mass_amu: float) -> openmm.System:
    """Return the OpenMM System of a state with the mass of its hydrogens [amu] replaced.

    Constrained lengths make an ensemble depend on the masses (Fixman 1974, doi:10.1073/pnas.71.8.3050): a System that
    has some keeps its own. So do particles without a mass, which do not move.

    Raises:
        InputError: unknown state, or one without an OpenMM System.
    """
    openmm_system = system.openmm_system(state)
    if openmm_system.getNumConstraints() == 0:
        for atom, mass in enumerate(masses_with_hydrogens(system, hydrogen_mass_amu).tolist()):
            if system.masses[atom] > 0:
                openmm_system.setParticleMass(atom, mass)
    return openmm_system
