"""From an ``openmm.System`` to a Target."""

from __future__ import annotations

import openmm
import torch

from boltzgen_diffclf.units import thermal_energy_kj_per_mol
from systems.forcefield.reader import read_system
from systems.forcefield.target import ForceFieldTarget

# Measured: 128 configurations keep a thread's intermediates in a cache of 2 MiB and outweigh the cost of a call. With
# many threads smaller chunks keep the block near the batch sizes in use.
LANES, LANES_OF_MANY_THREADS = 128, 64
GPU_LANES = 4096


def compile_system(
    openmm_system: openmm.System,
    *,
    temperature_kelvin: float = 300.0,
    dtype: torch.dtype = torch.float64,
    device: torch.device | str = "cpu",
) -> ForceFieldTarget:
    """Return the potential energy of an ``openmm.System`` as a batched, differentiable Target.

    Computed are HarmonicBondForce, HarmonicAngleForce, PeriodicTorsionForce, RBTorsionForce, CMAPTorsionForce,
    NonbondedForce without cutoff, GBSAOBCForce and the CustomGBForce models HCT, OBC1, OBC2, GBn and GBn2, with
    and without ACE surface term and salt. CustomNonbondedForce and CustomBondForce are computed where they are
    Lennard-Jones terms, whatever the parameters of a pair are made of (NBFIX, 1-4 pairs of CHARMM), and
    CustomTorsionForce where it is harmonic. CMMotionRemover and force groups play no part; global parameters have
    their defaults.

    In float64 the result is that of OpenMM's Reference platform to a relative 1e-6 in energy and 1e-5 in force
    (found: 1e-12 and 1e-13). In float32 energies are good to 1e-5 of their value plus 2e-3 kT, forces to 1e-4 of
    their norm. Distances under 1e-7 nm (float64) or 0.003 nm (float32) count as that distance, so that energies
    stay finite.

    The first evaluation compiles, for some 20 seconds, and on a GPU the first of every power of two of configurations.
    The number of threads is torch's at the time of this call.

    Args:
        openmm_system: without constraints, cutoffs, virtual sites or particles without mass.
        temperature_kelvin: of the kT that energies are in [K].
        dtype: float64 or float32.
        device: where to compute.

    Raises:
        UnsupportedSystemError: naming the first force or expression that is not computed.
    """
    parameters = read_system(openmm_system).reduced(thermal_energy_kj_per_mol(temperature_kelvin))
    place = torch.device(device)
    chunks, lanes = block_shape(place)
    return ForceFieldTarget(parameters, dtype, place, chunks, lanes)


def block_shape(device: torch.device) -> tuple[int, int]:
    """Return how many chunks a block has, one for each thread, and how many configurations a chunk."""
    if device.type != "cpu":
        return 1, GPU_LANES
    threads = torch.get_num_threads()
    return threads, LANES if threads <= 2 else LANES_OF_MANY_THREADS
