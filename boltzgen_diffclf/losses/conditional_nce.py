"""Conditional noise contrast: tell a sample from its own perturbation, at one level, where log Z cancels."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from boltzgen_diffclf.energy import TimeEnergy


def conditional_noise_contrastive_loss(
    model: TimeEnergy,
    y: Float[Tensor, "batch dim"],
    perturbed: Float[Tensor, "batch dim"],
    t: Float[Tensor, " batch"],
    log_kernel_ratio: Float[Tensor, " batch"],
) -> Float[Tensor, " batch"]:
    r"""Return ``softplus(U(y, t) - U(y', t) - log q(y' | y) + log q(y | y'))`` for ``y' ~ q(. | y)``.

    Both energies belong to the level that made ``y``, so ``F`` cancels and is not learned. The minimum is the true
    density up to a constant a level, wherever the kernel leads; between modes that it hardly ever bridges, the
    relative weight is hardly seen. With a short symmetric kernel it becomes score matching.

    Args:
        model: the energy.
        y: samples at ``t``.
        perturbed: ``y'``.
        t: the level of both.
        log_kernel_ratio: ``log q(y' | y) - log q(y | y')`` of normalised kernels; zero for a symmetric one.

    References:
        Ceylan & Gutmann 2018, arXiv:1806.03664.
    """
    difference = model.energy(y, t) - model.energy(perturbed, t)
    return torch.nn.functional.softplus(difference - log_kernel_ratio)
