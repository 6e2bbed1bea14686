"""Metropolis kernels whose step sizes are fixed, level by level, in a pilot run before anything is measured."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from boltzgen_diffclf.samplers import HamiltonianMonteCarlo, Kernel, KernelState, Mala, tune_step_size
from boltzgen_diffclf.samplers.kernels import relevel
from boltzgen_diffclf.target import Ladder


@dataclass(frozen=True, eq=False)
class KernelFamily:
    """An exact kernel but for its step sizes.

    Attributes:
        build: from step sizes, one a level, to the kernel.
        first_step_size: where the pilot run starts on every level.
    """

    build: Callable[[Float[Tensor, " levels"]], Kernel[KernelState]]
    first_step_size: float


def mala_family(preconditioner: Float[Tensor, "*mass"], first_step_size: float = 0.05) -> KernelFamily:
    """Return Metropolis-adjusted Langevin moves.

    Args:
        preconditioner: diagonal, broadcastable to one configuration.
        first_step_size: see :class:`KernelFamily`.
    """
    return KernelFamily(lambda step_size: Mala(step_size, preconditioner), first_step_size)


def hmc_family(inverse_mass: Float[Tensor, "*mass"], n_leapfrog: int, first_step_size: float = 1e-3) -> KernelFamily:
    """Return Hamiltonian Monte Carlo moves of ``n_leapfrog`` force evaluations each.

    Args:
        inverse_mass: broadcastable to one configuration; ``1 / masses[:, None]`` [1/amu] for positions.
        n_leapfrog: leapfrog steps of a proposal.
        first_step_size: see :class:`KernelFamily`; 1e-3 with masses in amu is about 0.6 fs at 300 K.
    """
    return KernelFamily(lambda step_size: HamiltonianMonteCarlo(step_size, n_leapfrog, inverse_mass), first_step_size)


def pilot_step_sizes(
    ladder: Ladder,
    family: KernelFamily,
    position: Float[Tensor, "batch *event"],
    visits: Int[Tensor, "steps batch"],
    target_acceptance: float,
    generator: torch.Generator,
) -> Float[Tensor, " levels"]:
    """Return step sizes near the wanted acceptance, found by walkers that are thrown away.

    In the first half of the steps all levels share one step size, in the second each finds its own.

    Args:
        ladder: the levels.
        family: the kernel whose step sizes are wanted.
        position: starts of the walkers.
        visits: level of each walker at each step.
        target_acceptance: mean probability to accept.
        generator: of the pilot alone.
    """
    step_size = torch.full((ladder.n_levels,), family.first_step_size, dtype=position.dtype, device=position.device)
    level = visits[0]
    state = family.build(step_size).init(ladder, position, level, generator)
    together = len(visits) // 2
    for index, next_level in enumerate(visits):
        if not torch.equal(next_level, level):
            state, level = relevel(ladder, state, level, next_level), next_level
        state, info = family.build(step_size).step(ladder, state, level, generator)
        if index < together:
            # The first guess may be wrong by a factor of a hundred, about alike at every level.
            common = tune_step_size(
                step_size[:1],
                info.acceptance,
                torch.zeros_like(level),
                target_acceptance=target_acceptance,
                rate=3.0 * (1 - index / together),
            )
            step_size = common.expand_as(step_size)
        else:
            rate = (len(visits) - index) / (len(visits) - together)
            step_size = tune_step_size(
                step_size, info.acceptance, level, target_acceptance=target_acceptance, rate=rate
            )
    return step_size


def march_from_both_ends(n_levels: int, per_level: int, n_steps: int) -> Int[Tensor, "steps batch"]:
    """Return visits of ``per_level`` walkers for each level, which start at the nearer end.

    They reach their own level half-way, so that the second half of the pilot is spent there.

    >>> march_from_both_ends(5, 1, 4).tolist()[0], march_from_both_ends(5, 1, 4).tolist()[1]
    ([0, 0, 1, 4, 4], [0, 1, 2, 3, 4])
    """
    own = torch.arange(n_levels).repeat_interleave(per_level)
    nearer_end = torch.where(2 * own <= n_levels - 1, 0, n_levels - 1)
    progress = (2 * (torch.arange(n_steps) + 1) / n_steps).clamp(max=1.0)
    return (nearer_end + progress[:, None] * (own - nearer_end)).round().long()
