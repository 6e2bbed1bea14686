"""A stochastic interpolant of positions that turns bonds instead of cutting through the molecule."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from boltzgen_diffclf.coordinates.frame import kabsch_align
from boltzgen_diffclf.coordinates.internal import InternalCoordinates
from boltzgen_diffclf.paths.interpolant import StochasticInterpolant


@dataclass(frozen=True)
class CurvedInterpolant(StochasticInterpolant):
    r"""``Y_t = I(X_0, X_1, t) + gamma(t) Z`` in flat positions, where ``I`` is straight in internal coordinates.

    The straight average of two conformers is no molecule: a methyl turned by 60 degrees loses a seventh of its
    radius half-way. ``I`` moves bonds and angles along straight lines and torsions along shortest arcs, and lays the
    result on the straight average, so that it starts at ``X_0`` and ends at ``X_1``. The noise is that of
    :class:`StochasticInterpolant`, and so is every conditional density and score, about another middle.

    Args:
        noise_scale: see :class:`StochasticInterpolant` [nm].
        dimension: ``3 (atoms - 1)``; the noise is centred.
        internal: the internal coordinates of the molecule.

    References:
        Albergo, Boffi & Vanden-Eijnden 2023, arXiv:2303.08797, definition 2.1 (any ``I`` with the right ends).
    """

    internal: InternalCoordinates

    def middle(
        self, x_0: Float[Tensor, "batch dim"], displacement: Float[Tensor, "batch dim"], t: Float[Tensor, " batch"]
    ) -> Float[Tensor, "batch dim"]:
        """Return ``I(x_0, x_0 + displacement, t)``."""
        straight = (x_0 + t[:, None] * displacement).unflatten(1, (-1, 3))
        ends = [self.internal.from_cartesian(x.unflatten(1, (-1, 3))) for x in (x_0, x_0 + displacement)]
        difference = ends[1] - ends[0]
        arc = torch.remainder(difference + math.pi, 2 * math.pi) - math.pi
        way = torch.where(self.internal.is_torsion, arc, difference)
        bent, _ = self.internal.to_cartesian(ends[0] + t[:, None] * way)
        return kabsch_align(bent, straight).flatten(1)

    def sample(
        self,
        x_0: Float[Tensor, "batch dim"],
        displacement: Float[Tensor, "batch dim"],
        t: Float[Tensor, " batch"],
        z: Float[Tensor, "batch dim"],
    ) -> Float[Tensor, "batch dim"]:
        """See :meth:`StochasticInterpolant.sample`."""
        middle = self.middle(x_0, displacement, t)
        return super().sample(middle, torch.zeros_like(middle), t, z)

    def conditional_log_density(
        self,
        y: Float[Tensor, "batch dim"],
        x_0: Float[Tensor, "batch dim"],
        displacement: Float[Tensor, "batch dim"],
        t: Float[Tensor, " batch"],
    ) -> Float[Tensor, " batch"]:
        """See :meth:`StochasticInterpolant.conditional_log_density`."""
        middle = self.middle(x_0, displacement, t)
        return super().conditional_log_density(y, middle, torch.zeros_like(middle), t)

    def conditional_score(
        self,
        y: Float[Tensor, "batch dim"],
        x_0: Float[Tensor, "batch dim"],
        displacement: Float[Tensor, "batch dim"],
        t: Float[Tensor, " batch"],
    ) -> Float[Tensor, "batch dim"]:
        """See :meth:`StochasticInterpolant.conditional_score`."""
        middle = self.middle(x_0, displacement, t)
        return super().conditional_score(y, middle, torch.zeros_like(middle), t)

    def conditional_time_score(
        self,
        displacement: Float[Tensor, "batch dim"],
        t: Float[Tensor, " batch"],
        z: Float[Tensor, "batch dim"],
    ) -> Float[Tensor, " batch"]:
        """Refuse: the velocity of a curve depends on where it starts, which this signature does not give.

        Raises:
            ValueError: always.
        """
        raise ValueError("a curved path has no time score from its displacement alone; differentiate middle(x_0, ...)")
