"""Distances between two Ramachandran distributions, on limits that no sample decides.

All depend on the number of samples: quote it, and the noise floor, beside every figure.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Shaped
from scipy.special import rel_entr

from boltzgen_diffclf.errors import InputError
from boltzgen_diffclf.estimators.groups import group_index, refuse_nan
from boltzgen_diffclf.estimators.reweighting import normalised_weights
from boltzgen_diffclf.observables.ramachandran import torsion_bins

_JS_BINS = 64
_INNER_BINS = 62
_EMPTY_BIN = 1e-6

Torsions = Float[np.ndarray, "samples 2"]
LogWeights = Float[np.ndarray, " samples"]


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


def ramachandran_jensen_shannon(
    torsions_p: Float[np.ndarray, "p_samples 2"],
    torsions_q: Float[np.ndarray, "q_samples 2"],
    log_w_p: Float[np.ndarray, " p_samples"] | None = None,
) -> float:
    """Return the Jensen-Shannon divergence [nats] of two sets of (phi, psi) [rad], 64 x 64 bins on [-pi, pi)^2.

    The first set may be weighted.
    """
    return jensen_shannon(_histogram(torsions_p, log_w_p), _histogram(torsions_q))


def pooled_range_jensen_shannon(
    torsions_p: Float[np.ndarray, "p_samples 2"],
    torsions_q: Float[np.ndarray, "q_samples 2"],
    log_w_p: Float[np.ndarray, " p_samples"] | None = None,
) -> float:
    """Return the same on 64 x 64 bins between the smallest and the largest angle of both sets together.

    It is how the figures of score-based models of alanine dipeptide were published. One outlier moves every bin, so
    it is for that comparison alone.

    References:
        Plainer et al. 2025, arXiv:2506.17139 (the score-based models, their code).
    """
    pooled = np.concatenate([torsions_p, torsions_q])
    refuse_nan(pooled, "torsions")
    edges = [np.linspace(angle.min(), angle.max(), _JS_BINS + 1) for angle in pooled.T]
    weights = None if log_w_p is None else normalised_weights(log_w_p)
    p, _ = np.histogramdd(torsions_p, edges, weights=weights)
    q, _ = np.histogramdd(torsions_q, edges)
    return jensen_shannon(p, q)


def ramachandran_pmf_error(
    torsions_p: Float[np.ndarray, "p_samples 2"],
    torsions_q: Float[np.ndarray, "q_samples 2"],
    log_w_p: Float[np.ndarray, " p_samples"] | None = None,
) -> float:
    """Return the squared difference [kT^2] of two potentials of mean force, weighted by the mean population.

    62 bins a side on [-pi, pi] and one outlier bin at each end. Compare only sets of equal size. The first set may be
    weighted.
    """
    return log_ratio_error(_histogram_with_outliers(torsions_p, log_w_p), _histogram_with_outliers(torsions_q))


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
    first = half_of_walkers(groups, len(torsions), generator)
    return divergence(torsions[first], torsions[~first])


@dataclass(frozen=True)
class AboveFloor:
    """A divergence of a sample from a reference, and what the reference scores against itself at equal sizes.

    Attributes:
        value: mean over the splits of the reference.
        floor: the same with the other half of the reference in the place of the sample.
        stderr: of the excess: its scatter from halving to halving. All halvings share their frames, so that the mean is
            hardly better known than one of them.
        n_samples: size of the three sets that were compared.
    """

    value: float
    floor: float
    stderr: float
    n_samples: int

    @property
    def excess(self) -> float:
        """Divergence above the floor; zero on average for a perfect model."""
        return self.value - self.floor


def divergence_above_floor(
    divergence: Callable[..., float],
    sample: Shaped[np.ndarray, "sampled values"],
    reference: Shaped[np.ndarray, "samples values"],
    groups: Shaped[np.ndarray, " samples"],
    generator: np.random.Generator,
    log_w: Float[np.ndarray, " sampled"] | None = None,
    n_splits: int = 8,
) -> AboveFloor:
    """Return a divergence from one half of the reference, beside that of the other half, all sets equally large.

    The larger sets are thinned at random. The floor is that of unweighted samples: a weighted sample is worth fewer.

    Args:
        divergence: of a sample, a reference and log weights of the sample or None, such as
            :func:`ramachandran_jensen_shannon`.
        sample: what it takes of the model, such as (phi, psi) [rad], a row a frame.
        reference: the same of the reference.
        groups: walker of every frame of the reference; a walker is never split.
        generator: chooses halves and frames.
        log_w: unnormalised log weights of the sample.
        n_splits: number of random halvings, at least two.

    Raises:
        InputError: fewer than two splits, or an empty set.
    """
    if n_splits < 2:
        raise InputError(f"{n_splits} split shows no scatter; use at least two")
    pairs = []
    for _ in range(n_splits):
        half = half_of_walkers(groups, len(reference), generator)
        here, there = reference[half], reference[~half]
        n = min(len(sample), len(here), len(there))
        chosen, one, other = (generator.permutation(size)[:n] for size in map(len, (sample, here, there)))
        weights = None if log_w is None else log_w[chosen]
        value = divergence(sample[chosen], here[one], weights)
        pairs.append((value, divergence(there[other], here[one], None), n))
    values, floors, sizes = np.array(pairs).T
    scatter = float((values - floors).std(ddof=1))
    return AboveFloor(float(values.mean()), float(floors.mean()), scatter, int(sizes.min()))


def half_of_walkers(
    groups: Shaped[np.ndarray, " samples"], n_samples: int, generator: np.random.Generator
) -> Bool[np.ndarray, " samples"]:
    """Return which samples are of a random half of the walkers."""
    index, n_groups = group_index(groups, n_samples)
    first = np.zeros(n_groups, dtype=np.bool_)
    first[generator.permutation(n_groups)[: n_groups // 2]] = True
    return first[index]


def _histogram(torsions: Torsions, log_w: LogWeights | None = None) -> Float[np.ndarray, " bins"]:
    cell = torsion_bins(torsions[:, 0], torsions[:, 1], _JS_BINS)
    weights = None if log_w is None else normalised_weights(log_w)
    return np.bincount(cell, weights, minlength=_JS_BINS**2).astype(np.float64)


def _histogram_with_outliers(torsions: Torsions, log_w: LogWeights | None = None) -> Float[np.ndarray, "bins bins"]:
    refuse_nan(torsions, "torsions")
    if len(torsions) == 0:
        raise InputError("no torsions to compare; the sampler returned nothing")
    edges = np.linspace(-np.pi, np.pi, _INNER_BINS + 1)
    along = [np.searchsorted(edges, angle, side="right") for angle in torsions.T]
    bins = _INNER_BINS + 2
    weights = None if log_w is None else normalised_weights(log_w)
    return np.bincount(along[0] * bins + along[1], weights, minlength=bins**2).astype(np.float64).reshape(bins, bins)
