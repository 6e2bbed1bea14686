"""Positions without their centroid as plain vectors: what a diffusion sees of a molecule."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn


class CentredCoordinates(nn.Module):
    r"""Positions ``x`` without their centroid as ``3 (atoms - 1)`` numbers, ``y = B^T x / length``.

    The columns of ``B`` are orthonormal and span the vectors over atoms that sum to zero. So every column of ``y`` is
    a degree of freedom: independent normal noise of ``y`` is noise of ``x`` that moves no centroid, and normalisers and
    weights that count columns count ``3 (atoms - 1)``. Rotations act on ``x`` and on ``y`` alike (``B`` mixes atoms,
    never directions): a density that is invariant in the one is so in the other.

    Args:
        n_atoms: two or more.
        length_nm: unit of ``y`` [nm].

    Raises:
        ValueError: fewer than two atoms, or a length that is not positive.

    >>> coordinates = CentredCoordinates(3, 0.5)
    >>> x = torch.tensor([[[1.0, 0.0, 0.0], [-1.0, 0.0, 0.0], [0.0, 0.0, 0.0]]])
    >>> coordinates.positions(coordinates.from_cartesian(x)).sub(x).abs().max().item() < 1e-6
    True
    """

    basis: Tensor
    length_nm: Tensor

    def __init__(self, n_atoms: int, length_nm: float) -> None:
        super().__init__()
        if n_atoms < 2 or not length_nm > 0:
            raise ValueError(f"centred positions need two atoms and a positive length, got {n_atoms} and {length_nm}")
        self.n_atoms, self.dimension = n_atoms, 3 * (n_atoms - 1)
        self.register_buffer("basis", _helmert_basis(n_atoms).float(), persistent=False)
        self.register_buffer("length_nm", torch.tensor(length_nm))

    def from_cartesian(self, x: Float[Tensor, "batch atoms 3"]) -> Float[Tensor, "batch dim"]:
        """Return the coordinates of positions [nm]; the centroid drops out."""
        return (self.basis.T @ x).flatten(1) / self.length_nm

    def positions(self, y: Float[Tensor, "batch dim"]) -> Float[Tensor, "batch atoms 3"]:
        """Return centred positions [nm]."""
        return self.length_nm * (self.basis @ y.unflatten(1, (-1, 3)))

    def to_cartesian(
        self, y: Float[Tensor, "batch dim"]
    ) -> tuple[Float[Tensor, "batch atoms 3"], Float[Tensor, " batch"]]:
        """Return centred positions [nm] and ``log |dx/dy|`` in the space without a centroid."""
        return self.positions(y), (self.dimension * self.length_nm.log()).expand(len(y))


def _helmert_basis(n_atoms: int) -> Float[Tensor, "atoms axes"]:
    """Return orthonormal columns that sum to zero: atom ``k`` against the mean of those before it."""
    columns = []
    for k in range(1, n_atoms):
        column = torch.zeros(n_atoms, dtype=torch.float64)
        column[:k], column[k] = 1.0, -float(k)
        columns.append(column / math.sqrt(k * (k + 1)))
    return torch.stack(columns, dim=1)
