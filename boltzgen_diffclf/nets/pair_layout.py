"""Symmetric functions of two atoms, held once a pair or as full matrices, with cheap maps between the two.

The map from pairs to matrices and its adjoint are both gathers.  Left to itself, autograd would turn the adjoint
of each into a scatter, which does not vectorise; so each names the other as its derivative.
"""

from __future__ import annotations

from typing import Any, no_type_check

import torch
from jaxtyping import Float
from torch import Tensor, nn


@no_type_check  # torch.compile cannot trace run-time checks inside a custom derivative
class _Spread(torch.autograd.Function):
    """Pairs to flattened matrices with a zero diagonal."""

    generate_vmap_rule = True

    @staticmethod
    def forward(of_pairs: Tensor, pair_of: Tensor, upper: Tensor, lower: Tensor) -> Tensor:
        return torch.where(pair_of >= 0, of_pairs[..., pair_of.clamp(min=0)], 0.0)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs[1:])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        return _Fold.apply(gradient, *ctx.saved_tensors), None, None, None


@no_type_check
class _Fold(torch.autograd.Function):
    """Flattened matrices to pairs, ``m_ij + m_ji``: the adjoint of :class:`_Spread`."""

    generate_vmap_rule = True

    @staticmethod
    def forward(matrices: Tensor, pair_of: Tensor, upper: Tensor, lower: Tensor) -> Tensor:
        return matrices[..., upper] + matrices[..., lower]

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs[1:])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        return _Spread.apply(gradient, *ctx.saved_tensors), None, None, None


class PairLayout(nn.Module):
    """Maps between ``n (n - 1) / 2`` pairs of atoms and symmetric ``n x n`` matrices, flattened.

    >>> layout = PairLayout(3)
    >>> layout.spread(torch.tensor([1.0, 2.0, 3.0])).view(3, 3).tolist()
    [[0.0, 1.0, 2.0], [1.0, 0.0, 3.0], [2.0, 3.0, 0.0]]
    >>> layout.fold(torch.ones(9)).tolist()
    [2.0, 2.0, 2.0]
    """

    pair_of: Tensor
    upper: Tensor
    lower: Tensor

    def __init__(self, n_atoms: int) -> None:
        super().__init__()
        first, second = torch.triu_indices(n_atoms, n_atoms, offset=1)
        pair_of = torch.full((n_atoms, n_atoms), -1)
        pair_of[first, second] = pair_of[second, first] = torch.arange(len(first))
        self.register_buffer("pair_of", pair_of.flatten(), persistent=False)
        self.register_buffer("upper", first * n_atoms + second, persistent=False)
        self.register_buffer("lower", second * n_atoms + first, persistent=False)

    def spread(self, of_pairs: Float[Tensor, "*rest pairs"]) -> Float[Tensor, "*rest entries"]:
        """Return flattened symmetric matrices with a zero diagonal."""
        return _Spread.apply(of_pairs, self.pair_of, self.upper, self.lower)

    def fold(self, matrices: Float[Tensor, "*rest entries"]) -> Float[Tensor, "*rest pairs"]:
        """Return ``m_ij + m_ji`` of each pair."""
        return _Fold.apply(matrices, self.pair_of, self.upper, self.lower)
