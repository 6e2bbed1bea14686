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
from boltzgen_diffclf.target import Ladder, SingleLevel, Target

_WANTED_ACCEPTANCE = 0.65
"""Of Hamiltonian Monte Carlo in many dimensions (Beskos et al. 2013, Bernoulli 19, 1501)."""


def hamiltonian_moves(
    ladder: Ladder,
    position: Float[Tensor, "batch *event"],
    counted: Bool[Tensor, " batch"],
    n_moves: int,
    n_leapfrog: int,
    step_size: Float[Tensor, " 1"],
    rate: float,
    generator: torch.Generator,
) -> tuple[Float[Tensor, "batch *event"], Float[Tensor, " 1"], Float[Tensor, ""]]:
    """Return particles moved by Hamiltonian Monte Carlo, a better step size, and the acceptance of those that count.

    Args:
        ladder: of one level, which the moves leave invariant.
        position: of the particles.
        counted: whether a particle has a weight: one that has none may refuse all steps, and must not shorten those of
            the others.
        n_moves: proposals of each.
        n_leapfrog: force evaluations of each proposal.
        step_size: of one leapfrog step, one entry.
        rate: at which it follows the acceptance; 0 leaves it as it is.
        generator: on the device of ``position``.
    """
    level = torch.zeros(len(position), dtype=torch.long, device=position.device)
    kernel = HamiltonianMonteCarlo(step_size, n_leapfrog, position.new_ones(()))
    moved, info = kernel.run(ladder, kernel.init(ladder, position, level, generator), level, n_moves, generator)
    accepted = info.acceptance[counted]
    tuned = tune_step_size(step_size, accepted, level[counted], target_acceptance=_WANTED_ACCEPTANCE, rate=rate)
    return moved.position, tuned, accepted.sum() / counted.sum().clamp(min=1)


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
        left = max(0.0, 1 - 5 * int(state.proposals) / self.proposals)
        position, step_size, acceptance = hamiltonian_moves(
            SingleLevel(self.target),
            state.position,
            state.counted,
            1,
            self.n_leapfrog,
            state.step_size,
            3.0 * left,
            generator,
        )
        after = RejuvenationState(position, state.counted, step_size, state.proposals + 1)
        return after, float(acceptance)

    def arrived(self, state: RejuvenationState) -> bool:
        """Whether no proposal is left."""
        return int(state.proposals) >= self.proposals
