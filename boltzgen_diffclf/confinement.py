"""A target confined to a region: the same energy inside, none that is finite outside."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from boltzgen_diffclf.target import Target

Region = Callable[[Tensor], Tensor]
"""``(batch, *event)`` to the mask ``(batch,)`` of the configurations that are inside."""


class ConfinedTarget(Target):
    """``u(x)`` inside a region and ``+inf`` outside, so that ``exp(-u)`` is the indicator times the density.

    The force is that of ``u`` inside and zero outside: no force tells of the wall, and what moves by forces has to
    refuse the steps that cross it (:class:`~boltzgen_diffclf.samplers.confined.ConfinedLangevin`).

    Args:
        target: of the whole space.
        region: where it stays.
    """

    def __init__(self, target: Target, region: Region) -> None:
        self.target, self.region = target, region
        self.event_shape, self.dimension = target.event_shape, target.dimension
        self.dtype, self.device = target.dtype, target.device

    def energy(self, x: Float[Tensor, "batch *event"]) -> Float[Tensor, " batch"]:
        """See :meth:`Target.energy`."""
        return torch.where(self.region(x), self.target.energy(x), torch.inf)

    def energy_and_force(
        self, x: Float[Tensor, "batch *event"]
    ) -> tuple[Float[Tensor, " batch"], Float[Tensor, "batch *event"]]:
        """See :meth:`Target.energy_and_force`."""
        inside = self.region(x)
        energy, force = self.target.energy_and_force(x)
        wide = inside.view(-1, *[1] * (x.ndim - 1))
        return torch.where(inside, energy, torch.inf), torch.where(wide, force, 0.0)
