"""Slopes of a vector field along directions, and their sum: what objectives and the probability flow need."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor


def directional_slopes(
    field: Callable[[Tensor], Tensor], y: Float[Tensor, "batch dim"], directions: Float[Tensor, "directions batch dim"]
) -> Float[Tensor, "directions batch"]:
    r"""Return ``v^T J v`` for each direction, ``J`` the Jacobian of a field that acts on each configuration alone.

    For directions of identity covariance on the degrees of freedom, its mean is the divergence.

    References:
        Hutchinson 1989, Commun. Stat. Simul. Comput. 18, 1059.

    >>> y = torch.zeros(1, 2)
    >>> directional_slopes(lambda x: 3 * x, y, torch.ones(1, 1, 2)).tolist()
    [[6.0]]
    """
    pullback = torch.func.vjp(field, y)[1]
    return torch.func.vmap(lambda v: (pullback(v)[0] * v).sum(-1))(directions)


def divergence(field: Callable[[Tensor], Tensor], y: Float[Tensor, "batch dim"]) -> Float[Tensor, " batch"]:
    """Return the exact divergence of the field, at the price of one derivative a coordinate."""
    axes = torch.eye(y.shape[1], dtype=y.dtype, device=y.device)
    return directional_slopes(field, y, axes[:, None].expand(-1, len(y), -1)).sum(0)
