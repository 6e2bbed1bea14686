"""Importance weights: how many samples they are worth, whether to believe them, and what they average to."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int, Shaped
from scipy.special import logsumexp

from boltzgen_diffclf.errors import InputError, NotTrustworthyError
from boltzgen_diffclf.estimators.estimate import Estimate
from boltzgen_diffclf.estimators.groups import clustered_stderr, correlated_size, group_index, refuse_nan

_SMALLEST_TAIL = 5
"""Weights that a Pareto tail is fitted to, at least."""


@dataclass(frozen=True)
class WeightDiagnostics:
    """What importance weights are worth.

    Attributes:
        n_samples: number of samples, those without weight among them.
        n_effective: Kish's effective size, ``(sum w)^2 / sum w^2``.
        maximum_weight: largest normalised weight, 1 when one sample carries everything.
        pareto_k: shape of the generalised Pareto tail; above :attr:`largest_pareto_k` the weighted means have no usable
            error bar.
        n_zero: samples without any weight: they are not possible in the other state.
        n_clipped: samples whose weight exceeds ``sqrt(n)`` times the mean; see :func:`clipped_weights`.
    """

    n_samples: int
    n_effective: float
    maximum_weight: float
    pareto_k: float
    n_zero: int
    n_clipped: int

    @property
    def effective_fraction(self) -> float:
        """Kish's effective size as a share of the samples."""
        return self.n_effective / self.n_samples

    @property
    def largest_pareto_k(self) -> float:
        """See :func:`largest_pareto_k`."""
        return largest_pareto_k(self.n_samples)

    @property
    def reliable(self) -> bool:
        """Whether the tail is light enough, for this many samples, that means and error bars hold."""
        return self.pareto_k <= self.largest_pareto_k


def largest_pareto_k(n_samples: int) -> float:
    """Return the largest shape with which so many samples give a usable mean, ``min(1 - 1 / log10(n), 0.7)``.

    References:
        Vehtari et al. 2024, J. Mach. Learn. Res. 25(72), eq. 13.
    """
    return min(1 - 1 / float(np.log10(max(n_samples, 2))), 0.7)


@dataclass(frozen=True)
class WeightedMean:
    """A self-normalised importance-sampling mean, its standard error and Kish's effective size."""

    value: float
    stderr: float
    n_effective: float


def effective_sample_size(log_w: Float[np.ndarray, " samples"]) -> float:
    """Return Kish's effective size ``(sum w)^2 / sum w^2``, between 1 and the number of samples.

    It is high also when a whole mode is missing: it sees only the samples that are there.

    References:
        Kish 1965, Survey Sampling.

    >>> effective_sample_size(np.log(np.array([1.0, 1.0, 2.0])))  # 16 / 6
    2.6666666666666665
    """
    weights = normalised_weights(log_w)
    return float(1.0 / np.sum(weights**2))


def normalised_weights(log_w: Float[np.ndarray, " samples"]) -> Float[np.ndarray, " samples"]:
    """Return weights that sum to one; a log weight of ``-inf`` is a weight of zero.

    Raises:
        InputError: on NaN or ``+inf``.
        NotTrustworthyError: when all weights are zero.
    """
    refuse_nan(log_w, "log_w")
    if np.isposinf(log_w).any():
        raise InputError(
            f"log_w holds {int(np.isposinf(log_w).sum())} values of +inf; a sample cannot have infinite weight: "
            "check the energies"
        )
    if len(log_w) == 0 or np.isneginf(log_w).all():
        raise NotTrustworthyError(
            f"all of the {len(log_w)} weights are zero: no sample is possible in the other state; add states"
        )
    return np.exp(log_w - logsumexp(log_w))


def sample_weights(log_w: Float[np.ndarray, " samples"] | None, n_samples: int) -> Float[np.ndarray, " samples"]:
    """Return weights that sum to one, equal ones where there are no log weights.

    Raises:
        InputError: see :func:`normalised_weights`.
        NotTrustworthyError: see there.
    """
    return np.full(n_samples, 1.0 / n_samples) if log_w is None else normalised_weights(log_w)


def diagnose_weights(log_w: Float[np.ndarray, " samples"]) -> WeightDiagnostics:
    """Return what weights are worth: effective size, largest weight, Pareto shape, how many are none or extreme."""
    weights = normalised_weights(log_w)
    return WeightDiagnostics(
        n_samples=len(weights),
        n_effective=float(1 / np.sum(weights**2)),
        maximum_weight=float(weights.max()),
        pareto_k=pareto_smoothed(log_w)[1],
        n_zero=int((weights == 0).sum()),
        n_clipped=int((weights > 1 / np.sqrt(len(weights))).sum()),
    )


def family_log_weights(
    log_w: Float[np.ndarray, " samples"], root: Int[np.ndarray, " samples"], n_roots: int
) -> Float[np.ndarray, " roots"]:
    """Return the log weight of each family, ``-inf`` where it has died out: what resampled particles are worth.

    Particles that descend from one are copies of it that moved a little. Kish's effective size of their own weights is
    high after any resampling; that of the families is not, and a mean's error is the scatter between families.

    Args:
        log_w: unnormalised log weights of the particles.
        root: which independent particle at the start each descends from.
        n_roots: number of these.

    Raises:
        InputError: on NaN.

    References:
        Chan & Lai 2013, Ann. Stat. 41:2877; Lee & Whiteley 2018, Biometrika 105:609.
    """
    refuse_nan(log_w, "log_w")
    top = float(log_w.max(initial=-np.inf))
    if not np.isfinite(top):
        return np.full(n_roots, -np.inf)
    with np.errstate(divide="ignore"):
        return top + np.log(np.bincount(root, np.exp(log_w - top), minlength=n_roots))


