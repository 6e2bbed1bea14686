"""Groups: samples correlated with one another (the frames of one walker), which errors must treat as a whole."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int, Shaped

from boltzgen_diffclf.errors import InputError


def group_index(
    labels: Shaped[np.ndarray, " samples"] | None, n_samples: int, name: str = "groups"
) -> tuple[Int[np.ndarray, " samples"], int]:
    """Return the group of every sample as 0, 1, ... and the number of groups; ``None`` makes each sample its own.

    Raises:
        InputError: when there are not as many labels as samples, or fewer than two groups.
    """
    if labels is None:
        index, n_groups = np.arange(n_samples), n_samples
    else:
        if len(labels) != n_samples:
            raise InputError(f"{name} has {len(labels)} labels for {n_samples} samples; give one label a sample")
        unique, index = np.unique(labels, return_inverse=True)
        n_groups = len(unique)
    if n_groups < 2:
        raise InputError(
            f"{name} holds {n_groups} independent group, and an error bar needs at least two; "
            "use more walkers, or cut the walker into blocks with block_labels"
        )
    return index, n_groups


def block_labels(n_samples: int, n_blocks: int) -> Int[np.ndarray, " samples"]:
    """Return labels that cut one time series into ``n_blocks`` contiguous blocks of nearly equal length.

    >>> block_labels(5, 2).tolist()
    [0, 0, 0, 1, 1]
    """
    return np.arange(n_samples) * n_blocks // n_samples


def clustered_covariance(
    influence: Float[np.ndarray, "samples values"], index: Int[np.ndarray, " samples"], n_groups: int
) -> Float[np.ndarray, "values values"]:
    """Return the covariance of sums of ``influence`` whose samples are independent only between groups.

    Args:
        influence: change of each estimated value per unit weight of each sample; every column sums to zero.
        index: group of every sample, 0 to ``n_groups - 1``.
        n_groups: number of groups, at least two.

    References:
        Liang & Zeger 1986, Biometrika 73:13 (the robust variance), with the factor G/(G-1).
    """
    sums = np.stack([np.bincount(index, column, minlength=n_groups) for column in influence.T], axis=1)
    return sums.T @ sums * (n_groups / (n_groups - 1))


def clustered_stderr(
    influence: Float[np.ndarray, " samples"], index: Int[np.ndarray, " samples"], n_groups: int
) -> float:
    """Return the standard error of a sum of ``influence``; see :func:`clustered_covariance`."""
    return float(np.sqrt(clustered_covariance(influence[:, None], index, n_groups)[0, 0]))


def are_shared(first: Shaped[np.ndarray, " first"], second: Shaped[np.ndarray, " second"]) -> bool:
    """Return whether some walker is among both: samples of one are then samples of the other, weighted otherwise."""
    return bool(np.isin(first, second).any())


def crossed_covariance(
    influence: Float[np.ndarray, "samples values"], labels: Shaped[np.ndarray, "samples 2"]
) -> Float[np.ndarray, "values values"]:
    """Return the covariance of sums of ``influence`` over samples that two walkers made each.

    Such are configurations between two states. Two samples may share one walker, or both, which summing over the
    walkers of either kind counts twice.

    Args:
        influence: see :func:`clustered_covariance`.
        labels: both walkers of every sample; a label in both columns is one walker.

    References:
        Cameron, Gelbach & Miller 2011, J. Bus. Econ. Stat. 29:238; of walkers in both columns: Aronow, Samii & Assenova
        2015, Political Analysis 23:564.
    """
    pair, n_pairs = _pair_index(labels)
    both = clustered_covariance(influence, pair, n_pairs)
    if are_shared(*labels.T):
        apart = labels[:, 0] != labels[:, 1]
        walkers = np.concatenate([labels[:, 0], labels[apart, 1]])
        several = np.concatenate([influence, influence[apart]])
        covariance = clustered_covariance(several, *group_index(walkers, len(several)))
        twice = clustered_covariance(np.where(apart[:, None], influence, 0.0), pair, n_pairs)
    else:
        first, second = (clustered_covariance(influence, *group_index(one, len(influence))) for one in labels.T)
        covariance, twice = first + second, both
    covariance = covariance - twice
    np.fill_diagonal(covariance, np.maximum(np.diagonal(covariance), np.diagonal(both)))
    return covariance


def _pair_index(labels: Shaped[np.ndarray, "samples 2"]) -> tuple[Int[np.ndarray, " samples"], int]:
    """Return the pair of walkers of every sample, in whatever order, as 0, 1, ... and how many there are."""
    pairs = np.unique(np.sort(labels, axis=1), axis=0, return_inverse=True)[1].reshape(-1)
    return group_index(pairs, len(labels))


def crossed_stderr(influence: Float[np.ndarray, " samples"], labels: Shaped[np.ndarray, "samples 2"]) -> float:
    """Return the standard error of a sum of ``influence``; see :func:`crossed_covariance`."""
    return float(np.sqrt(crossed_covariance(influence[:, None], labels)[0, 0]))


def resampled_multiplicities(
    n_groups: int, n_bootstrap: int, generator: np.random.Generator
) -> Float[np.ndarray, "bootstrap groups"]:
    """Return how often each group enters each bootstrap replicate, ``n_groups - 1`` draws a replicate.

    One draw fewer than there are groups makes the variance of a replicate mean the unbiased one; with as many
    draws as groups, eight walkers would give an error bar 6 % too short.

    References:
        Rao & Wu 1988, J. Am. Stat. Assoc. 83:231.
    """
    uniform = np.full(n_groups, 1.0 / n_groups)
    return generator.multinomial(n_groups - 1, uniform, size=n_bootstrap).astype(np.float64)


def correlated_size(n_samples: float, independent_stderr: float, grouped_stderr: float) -> float:
    """Return the number of independent samples that would have given ``grouped_stderr``, at most ``n_samples``."""
    if not np.isfinite(grouped_stderr):
        return 0.0
    if grouped_stderr <= independent_stderr:
        return float(n_samples)
    return float(n_samples * (independent_stderr / grouped_stderr) ** 2)


def refuse_nan(values: Float[np.ndarray, "..."], name: str) -> None:
    """Raise if any value is NaN.

    Raises:
        InputError: saying how many of them.
    """
    n_nan = int(np.isnan(values).sum())
    if n_nan:
        raise InputError(
            f"{name} holds {n_nan} NaN among {values.size} values: an energy failed; find the configuration, "
            "do not drop it"
        )
