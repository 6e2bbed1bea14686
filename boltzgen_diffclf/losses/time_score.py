"""Time score matching: what the time derivative of the log density should be, sample by sample."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from boltzgen_diffclf.energy import TimeEnergy


def time_score(model: TimeEnergy, y: Float[Tensor, "batch dim"], t: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
    """Return ``d/dt log p(y, t) = F'(t) - dU/dt`` [kT], differentiable in the model's parameters."""
    free_energy_rate = torch.func.jvp(model.free_energy, (t,), (torch.ones_like(t),))[1]
    return free_energy_rate - model.time_derivative(y, t)


def time_score_matching_loss(
    model: TimeEnergy,
    y: Float[Tensor, "batch dim"],
    t: Float[Tensor, " batch"],
    conditional_time_score: Float[Tensor, " batch"],
    gamma: Float[Tensor, " batch"],
    dimension: int,
) -> Float[Tensor, " batch"]:
    r"""Squared error of the model's time score against the conditional one, times ``gamma^2 / dimension``.

    The mean of the conditional time score given ``(y, t)`` is ``d/dt log p_t(y)``, so that is where the minimum lies.
    It says nothing about a factor ``c(y)`` that all levels share, as no objective of time alone can. Where
    ``gamma = 0`` (exact ends) there is nothing to match: zero.

    For ``y = mean(t) + gamma(t) z`` the target is ``(gamma'/gamma) (|z|^2 - dimension) + <mean', z> / gamma``; the
    sign before the second term is plus.

    Args:
        model: the energy and its level free energies.
        y: samples at ``t``.
        t: their times.
        conditional_time_score: ``d/dt log p(y | ends)`` at fixed y, from the path that made the samples.
        gamma: standard deviation of the noise at ``t``.
        dimension: degrees of freedom.

    References:
        Yu, Klami, Hyvarinen, Korba & Chehab 2025, arXiv:2502.02300: conditional time score matching.
    """
    # The target is infinite at an exact end, and infinity times a weight of zero would be NaN.
    target = torch.where(gamma > 0, conditional_time_score, 0.0)
    residual = gamma * (time_score(model, y, t) - target)
    return residual.square() / dimension
