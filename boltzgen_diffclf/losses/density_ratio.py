"""Bregman losses of density ratios: other divergences than that of the cross-entropy, with the same minimum.

Each asks for ``E_s a(g) + E_t b(g)`` of the log ratio ``g = l_t - l_s`` with ``l = F - U``, and is least at the true
``g = log p_t - log p_s``. Like the classification loss they do not see a factor ``c(y)`` that both densities share.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor


class RatioTerms(NamedTuple):
    """What a log ratio costs.

    Attributes:
        at_start: ``a(g)``, at a sample of ``p_s``.
        at_end: ``b(g)``, at a sample of ``p_t``.
    """

    at_start: Float[Tensor, "*batch"]
    at_end: Float[Tensor, "*batch"]


def jensen_shannon_terms(log_ratio: Float[Tensor, "*batch"]) -> RatioTerms:
    """Return ``softplus(g)`` and ``softplus(-g)``, see :func:`jensen_shannon_ratio_loss`."""
    softplus = torch.nn.functional.softplus
    return RatioTerms(softplus(log_ratio), softplus(-log_ratio))


def kullback_leibler_terms(log_ratio: Float[Tensor, "*batch"], ceiling: float = 20.0) -> RatioTerms:
    """Return ``exp(g)``, above the ceiling its tangent, and ``-g``, see :func:`kullback_leibler_ratio_loss`."""
    below = log_ratio.clamp(max=ceiling).exp()
    above = math.exp(ceiling) * (log_ratio - ceiling).clamp(min=0)
    return RatioTerms(below + above, -log_ratio)


def jensen_shannon_ratio_loss(
    log_ratio_at_start: Float[Tensor, "*batch"], log_ratio_at_end: Float[Tensor, "*batch"]
) -> Float[Tensor, "*batch"]:
    r"""Bregman loss of the Jensen-Shannon divergence, ``E_s softplus(g) + E_t softplus(-g)``.

    Its least value is ``2 log 2 - 2 JS(p_s, p_t)``, at the true log ratio ``g = log p_t - log p_s``. It is twice the
    mean of :func:`binary_classification_loss`.

    Args:
        log_ratio_at_start: ``g(y) = l_t(y) - l_s(y)`` [nats] at ``y ~ p_s``, with ``l = F - U``.
        log_ratio_at_end: the same ``g`` at ``y ~ p_t``.

    References:
        Menon & Ong 2016, Linking losses for density ratio and class-probability estimation.
    """
    return jensen_shannon_terms(log_ratio_at_start).at_start + jensen_shannon_terms(log_ratio_at_end).at_end


def kullback_leibler_ratio_loss(
    log_ratio_at_start: Float[Tensor, "*batch"], log_ratio_at_end: Float[Tensor, "*batch"], ceiling: float = 20.0
) -> Float[Tensor, "*batch"]:
    r"""Bregman loss of the Kullback-Leibler divergence, ``E_s exp(g) - E_t g``, with a bounded slope.

    Its least value is ``1 - KL(p_t, p_s)``, at the true log ratio ``g = log p_t - log p_s``. Above ``ceiling`` the
    exponential goes on along its tangent: held constant there, as is also seen, the loss has no minimum, for it falls
    forever as ``g`` grows on the samples of ``p_t``. True ratios above the ceiling are out of reach either way.

    Args:
        log_ratio_at_start: ``g(y) = l_t(y) - l_s(y)`` [nats] at ``y ~ p_s``, with ``l = F - U``.
        log_ratio_at_end: the same ``g`` at ``y ~ p_t``.
        ceiling: largest ``g`` whose exponential is taken.

    References:
        Nguyen, Wainwright & Jordan 2010, IEEE Trans. Inf. Theory 56, 5847.
    """
    at_start, at_end = (kullback_leibler_terms(one, ceiling) for one in (log_ratio_at_start, log_ratio_at_end))
    return at_start.at_start + at_end.at_end
