"""Chains of a noised energy's own at its noise levels: the negatives of persistent contrastive divergence."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from boltzgen_diffclf.compilation import fuse
from boltzgen_diffclf.composition import TimeEnergyLadder
from boltzgen_diffclf.noised_energy import NoisedEnergyModel
from boltzgen_diffclf.paths import DiffusionPath
from boltzgen_diffclf.samplers import HamiltonianMonteCarlo, tune_step_size
from boltzgen_diffclf.samplers.state import TensorState
from boltzgen_diffclf.streams import device_stream
from boltzgen_diffclf.training.clean_data import CleanData

N_LEAPFROG = 10
"""Leapfrog steps of a move."""

AFRESH = 0.005
"""Share of the moved chains that begin again at the data: out of a hole there is no other way."""

LOST = 6.0
"""A chain begins again where it is so many times ``sqrt(dim)`` [kT] above a sample of the data: energies of two samples
of a Gaussian differ by ``sqrt(dim)``. It has been in a hole which the energy has since filled."""

_ACCEPTANCE = 0.65
"""Wanted of the moves, see :func:`~boltzgen_diffclf.samplers.tune_step_size`."""


class Contrast(NamedTuple):
    """Chains beside as much data of the same levels.

    Attributes:
        t: times of the levels.
        data: noised samples.
        chain: where the chains are.
    """

    t: Float[Tensor, " moved"]
    data: Float[Tensor, "moved dim"]
    chain: Float[Tensor, "moved dim"]


@dataclass(frozen=True, eq=False)
class LevelChainsState(TensorState):
    """What persists from one training step to the next.

    Attributes:
        position: where the chains are.
        step_size: of their leapfrog steps, one a level.
    """

    position: Float[Tensor, "chains dim"]
    step_size: Float[Tensor, " levels"]


class LevelChains:
    """Chains that go on by Hamiltonian Monte Carlo while the energy learns: every second one at the least noise.

    Dynamics find the holes and false basins of a learned energy that a way leads to, where noise added to data seldom
    goes. The others are spread evenly over all levels.

    Under ``torchrun`` every process moves all chains, and learns from its share of them.

    Args:
        path: the noising.
        levels: growing times, in the dtype and on the device of the model.
        moved: chains that move in a step; four times as many persist.
    """

    def __init__(self, path: DiffusionPath, levels: Float[Tensor, " levels"], moved: int) -> None:
        self.path, self.levels, self.moved = path, levels, moved
        chain = torch.arange(4 * moved, device=levels.device)
        self.level = torch.where(chain % 2 == 0, 0, chain * len(levels) // len(chain))
        self.energy_and_gradient = fuse(NoisedEnergyModel.energy_and_gradient, levels.device, recorded=True)

    def init(self, model: NoisedEnergyModel, data: CleanData, generator: torch.Generator) -> LevelChainsState:
        """Return chains that begin at the data; their first steps are half its finest structure."""
        finest = torch.hypot(self.path.sigma(self.levels), self.path.alpha(self.levels) * model.resolution)
        return LevelChainsState(self.noised(data, self.level, generator), 0.5 * finest)

    def step(
        self, model: NoisedEnergyModel, state: LevelChainsState, data: CleanData, generator: torch.Generator
    ) -> tuple[LevelChainsState, Contrast]:
        """Return the chains after some of them have moved, and these beside data; steps follow the acceptance.

        A chain that is lost begins again at the sample beside it, and so says nothing this time.

        Args:
            model: as it is now.
            state: of the chains.
            data: where chains begin.
            generator: a CPU stream.
        """
        chosen = torch.randperm(len(self.level), generator=generator)[: self.moved].to(self.levels.device)
        level = self.level[chosen]
        beside = self.noised(data, level, generator)
        again = torch.rand(self.moved, generator=generator).to(self.levels) < AFRESH
        start = torch.where(again[:, None], beside, state.position[chosen])
        stream, ladder = device_stream(generator, self.levels.device), _PresentLadder(model, self)
        kernel = HamiltonianMonteCarlo(state.step_size, N_LEAPFROG, self.levels.new_ones(1))
        moved, info = kernel.step(ladder, kernel.init(ladder, start, level, stream), level, stream)
        above = moved.energy - ladder.energy(beside, level)
        kept = above.isfinite() & (above < LOST * math.sqrt(ladder.dimension))
        reached = torch.where(kept[:, None], moved.position, beside)
        # A chain that is lost can refuse all steps: it must not shorten those of the others.
        acceptance = torch.where(kept, info.acceptance, _ACCEPTANCE)
        step_size = tune_step_size(state.step_size, acceptance, level, target_acceptance=_ACCEPTANCE, rate=0.05)
        position = state.position.index_copy(0, chosen, reached)
        return LevelChainsState(position, step_size), Contrast(self.levels[level], beside, reached)

    def noised(
        self, data: CleanData, level: Int[Tensor, " chains"], generator: torch.Generator
    ) -> Float[Tensor, "chains dim"]:
        """Return a sample of the data at each level."""
        x = data.draw(len(level), generator).x.to(self.levels)
        stream = device_stream(generator, x.device)
        noise = torch.randn(x.shape, generator=stream, device=x.device).to(x)
        return self.path.sample(x, self.levels[level], noise)


class _PresentLadder(TimeEnergyLadder):
    """The levels of a model as it is now, its forces from one fused pass."""

    def __init__(self, model: NoisedEnergyModel, chains: LevelChains) -> None:
        super().__init__(model, chains.levels, len(model.data.mean), len(model.data.variance))
        self.fused = partial(chains.energy_and_gradient, model)

    def energy_and_force(
        self, x: Float[Tensor, "batch *event"], level: Int[Tensor, " batch"]
    ) -> tuple[Float[Tensor, " batch"], Float[Tensor, "batch *event"]]:
        with torch.no_grad():
            energy, gradient = self.fused(x, self.times[level])
        return energy.clone(), -gradient  # The next call may write over what this one returned.
