"""From an ``openmm.System`` to a Target."""

from __future__ import annotations

import openmm
import torch

from boltzgen_diffclf.units import thermal_energy_kj_per_mol
from systems.forcefield.reader import read_system
from systems.forcefield.target import ForceFieldTarget


def compile_system(
    openmm_system: openmm.System,
    *,
    temperature_kelvin: float = 300.0,
    dtype: torch.dtype = torch.float64,
    device: torch.device | str = "cpu",
    chunks: int = 2, lanes: int = 128,
) -> ForceFieldTarget:
    """Return the System as a Target."""
    parameters = read_system(openmm_system).reduced(thermal_energy_kj_per_mol(temperature_kelvin))
    return ForceFieldTarget(parameters, dtype, torch.device(device), chunks, lanes)
