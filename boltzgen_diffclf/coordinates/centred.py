"""Positions without a centroid in an orthonormal basis: 3(N-1) coordinates in which every sampler is right."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor


def centred_basis(
    n_atoms: int, dtype: torch.dtype = torch.float64, device: torch.device | str = "cpu"
) -> Float[Tensor, "dim axes"]:
    """Return orthonormal columns that span the flat positions without a centroid, ``(3 N, 3 (N - 1))``."""
    complement = torch.linalg.svd(torch.ones(1, n_atoms, dtype=dtype, device=device)).Vh[1:].T.contiguous()
    return torch.kron(complement, torch.eye(3, dtype=dtype, device=device))


class CentredCoordinates:
    """The components of centred positions along an orthonormal basis, in which nothing else is left to move.

    Standard normal noise in these coordinates is centred noise of positions, and a density in them is the density in
    the 3(N-1) dimensional subspace: kernels, reverse processes and their weights need not know of the centroid.
    A molecular target goes in by :class:`~boltzgen_diffclf.target.TransformedTarget`, a denoiser, score or energy of
    flat positions by :meth:`field` and :meth:`energy_and_gradient`.

    Args:
        n_atoms: N, two or more.
        dtype: of the positions.
        device: of the positions.

    Raises:
        ValueError: fewer than two atoms.

    >>> CentredCoordinates(4).dimension
    9
    """

    def __init__(self, n_atoms: int, dtype: torch.dtype = torch.float64, device: torch.device | str = "cpu") -> None:
        if n_atoms < 2:
            raise ValueError(f"centred positions need two atoms or more, got {n_atoms}")
        self.basis = centred_basis(n_atoms, dtype, device)
        self.dimension = 3 * (n_atoms - 1)

    def to_cartesian(
        self, y: Float[Tensor, "batch dim"]
    ) -> tuple[Float[Tensor, "batch atoms 3"], Float[Tensor, " batch"]]:
        """Return centred positions and ``log |dx/dy|``, which is zero."""
        return self.to_flat(y).unflatten(1, (-1, 3)), y.new_zeros(len(y))

    def from_cartesian(self, x: Float[Tensor, "batch atoms 3"]) -> Float[Tensor, "batch dim"]:
        """Return the components of positions; their centroid is lost."""
        return x.flatten(1) @ self.basis

    def to_flat(self, y: Float[Tensor, "batch dim"]) -> Float[Tensor, "batch columns"]:
        """Return centred positions of ``3 N`` columns."""
        return y @ self.basis.T

    def field(self, field: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
        """Return a denoiser, score or gradient ``(y, t)`` of flat positions in these coordinates."""
        return lambda y, t: field(self.to_flat(y), t) @ self.basis

    def energy_and_gradient(
        self, energy_and_gradient: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
    ) -> Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]:
        """Return energy and gradient ``(y, t)`` of flat positions in these coordinates."""

        def inner(y: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
            energy, gradient = energy_and_gradient(self.to_flat(y), t)
            return energy, gradient @ self.basis

        return inner
