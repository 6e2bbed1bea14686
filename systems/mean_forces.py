"""Mean forces on some atoms of a molecule: the slopes of the free energy that a coarse-grained density is made of.

With ``x`` the atoms that are kept and ``h`` the others, ``exp(-A(x))`` is the integral of ``exp(-u(x, h))`` over ``h``,
and ``-grad A(x)`` the mean of the force on ``x`` over configurations of ``h`` while ``x`` stands still (blue moon
ensemble without constraints: Ciccotti, Kapral & Vanden-Eijnden 2005, doi:10.1002/cphc.200400669).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from boltzgen_diffclf.samplers.kernels import Langevin
from boltzgen_diffclf.streams import named_generator
from boltzgen_diffclf.target import SingleLevel
from boltzgen_diffclf.units import thermal_energy_kj_per_mol
from systems.hot_frames import LARGEST_FORCE
from systems.molecular import MolecularSystem

SETTLING, DRAWS, STRIDE = 600, 20, 10
"""Time steps before the first draw, draws of each mean, and time steps from one to the next."""

TIMESTEP_PS, FRICTION_PER_PS = 1e-3, 40.0
"""Of the atoms that move."""

BATCH = 1024
"""Frames at once."""


def mean_forces(
    system: MolecularSystem,
    state: str,
    positions: Float[Tensor, "frames atoms 3"],
    atoms: Sequence[int],
    temperature_kelvin: float,
    seed: int,
    device: torch.device | str = "cpu",
    advance: Callable[[float], None] = lambda amount: None,
) -> Float[Tensor, "frames kept 3"]:
    """Return the mean force on some atoms [kT/nm], which stand still while the others move about them.

    Right on average once the others have settled, which takes bonds and angles a fraction of a picosecond, and what
    has to cross a barrier longer. Forces on all atoms are those of the force field. Not a number where a force on the
    others says at the end that they have left the molecule.

    Args:
        system: all atoms.
        state: one of its states.
        positions: of all atoms [nm].
        atoms: that stand still.
        temperature_kelvin: of the others [K].
        seed: of their velocities and noise.
        device: where they move.
        advance: told of the frames done.

    Raises:
        InputError: unknown state.
        UnsupportedSystemError: the System is not compiled.
    """
    is_free = len(atoms) < system.n_atoms
    dtype = torch.float32 if is_free else torch.float64
    target = system.target(state, temperature_kelvin=temperature_kelvin, dtype=dtype, device=device)
    ladder, kept, stream = SingleLevel(target), list(atoms), named_generator(seed, "mean forces", device)
    inverse_mass = (thermal_energy_kj_per_mol(temperature_kelvin) / system.masses[:, None]).to(target.dtype)
    inverse_mass[kept] = 0.0
    settling, draws = (SETTLING, DRAWS) if is_free else (0, 1)
    kernel, found = Langevin(TIMESTEP_PS, FRICTION_PER_PS, inverse_mass), []
    for part in positions.split(BATCH):
        level = torch.zeros(len(part), dtype=torch.long, device=device)
        moving = kernel.init(ladder, part.to(device, target.dtype), level, stream)
        moving, info = kernel.run(ladder, moving, level, settling, stream)
        total, broken = moving.force[:, kept].double(), info.nonfinite
        for _ in range(draws - 1):
            moving, info = kernel.run(ladder, moving, level, STRIDE, stream)
            total += moving.force[:, kept]
            broken |= info.nonfinite
        broken |= ~(moving.force.norm(dim=-1).amax(1) < LARGEST_FORCE)
        found.append((total / draws).masked_fill(broken[:, None, None], torch.nan).cpu())
        advance(float(len(part)))
    return torch.cat(found)
