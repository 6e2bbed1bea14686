"""Frames of a molecule at higher temperatures: where its energy has to be known for dynamics to stay whole."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from boltzgen_diffclf.coordinates import remove_mean
from boltzgen_diffclf.errors import RunFailedError
from boltzgen_diffclf.samplers.kernels import Langevin
from boltzgen_diffclf.samplers.state import TensorState
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


@dataclass(frozen=True, eq=False)
class Walked(TensorState):
    """Frames of the temperatures that are done.

    Attributes:
        begun: frame that each walker begins at, at every temperature.
        positions: centred [nm], those of broken frames too.
        is_whole: whether a frame is not broken.
    """

    begun: Int[Tensor, " walkers"]
    positions: Float[Tensor, "done atoms 3"]
    is_whole: Bool[Tensor, " done"]


@dataclass(frozen=True, eq=False)
class HotWalk:
    """Langevin walkers at the temperatures :data:`HOTTER`, one after the other, a picosecond and a half each.

    Their frames are no ensemble of anything, only places that frames at the lower temperature seldom reach.

    Attributes:
        system: all atoms.
        state: one of its states.
        start: frames of it [nm], some of which the walkers begin at.
        temperature_kelvin: of the ensemble [K].
        walkers: at each temperature.
        device: where they walk.
    """

    system: MolecularSystem
    state: str
    start: Float[Tensor, "frames atoms 3"]
    temperature_kelvin: float
    walkers: int
    device: torch.device | str = "cpu"

    def init(self, generator: torch.Generator) -> Walked:
        """Return where walkers will begin, and no frames."""
        begun = torch.randint(len(self.start), (self.walkers,), generator=generator, device=generator.device)
        none = self.start.new_empty(0, *self.start.shape[1:], dtype=torch.float64, device=generator.device)
        return Walked(begun, none, none.new_empty(0, dtype=torch.bool))

    def step(self, state: Walked, generator: torch.Generator) -> tuple[Walked, float]:
        """Return the frames of one temperature more, and its factor.

        Raises:
            InputError: unknown state.
            UnsupportedSystemError: the System is not compiled.
        """
        factor = HOTTER[len(state.is_whole) // (FRAMES * self.walkers)]
        hot = factor * self.temperature_kelvin
        target = self.system.target(self.state, temperature_kelvin=hot, dtype=torch.float32, device=self.device)
        inverse_mass = thermal_energy_kj_per_mol(hot) / self.system.masses[:, None]
        kernel, ladder = Langevin(TIMESTEP_PS, FRICTION_PER_PS, inverse_mass.to(target.dtype)), SingleLevel(target)
        level = torch.zeros(self.walkers, dtype=torch.long, device=self.device)
        start = self.start.to(self.device, target.dtype)[state.begun]
        moving, _ = kernel.run(ladder, kernel.init(ladder, start, level, generator), level, SETTLING, generator)
        positions, is_whole = [state.positions], [state.is_whole]
        for _ in range(FRAMES):
            moving, info = kernel.run(ladder, moving, level, STRIDE, generator)
            # In units of the ensemble's temperature; a comparison with what is no number is false.
            strongest = factor * target.energy_and_force(moving.position)[1].norm(dim=-1).amax(1)
            positions.append(remove_mean(moving.position.double()))
            is_whole.append(~info.nonfinite & (strongest < LARGEST_FORCE))
        return Walked(state.begun, torch.cat(positions), torch.cat(is_whole)), factor

    def arrived(self, state: Walked) -> bool:
        """Whether all temperatures are done."""
        return len(state.is_whole) >= len(HOTTER) * FRAMES * self.walkers

    def frames(self, state: Walked) -> Float[Tensor, "hot atoms 3"]:
        """Return the frames [nm] that are whole; the log says how many are not.

        Raises:
            RunFailedError: all walkers fell apart.
        """
        if not bool(state.is_whole.any()):
            coldest = HOTTER[0] * self.temperature_kelvin
            raise RunFailedError(f"all walkers of {self.system.name} at {coldest:g} K and above fell apart")
        if not bool(state.is_whole.all()):
            broken = 1 - float(state.is_whole.double().mean())
            _log.warning("%.2g of the hotter frames are broken and left out", broken)
        return state.positions[state.is_whole].cpu()
