"""Mean forces on some atoms of a molecule: the slopes of the free energy that a coarse-grained density is made of.

With ``x`` the atoms that are kept and ``h`` the others, ``exp(-A(x))`` is the integral of ``exp(-u(x, h))`` over ``h``,
and ``-grad A(x)`` the mean of the force on ``x`` over configurations of ``h`` while ``x`` stands still (blue moon
ensemble without constraints: Ciccotti, Kapral & Vanden-Eijnden 2005, doi:10.1002/cphc.200400669).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from boltzgen_diffclf.samplers.kernels import Langevin
from boltzgen_diffclf.samplers.state import TensorState
from boltzgen_diffclf.target import SingleLevel, Target
from boltzgen_diffclf.units import thermal_energy_kj_per_mol
from systems.hot_frames import LARGEST_FORCE
from systems.molecular import MolecularSystem

SETTLING, DRAWS, STRIDE = 600, 20, 10
"""Time steps before the first draw, draws of each mean, and time steps from one to the next."""

TIMESTEP_PS, FRICTION_PER_PS = 1e-3, 40.0
"""Of the atoms that move."""

BATCH = 1024
"""Frames at once."""


@dataclass(frozen=True, eq=False)
class Felt(TensorState):
    """Mean forces of the frames that are done.

    Attributes:
        forces: on the atoms that stand still [kT/nm]; not a number where a force on the others says at the end that
            they have left the molecule.
    """

    forces: Float[Tensor, "done kept 3"]


@dataclass(frozen=True, eq=False)
class MeanForces:
    """The mean force on some atoms, which stand still while the others move about them, a batch of frames at a time.

    Right on average once the others have settled, which takes bonds and angles a fraction of a picosecond, and what
    has to cross a barrier longer. Forces on all atoms are those of the force field.

    Attributes:
        system: all atoms.
        state: one of its states.
        positions: of all atoms [nm].
        atoms: that stand still.
        temperature_kelvin: of the others [K].
        device: where they move.
    """

    system: MolecularSystem
    state: str
    positions: Float[Tensor, "frames atoms 3"]
    atoms: Sequence[int]
    temperature_kelvin: float
    device: torch.device | str = "cpu"

    def init(self, generator: torch.Generator) -> Felt:
        """Return no forces."""
        none = torch.empty(0, len(self.atoms), 3, dtype=torch.float64, device=generator.device)
        return Felt(none)

    def step(self, state: Felt, generator: torch.Generator) -> tuple[Felt, int]:
        """Return the forces of one batch more, and of how many frames that is.

        Raises:
            InputError: unknown state.
            UnsupportedSystemError: the System is not compiled.
        """
        ladder, kept = SingleLevel(self._target), list(self.atoms)
        kernel = Langevin(TIMESTEP_PS, FRICTION_PER_PS, self._inverse_mass)
        settling, draws = (SETTLING, DRAWS) if self._some_move else (0, 1)
        part = self.positions[len(state.forces) :][:BATCH].to(self.device, self._target.dtype)
        level = torch.zeros(len(part), dtype=torch.long, device=self.device)
        moving = kernel.init(ladder, part, level, generator)
        moving, info = kernel.run(ladder, moving, level, settling, generator)
        total, broken = moving.force[:, kept].double(), info.nonfinite
        for _ in range(draws - 1):
            moving, info = kernel.run(ladder, moving, level, STRIDE, generator)
            total += moving.force[:, kept]
            broken |= info.nonfinite
        broken |= ~(moving.force.norm(dim=-1).amax(1) < LARGEST_FORCE)
        forces = (total / draws).masked_fill(broken[:, None, None], torch.nan)
        return Felt(torch.cat([state.forces, forces])), len(part)

    def arrived(self, state: Felt) -> bool:
        """Whether all frames are done."""
        return len(state.forces) >= len(self.positions)

    @property
    def _some_move(self) -> bool:
        return len(self.atoms) < self.system.n_atoms

    @property
    def _target(self) -> Target:
        dtype = torch.float32 if self._some_move else torch.float64
        return self.system.target(
            self.state, temperature_kelvin=self.temperature_kelvin, dtype=dtype, device=self.device
        )

    @property
    def _inverse_mass(self) -> Float[Tensor, "atoms 1"]:
        inverse = thermal_energy_kj_per_mol(self.temperature_kelvin) / self.system.masses[:, None]
        inverse[list(self.atoms)] = 0.0
        return inverse.to(self._target.dtype)
