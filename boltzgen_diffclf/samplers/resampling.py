"""Resampling: from log weights to the indices of the particles that live on, every scheme with one signature."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from boltzgen_diffclf.errors import RunFailedError

MEDIAN_DEVIATION = 0.6745
"""Median distance from the median of a normal variable, in standard deviations."""


@runtime_checkable
class Resampling(Protocol):
    """A scheme: ``n`` log weights and a generator give ``n`` ancestors, each expected ``n`` times its weight."""

    def __call__(self, log_weights: Float[Tensor, " n"], generator: torch.Generator) -> Int[Tensor, " n"]:
        """Return the ancestors."""


def effective_sample_size(log_weights: Float[Tensor, " n"]) -> Float[Tensor, ""]:
    """Return ``(sum w)^2 / sum w^2``, between 1 and n.

    >>> effective_sample_size(torch.zeros(4)).item()
    4.0
    """
    return (2 * log_weights.logsumexp(0) - (2 * log_weights).logsumexp(0)).exp()


def robust_moments(values: Float[Tensor, " n"]) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """Return middle and standard deviation by medians, which a few values far away do not move.

    >>> middle, deviation = robust_moments(torch.tensor([-1.0, 0.0, 1.0, 2.0, 1e9]))
    >>> middle.item(), round(deviation.item(), 2)
    (1.0, 1.48)
    """
    middle = values.median()
    return middle, (values - middle).abs().median() / MEDIAN_DEVIATION


def log_mean_exp(log_weights: Float[Tensor, " n"]) -> Float[Tensor, ""]:
    """Return the logarithm of the mean weight.

    >>> log_mean_exp(torch.full((5,), 2.0)).item()
    2.0
    """
    return log_weights.logsumexp(0) - math.log(len(log_weights))


class Selection(NamedTuple):
    """Who lives on, and what was banked for it.

    Attributes:
        ancestors: of the particles; each its own where nothing was resampled.
        log_weights: of the particles from here on.
        banked: the log mean weight that left the particles; zero where nothing was resampled.
        effective_sample_size: of the weights on arrival.
    """

    ancestors: Int[Tensor, " n"]
    log_weights: Float[Tensor, " n"]
    banked: Float[Tensor, ""]
    effective_sample_size: Float[Tensor, ""]


def select(
    log_weights: Float[Tensor, " n"],
    resample_below: float | None,
    resampling: Resampling,
    generator: torch.Generator,
) -> Selection:
    """Return the particles resampled where their effective sample size asks for it, as they are otherwise.

    The sum of what was banked and the last :func:`log_mean_exp` estimates the ratio of normalisers.

    Args:
        log_weights: on arrival.
        resample_below: resample below this fraction of the particles; None never does.
        resampling: the scheme.
        generator: of the scheme.

    Raises:
        RunFailedError: when weights to resample are not finite.

    References:
        Del Moral, Doucet & Jasra 2006, J. R. Stat. Soc. B 68, 411, section 3.
    """
    n, size = len(log_weights), effective_sample_size(log_weights)
    # A NaN size is not above the threshold, so that broken weights are reported and not carried on.
    if resample_below is None or float(size) >= resample_below * n:
        everyone = torch.arange(n, device=log_weights.device)
        return Selection(everyone, log_weights, torch.zeros_like(size), size)
    ancestors = resampling(log_weights, generator)
    return Selection(ancestors, torch.zeros_like(log_weights), log_mean_exp(log_weights), size)


def multinomial(log_weights: Float[Tensor, " n"], generator: torch.Generator) -> Int[Tensor, " n"]:
    """Return independent draws: the noisiest scheme."""
    weights = _normalised(log_weights)
    return _quantiles(weights, _uniform(weights, len(weights), generator))


def stratified(log_weights: Float[Tensor, " n"], generator: torch.Generator) -> Int[Tensor, " n"]:
    """Return one draw from each of n equal strata of the cumulative weight.

    References:
        Douc, Cappé & Moulines 2005, arXiv:cs/0507025, section 2.
    """
    weights = _normalised(log_weights)
    strata = torch.arange(len(weights), dtype=weights.dtype, device=weights.device)
    return _quantiles(weights, (strata + _uniform(weights, len(weights), generator)) / len(weights))


def systematic(log_weights: Float[Tensor, " n"], generator: torch.Generator) -> Int[Tensor, " n"]:
    """Return a comb of n equal teeth with one random shift: every count is within one of its expectation.

    References:
        Douc, Cappé & Moulines 2005, arXiv:cs/0507025, section 2.
    """
    weights = _normalised(log_weights)
    teeth = torch.arange(len(weights), dtype=weights.dtype, device=weights.device)
    return _quantiles(weights, (teeth + _uniform(weights, 1, generator)) / len(weights))


def residual(log_weights: Float[Tensor, " n"], generator: torch.Generator) -> Int[Tensor, " n"]:
    """Return the whole part of every expected count for certain, and independent draws for the rest.

    References:
        Douc, Cappé & Moulines 2005, arXiv:cs/0507025, section 2.
    """
    weights = _normalised(log_weights)
    expected = len(weights) * weights
    certain = expected.floor().long()
    kept = torch.repeat_interleave(torch.arange(len(weights), device=weights.device), certain)
    if len(kept) >= len(weights):
        return kept[: len(weights)]
    rest = expected - certain
    drawn = _quantiles(rest / rest.sum(), _uniform(weights, len(weights) - len(kept), generator))
    return torch.cat([kept, drawn])


def _normalised(log_weights: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
    weights = torch.softmax(log_weights.double(), dim=0)
    if not bool(torch.isfinite(weights).all()):
        broken = int((~torch.isfinite(log_weights)).sum())
        raise RunFailedError(
            f"cannot resample: {broken} of {len(log_weights)} log weights are not finite; "
            "shorten the time step or start from relaxed configurations"
        )
    return weights


def _uniform(weights: Float[Tensor, " n"], count: int, generator: torch.Generator) -> Float[Tensor, " m"]:
    return torch.rand(count, generator=generator, dtype=weights.dtype, device=weights.device)


def _quantiles(weights: Float[Tensor, " n"], probability: Float[Tensor, " m"]) -> Int[Tensor, " m"]:
    """Return the smallest indices whose cumulative weight exceeds ``probability``."""
    cumulative = weights.cumsum(0)
    # Rounding may put a tooth at the total itself; it belongs to the last particle that has weight.
    below_total = torch.nextafter(cumulative[-1], torch.zeros_like(cumulative[-1]))
    return torch.searchsorted(cumulative, torch.minimum(probability, below_total), right=True)


RESAMPLINGS: Mapping[str, Resampling] = {
    "systematic": systematic,
    "stratified": stratified,
    "residual": residual,
    "multinomial": multinomial,
}
"""Schemes by name, the one that adds least noise first."""
