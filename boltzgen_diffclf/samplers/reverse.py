"""The noising reversed: from noise to data by a denoiser, with fresh noise on the way or with none."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from boltzgen_diffclf.paths import DiffusionPath, unknown_share

Denoiser = Callable[[Tensor, Tensor], Tensor]
"""``(y, t) -> E[x | y]``, shapes ``(batch, dim)`` and ``(batch,)``."""


def reverse_step(
    path: DiffusionPath,
    y: Float[Tensor, "batch dim"],
    denoised: Float[Tensor, "batch dim"],
    t: Float[Tensor, " batch"],
    s: Float[Tensor, " batch"],
    noise: Float[Tensor, "batch dim"],
    churn: float,
) -> Float[Tensor, "batch dim"]:
    r"""Return a sample at ``s`` from ``y`` at ``t > s``, as if the clean sample were ``denoised``.

    ``y_s = alpha_s D + sqrt(sigma_s^2 - eta^2) (y - alpha_t D) / sigma_t + eta noise``: the marginal given ``x = D`` is
    kept for any ``eta``. With ``churn = 1``, ``eta^2 = sigma_s^2 (1 - exp(log_snr_t - log_snr_s))``, which is the
    variance of ``y_s`` given ``y_t`` and ``x``; with 0 the step is deterministic.

    Args:
        path: the noising.
        y: where the samples are.
        denoised: ``E[x | y]`` there.
        t: their times.
        s: the earlier times.
        noise: standard normal.
        churn: ``eta`` over its largest value, from 0 (DDIM, the probability flow) to 1 (the reverse SDE).

    References:
        Song, Meng & Ermon 2021, arXiv:2010.02502, eq. 12; Ho, Jain & Abbeel 2020, arXiv:2006.11239.
    """
    sigma_s = path.sigma(s)
    fresh = churn * sigma_s * unknown_share(path, s, t).sqrt()
    kept = (sigma_s.square() - fresh.square()).sqrt() / path.sigma(t)
    residual = y - path.alpha(t)[:, None] * denoised
    return path.alpha(s)[:, None] * denoised + kept[:, None] * residual + fresh[:, None] * noise


def sample_reverse(
    denoiser: Denoiser,
    path: DiffusionPath,
    times: Float[Tensor, " levels"],
    start: Float[Tensor, "batch dim"],
    generator: torch.Generator,
    *,
    churn: float = 1.0,
) -> Float[Tensor, "batch dim"]:
    """Return samples of the first level from samples of the last; exact in the limit of many levels.

    Args:
        denoiser: ``E[x | y]`` of the model or an oracle.
        path: the noising.
        times: growing; they are visited from the last to the first.
        start: samples at the last time.
        generator: on the device of ``start``; not drawn from when there is no churn.
        churn: see :func:`reverse_step`.

    Raises:
        ValueError: times that do not grow, or a churn outside [0, 1].
    """
    if not bool((times.diff() > 0).all()) or not 0 <= churn <= 1:
        raise ValueError(f"the way back needs growing times and a churn in [0, 1], got {times.tolist()} and {churn}")
    y, batch = start, len(start)
    with torch.no_grad():
        for later, earlier in zip(times.flip(0)[:-1], times.flip(0)[1:], strict=True):
            t, s = later.expand(batch), earlier.expand(batch)
            noise = torch.zeros_like(y)
            if churn > 0:
                noise = torch.randn(y.shape, generator=generator, dtype=y.dtype, device=y.device)
            y = reverse_step(path, y, denoiser(y, t), t, s, noise, churn)
    return y
