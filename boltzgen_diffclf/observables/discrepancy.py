"""Distances between two samples in many dimensions, for which no density is needed.

All but the maximum mean discrepancy are positive between two samples of one distribution: score a second exact
sample of the same size beside the model's, and quote that floor.
"""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float
from scipy.spatial.distance import cdist, pdist
from scipy.stats import ks_2samp

from boltzgen_diffclf.errors import InputError, RunFailedError
from boltzgen_diffclf.estimators.estimate import Measurement
from boltzgen_diffclf.estimators.groups import refuse_nan

Sample = Float[np.ndarray, "samples dim"]
Reference = Float[np.ndarray, "reference dim"]

_BANDWIDTHS = (0.25, 0.5, 1.0, 2.0, 4.0)
"""Multiples of the median distance that the kernel sums over."""

_PIVOTS = 10_000_000
"""Steps granted to the simplex method; POT's own hundred thousand end short from 2000 samples on."""


def squared_mmd(
    sample: Sample, reference: Reference, bandwidths: Float[np.ndarray, " kernels"] | None = None
) -> Measurement:
    r"""Return the squared maximum mean discrepancy, unbiased: zero on average for equal distributions.

    The kernel is ``k(x, y) = sum_b exp(-|x - y|^2 / (2 b^2))``. It holds three kernel matrices at once.

    Args:
        sample: of the model, independent, at least three.
        reference: exact samples, independent, at least three.
        bandwidths: ``b`` [unit of x]; 1/4, 1/2, 1, 2 and 4 times the median distance of the reference when None,
            so that every model is scored with the same kernel.

    Returns:
        The standard error holds both orders of the variance, so that it does not vanish at equal distributions
        as the first does; there it is up to a fifth too large.

    Raises:
        InputError: NaN, fewer than three of either, or a bandwidth that is not positive.

    References:
        Gretton et al. 2012, J. Mach. Learn. Res. 13:723, eq. 3; the variance is a jackknife less its excess in the
        second order, Efron & Stein 1981, Ann. Stat. 9:586.
    """
    _check(sample, reference, minimum=3)
    if bandwidths is None:
        bandwidths = np.array(_BANDWIDTHS) * median_distance(reference)
    if not (bandwidths > 0).all():
        raise InputError(f"bandwidths must be positive, got {bandwidths.tolist()}; the reference may be one point")
    within, among = (_without_diagonal(_kernel(points, points, bandwidths)) for points in (sample, reference))
    across = _kernel(sample, reference, bandwidths)
    value = _pair_mean(within) + _pair_mean(among) - 2 * across.mean()
    second_order = _pair_variance(within) + _pair_variance(among) + 4 * _centred_square(across) / across.size
    jackknife = _jackknife(within, across) + _jackknife(among, across.T)
    return Measurement(float(value), float(np.sqrt(max(jackknife - second_order, second_order))))


def root_discrepancy(squared: Measurement) -> Measurement:
    """Return the maximum mean discrepancy from its unbiased square, zero where that is negative.

    Unlike the square it is positive on average for equal distributions: there about the root of the square's error.

    Args:
        squared: from :func:`squared_mmd`.

    Returns:
        The standard error is what one standard error more of the square becomes under the root.

    >>> root_discrepancy(Measurement(0.25, 0.0))
    Measurement(value=0.5, stderr=0.0)
    """
    least = max(squared.value, 0.0)
    return Measurement(math.sqrt(least), math.sqrt(least + squared.stderr) - math.sqrt(least))


def median_distance(reference: Reference) -> float:
    """Return the median distance between two different members of a sample [unit of x]."""
    return float(np.median(pdist(reference.astype(np.float64))))


def sliced_wasserstein_2(
    sample: Sample, reference: Reference, generator: np.random.Generator, n_directions: int = 128
) -> float:
    r"""Return ``sqrt(mean over directions of W_2^2)`` of one-dimensional projections [unit of x].

    The mean square of a projection is ``1 / dim`` of that of the vector: a shift by v scores ``|v| / sqrt(dim)``.

    References:
        Bonneel et al. 2015, J. Math. Imaging Vis. 51:22.
    """
    from ot import sliced_wasserstein_distance

    _check(sample, reference)
    directions = random_directions(sample.shape[1], n_directions, generator)
    return float(sliced_wasserstein_distance(sample, reference, projections=directions, p=2))


