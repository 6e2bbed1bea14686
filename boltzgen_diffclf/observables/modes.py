r"""Weights of the modes of a known mixture, in samples and in a learned energy.

Modes are assigned by their responsibilities ``r_k(x) = w_k p_k(x) / sum_j w_j p_j(x)`` under the exact mixture. The
mean of ``r_k`` over samples of the mixture is ``w_k`` even where the modes overlap, which a count of likeliest modes
(:func:`assigned_modes`) is not; but every mode then has a share of its neighbours' tails.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy.special import logsumexp
from scipy.stats import binom

from boltzgen_diffclf.errors import InputError
from boltzgen_diffclf.estimators.groups import refuse_nan
from boltzgen_diffclf.estimators.reweighting import WeightDiagnostics, diagnose_weights, normalised_weights

_FORGOTTEN = 0.05
"""Share of the smallest true weight below which a mode counts as forgotten."""


class ModeWeights(NamedTuple):
    """Logarithms of the weights of the modes, whose exponentials sum to one, and standard errors of the weights."""

    log_weights: Float[np.ndarray, " modes"]
    stderr: Float[np.ndarray, " modes"]


class ModeErrors(NamedTuple):
    """How far weights of modes are from the true ones.

    Attributes:
        total_variation: ``1/2 sum_k |p_k - w_k|``.
        kullback_leibler: ``sum_k w_k ln(w_k / p_k)`` [nats], infinite when a mode is empty.
        forgotten: modes with less than 5 % of the smallest true weight.
    """

    total_variation: float
    kullback_leibler: float
    forgotten: float


def assigned_modes(responsibilities: Float[np.ndarray, "samples modes"]) -> Float[np.ndarray, "samples modes"]:
    """Return 1 at the likeliest mode of each sample and 0 elsewhere: responsibilities without the tails.

    >>> assigned_modes(np.array([[0.3, 0.7]])).tolist()
    [[0.0, 1.0]]
    """
    return np.eye(responsibilities.shape[1])[responsibilities.argmax(axis=1)]


def sampled_mode_weights(responsibilities: Float[np.ndarray, "samples modes"]) -> ModeWeights:
    """Return the weights of the modes in independent samples.

    Args:
        responsibilities: of the exact mixture at the samples; rows sum to one.
    """
    _check(responsibilities)
    weights = responsibilities.mean(axis=0)
    with np.errstate(divide="ignore"):
        log_weights = np.log(weights)
    return ModeWeights(log_weights, responsibilities.std(axis=0, ddof=1) / np.sqrt(len(responsibilities)))


def energy_mode_weights(
    energy: Float[np.ndarray, " samples"],
    log_density: Float[np.ndarray, " samples"],
    responsibilities: Float[np.ndarray, "samples modes"],
) -> tuple[ModeWeights, WeightDiagnostics]:
    r"""Return the weights of the modes in the unnormalised density ``exp(-U)``, whatever a sampler would visit.

    Self-normalised importance sampling from the exact mixture: the weight of mode k is the mean of ``r_k`` under
    ``w = exp(-U) / p``. This is where a model fitted by scores alone fails: its samplers never compare the energies
    of distant modes.

    Args:
        energy: ``U(x)`` [kT] at independent samples of the exact mixture, at one level.
        log_density: ``log p(x)`` of the mixture there; a constant is free.
        responsibilities: of the mixture there. A mode that is wrong by hundreds of kT disappears behind its share
            of the others' tails: see it with :func:`assigned_modes`.

    Returns:
        The weights, and what the importance weights are worth: without effective samples the standard errors,
        linear in the noise, are far too small. Mass of ``exp(-U)`` away from the mixture is not seen.

    References:
        Owen 2013, Monte Carlo theory, methods and examples, ch. 9 (the standard error).
    """
    _check(responsibilities)
    log_w = -energy.astype(np.float64) - log_density.astype(np.float64)
    weights = normalised_weights(log_w)
    with np.errstate(divide="ignore"):
        log_shares = np.log(responsibilities.astype(np.float64))
    # In logarithms, because a mode that is wrong by 1000 kT is to be told from an empty one.
    log_weights = logsumexp((log_w - logsumexp(log_w))[:, None] + log_shares, axis=0)
    influence = weights[:, None] * (responsibilities - np.exp(log_weights))
    return ModeWeights(log_weights, np.sqrt(np.square(influence).sum(axis=0))), diagnose_weights(log_w)


def mode_errors(log_weights: Float[np.ndarray, " modes"], true_weights: Float[np.ndarray, " modes"]) -> ModeErrors:
    """Return how far weights of modes, given by their logarithms, are from the true ones.

    >>> mode_errors(np.log(np.array([0.25, 0.75])), np.array([0.5, 0.5])).total_variation
    0.25
    """
    true_weights = _normalised(true_weights)
    weights = np.exp(log_weights)
    return ModeErrors(
        total_variation=float(0.5 * np.abs(weights - true_weights).sum()),
        kullback_leibler=float(true_weights @ (np.log(true_weights) - log_weights)),
        forgotten=float((weights < _FORGOTTEN * true_weights.min()).sum()),
    )


def mode_error_floor(true_weights: Float[np.ndarray, " modes"], n_samples: int) -> ModeErrors:
    r"""Return what ``n_samples`` independent samples of modes that do not overlap score on average.

    Total variation and forgotten modes are exact, from the binomial law of each count; the divergence is its
    leading order ``(modes - 1) / (2 n)`` and holds while no count is likely to be zero.

    References:
        de Moivre 1730, Miscellanea Analytica (mean absolute deviation of the binomial law).
    """
    weights = _normalised(true_weights)
    above = np.floor(n_samples * weights) + 1
    deviation = 2 * above * (1 - weights) * binom.pmf(above, n_samples, weights) / n_samples
    # Strictly fewer than the threshold, as in mode_errors.
    few = np.ceil(_FORGOTTEN * weights.min() * n_samples) - 1
    return ModeErrors(
        total_variation=float(0.5 * deviation.sum()),
        kullback_leibler=(len(weights) - 1) / (2 * n_samples),
        forgotten=float(binom.cdf(few, n_samples, weights).sum()),
    )


def _normalised(true_weights: Float[np.ndarray, " modes"]) -> Float[np.ndarray, " modes"]:
    if not (true_weights > 0).all():
        raise InputError(f"true weights of modes must be positive, the smallest is {true_weights.min()}")
    return true_weights / true_weights.sum()


def _check(responsibilities: Float[np.ndarray, "samples modes"]) -> None:
    refuse_nan(responsibilities, "responsibilities")
    if len(responsibilities) < 2 or not np.allclose(responsibilities.sum(axis=1), 1.0, atol=1e-4):
        raise InputError(
            f"responsibilities of {len(responsibilities)} samples: two are needed, and every row must sum to one"
        )
