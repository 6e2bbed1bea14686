"""A ladder that ends in the true energy: noise levels of a model with the target itself below the first."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from boltzgen_diffclf.target import Ladder, Target


class GroundedLadder(Ladder):
    """A ladder with a target under it: level 0 is the target, level ``k + 1`` the ladder's ``k``.

    Replica exchange and annealing along the noise levels of a learned energy then reach the true one. Each is
    evaluated only for the configurations that need it.

    Args:
        target: on the space of the ladder.
        ladder: whose first level is the nearest to the target, see
            :class:`~boltzgen_diffclf.composition.TimeEnergyLadder`.

    Raises:
        ValueError: spaces that differ.

    >>> from boltzgen_diffclf.target import GaussianTarget, TemperatureLadder
    >>> GroundedLadder(GaussianTarget(1), TemperatureLadder(GaussianTarget(1, sigma=2.0), [300.0, 600.0])).n_levels
    3
    """

    def __init__(self, target: Target, ladder: Ladder) -> None:
        spaces = [(space.event_shape, space.dimension, space.dtype, space.device) for space in (target, ladder)]
        if spaces[0] != spaces[1]:
            raise ValueError(f"(event_shape, dimension, dtype, device) of target and ladder differ: {spaces}")
        self.target, self.ladder = target, ladder
        self.n_levels = ladder.n_levels + 1
        self.event_shape, self.dimension, self.dtype, self.device = spaces[0]

    def energy(self, x: Float[Tensor, "batch *event"], level: Int[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        """See :meth:`Ladder.energy`."""
        energy = x.new_empty(len(x))
        below, above = (level == 0).nonzero()[:, 0], level.nonzero()[:, 0]
        if len(below):
            energy[below] = self.target.energy(x[below]).detach()
        if len(above):
            energy[above] = self.ladder.energy(x[above], level[above] - 1)
        return energy

    def energies(self, x: Float[Tensor, "batch *event"]) -> Float[Tensor, "batch levels"]:
        """See :meth:`Ladder.energies`."""
        return torch.cat([self.target.energy(x).detach()[:, None], self.ladder.energies(x)], dim=1)

    def energy_and_force(
        self, x: Float[Tensor, "batch *event"], level: Int[Tensor, " batch"]
    ) -> tuple[Float[Tensor, " batch"], Float[Tensor, "batch *event"]]:
        """See :meth:`Ladder.energy_and_force`."""
        energy, force = x.new_empty(len(x)), torch.empty_like(x)
        below, above = (level == 0).nonzero()[:, 0], level.nonzero()[:, 0]
        if len(below):
            energy[below], force[below] = self.target.energy_and_force(x[below])
        if len(above):
            energy[above], force[above] = self.ladder.energy_and_force(x[above], level[above] - 1)
        return energy, force
