"""Distances between two Ramachandran distributions, on limits that no sample decides.

Both depend on the number of samples: quote it, and the noise floor, beside every figure.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from jaxtyping import Float, Shaped
from scipy.special import rel_entr

from boltzgen_diffclf.errors import InputError
from boltzgen_diffclf.estimators.groups import group_index, refuse_nan
from boltzgen_diffclf.observables.ramachandran import torsion_bins

_JS_BINS = 64
_INNER_BINS = 62
_EMPTY_BIN = 1e-6

Torsions = Float[np.ndarray, "samples 2"]


def jensen_shannon(p: Float[np.ndarray, "*bins"], q: Float[np.ndarray, "*bins"]) -> float:
    """Return the Jensen-Shannon divergence [nats] of two histograms, 0 to ln 2; both are normalised first.

    References:
        Lin 1991, IEEE Trans. Inf. Theory 37:145.

    >>> round(jensen_shannon(np.array([1.0, 0.0]), np.array([0.0, 1.0])), 4)
    0.6931
    """
    p, q = p / p.sum(), q / q.sum()
    middle = 0.5 * (p + q)
    return float(0.5 * rel_entr(p, middle).sum() + 0.5 * rel_entr(q, middle).sum())


def log_ratio_error(p: Float[np.ndarray, "*bins"], q: Float[np.ndarray, "*bins"]) -> float:
    """Return ``sum_b (p_b + q_b) / 2 * (ln p_b - ln q_b)^2`` [kT^2]; an empty bin counts as 1e-6."""
    p, q = (np.where(mass > 0, mass, _EMPTY_BIN) for mass in (p / p.sum(), q / q.sum()))
    return float(np.sum(0.5 * (p + q) * (np.log(p) - np.log(q)) ** 2))


def ramachandran_jensen_shannon(torsions_p: Torsions, torsions_q: Torsions) -> float:
    """Return the Jensen-Shannon divergence [nats] of two sets of (phi, psi) [rad], 64 x 64 bins on [-pi, pi)^2."""
    p, q = (
        np.bincount(torsion_bins(torsions[:, 0], torsions[:, 1], _JS_BINS), minlength=_JS_BINS**2).astype(np.float64)
        for torsions in (torsions_p, torsions_q)
    )
    return jensen_shannon(p, q)


def ramachandran_pmf_error(torsions_p: Torsions, torsions_q: Torsions) -> float:
    """Return the squared difference [kT^2] of two potentials of mean force, weighted by the mean population.

    62 bins a side on [-pi, pi] and one outlier bin at each end. Compare only sets of equal size.
    """
    return log_ratio_error(_histogram_with_outliers(torsions_p), _histogram_with_outliers(torsions_q))


def noise_floor(
    divergence: Callable[[Torsions, Torsions], float],
    torsions: Torsions,
    groups: Shaped[np.ndarray, " samples"],
    generator: np.random.Generator,
) -> float:
    """Return the divergence of two disjoint random halves of the walkers: what a perfect model would score.

    The halves hold half the samples each, so the floor of the whole set is about half of this.

    Args:
        divergence: of two sets of torsions.
        torsions: (phi, psi) [rad].
        groups: walker of every sample; a walker is never split.
        generator: chooses the halves.
    """
    index, n_groups = group_index(groups, len(torsions))
    first = np.zeros(n_groups, dtype=np.bool_)
    first[generator.permutation(n_groups)[: n_groups // 2]] = True
    return divergence(torsions[first[index]], torsions[~first[index]])


def _histogram_with_outliers(torsions: Torsions) -> Float[np.ndarray, "bins bins"]:
    refuse_nan(torsions, "torsions")
    if len(torsions) == 0:
        raise InputError("no torsions to compare; the sampler returned nothing")
    edges = np.concatenate([[-np.inf], np.linspace(-np.pi, np.pi, _INNER_BINS + 1), [np.inf]])
    along = [np.searchsorted(edges[1:-1], angle, side="right") for angle in torsions.T]
    bins = _INNER_BINS + 2
    return np.bincount(along[0] * bins + along[1], minlength=bins**2).astype(np.float64).reshape(bins, bins)
