"""Contrastive divergence: maximum likelihood of an energy without time, its negative samples drawn by a kernel."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic

import torch
from jaxtyping import Float
from torch import Tensor

from boltzgen_diffclf.samplers.kernels import Kernel, KernelInfo, State
from boltzgen_diffclf.samplers.state import TensorState
from boltzgen_diffclf.target import SingleLevel, Target


def contrastive_divergence_loss(
    energy: Callable[[Tensor], Tensor],
    data: Float[Tensor, "batch dim"],
    negatives: Float[Tensor, "batch dim"],
    regulariser: float = 0.0,
) -> Float[Tensor, " batch"]:
    r"""Return ``U(data) - U(negatives) + regulariser (U(data)^2 + U(negatives)^2)`` [kT], to be minimised.

    Only its gradient means something: with negatives from ``exp(-U)`` itself it is that of minus the mean log
    likelihood. It vanishes at the true density for negatives of any chain that leaves ``exp(-U)`` invariant and
    starts from the data; it also vanishes where such chains see no difference, as for the weights of modes that they
    do not cross. The energy's constant is free.

    Args:
        energy: ``U`` [kT], one value a configuration.
        data: samples of the density to be learned.
        negatives: samples of the model, held fixed.
        regulariser: pull of the energies to zero [1/kT]; it fixes the constant and bends the minimum: where samples
            come, energies are drawn to within ``1 / (2 regulariser)`` of zero.

    References:
        Hinton 2002, Neural Comput. 14, 1771; the regulariser: Du & Mordatch 2019, arXiv:1903.08689.
    """
    positive, negative = energy(data), energy(negatives.detach())
    return positive - negative + regulariser * (positive.square() + negative.square())


def run_negatives(
    energy: Callable[[Tensor], Tensor],
    kernel: Kernel[State],
    start: Float[Tensor, "batch dim"],
    n_steps: int,
    generator: torch.Generator,
) -> tuple[Float[Tensor, "batch dim"], KernelInfo]:
    """Return where chains from ``start`` are after ``n_steps`` under the present energy, and what happened.

    Started from the data this gives the negatives of CD-k. The kernel should be Metropolised (MALA, HMC): the error of
    an unadjusted time step is learned as if it belonged to the data.

    References:
        Hinton 2002, Neural Comput. 14, 1771.
    """
    ladder = SingleLevel(_PresentEnergy(energy, start))
    level = torch.zeros(len(start), dtype=torch.long, device=start.device)
    state = kernel.init(ladder, start, level, generator)
    state, info = kernel.run(ladder, state, level, n_steps, generator)
    return state.position, info


@dataclass(frozen=True, eq=False)
class ReplayState(TensorState):
    """Chains that persist from one training step to the next.

    Their energies are not kept: the model has changed by the time they are needed again.

    Attributes:
        position: where the chains are.
    """

    position: Float[Tensor, "chains dim"]


@dataclass(frozen=True, eq=False)
class ReplayInfo:
    """What one step gave.

    Attributes:
        negatives: the chains that moved.
        kernel: of their moves.
    """

    negatives: Float[Tensor, "batch dim"]
    kernel: KernelInfo


@dataclass(frozen=True, eq=False)
class ReplayBuffer(Generic[State]):
    """Persistent contrastive divergence: negatives from chains that go on while the model changes.

    Attributes:
        kernel: moves the chains.
        n_steps: kernel steps of each chosen chain, one training step.
        reinitialise: share of the chosen chains that start afresh. These are ``n_steps`` from their start and not in
            equilibrium: the share bends the minimum unless the fresh starts follow the data.

    References:
        Tieleman 2008, ICML, 1064; replay with restarts: Du & Mordatch 2019, arXiv:1903.08689.
    """

    kernel: Kernel[State]
    n_steps: int
    reinitialise: float = 0.05

    def __post_init__(self) -> None:
        """Refuse chains that cannot move and shares that are none."""
        if self.n_steps < 1 or not 0 <= self.reinitialise <= 1:
            raise ValueError(
                f"a buffer needs n_steps >= 1 and reinitialise in [0, 1], got {self.n_steps}, {self.reinitialise}"
            )

    def init(self, position: Float[Tensor, "chains dim"]) -> ReplayState:
        """Return the buffer with its chains at ``position``."""
        return ReplayState(position.detach().clone())

    def step(
        self,
        energy: Callable[[Tensor], Tensor],
        state: ReplayState,
        fresh: Float[Tensor, "batch dim"],
        generator: torch.Generator,
    ) -> tuple[ReplayState, ReplayInfo]:
        """Return the buffer after as many of its chains as ``fresh`` has rows have moved, and their new places.

        Args:
            energy: the present model.
            state: the buffer.
            fresh: starting points for the chains that start afresh, one for each that could.
            generator: on the device of the buffer.

        Raises:
            ValueError: when more chains are asked for than there are.
        """
        chains, batch, device = len(state.position), len(fresh), state.position.device
        if batch > chains:
            raise ValueError(f"{batch} negatives are wanted from a buffer of {chains} chains; make the buffer larger")
        chosen = torch.randperm(chains, generator=generator, device=device)[:batch]
        afresh = torch.rand(batch, generator=generator, device=device) < self.reinitialise
        start = torch.where(afresh[:, None], fresh, state.position[chosen])
        negatives, info = run_negatives(energy, self.kernel, start, self.n_steps, generator)
        return ReplayState(state.position.index_copy(0, chosen, negatives)), ReplayInfo(negatives, info)


class _PresentEnergy(Target):
    """A model as it is now, for a sampler."""

    def __init__(self, energy: Callable[[Tensor], Tensor], like: Tensor) -> None:
        self.function = energy
        self.event_shape, self.dimension = tuple(like.shape[1:]), math.prod(like.shape[1:])
        self.dtype, self.device = like.dtype, like.device

    def energy(self, x: Float[Tensor, "batch *event"]) -> Float[Tensor, " batch"]:
        return self.function(x)
