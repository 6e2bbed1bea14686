"""Frames of a molecule at higher temperatures: where its energy has to be known for dynamics to stay whole."""

from __future__ import annotations

import logging
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from boltzgen_diffclf.coordinates import remove_mean
from boltzgen_diffclf.errors import RunFailedError
from boltzgen_diffclf.samplers.kernels import Langevin
from boltzgen_diffclf.streams import named_generator
from boltzgen_diffclf.target import SingleLevel
from boltzgen_diffclf.units import thermal_energy_kj_per_mol
from systems.molecular import MolecularSystem

_log = logging.getLogger(__name__)

HOTTER = (1.5, 2.0, 3.0)
"""Temperatures of the frames, in that of the ensemble: bonds stretch by up to 1.7 times as much."""

FRAMES, STRIDE, SETTLING = 10, 100, 500
"""Frames of a walker, time steps from one to the next, and before the first."""

TIMESTEP_PS, FRICTION_PER_PS = 1e-3, 5.0
"""Of the walkers."""

LARGEST_FORCE = 1e5
"""On an atom [kT/nm]: a frame with more is broken; bonds at three times the temperature have a tenth of that."""


def hot_frames(
    system: MolecularSystem,
    state: str,
    start: Float[Tensor, "frames atoms 3"],
    temperature_kelvin: float,
    walkers: int,
    seed: int,
    device: torch.device | str = "cpu",
    advance: Callable[[float], None] = lambda amount: None,
) -> Float[Tensor, "hot atoms 3"]:
    """Return centred frames [nm] of Langevin walkers at the temperatures :data:`HOTTER`, a picosecond and a half each.

    They are no ensemble of anything, only places that frames at the lower temperature seldom reach. Frames of walkers
    that fall apart are left out, and the log says how many.

    Args:
        system: all atoms.
        state: one of its states.
        start: frames of it [nm], some of which the walkers begin at.
        temperature_kelvin: of the ensemble [K].
        walkers: at each temperature.
        seed: of starts, velocities and noise.
        device: where they are made.
        advance: told of the frames made, ``len(HOTTER) * FRAMES`` in all.

    Raises:
        InputError: unknown state.
        RunFailedError: all walkers fell apart.
        UnsupportedSystemError: the System is not compiled.
    """
    chosen = torch.randint(len(start), (walkers,), generator=named_generator(seed, "hot starts"))
    frames, whole = [], []
    for factor in HOTTER:
        hot = factor * temperature_kelvin
        target = system.target(state, temperature_kelvin=hot, dtype=torch.float32, device=device)
        inverse_mass = thermal_energy_kj_per_mol(hot) / system.masses[:, None]
        kernel = Langevin(TIMESTEP_PS, FRICTION_PER_PS, inverse_mass.to(target.dtype))
        ladder, stream = SingleLevel(target), named_generator(seed, f"hot {factor}", device)
        level = torch.zeros(walkers, dtype=torch.long, device=device)
        moving = kernel.init(ladder, start[chosen].to(device, target.dtype), level, stream)
        moving, _ = kernel.run(ladder, moving, level, SETTLING, stream)
        for _ in range(FRAMES):
            moving, info = kernel.run(ladder, moving, level, STRIDE, stream)
            # In units of the ensemble's temperature; a comparison with what is no number is false.
            strongest = factor * target.energy_and_force(moving.position)[1].norm(dim=-1).amax(1)
            frames.append(remove_mean(moving.position.double()).cpu())
            whole.append((~info.nonfinite & (strongest < LARGEST_FORCE)).cpu())
            advance(1.0)
    kept = torch.cat(whole)
    if not bool(kept.any()):
        raise RunFailedError(
            f"all walkers of {system.name} at {HOTTER[0] * temperature_kelvin:g} K and above fell apart"
        )
    if not bool(kept.all()):
        _log.warning("%.2g of the hotter frames are broken and left out", 1 - float(kept.double().mean()))
    return torch.cat(frames)[kept]
