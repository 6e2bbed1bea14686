"""Moves of weighted particles that leave what they stand for as it is: copies part, and places nobody was at are found.

Resampling leaves copies of a few particles. Moved by a kernel that leaves the target invariant they still stand for it,
with the weights that they have, and spread over what one trajectory after the other can reach: all of a basin, so that
the weights tell of basins alone.

References:
    Gilks & Berzuini 2001, J. R. Stat. Soc. B 63, 127 (resample and move).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from boltzgen_diffclf.samplers.kernels import HamiltonianMonteCarlo, tune_step_size
from boltzgen_diffclf.samplers.state import TensorState
from boltzgen_diffclf.target import SingleLevel, Target

_WANTED_ACCEPTANCE = 0.65
"""Of Hamiltonian Monte Carlo in many dimensions (Beskos et al. 2013, Bernoulli 19, 1501)."""


@dataclass(frozen=True, eq=False)
class RejuvenationState(TensorState):
    """Particles on the move.

    Attributes:
        position: of the particles.
        counted: whether a particle has a weight; others move along and are not listened to.
        step_size: of one leapfrog step, one entry.
        proposals: made so far.
    """

    position: Float[Tensor, "batch *event"]
    counted: Bool[Tensor, " batch"]
    step_size: Float[Tensor, " 1"]
    proposals: Int[Tensor, ""]


@dataclass(frozen=True, eq=False)
class Rejuvenation:
    """Hamiltonian Monte Carlo of all particles; in the first fifth of the proposals the step size is found.

    Attributes:
        target: what the particles stand for.
        proposals: of each particle.
        n_leapfrog: force evaluations of each proposal.
        first_step_size: where the search for it begins [unit of x].
    """

    target: Target
    proposals: int = 50
    n_leapfrog: int = 40
    first_step_size: float = 0.01

    def init(self, position: Float[Tensor, "batch *event"], log_weights: Float[Tensor, " batch"]) -> RejuvenationState:
        """Return the particles where they are.

        Args:
            position: of the particles.
            log_weights: of each; infinitely small of one that does not count.
        """
        made = torch.zeros((), dtype=torch.long, device=position.device)
        return RejuvenationState(position, log_weights.isfinite(), position.new_full((1,), self.first_step_size), made)

    def step(self, state: RejuvenationState, generator: torch.Generator) -> tuple[RejuvenationState, float]:
        """Return the particles after one proposal each, and the mean acceptance of those that count."""
        ladder = SingleLevel(self.target)
        level = torch.zeros(len(state.position), dtype=torch.long, device=state.position.device)
        kernel = HamiltonianMonteCarlo(state.step_size, self.n_leapfrog, state.position.new_ones(()))
        moved, info = kernel.run(ladder, kernel.init(ladder, state.position, level, generator), level, 1, generator)
        accepted = info.acceptance[state.counted]
        step_size, left = state.step_size, 1 - 5 * int(state.proposals) / self.proposals
        if left > 0:
            step_size = tune_step_size(
                step_size, accepted, level[state.counted], target_acceptance=_WANTED_ACCEPTANCE, rate=3.0 * left
            )
        after = RejuvenationState(moved.position, state.counted, step_size, state.proposals + 1)
        return after, float(accepted.sum() / max(1, len(accepted)))

    def arrived(self, state: RejuvenationState) -> bool:
        """Whether no proposal is left."""
        return int(state.proposals) >= self.proposals
