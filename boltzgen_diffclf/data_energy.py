"""The energy ``U_theta(x)`` of data without any noise: what the classical objectives learn."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from boltzgen_diffclf.data_gaussian import DataGaussian


class DataEnergyModel(nn.Module):
    r"""``U_theta(x)`` [kT], the normalised Gaussian of the data plus a network, and a ``log Z`` learned beside it.

    Args:
        net: ``(h, t) -> (batch,)`` [kT] of the standardised ``h``; its time is always zero.
        data: the Gaussian of the data.

    >>> from boltzgen_diffclf.nets import MlpEnergyNet
    >>> net = MlpEnergyNet(1, torch.Generator(), hidden=8, layers=1)
    >>> model = DataEnergyModel(net, DataGaussian(torch.zeros(1), torch.ones(1)))
    >>> round(model.energy(torch.zeros(1, 1)).item(), 4)
    0.9189
    """

    def __init__(self, net: nn.Module, data: DataGaussian) -> None:
        super().__init__()
        self.net, self.data = net, data
        self.log_normaliser = nn.Parameter(data.mean.new_zeros(()))

    def energy(self, x: Float[Tensor, "batch dim"]) -> Float[Tensor, " batch"]:
        """Return ``U(x)`` [kT]."""
        white = self._white(x)
        return 0.5 * white.square().sum(-1) + self._log_volume() + self.net(self.data.back(white), x.new_zeros(len(x)))

    def gradient(self, x: Float[Tensor, "batch dim"]) -> Float[Tensor, "batch dim"]:
        """Return ``dU/dx`` [kT per unit of x]."""
        return torch.func.grad(lambda point: self.energy(point).sum())(x)

    def log_density(self, x: Float[Tensor, "batch dim"]) -> Float[Tensor, " batch"]:
        """Return ``-U(x) - log Z``, normalised as well as ``log Z`` is learned."""
        return -self.energy(x) - self.log_normaliser

    def gaussian_log_density(self, x: Float[Tensor, "batch dim"]) -> Float[Tensor, " batch"]:
        """Return the normalised log density of the data's Gaussian, the network left out."""
        return -0.5 * self._white(x).square().sum(-1) - self._log_volume()

    def from_gaussian(self, z: Float[Tensor, "*batch axes"]) -> Float[Tensor, "*batch dim"]:
        """Return the sample of the data's Gaussian that the standard normal ``z`` makes."""
        return self.data.mean + self.data.back(self.data.variance.sqrt() * z)

    def _white(self, x: Tensor) -> Tensor:
        return self.data.along(x - self.data.mean) / self.data.variance.sqrt()

    def _log_volume(self) -> Tensor:
        return 0.5 * (2 * math.pi * self.data.variance).log().sum()
