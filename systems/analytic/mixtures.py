"""Gaussian mixtures by name, in double precision; ``.to`` moves them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from systems.analytic.gaussian_mixture import GaussianMixture


def gaussian(dimension: int = 2, mean: float = 0.0, sigma: float = 1.0) -> GaussianMixture:
    """Return the isotropic normal as the mixture of one, ``u = |x - mean|^2 / (2 sigma^2)``: log Z is not zero.

    Args:
        dimension: of the space.
        mean: in every coordinate.
        sigma: standard deviation of every coordinate.

    >>> round(gaussian(dimension=2, sigma=2.0).log_normaliser, 4)
    3.2242
    """
    if not (dimension >= 1 and sigma > 0):
        raise ValueError(f"a normal needs dimension >= 1 and sigma > 0, got {dimension} and {sigma}")
    one = torch.ones(1, dtype=torch.float64)
    log_normaliser = 0.5 * dimension * math.log(2 * math.pi * sigma**2)
    return GaussianMixture(one, mean * one.expand(1, dimension), sigma * one, log_normaliser)


def mixture_1d(
    weights: Sequence[float] = (0.25, 0.75),
    means: Sequence[float] = (-2.0, 2.0),
    sigmas: Sequence[float] = (0.5, 0.7),
) -> GaussianMixture:
    """Return a mixture on the line.

    Args:
        weights: of the modes, in any scale.
        means: of the modes.
        sigmas: of the modes.

    Raises:
        ValueError: lists of different lengths, or weights or sigmas that are not positive.
    """
    return _from_lists(weights, [(mean,) for mean in means], sigmas)


def mixture_2d(
    weights: Sequence[float] = (0.2, 0.3, 0.5),
    means: Sequence[tuple[float, float]] = ((-3.0, 0.0), (2.0, 2.5), (1.5, -2.0)),
    sigmas: Sequence[float] = (0.4, 0.8, 0.6),
) -> GaussianMixture:
    """Return a mixture in the plane.

    Args:
        weights: of the modes, in any scale.
        means: of the modes.
        sigmas: of the modes.

    Raises:
        ValueError: see :func:`mixture_1d`.
    """
    return _from_lists(weights, means, sigmas)


def ring_of_clusters(
    n_clusters: int = 8, radius: float = 4.0, sigma: float = 0.3, weights: Sequence[float] | None = None
) -> GaussianMixture:
    """Return clusters in the plane, evenly spaced on a circle about the origin.

    Args:
        n_clusters: how many; the first is at angle zero.
        radius: of the circle.
        sigma: of each cluster.
        weights: of the clusters, in any scale; equal if not given.

    Raises:
        ValueError: see :func:`mixture_1d`.
    """
    angles = [2 * math.pi * k / n_clusters for k in range(n_clusters)]
    means = [(radius * math.cos(angle), radius * math.sin(angle)) for angle in angles]
    return _from_lists([1.0] * n_clusters if weights is None else weights, means, [sigma] * n_clusters)


def crossing_ellipses(
    radius: float = 1.6, sigmas: tuple[float, float] = (0.32, 0.16)
) -> tuple[GaussianMixture, GaussianMixture]:
    """Return two mixtures on the corners of a pentagon that share three of the corners, where their ellipses cross.

    The first has lying ellipses at the corners 0 to 3, the second standing ones at 1 to 4, and what is heavy in one
    is light in the other.

    Args:
        radius: of the pentagon; its corner 0 is at angle zero.
        sigmas: of every ellipse along its long and its short axis.
    """
    corners = ring_of_clusters(5, radius).means
    lying = torch.tensor(sigmas, dtype=torch.float64).expand(4, 2)
    weights = torch.tensor([[0.30, 0.45, 0.20, 0.05], [0.10, 0.20, 0.50, 0.20]], dtype=torch.float64)
    return (
        GaussianMixture(weights[0], corners[:4], lying),
        GaussianMixture(weights[1], corners[1:], lying.flip(1)),
    )


def two_modes(dimension: int = 2, separation: float = 5.0) -> GaussianMixture:
    """Return ``2/3 N(-separation, 0.05 I) + 1/3 N(+separation, 0.05 I)``, the means equal in all coordinates.

    Args:
        dimension: of the space.
        separation: of each mode from the origin, in every coordinate.

    References:
        OuYang et al. 2026, arXiv:2601.21025.
    """
    centre = torch.full((1, dimension), separation, dtype=torch.float64)
    sigmas = torch.full((2,), math.sqrt(0.05), dtype=torch.float64)
    return GaussianMixture(torch.tensor([2.0, 1.0], dtype=torch.float64), torch.cat([-centre, centre]), sigmas)


def mog40(dimension: int = 2, seed: int = 0) -> GaussianMixture:
    """Return 40 equal modes with means uniform in ``(-40, 40)`` and standard deviation ``softplus(1) = 1.313``.

    Args:
        dimension: of the space.
        seed: of the means; 0 is the published set.

    References:
        Midgley et al. 2023, arXiv:2208.01893.
    """
    return uniform_modes(40, dimension, half_width=40.0, softplus_argument=1.0, seed=seed)


def uniform_modes(
    n_modes: int, dimension: int, half_width: float, softplus_argument: float, seed: int
) -> GaussianMixture:
    """Return equal modes with means uniform in a cube about the origin: the form in which benchmarks state theirs.

    Args:
        n_modes: components.
        dimension: of the space.
        half_width: of the cube.
        softplus_argument: the standard deviation of the modes is ``softplus`` of it.
        seed: of the means.
    """
    # Single precision, first numbers of a fresh stream: so are the published sets drawn.
    uniform = torch.rand(n_modes, dimension, generator=torch.Generator().manual_seed(seed), dtype=torch.float32)
    means = (2 * uniform.double() - 1) * half_width
    ones = torch.ones(n_modes, dtype=torch.float64)
    return GaussianMixture(ones, means, math.log1p(math.exp(softplus_argument)) * ones)


def standardised(mixture: GaussianMixture) -> GaussianMixture:
    """Return the mixture of ``(x - mean) / standard deviation`` by coordinate, with the same log Z.

    Published mixture benchmarks are learned in these coordinates. The density there is that of ``x`` times the
    product of the standard deviations.
    """
    scale = mixture.variance.sqrt()
    means = (mixture.means - mixture.mean) / scale
    return GaussianMixture(mixture.weights, means, mixture.variances.sqrt() / scale, mixture.log_normaliser)


def _from_lists(
    weights: Sequence[float], means: Sequence[tuple[float, ...]], sigmas: Sequence[float]
) -> GaussianMixture:
    if not len(weights) == len(means) == len(sigmas) > 0:
        raise ValueError(
            f"every mode needs a weight, a mean and a sigma, got {len(weights)}, {len(means)} and {len(sigmas)}"
        )
    return GaussianMixture(
        torch.tensor(weights, dtype=torch.float64),
        torch.tensor(means, dtype=torch.float64),
        torch.tensor(sigmas, dtype=torch.float64),
    )
