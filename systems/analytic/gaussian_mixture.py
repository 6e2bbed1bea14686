"""The Gaussian mixture: every density, score and moment in closed form."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from systems.analytic.exact import AnalyticTarget


class GaussianMixture(AnalyticTarget):
    """A mixture of normals of diagonal covariance, ``u(x) = -log p(x) - log_normaliser``.

    Args:
        weights: of the components, in any scale.
        means: of the components.
        sigmas: standard deviations: one a component, or one a component and coordinate.
        log_normaliser: log Z that the unnormalised density is to have.
    """

    def __init__(
        self,
        weights: Float[Tensor, " components"],
        means: Float[Tensor, "components dim"],
        sigmas: Float[Tensor, " components"] | Float[Tensor, "components dim"],
        log_normaliser: float = 0.0,
    ) -> None:
        if not (bool((weights > 0).all()) and bool((sigmas > 0).all())):
            raise ValueError(f"weights and sigmas must be positive, got {weights.tolist()} and {sigmas.tolist()}")
        self.dimension = means.shape[1]
        self.event_shape = (self.dimension,)
        self.dtype, self.device = means.dtype, means.device
        self.weights, self.means, self.sigmas = weights / weights.sum(), means, sigmas
        self._log_normaliser = log_normaliser

    @property
    def log_normaliser(self) -> float:
        """See :attr:`AnalyticTarget.log_normaliser`."""
        return self._log_normaliser

    @property
    def variances(self) -> Float[Tensor, "components width"]:
        """Variances of the components: one column for isotropic ones, else one a coordinate."""
        return self.sigmas.reshape(len(self.weights), -1).square()

    @property
    def mean(self) -> Float[Tensor, " dim"]:
        """Mean of the mixture."""
        return self.weights @ self.means

    @property
    def variance(self) -> Float[Tensor, " dim"]:
        """Variance of each coordinate of the mixture."""
        return self.weights @ (self.variances + (self.means - self.mean).square())

    def log_density(self, x: Float[Tensor, "batch dim"]) -> Float[Tensor, " batch"]:
        """Return the normalised ``log p(x)``."""
        return self._log_joint(x).logsumexp(-1)

    def responsibilities(self, x: Float[Tensor, "batch dim"]) -> Float[Tensor, "batch components"]:
        """Return the probability that each component made ``x``."""
        return self._log_joint(x).softmax(-1)

    def score(self, x: Float[Tensor, "batch dim"]) -> Float[Tensor, "batch dim"]:
        """Return ``grad log p(x)`` in closed form."""
        pull = (self.means - x[:, None]) / self.variances
        return (self.responsibilities(x)[..., None] * pull).sum(1)

    def energy(self, x: Float[Tensor, "batch dim"]) -> Float[Tensor, " batch"]:
        """See :meth:`Target.energy`."""
        return -self.log_density(x) - self.log_normaliser

    def energy_and_force(
        self, x: Float[Tensor, "batch dim"]
    ) -> tuple[Float[Tensor, " batch"], Float[Tensor, "batch dim"]]:
        """See :meth:`Target.energy_and_force`; the closed form spares the backward pass."""
        x = x.detach()
        return self.energy(x), self.score(x)

    def sample(self, n: int, generator: torch.Generator) -> Float[Tensor, "{n} dim"]:
        """Return independent samples."""
        component = torch.multinomial(self.weights, n, replacement=True, generator=generator)
        noise = torch.randn(n, self.dimension, generator=generator, dtype=self.dtype, device=self.device)
        return self.means[component] + self.sigmas.reshape(len(self.weights), -1)[component] * noise

    def to(self, *, dtype: torch.dtype | None = None, device: torch.device | str | None = None) -> GaussianMixture:
        """Return the same mixture in another precision or place."""
        weights, means, sigmas = (
            tensor.to(device=device, dtype=dtype) for tensor in (self.weights, self.means, self.sigmas)
        )
        return GaussianMixture(weights, means, sigmas, self.log_normaliser)

    def _log_joint(self, x: Float[Tensor, "batch dim"]) -> Float[Tensor, "batch components"]:
        return log_joint(x, self.weights, self.means, self.variances)


def log_joint(
    x: Float[Tensor, "batch dim"],
    weights: Float[Tensor, " components"],
    means: Float[Tensor, "*points components dim"],
    variances: Float[Tensor, "*points components width"],
) -> Float[Tensor, "batch components"]:
    """Return ``log(w_k N(x; mean_k, variance_k))``.

    Args:
        x: points.
        weights: that sum to one.
        means: of the components, the same for all points or one set a point.
        variances: likewise; one column for isotropic components, else one a coordinate.
    """
    distance = ((x[:, None] - means).square() / variances).sum(-1)
    copies = means.shape[-1] // variances.shape[-1]
    log_volume = copies * (2 * math.pi * variances).log().sum(-1)
    return weights.log() - 0.5 * (distance + log_volume)
