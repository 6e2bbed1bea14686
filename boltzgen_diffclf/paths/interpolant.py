"""The two-sided stochastic interpolant, in any coordinates in which the two ends have a displacement."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor


def _wide(t: Float[Tensor, " batch"], like: Tensor) -> Tensor:
    return t.reshape(-1, *[1] * (like.ndim - 1))


@dataclass(frozen=True)
class StochasticInterpolant:
    r"""``Y_t = X_0 + t D + gamma(t) Z`` with ``gamma(t) = noise_scale sqrt(t (1 - t))``; t = 0 is A, t = 1 is B.

    ``D`` is the displacement from ``X_0`` to ``X_1``: their difference in Cartesian coordinates, the shortest
    arc for torsions. A whitened coordinate with ``noise_scale = sqrt(2)`` keeps unit variance at every t when the
    two ends are independent: the variance-preserving interpolant.

    Args:
        noise_scale: ``(*event,)`` or a scalar, in the unit of the coordinate.
        dimension: degrees of freedom of the noise: ``3 (atoms - 1)`` for centred positions, where ``z`` must be
            centred too; the number of coordinates otherwise.

    References:
        Albergo, Boffi & Vanden-Eijnden 2023, arXiv:2303.08797, eq. 2.1; OuYang et al. 2026, arXiv:2601.21025.

    >>> path = StochasticInterpolant(torch.tensor(1.0), dimension=1)
    >>> path.gamma(torch.tensor([0.5])).item()
    0.5
    """

    noise_scale: Tensor
    dimension: int

    def gamma(self, t: Float[Tensor, " batch"]) -> Tensor:
        """Return the standard deviation of the noise, ``(batch, *event)`` or broadcastable to it."""
        scale = self.noise_scale
        return scale * torch.sqrt(t * (1 - t)).reshape(-1, *[1] * scale.ndim)

    def sample(
        self,
        x_0: Float[Tensor, "batch *event"],
        displacement: Float[Tensor, "batch *event"],
        t: Float[Tensor, " batch"],
        z: Float[Tensor, "batch *event"],
    ) -> Float[Tensor, "batch *event"]:
        """Return ``y`` at ``t`` for noise ``z``."""
        return x_0 + _wide(t, x_0) * displacement + self._spread(t, x_0) * z

    def conditional_log_density(
        self,
        y: Float[Tensor, "batch *event"],
        x_0: Float[Tensor, "batch *event"],
        displacement: Float[Tensor, "batch *event"],
        t: Float[Tensor, " batch"],
    ) -> Float[Tensor, " batch"]:
        """Return ``log p(y | x_0, x_1)`` at ``0 < t < 1``, normalised in ``dimension`` degrees of freedom."""
        spread = self._spread(t, y)
        residual = (y - x_0 - _wide(t, y) * displacement) / spread
        # A constant number of copies of each coordinate's log spread: the centred subspace loses its share evenly.
        share = self.dimension / math.prod(y.shape[1:])
        log_spread = spread.expand_as(y).log().flatten(1).sum(-1) * share
        log_volume = log_spread + 0.5 * self.dimension * math.log(2 * math.pi)
        return -0.5 * residual.square().flatten(1).sum(-1) - log_volume

    def conditional_score(
        self,
        y: Float[Tensor, "batch *event"],
        x_0: Float[Tensor, "batch *event"],
        displacement: Float[Tensor, "batch *event"],
        t: Float[Tensor, " batch"],
    ) -> Float[Tensor, "batch *event"]:
        """Return ``grad_y log p(y | x_0, x_1)``, which is ``-z / gamma(t)``."""
        return -(y - x_0 - _wide(t, y) * displacement) / self._spread(t, y).square()

    def conditional_time_score(
        self,
        displacement: Float[Tensor, "batch *event"],
        t: Float[Tensor, " batch"],
        z: Float[Tensor, "batch *event"],
    ) -> Float[Tensor, " batch"]:
        """Return ``d/dt log p(y | x_0, x_1)`` at fixed y, for ``y = sample(x_0, displacement, t, z)``."""
        rate = (1 - 2 * t) / (2 * t * (1 - t))  # d log gamma / dt, the same for every coordinate
        drift = (displacement * z / self._spread(t, z)).flatten(1).sum(-1)
        return rate * (z.square().flatten(1).sum(-1) - self.dimension) + drift

    def _spread(self, t: Tensor, like: Tensor) -> Tensor:
        spread = self.gamma(t)
        return spread.reshape(-1, *[1] * (like.ndim - 1)) if spread.ndim == 1 else spread