def sliced_kolmogorov_smirnov(
    sample: Sample, reference: Reference, generator: np.random.Generator, n_directions: int = 128
) -> float:
    """Return the mean over directions of the largest difference of two distribution functions, 0 to 1.

    The distribution functions are the empirical ones, not binned.
    """
    _check(sample, reference)
    directions = random_directions(sample.shape[1], n_directions, generator)
    projections = zip((sample @ directions).T, (reference @ directions).T, strict=True)
    return float(np.mean([ks_2samp(one, other, method="asymp").statistic for one, other in projections]))


def wasserstein_1(sample: Sample, reference: Reference) -> float:
    """Return the exact ``W_1`` of two empirical distributions: cost ``|x - y|`` [unit of x]."""
    return _optimal_cost(sample, reference, "euclidean")


def wasserstein_2(sample: Sample, reference: Reference) -> float:
    """Return the exact ``W_2`` of two empirical distributions: cost ``|x - y|^2``, and the root [unit of x]."""
    return float(np.sqrt(_optimal_cost(sample, reference, "sqeuclidean")))


def root_wasserstein_1(sample: Sample, reference: Reference) -> float:
    """Return ``sqrt(W_1)`` [root of the unit of x]: what the code published with DiffCLF prints as its "W2"."""
    return float(np.sqrt(wasserstein_1(sample, reference)))


def random_directions(dim: int, n_directions: int, generator: np.random.Generator) -> Float[np.ndarray, "dim n"]:
    """Return independent unit vectors, uniform on the sphere, one a column."""
    directions = generator.normal(size=(dim, n_directions))
    return directions / np.linalg.norm(directions, axis=0)


def _optimal_cost(sample: Sample, reference: Reference, metric: str) -> float:
    from ot import emd2

    _check(sample, reference)
    masses = [np.full(len(points), 1 / len(points)) for points in (sample, reference)]
    cost, log = emd2(*masses, cdist(sample, reference, metric), numItermax=_PIVOTS, log=True)
    if log["warning"] is not None:
        raise RunFailedError(f"optimal transport was not solved ({log['warning']}); use smaller samples")
    return max(float(cost), 0.0)


def _check(sample: Sample, reference: Reference, minimum: int = 1) -> None:
    refuse_nan(sample, "sample")
    refuse_nan(reference, "reference")
    if min(len(sample), len(reference)) < minimum:
        raise InputError(
            f"{len(sample)} and {len(reference)} samples to compare; at least {minimum} of each are needed"
        )


def _kernel(
    x: Float[np.ndarray, "n dim"], y: Float[np.ndarray, "m dim"], bandwidths: Float[np.ndarray, " kernels"]
) -> Float[np.ndarray, "n m"]:
    squared = cdist(x.astype(np.float64), y.astype(np.float64), "sqeuclidean")
    return np.sum([np.exp(-0.5 * squared / bandwidth**2) for bandwidth in bandwidths], axis=0)


def _without_diagonal(matrix: Float[np.ndarray, "n n"]) -> Float[np.ndarray, "n n"]:
    np.fill_diagonal(matrix, 0.0)
    return matrix


def _pair_mean(matrix: Float[np.ndarray, "n n"]) -> float:
    """Return the mean of the elements off a zero diagonal."""
    return float(matrix.sum() / (len(matrix) * (len(matrix) - 1)))


def _jackknife(within: Float[np.ndarray, "n n"], across: Float[np.ndarray, "n m"]) -> float:
    """Return the jackknife variance from leaving out one member of a sample, whose own kernel is ``within``."""
    n, m = across.shape
    pairs = (within.sum() - 2 * within.sum(axis=1)) / ((n - 1) * (n - 2))
    left_out = pairs - 2 * (across.sum() - across.sum(axis=1)) / ((n - 1) * m)
    return float((n - 1) * left_out.var())


def _pair_variance(within: Float[np.ndarray, "n n"]) -> float:
    """Return the second order of the variance of a mean over pairs: ``2 E[centred kernel^2] / (n (n - 1))``."""
    n = len(within)
    rows = within.sum(axis=1) / (n - 1)
    centred = _without_diagonal(within - rows[:, None] - rows + rows.mean())
    return 2 * float(np.square(centred).sum()) / (n * (n - 1)) ** 2


def _centred_square(across: Float[np.ndarray, "n m"]) -> float:
    """Return the mean square of the kernel after both its margins are taken off."""
    centred = across - across.mean(axis=0) - across.mean(axis=1, keepdims=True) + across.mean()
    return float(np.square(centred).mean())
