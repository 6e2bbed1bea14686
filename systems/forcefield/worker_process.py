"""What runs inside a worker process: one OpenMM context and its evaluation."""

from __future__ import annotations

import numpy as np
import openmm
from openmm import unit

from systems.forcefield.parameters import Array

_context: list[openmm.Context] = []


def start(system_xml: str, platform_name: str) -> None:
    """Make the context of this process."""
    system = openmm.XmlSerializer.deserialize(system_xml)
    platform = openmm.Platform.getPlatform(platform_name)
    # One thread each: the processes share the cores.
    properties = {"Threads": "1"} if platform_name == "CPU" else {}
    _context.append(openmm.Context(system, openmm.VerletIntegrator(0.001), platform, properties))


def evaluate(positions: Array) -> tuple[Array, Array]:
    """Return energies [kJ/mol] and forces [kJ/mol/nm] of configurations ``(batch, atoms, 3)`` [nm]."""
    (context,) = _context
    energies, forces = np.empty(len(positions)), np.empty(positions.shape)
    for index, configuration in enumerate(positions):
        context.setPositions(configuration)
        context.computeVirtualSites()
        state = context.getState(getEnergy=True, getForces=True)
        energies[index] = state.getPotentialEnergy().value_in_unit(unit.kilojoule_per_mole)
        forces[index] = state.getForces(asNumpy=True).value_in_unit(unit.kilojoule_per_mole / unit.nanometer)
    return energies, forces
