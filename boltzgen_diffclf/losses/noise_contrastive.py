"""Noise contrast: tell data from samples of a known density, and learn an energy with its normaliser."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor


def noise_contrastive_loss(
    energy: Callable[[Tensor], Tensor],
    noise_log_density: Callable[[Tensor], Tensor],
    data: Float[Tensor, "batch dim"],
    noise: Float[Tensor, "batch draws dim"],
    log_normaliser: Float[Tensor, ""],
    noise_ratio: float = 1.0,
) -> Float[Tensor, " batch"]:
    r"""Return ``softplus(-D(data)) + nu softplus(D(noise))`` with ``D = -U - c - log(nu p_n)``, noise averaged.

    The minimum is ``exp(-U - c) = p_data``: the normalised density, so that ``c`` becomes ``log Z`` when the energy has
    no constant of its own. For ``nu`` to infinity its efficiency becomes that of maximum likelihood.

    Args:
        energy: ``U`` [kT], one value a configuration.
        noise_log_density: normalised ``log p_n``.
        data: samples of the density to be learned.
        noise: samples of ``p_n``, for each datum one or more, whose mean stands for the expectation.
        log_normaliser: ``c``, learned.
        noise_ratio: ``nu``, the odds of noise in the classification; it need not be the number of draws.

    Raises:
        ValueError: when the noise ratio is not positive.

    References:
        Gutmann & Hyvarinen 2012, J. Mach. Learn. Res. 13, 307.
    """
    if not noise_ratio > 0:
        raise ValueError(f"the noise ratio must be positive, got {noise_ratio}")
    log_ratio = torch.as_tensor(noise_ratio, dtype=data.dtype, device=data.device).log()

    def logit(x: Tensor) -> Tensor:
        return -energy(x) - log_normaliser - noise_log_density(x) - log_ratio

    noise_logit = logit(noise.flatten(0, 1)).unflatten(0, noise.shape[:2])
    softplus = torch.nn.functional.softplus
    return softplus(-logit(data)) + noise_ratio * softplus(noise_logit).mean(1)
