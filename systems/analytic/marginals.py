"""What noise makes of a mixture: the exact marginals of a path, level by level or all at once."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor

from boltzgen_diffclf.paths import DiffusionPath, StochasticInterpolant
from systems.analytic.gaussian_mixture import GaussianMixture, log_joint

_CHUNK_ELEMENTS = 2**20
"""Batch times components times coordinates held at once."""


class MovingMixture(ABC):
    """A mixture whose components move with t, as a :class:`~boltzgen_diffclf.energy.TimeEnergy`.

    ``U(y, t) = -log p_t(y)`` is normalised at every t, so ``F(t) = 0``. Each member of a batch has its own t. The
    batch is taken in parts, so that memory does not grow with it unless gradients are recorded.

    Attributes:
        weights: of the components, summing to one.
        dimension: of the space.
    """

    weights: Float[Tensor, " components"]
    dimension: int

    @abstractmethod
    def components(
        self, t: Float[Tensor, " batch"]
    ) -> tuple[Float[Tensor, "batch components dim"], Float[Tensor, "batch components width"]]:
        """Return means and variances of the components; one column of variances if they are isotropic."""

    @abstractmethod
    def component_rates(
        self, t: Float[Tensor, " batch"]
    ) -> tuple[Float[Tensor, "batch components dim"], Float[Tensor, "batch components width"]]:
        """Return the time derivatives of the means and variances."""

    def at(self, t: float) -> GaussianMixture:
        """Return the marginal at ``t`` as a target."""
        means, variances = (value[0] for value in self.components(self.weights.new_tensor([t])))
        sigmas = variances.sqrt()
        return GaussianMixture(self.weights, means, sigmas if sigmas.shape == means.shape else sigmas[:, 0])

    def energy(self, y: Float[Tensor, "batch dim"], t: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        """Return ``-log p_t(y)`` [kT]."""
        parts = [log_joint(part, self.weights, *self.components(time)) for part, time in self._parts(y, t)]
        return -torch.cat(parts).logsumexp(-1)

    def gradient(self, y: Float[Tensor, "batch dim"], t: Float[Tensor, " batch"]) -> Float[Tensor, "batch dim"]:
        """Return ``dU/dy`` [kT per unit of y]."""
        parts = []
        for part, time in self._parts(y, t):
            means, variances = self.components(time)
            share = log_joint(part, self.weights, means, variances).softmax(-1)
            parts.append((share[..., None] * (part[:, None] - means) / variances).sum(1))
        return torch.cat(parts)

    def time_derivative(self, y: Float[Tensor, "batch dim"], t: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        """Return ``dU/dt`` [kT]."""
        parts = []
        for part, time in self._parts(y, t):
            means, variances = self.components(time)
            d_means, d_variances = self.component_rates(time)
            share = log_joint(part, self.weights, means, variances).softmax(-1)
            residual = part[:, None] - means
            growth = 0.5 * (residual.square() / variances - 1) * d_variances + residual * d_means
            parts.append(-(share * (growth / variances).sum(-1)).sum(-1))
        return torch.cat(parts)

    def free_energy(self, t: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
        """Return ``F(t) = 0``: the energies are normalised."""
        return torch.zeros_like(t)

    def _parts(self, y: Tensor, t: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        rows = max(1, _CHUNK_ELEMENTS // (len(self.weights) * self.dimension))
        return zip(y.split(rows), t.split(rows), strict=True)


class MixtureMarginals(MovingMixture):
    """The exact marginals of a mixture under one-sided noise, ``y = alpha x + sigma z``.

    Args:
        mixture: the data, at t = 0.
        path: the noise.
    """

    def __init__(self, mixture: GaussianMixture, path: DiffusionPath) -> None:
        self.mixture, self.path = mixture, path
        self.weights, self.dimension = mixture.weights, mixture.dimension

    def components(
        self, t: Float[Tensor, " batch"]
    ) -> tuple[Float[Tensor, "batch components dim"], Float[Tensor, "batch components width"]]:
        """See :meth:`MovingMixture.components`."""
        alpha, sigma = _wide(self.path.alpha(t)), _wide(self.path.sigma(t))
        return alpha * self.mixture.means, alpha.square() * self.mixture.variances + sigma.square()

    def component_rates(
        self, t: Float[Tensor, " batch"]
    ) -> tuple[Float[Tensor, "batch components dim"], Float[Tensor, "batch components width"]]:
        """See :meth:`MovingMixture.component_rates`."""
        # By the moment equations of the forward process, which hold at t = 0 where d log sigma / dt does not exist.
        means, variances = self.components(t)
        drift = _wide(self.path.drift_rate(t))
        return drift * means, 2 * drift * variances + _wide(self.path.diffusion_squared(t))


class InterpolatedMarginals(MovingMixture):
    """The exact marginals of a stochastic interpolant between independent samples of two mixtures.

    Args:
        mixture_a: at t = 0.
        mixture_b: at t = 1.
        path: a straight interpolant; its noise may differ from coordinate to coordinate.

    Raises:
        ValueError: dimensions that do not agree.
    """

    def __init__(self, mixture_a: GaussianMixture, mixture_b: GaussianMixture, path: StochasticInterpolant) -> None:
        if not mixture_a.dimension == mixture_b.dimension == path.dimension:
            raise ValueError(
                "both ends and the path need one dimension, got "
                f"{mixture_a.dimension}, {mixture_b.dimension} and {path.dimension}"
            )
        n_a, n_b = len(mixture_a.weights), len(mixture_b.weights)
        self.weights = (mixture_a.weights[:, None] * mixture_b.weights).flatten()
        self.dimension = path.dimension
        self._means_a, self._variances_a = (
            value.repeat_interleave(n_b, dim=0) for value in (mixture_a.means, mixture_a.variances)
        )
        self._means_b, self._variances_b = (value.repeat(n_a, 1) for value in (mixture_b.means, mixture_b.variances))
        self._noise = path.noise_scale.square().to(self.weights)

    def components(
        self, t: Float[Tensor, " batch"]
    ) -> tuple[Float[Tensor, "batch components dim"], Float[Tensor, "batch components width"]]:
        """See :meth:`MovingMixture.components`."""
        t = _wide(t)
        means = (1 - t) * self._means_a + t * self._means_b
        return means, (1 - t).square() * self._variances_a + t.square() * self._variances_b + t * (1 - t) * self._noise

    def component_rates(
        self, t: Float[Tensor, " batch"]
    ) -> tuple[Float[Tensor, "batch components dim"], Float[Tensor, "batch components width"]]:
        """See :meth:`MovingMixture.component_rates`."""
        t = _wide(t)
        d_means = (self._means_b - self._means_a).expand(len(t), -1, -1)
        return d_means, 2 * (t * self._variances_b - (1 - t) * self._variances_a) + (1 - 2 * t) * self._noise


def noised(mixture: GaussianMixture, path: DiffusionPath, t: float) -> GaussianMixture:
    """Return the marginal at ``t`` of a mixture under one-sided noise, normalised.

    >>> from boltzgen_diffclf.paths import VarianceExploding
    >>> data = GaussianMixture(torch.ones(1), torch.zeros(1, 2), torch.tensor([3.0]))
    >>> noised(data, VarianceExploding(1.0, 4.0), 1.0).sigmas.tolist()
    [5.0]
    """
    return MixtureMarginals(mixture, path).at(t)


def interpolated(
    mixture_a: GaussianMixture, mixture_b: GaussianMixture, path: StochasticInterpolant, t: float
) -> GaussianMixture:
    """Return the marginal at ``t`` of an interpolant of independent ends, normalised: a component a pair of theirs.

    Its energy holds batch times components times coordinates at once; large ones belong to
    :class:`InterpolatedMarginals`.

    Raises:
        ValueError: dimensions that do not agree.
    """
    return InterpolatedMarginals(mixture_a, mixture_b, path).at(t)


def _wide(t: Float[Tensor, " batch"]) -> Float[Tensor, "batch 1 1"]:
    return t[:, None, None]
