"""Unadjusted Langevin: the overdamped dynamics without an accept step."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from boltzgen_diffclf.samplers.kernels import ForceKernel, KernelInfo
from boltzgen_diffclf.samplers.state import KernelState
from boltzgen_diffclf.target import Ladder


@dataclass(frozen=True, eq=False)
class UnadjustedLangevin(ForceKernel):
    r"""Overdamped Langevin by Euler's rule: ``x' = x + tau P force + sqrt(2 tau P) z``, biased by the order of ``tau``.

    A normal of variance ``P`` is sampled with ``1 / (1 - tau / 2)`` times its variance. What
    :class:`~boltzgen_diffclf.samplers.Mala` proposes, taken without asking.

    Attributes:
        step_size: ``tau``, one a level.
        preconditioner: diagonal of ``P``, broadcastable to one configuration.

    References:
        Roberts & Tweedie 1996, Bernoulli 2, 341.
    """

    step_size: Float[Tensor, " levels"]
    preconditioner: Float[Tensor, "*mass"]

    def run(
        self,
        ladder: Ladder,
        state: KernelState,
        level: Int[Tensor, " batch"],
        n_steps: int,
        generator: torch.Generator,
    ) -> tuple[KernelState, KernelInfo]:
        """See :meth:`Kernel.run`; a walker with a non-finite energy goes on as it is and is reported."""
        position, energy, force = state.position, state.energy, state.force
        step_size = self.step_size.to(position)[level].view(-1, *[1] * (position.ndim - 1))
        pull = step_size * self.preconditioner.to(position)
        spread = (2 * pull).sqrt()
        nonfinite = ~torch.isfinite(energy)
        for _ in range(n_steps):
            noise = torch.empty_like(position).normal_(generator=generator)
            position = torch.addcmul(torch.addcmul(position, pull, force), spread, noise)
            energy, force = ladder.energy_and_force(position, level)
            nonfinite |= ~torch.isfinite(energy)
        return KernelState(position, energy, force), KernelInfo(torch.ones_like(energy), nonfinite)
