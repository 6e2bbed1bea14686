"""Score-matching objectives: what the gradient of the energy should be, sample by sample."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def denoising_score_matching_loss(
    gradient: Float[Tensor, "*batch dim"],
    noise: Float[Tensor, "*batch dim"],
    gamma: Float[Tensor, "*batch dim"],
    dimension: int,
) -> Float[Tensor, "*batch"]:
    r"""Squared error of the energy's gradient against the conditional score, times ``gamma^2`` per coordinate.

    The conditional score of ``y = mean + gamma z`` is ``-z / gamma`` and the model's is ``-gradient``, so the
    residual is ``gamma * gradient - z``. Where ``gamma = 0`` (exact ends) there is nothing to match: zero.

    Args:
        gradient: ``dU(y, t)/dy`` [kT per unit of y].
        noise: the ``z`` that made ``y``.
        gamma: its standard deviation, broadcast to every coordinate.
        dimension: degrees of freedom, which makes the value about 1 for a zero network.

    References:
        Vincent 2011; OuYang et al. 2026, arXiv:2601.21025, eq. 4.
    """
    # At an exact end the gradient may be infinite, and infinity times a weight of zero would be NaN.
    residual = torch.where(gamma > 0, gamma * gradient - noise, 0.0)
    return residual.square().sum(-1) / dimension


def endpoint_target_score_matching_loss(
    gradient: Float[Tensor, "*batch dim"],
    force_0: Float[Tensor, "*batch dim"],
    force_1: Float[Tensor, "*batch dim"],
    t: Float[Tensor, "*batch"],
    scale: Float[Tensor, "*batch dim"],
    dimension: int,
) -> Float[Tensor, "*batch"]:
    r"""Squared error against the physical force of the nearer end, carried along the path.

    For an interpolant of independent ends ``score(y, t) = E[s_0(X_0) / (1 - t) | y] = E[s_1(X_1) / t | y]``, with
    ``s_i`` the force over kT; the nearer end has the smaller variance. Exact for independent ends; with transport
    pairing it is the same up to the coupling's own score, so it is a regulariser for small pools.

    Args:
        gradient: ``dU(y, t)/dy`` [kT per unit of y].
        force_0: ``-grad u_A`` at ``x_0`` [kT per unit].
        force_1: ``-grad u_B`` at ``x_1`` [kT per unit].
        t: where on the path.
        scale: weight of the residual per coordinate, usually ``gamma(t)``.
        dimension: degrees of freedom.

    References:
        De Bortoli et al. 2024, arXiv:2402.08667, target score identity, here at both ends of an interpolant.
    """
    time = t.unsqueeze(-1)
    near_start = (time < 0.5).to(gradient.dtype)
    weight_0 = near_start / (1 - time).clamp(min=0.5)
    weight_1 = (1 - near_start) / time.clamp(min=0.5)
    residual = scale * (gradient + weight_0 * force_0 + weight_1 * force_1)
    return residual.square().sum(-1) / dimension


def denoiser_matching_loss(
    denoised: Float[Tensor, "*batch axes"], clean: Float[Tensor, "*batch axes"], weight: Float[Tensor, "*batch axes"]
) -> Float[Tensor, "*batch"]:
    r"""Weighted mean squared error of the denoiser ``E[x | y]`` against the clean sample that made ``y``.

    By Tweedie ``D - x = (sigma^2 / alpha) (score + z / sigma)``: denoising score matching, without the division by an
    ``alpha`` that vanishes in the noise.

    Args:
        denoised: what the energy implies, differentiable in its parameters.
        clean: ``x``, in the same axes.
        weight: positive; see :meth:`~boltzgen_diffclf.noised_energy.NoisedEnergyModel.denoising_weight`.

    References:
        Vincent 2011; Karras et al. 2022, arXiv:2206.00364.
    """
    return (weight * (denoised - clean).square()).mean(-1)


def clean_sample_by_force(
    x: Float[Tensor, "batch dim"],
    y: Float[Tensor, "batch dim"],
    data_score: Float[Tensor, "batch dim"],
    coefficients: tuple[Float[Tensor, " batch"], Float[Tensor, " batch"]],
    width: Float[Tensor, ""],
) -> Float[Tensor, "batch dim"]:
    r"""Return what has the mean ``E[x | y]`` of the clean sample and, where there is little noise, hardly varies.

    ``E[x | y] = E[(y + sigma^2 score_0(x) / alpha) / alpha | y]``: denoising and target score matching in one. Under a
    Gaussian of the variance ``width^2`` the two err in opposite directions, so that
    ``(1 - c) x + c (y + sigma^2 score_0(x) / alpha) / alpha`` with ``c = alpha^2 width^2 / (alpha^2 width^2 +
    sigma^2)`` does not vary at all; along wider directions it varies by ``(1 - c)^2`` of what ``x`` does.

    Args:
        x: clean samples.
        y: ``alpha x + sigma z``.
        data_score: ``grad log p_0`` at ``x``, or anything whose mean given ``x`` is that: forces on some of the atoms.
        coefficients: ``alpha`` and ``sigma``.
        width: of the finest structure of the data; zero leaves ``x``.

    References:
        De Bortoli et al. 2024, arXiv:2402.08667, for the identity of target scores.
    """
    alpha, sigma = (value[:, None] for value in coefficients)
    share = (alpha * width).square() / ((alpha * width).square() + sigma.square())
    return torch.lerp(x, (y + sigma.square() / alpha * data_score) / alpha, share)


def target_score_matching_loss(
    gradient: Float[Tensor, "batch dim"],
    data_score: Float[Tensor, "batch dim"],
    alpha: Float[Tensor, " batch"],
    dimension: int,
) -> Float[Tensor, " batch"]:
    r"""Squared error of ``alpha`` times the energy's gradient against the force at the clean sample, a coordinate.

    For ``y = alpha x + sigma z`` the score at ``y`` is ``E[score_0(x) | y] / alpha``. The variance of that target
    vanishes with the noise, where that of denoising grows; the factor ``alpha`` leaves the noisy levels unheard.

    Args:
        gradient: ``dU(y, t)/dy`` [kT per unit of y].
        data_score: ``grad log p_0`` at the ``x`` that made ``y``.
        alpha: what is left of the data at ``t``.
        dimension: degrees of freedom.

    References:
        De Bortoli et al. 2024, arXiv:2402.08667, target score identity and target score matching.
    """
    return (alpha[:, None] * gradient + data_score).square().sum(-1) / dimension