def clipped_weights(log_w: Float[np.ndarray, " samples"]) -> Float[np.ndarray, " samples"]:
    """Return normalised log weights none of which exceeded ``sqrt(n)`` times the mean: less variance, and a bias.

    Clipping changes the normaliser: say beside the mean how many weights it touched
    (:attr:`WeightDiagnostics.n_clipped`).

    References:
        Ionides 2008, J. Comput. Graph. Stat. 17:295.
    """
    weights = normalised_weights(log_w)
    with np.errstate(divide="ignore"):
        clipped = np.log(np.minimum(weights, 1 / np.sqrt(len(weights))))
    return clipped - float(logsumexp(clipped))


def pareto_smoothed(log_w: Float[np.ndarray, " samples"]) -> tuple[Float[np.ndarray, " samples"], float]:
    """Return normalised log weights with a smoothed upper tail, and the shape k-hat of that tail.

    The largest ``min(n / 5, 3 sqrt(n))`` weights are replaced by the expected order statistics of the generalised
    Pareto distribution fitted to them, never above the largest raw weight. With fewer than 25 samples, or fewer than
    five weights above the rest (all but a few being zero, say), there is nothing to fit: the weights are returned as
    they are, with an infinite k-hat; with a tail without spread, with ``-inf``.

    References:
        Vehtari, Simpson, Gelman, Yao & Gabry 2024, J. Mach. Learn. Res. 25(72).
    """
    log_weights = np.log(np.maximum(normalised_weights(log_w), np.finfo(np.float64).tiny))
    n_samples = len(log_weights)
    n_tail = int(np.ceil(min(0.2 * n_samples, 3 * np.sqrt(n_samples))))
    if n_tail < _SMALLEST_TAIL:
        return log_weights, float("inf")
    order = np.argsort(log_weights, kind="stable")
    tail, scale = order[-n_tail:], float(log_weights.max())
    threshold = np.exp(log_weights[order[-n_tail - 1]] - scale)
    exceedances = np.exp(log_weights[tail] - scale) - threshold
    if exceedances[-1] <= 1e-10:
        return log_weights, float("-inf")
    if (exceedances > 0).sum() < _SMALLEST_TAIL:
        return log_weights, float("inf")
    shape, width = _fit_generalised_pareto(exceedances)
    quantiles = (np.arange(1, n_tail + 1) - 0.5) / n_tail
    smoothed = threshold + _generalised_pareto_quantile(quantiles, shape, width)
    log_weights[tail] = np.log(np.minimum(smoothed, 1.0)) + scale
    return log_weights - float(logsumexp(log_weights)), shape


def _fit_generalised_pareto(exceedances: Float[np.ndarray, " tail"]) -> tuple[float, float]:
    """Return shape and width of a generalised Pareto law by the quasi-Bayesian fit, shape pulled to 1/2.

    References:
        Zhang & Stephens 2009, Technometrics 51:316; Vehtari et al. 2024 (the prior on the shape).
    """
    exceedances = exceedances[exceedances > 0]
    n = len(exceedances)
    n_grid = 30 + int(np.sqrt(n))
    quartile = exceedances[int(n / 4 + 0.5) - 1]
    grid = 1 - np.sqrt(n_grid / (np.arange(1, n_grid + 1) - 0.5))
    rate = grid / (3 * quartile) + 1 / exceedances[-1]
    shapes = np.log1p(-rate[:, None] * exceedances).mean(axis=1)
    log_likelihood = n * (np.log(-rate / shapes) - shapes - 1)
    posterior_rate = float(np.exp(log_likelihood - logsumexp(log_likelihood)) @ rate)
    shape = float(np.log1p(-posterior_rate * exceedances).mean())
    width = -shape / posterior_rate
    return (n * shape + 10 * 0.5) / (n + 10), width


def _generalised_pareto_quantile(
    probability: Float[np.ndarray, " tail"], shape: float, width: float
) -> Float[np.ndarray, " tail"]:
    if abs(shape) < 1e-12:
        return -width * np.log1p(-probability)
    return width * np.expm1(-shape * np.log1p(-probability)) / shape


def reweighted_mean(
    values: Float[np.ndarray, " samples"],
    log_w: Float[np.ndarray, " samples"],
    groups: Shaped[np.ndarray, " samples"] | None = None,
) -> WeightedMean:
    """Return the self-normalised weighted mean; its standard error treats each group as one draw.

    The mean is biased by O(1/n).

    References:
        Owen 2013, Monte Carlo theory, methods and examples, ch. 9.
    """
    refuse_nan(values, "values")
    index, n_groups = group_index(groups, len(values))
    weights = normalised_weights(log_w)
    mean = float(weights @ values)
    stderr = clustered_stderr(weights * (values - mean), index, n_groups)
    return WeightedMean(mean, stderr, float(1 / np.sum(weights**2)))


def free_energy_from_weights(
    log_w: Float[np.ndarray, " samples"], groups: Shaped[np.ndarray, " samples"] | None = None
) -> Estimate:
    """Return F_B - F_A [kT] ``= -ln mean(w)`` of samples of A (or annealed from A) weighted towards B.

    ``n_effective`` is Kish's size of the weights, divided by how much larger the walkers make the variance.

    Args:
        log_w: ``u_A - u_B`` [kT] of each sample, or minus the work.
        groups: walker of every sample; the standard error treats each as one draw.
    """
    weights = normalised_weights(log_w)
    influence = weights - 1 / len(weights)
    independent, stderr = (clustered_stderr(influence, *group_index(labels, len(log_w))) for labels in (None, groups))
    value = -float(logsumexp(log_w) - np.log(len(log_w)))
    size = correlated_size(float(1 / np.sum(weights**2)), independent, stderr)
    return Estimate(value, stderr, None, size, "reweighting")
