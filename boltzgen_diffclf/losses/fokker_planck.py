"""The Fokker-Planck residual: do the levels of a model follow from one another by the noising process?

Levels have no residual if and only if they are the noised versions of their own first one, whatever that is, times one
constant: this objective binds the levels together and knows nothing of the data.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from boltzgen_diffclf.divergence import directional_slopes, divergence
from boltzgen_diffclf.energy import TimeEnergy
from boltzgen_diffclf.losses.time_score import time_score


@runtime_checkable
class LinearDiffusion(Protocol):
    """A noising process ``dy = f(t) y dt + g(t) dW``."""

    def drift_rate(self, t: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        """Return ``f(t)``."""
        ...

    def diffusion_squared(self, t: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        """Return ``g(t)^2``."""
        ...


def fokker_planck_residual(
    model: TimeEnergy,
    path: LinearDiffusion,
    y: Float[Tensor, "batch dim"],
    t: Float[Tensor, " batch"],
    dimension: int,
) -> Float[Tensor, " batch"]:
    r"""Return ``R = d/dt log q - [g^2 (div s + |s|^2) / 2 - f dimension - f y . s]``, ``s = -dU/dy`` [kT per t].

    The divergence is exact and costs one derivative a coordinate: for small dimensions.

    Args:
        model: the energy and its level free energies.
        path: the noising process.
        y: where the residual is wanted; any configurations.
        t: their times.
        dimension: degrees of freedom of the noise; for centred positions the energy must not change with their centre.

    References:
        Lai et al. 2023, arXiv:2210.04296.
    """
    curvature = divergence(lambda point: model.gradient(point, t), y)
    return _first_order(model, path, y, t, dimension) + 0.5 * path.diffusion_squared(t) * curvature


def fokker_planck_loss(
    model: TimeEnergy,
    path: LinearDiffusion,
    y: Float[Tensor, "batch dim"],
    t: Float[Tensor, " batch"],
    dimension: int,
) -> Float[Tensor, " batch"]:
    """Return the squared residual per squared degree of freedom, with the same weight at every time.

    Any positive weight in (y, t) keeps the minimum. Arguments are those of :func:`fokker_planck_residual`.

    References:
        Lai et al. 2023, arXiv:2210.04296, who square the residual of the scores; here that of the log density, as in
        Plainer et al. 2025, arXiv:2506.17139.
    """
    return (fokker_planck_residual(model, path, y, t, dimension) / dimension).square()


def probed_fokker_planck_loss(
    model: TimeEnergy,
    path: LinearDiffusion,
    y: Float[Tensor, "batch dim"],
    t: Float[Tensor, " batch"],
    dimension: int,
    probes: Float[Tensor, "2 batch dim"],
) -> Float[Tensor, " batch"]:
    r"""Return an unbiased estimate of :func:`fokker_planck_loss` from two probes of the divergence.

    It is the product of two residuals whose divergences are estimated independently: the square of one would add its
    variance, and the gradient would flatten the model. So a sample may be negative.

    Args:
        model: the energy and its level free energies.
        path: the noising process.
        y: where the residual is wanted.
        t: their times.
        dimension: degrees of freedom of the noise.
        probes: two independent draws of mean zero and identity covariance on the degrees of freedom: random signs in
            general, centred normals for centred positions.

    References:
        Plainer et al. 2025, arXiv:2506.17139.
    """
    slopes = directional_slopes(lambda point: model.gradient(point, t), y, probes)
    residuals = _first_order(model, path, y, t, dimension) + 0.5 * path.diffusion_squared(t) * slopes
    return residuals[0] * residuals[1] / dimension**2


def _first_order(model: TimeEnergy, path: LinearDiffusion, y: Tensor, t: Tensor, dimension: int) -> Tensor:
    """Return the residual without its second derivatives, from the score ``-gradient``."""
    gradient, rate = model.gradient(y, t), path.drift_rate(t)
    transport = rate * (dimension - (y * gradient).sum(-1))
    return time_score(model, y, t) + transport - 0.5 * path.diffusion_squared(t) * gradient.square().sum(-1)
