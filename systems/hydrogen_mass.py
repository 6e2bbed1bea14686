"""Heavier hydrogens for longer time steps: averages over configurations do not depend on the masses."""

from __future__ import annotations

import openmm
import torch
from jaxtyping import Float
from torch import Tensor

from boltzgen_diffclf.errors import InputError
from systems.molecular import MolecularSystem


def masses_with_hydrogens(system: MolecularSystem, hydrogen_mass_amu: float) -> Float[Tensor, " atoms"]:
    """Return the masses [amu] with those of hydrogens replaced."""
    masses = system.masses.clone()
    masses[torch.tensor([element == "H" for element in system.elements])] = hydrogen_mass_amu
    return masses


def with_hydrogen_mass(system: MolecularSystem, state: str, hydrogen_mass_amu: float) -> openmm.System:
    """Return the OpenMM System of a state with the mass of its hydrogens [amu] replaced; what has no mass stays still.

    Raises:
        InputError: unknown state, one without an OpenMM System, or one that :func:`keeps_its_masses`.
    """
    openmm_system = system.openmm_system(state)
    if keeps_its_masses(openmm_system):
        raise InputError(f"state '{state}' of {system.name} has constraints, whose ensemble depends on the masses")
    for atom, element in enumerate(system.elements):
        if element == "H" and openmm_system.getParticleMass(atom)._value > 0:
            openmm_system.setParticleMass(atom, hydrogen_mass_amu)
    return openmm_system


def keeps_its_masses(openmm_system: openmm.System) -> bool:
    """Return whether lengths are constrained, which makes an ensemble depend on the masses.

    References:
        Fixman 1974, doi:10.1073/pnas.71.8.3050.
    """
    return bool(openmm_system.getNumConstraints())
