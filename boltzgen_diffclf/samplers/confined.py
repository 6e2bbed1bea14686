"""Langevin dynamics behind hard walls: a step that would leave the region is refused and the walker turns round."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from boltzgen_diffclf.confinement import Region
from boltzgen_diffclf.samplers.kernels import KernelInfo, Langevin
from boltzgen_diffclf.samplers.state import LangevinState
from boltzgen_diffclf.target import Ladder


@dataclass(frozen=True, eq=False)
class ConfinedLangevin(Langevin):
    r"""BAOAB of the whole energy; a walker whose step ends outside stays where it was, its velocity reversed.

    Whatever density the steps leave invariant and reversible up to the sign of velocities, the walkers have it times
    the indicator of the region: this is generalised hybrid Monte Carlo whose acceptance is zero or one. The energy
    given is finite on both sides of the walls, so that no step meets an infinite force.

    Attributes:
        region: where all walkers are, from the start.

    References:
        Horowitz 1991, Phys. Lett. B 268, 247; Lelievre, Rousset & Stoltz 2010, Free Energy Computations, section 2.2.
    """

    region: Region

    def run(
        self,
        ladder: Ladder,
        state: LangevinState,
        level: Int[Tensor, " batch"],
        n_steps: int,
        generator: torch.Generator,
    ) -> tuple[LangevinState, KernelInfo]:
        """See :meth:`Langevin.run`; the acceptance is the share of steps that were not refused."""
        acceptance, nonfinite = torch.zeros_like(state.energy), ~torch.isfinite(state.energy)
        for _ in range(n_steps):
            moved, info = super().run(ladder, state, level, 1, generator)
            inside = self.region(moved.position)
            turned = dataclasses.replace(state, velocity=-state.velocity)
            state = moved.where(inside, turned)
            acceptance += inside.to(acceptance) / n_steps
            nonfinite |= info.nonfinite
        return state, KernelInfo(acceptance, nonfinite)
