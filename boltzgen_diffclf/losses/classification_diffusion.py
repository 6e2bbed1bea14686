"""The two objectives of classification diffusion: name the noise level, and find the noise."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor


def noise_level_cross_entropy_loss(
    logits: Float[Tensor, "batch classes"], label: Int[Tensor, " batch"]
) -> Float[Tensor, " batch"]:
    """Cross-entropy [nats] of naming the level that made each sample, among all levels.

    Least at the true posterior, but nearly flat in the shape of ``log p_t``: alone it leaves the denoiser bad.

    Args:
        logits: unnormalised ``log P(t | y)``.
        label: the level that made ``y``.

    References:
        Yadin, Elata & Michaeli 2024, arXiv:2402.10095, section Method.

    >>> noise_level_cross_entropy_loss(torch.zeros(1, 4), torch.tensor([3])).item()  # doctest: +ELLIPSIS
    1.386...
    """
    return torch.nn.functional.cross_entropy(logits, label, reduction="none")


def noise_prediction_loss(
    denoised: Float[Tensor, "batch dim"], noise: Float[Tensor, "batch dim"]
) -> Float[Tensor, " batch"]:
    """Mean squared error a coordinate of ``E[eps | y_t]`` against the noise that made ``y_t``.

    Blind to one constant a level, so alone it leaves the likelihood bad. At the clean level the denoiser is zero and
    the loss a constant; at the pure noise it is zero.

    Args:
        denoised: what the model finds, differentiable in its parameters.
        noise: the ``eps`` that made ``y_t``.

    References:
        Yadin, Elata & Michaeli 2024, arXiv:2402.10095, theorem 3.1: the denoiser from the gradient of the logits.
    """
    return (denoised - noise).square().mean(-1)


def classification_diffusion_loss(
    logits: Float[Tensor, "batch classes"],
    denoised: Float[Tensor, "batch dim"],
    label: Int[Tensor, " batch"],
    noise: Float[Tensor, "batch dim"],
    cross_entropy_weight: float = 0.001,
) -> Float[Tensor, " batch"]:
    """Noise prediction plus a little cross-entropy, per sample: shapes from the one, constants from the other.

    Args:
        logits: unnormalised ``log P(t | y)``, see :func:`noise_level_cross_entropy_loss`.
        denoised: ``E[eps | y_t]`` of the model, see :func:`noise_prediction_loss`.
        label: the level of each sample, drawn with the model's class probabilities, both ends included.
        noise: the ``eps`` that made it.
        cross_entropy_weight: of the cross-entropy against the squared error.

    References:
        Yadin, Elata & Michaeli 2024, arXiv:2402.10095, with the weight of its image models as the default.
    """
    cross_entropy = noise_level_cross_entropy_loss(logits, label)
    return noise_prediction_loss(denoised, noise) + cross_entropy_weight * cross_entropy
