"""The Gaussian of the data: what a noised energy is before it has learned anything, and how fine the data is."""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn


class DataGaussian(nn.Module):
    """Mean, principal axes and variances of the data before any noise.

    Args:
        mean: of the data.
        covariance: a scalar, one variance a column, or the full matrix.
        centred: whether ``y`` holds centred positions, ``dim = 3 * atoms``: data and noise then live in the
            3 (atoms - 1) dimensions without a centroid, and so does every normaliser.
        sites: orthonormal columns that lead from ``y``, three columns an axis, to the atoms that it is about; where
            not given, every column of ``y`` is a site of its own, or every atom where ``centred``.

    Raises:
        ValueError: if a variance along an axis is not positive, the matrix is not symmetric, or the shapes disagree.
    """

    mean: Tensor
    axes: Tensor | None
    sites: Tensor | None
    variance: Tensor

    def __init__(
        self,
        mean: Float[Tensor, " dim"],
        covariance: Float[Tensor, ""] | Float[Tensor, " dim"] | Float[Tensor, "dim dim"],
        *,
        centred: bool = False,
        sites: Float[Tensor, "sites axes"] | None = None,
    ) -> None:
        super().__init__()
        if centred and (len(mean) < 6 or len(mean) % 3):
            raise ValueError(f"centred positions need three columns an atom and two atoms or more, got {len(mean)}")
        variance, axes = covariance.expand(len(mean)) if covariance.ndim < 2 else covariance, None
        if centred or variance.ndim == 2:
            matrix = variance if variance.ndim == 2 else variance.diag()
            if not torch.allclose(matrix, matrix.T, atol=1e-6 * float(matrix.abs().max())):
                raise ValueError("the covariance is not symmetric; give the full matrix or only the variances")
            basis = _centred_basis(mean) if centred else torch.eye(len(mean), dtype=mean.dtype, device=mean.device)
            variance, rotation = torch.linalg.eigh(basis.T @ matrix @ basis)
            axes, mean = basis @ rotation, basis @ (basis.T @ mean)
        # Rounding leaves a zero eigenvalue at about eps times the largest, of either sign.
        smallest, floor = float(variance.min()), torch.finfo(variance.dtype).eps * float(variance.max())
        if not smallest > floor:
            raise ValueError(f"the data must vary along every axis; the least variance is {smallest:.3g}: add a ridge")
        self.register_buffer("mean", mean.clone())
        self.register_buffer("variance", variance.clone())
        self.register_buffer("axes", axes)
        if centred:
            sites = torch.eye(len(mean) // 3).to(mean) - 3 / len(mean)
        self.register_buffer("sites", sites, persistent=False)

    @property
    def n_sites(self) -> int:
        """What can move alone: atoms, or columns."""
        return len(self.mean) if self.sites is None else len(self.sites)

    def at_sites(
        self, noise: Float[Tensor, "batch dim"], chosen: Bool[Tensor, "batch sites"]
    ) -> Float[Tensor, "batch dim"]:
        """Return noise of the chosen sites alone, without a centroid of atoms."""
        if self.sites is None:
            return noise * chosen
        moved = self.sites @ noise.unflatten(1, (-1, 3)) * chosen[:, :, None]
        return (self.sites.T @ moved).flatten(1)

    def along(self, y: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch axes"]:
        """Return the components of ``y`` along the principal axes."""
        return y if self.axes is None else y @ self.axes

    def back(self, components: Float[Tensor, "*batch axes"]) -> Float[Tensor, "*batch dim"]:
        """Return the vector that has these components along the principal axes."""
        return components if self.axes is None else components @ self.axes.T


def data_resolution(x: Float[Tensor, "samples dim"], generator: torch.Generator, probes: int = 512) -> float:
    r"""Return the width below which samples show no structure [unit of x].

    ``sqrt(r^2 / (2 d))`` with the median distance ``r`` of some samples to their nearest neighbour: two draws of one
    normal of width ``rho`` are ``sqrt(2 d) rho`` apart, and the nearest of many draws are closer. So this is a width
    that the data is not narrower than; with many samples in few dimensions it goes to zero.

    Args:
        x: samples of the data.
        generator: chooses the probes.
        probes: samples whose neighbours are looked for.
    """
    chosen = torch.randperm(len(x), generator=generator)[:probes].to(x.device)
    distances = torch.cat([torch.cdist(part, x) for part in x[chosen].split(64)])
    distances[torch.arange(len(chosen), device=x.device), chosen] = math.inf
    return float(distances.amin(1).median()) / math.sqrt(2 * x.shape[1])


def _centred_basis(mean: Float[Tensor, " dim"]) -> Float[Tensor, "dim axes"]:
    """Return orthonormal columns that span the positions without a centroid."""
    complement = torch.linalg.svd(mean.new_ones(1, len(mean) // 3)).Vh[1:].T.contiguous()
    return torch.kron(complement, torch.eye(3, dtype=mean.dtype, device=mean.device))
