"""Time series of many walkers: correlation times, effective sizes, and whether the walkers agree."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.stats import chi2, norm, rankdata

from boltzgen_diffclf.errors import InputError
from boltzgen_diffclf.estimators.groups import refuse_nan

_WINDOW = 5.0

CROSSINGS = 10
"""Either way, fewer of which tell no relaxation time."""


def autocorrelation(x: Float[np.ndarray, "walkers frames"]) -> Float[np.ndarray, " frames"]:
    """Return the autocorrelation at every lag, pooled over walkers about their common mean.

    The common mean makes walkers that are stuck in different basins count as correlated, as they are.

    Raises:
        InputError: on NaN.
    """
    refuse_nan(x, "time series")
    n_walkers, n_frames = x.shape
    centred = x - x.mean()
    spectrum = np.fft.rfft(centred, n=2 * n_frames, axis=1)
    covariance = np.fft.irfft((np.abs(spectrum) ** 2).sum(axis=0), n=2 * n_frames)[:n_frames]
    covariance /= n_walkers * np.arange(n_frames, 0, -1)
    if covariance[0] <= np.finfo(np.float64).eps * np.abs(x).max() ** 2:
        return np.ones(n_frames)
    return covariance / covariance[0]


def statistical_inefficiency(x: Float[np.ndarray, "walkers frames"]) -> float:
    """Return g = 1 + 2 sum of the autocorrelation: how many frames one independent sample costs.

    The sum stops at the first lag that exceeds five correlation times. Where there is none, because the walkers
    are shorter than that or nothing ever changed, g is the number of frames: a walker counts as one sample. What
    walkers never forget may be less than a fifth of the variance and hide behind what they forget at once, so g is at
    least what the scatter of their means says, by its lower bound of 95 % confidence.

    References:
        Sokal 1997, Monte Carlo Methods in Statistical Mechanics, sec. 3; Madras & Sokal 1988, J. Stat. Phys.
        50:109, appendix C.
    """
    n_walkers, n_frames = x.shape
    correlation_time = 0.5 + np.cumsum(autocorrelation(x)[1:])
    beyond = np.flatnonzero(np.arange(1, n_frames) >= _WINDOW * correlation_time)
    if len(beyond) == 0:
        return float(n_frames)
    by_scatter = 0.0
    if n_walkers > 1 and x.var() > 0:
        least = (n_walkers - 1) / chi2.ppf(0.95, n_walkers - 1)
        by_scatter = n_frames * least * x.mean(axis=1).var(ddof=1) / x.var()
    return float(np.clip(max(2 * correlation_time[beyond[0]], by_scatter), 1.0, n_frames))


def effective_frames(x: Float[np.ndarray, "walkers frames"]) -> float:
    """Return the number of independent samples among all frames of all walkers."""
    return x.size / statistical_inefficiency(x)


def decorrelated_indices(x: Float[np.ndarray, "walkers frames"]) -> Int[np.ndarray, " kept"]:
    """Return the frames to keep, the same of every walker, one each statistical inefficiency."""
    return np.arange(0, x.shape[1], math.ceil(statistical_inefficiency(x)))


def split_r_hat(x: Float[np.ndarray, "walkers frames"]) -> float:
    """Return R-hat of the halved walkers: 1 when they agree, above 1.01 when they have not yet mixed.

    References:
        Gelman et al. 2013, Bayesian Data Analysis, eq. 11.4.
    """
    refuse_nan(x, "time series")
    half = x.shape[1] // 2
    if half < 2:
        raise InputError(f"R-hat needs four frames a walker, got {x.shape[1]}; run longer")
    halves = np.concatenate([x[:, :half], x[:, -half:]])
    within = halves.var(axis=1, ddof=1).mean()
    between = halves.mean(axis=1).var(ddof=1)
    if within == 0.0:
        return 1.0 if between == 0.0 else math.inf
    return float(np.sqrt((half - 1) / half + between / within))


def rank_normalised_split_r_hat(x: Float[np.ndarray, "walkers frames"]) -> float:
    """Return the larger R-hat of ranks and of folded ranks, which also sees heavy tails and unequal spreads.

    References:
        Vehtari, Gelman, Simpson, Carpenter & Bürkner 2021, Bayesian Analysis 16:667, sec. 4.
    """
    refuse_nan(x, "time series")
    folded = np.abs(x - np.median(x))
    return max(split_r_hat(_normal_scores(x)), split_r_hat(_normal_scores(folded)))


def _normal_scores(x: Float[np.ndarray, "walkers frames"]) -> Float[np.ndarray, "walkers frames"]:
    ranks = rankdata(x, axis=None).reshape(x.shape)
    return np.asarray(norm.ppf((ranks - 0.375) / (x.size + 0.25)))


def relaxation_time(inside: Bool[np.ndarray, "walkers frames"]) -> float:
    """Return the time, in frames, in which a state forgets who was in it: ``1 / (rate in + rate out)``.

    From what is remembered after a lag and after twice as long, ``1 - p(in) - p(out)`` of a chain of two states, so
    that neither returns across the edge nor the populations that walkers began with count. The lag is the first of 1,
    2, 4, ... frames that is half of it, or the last after which anything is remembered. Infinite where walkers came in
    or went out fewer than :data:`CROSSINGS` times, or cross the edge to and fro and forget no more in twice the time:
    nobody knows.

    References:
        Swope, Pitera & Suits 2004, J. Phys. Chem. B 108:6571.
    """
    moves = np.diff(inside.astype(np.int8), axis=1)
    if min((moves > 0).sum(), (moves < 0).sum()) < CROSSINGS:
        return math.inf
    lag, early = 1, _remembered(inside, 1)
    time = math.inf if early > 0.5 else 0.0
    while 2 * lag < inside.shape[1]:
        late = _remembered(inside, 2 * lag)
        if min(early, late) <= 0 or 0.5 >= early <= late:
            break
        time = lag / math.log(early / late) if late < early else math.inf
        if time <= 2 * lag:
            break
        lag, early = 2 * lag, late
    return time


def _remembered(inside: Bool[np.ndarray, "walkers frames"], lag: int) -> float:
    before, behind = inside[:, :-lag], inside[:, lag:]
    entered, left = (before < behind).sum(), (before > behind).sum()
    return float(1 - entered / max((~before).sum(), 1) - left / max(before.sum(), 1))


@dataclass(frozen=True)
class WalkerScatter:
    """How far walkers agree on the population of a basin.

    Attributes:
        population: mean over walkers.
        stderr: standard error of that mean, from the scatter between walkers.
        scatter: standard deviation between walkers.
        smallest: lowest population of any walker.
        largest: highest population of any walker.
    """

    population: float
    stderr: float
    scatter: float
    smallest: float
    largest: float


def walker_scatter(in_basin: Bool[np.ndarray, "walkers frames"]) -> WalkerScatter:
    """Return how the walkers scatter in the share of frames that they spend in a basin.

    Raises:
        InputError: with fewer than two walkers.
    """
    if len(in_basin) < 2:
        raise InputError(f"{len(in_basin)} walker shows no scatter; use at least two")
    populations = in_basin.mean(axis=1)
    scatter = float(populations.std(ddof=1))
    return WalkerScatter(
        float(populations.mean()),
        scatter / math.sqrt(len(populations)),
        scatter,
        float(populations.min()),
        float(populations.max()),
    )
