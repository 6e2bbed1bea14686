"""Frames of a molecule at higher temperatures: where its energy has to be known for dynamics to stay whole."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from boltzgen_diffclf.coordinates import remove_mean
from boltzgen_diffclf.samplers.kernels import Langevin
from boltzgen_diffclf.streams import named_generator
from boltzgen_diffclf.target import SingleLevel
from boltzgen_diffclf.units import thermal_energy_kj_per_mol
from systems.molecular import MolecularSystem

HOTTER = (1.5, 2.0, 3.0)
"""Temperatures of the frames, in that of the ensemble: bonds stretch by up to 1.7 times as much."""

WALKERS_OF_ATOMS = 20_000
"""Atoms of all walkers of a temperature together."""

FRAMES, STRIDE, SETTLING = 10, 100, 500
"""Frames of a walker, time steps from one to the next, and before the first."""

TIMESTEP_PS, FRICTION_PER_PS = 1e-3, 5.0


def hot_frames(
    system: MolecularSystem,
    state: str,
    start: Float[Tensor, "frames atoms 3"],
    temperature_kelvin: float,
    seed: int,
    device: torch.device | str = "cpu",
) -> Float[Tensor, "hot atoms 3"]:
    """Return centred frames [nm] of Langevin walkers at the temperatures :data:`HOTTER`, a picosecond and a half each.

    They are no ensemble of anything, only places that frames at the lower temperature seldom reach.

    Args:
        system: all atoms.
        state: one of its states.
        start: frames of it [nm], some of which the walkers begin at.
        temperature_kelvin: of the ensemble [K].
        seed: of starts, velocities and noise.
        device: where they are made.

    Raises:
        InputError: unknown state.
        UnsupportedSystemError: the System is not compiled.
    """
    walkers = max(2, WALKERS_OF_ATOMS // system.n_atoms)
    chosen = torch.randint(len(start), (walkers,), generator=named_generator(seed, "hot starts"))
    frames = []
    for factor in HOTTER:
        hot = factor * temperature_kelvin
        target = system.target(state, temperature_kelvin=hot, dtype=torch.float32, device=device)
        inverse_mass = thermal_energy_kj_per_mol(hot) / system.masses[:, None]
        kernel = Langevin(TIMESTEP_PS, FRICTION_PER_PS, inverse_mass.to(target.dtype))
        ladder, stream = SingleLevel(target), named_generator(seed, f"hot {factor}", device)
        level = torch.zeros(walkers, dtype=torch.long, device=device)
        state_now = kernel.init(ladder, start[chosen].to(device, target.dtype), level, stream)
        state_now, _ = kernel.run(ladder, state_now, level, SETTLING, stream)
        for _ in range(FRAMES):
            state_now, _ = kernel.run(ladder, state_now, level, STRIDE, stream)
            frames.append(remove_mean(state_now.position.double()).cpu())
    made = torch.cat(frames)
    return made[made.isfinite().flatten(1).all(1)]
