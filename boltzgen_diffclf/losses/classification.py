"""The diffusive classification loss: tell from a noised sample which noise level made it."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def level_classification_loss(
    energies: Float[Tensor, "batch levels levels"], free_energies: Float[Tensor, "batch levels"]
) -> Float[Tensor, "batch levels"]:
    r"""Cross-entropy [nats] of naming the level that produced each sample, among the levels of its group.

    Args:
        energies: ``[b, i, j]`` is ``U(y_i, t_j)`` [kT] for ``y_i ~ p(t_i)``; a constant per ``[b, i]`` is free.
        free_energies: ``F(t_j)`` of the group's levels, defined up to one constant.

    Returns:
        Per sample; its mean is ``log(levels)`` when the model cannot tell the levels apart.

    References:
        OuYang, Grenioux & Hernandez-Lobato 2026, arXiv:2601.21025, eq. 10.

    >>> level_classification_loss(torch.zeros(1, 2, 2), torch.zeros(1, 2)).mean().item()  # doctest: +ELLIPSIS
    0.693...
    """
    log_posterior = torch.log_softmax(free_energies.unsqueeze(-2) - energies, dim=-1)
    return -log_posterior.diagonal(dim1=-2, dim2=-1)


def binary_classification_loss(
    energies: Float[Tensor, "batch 2 2"], free_energies: Float[Tensor, "batch 2"]
) -> Float[Tensor, "batch 2"]:
    r"""The two-level loss, ``1/2 E_s softplus(l_t - l_s) + 1/2 E_t softplus(l_s - l_t)`` with ``l = F - U``.

    Args:
        energies: ``[b, i, j]`` is ``U(y_i, t_j)`` [kT].
        free_energies: ``F(t_j)``.

    References:
        OuYang, Grenioux & Hernandez-Lobato 2026, arXiv:2601.21025, eq. 8.
    """
    log_density = free_energies.unsqueeze(-2) - energies
    margin = log_density.diagonal(dim1=-2, dim2=-1) - log_density.flip(-1).diagonal(dim1=-2, dim2=-1)
    return torch.nn.functional.softplus(-margin)
