"""Double wells: one along the first coordinate, or one a pair of coordinates."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import Tensor

from systems.analytic.exact import AnalyticTarget
from systems.analytic.tabulated import TabulatedDensity


class DoubleWell(AnalyticTarget):
    """``barrier (x_0^2 - 1)^2 + tilt x_0`` [kT] along the first coordinate, a unit normal along the others.

    Args:
        barrier: between the wells near -1 and +1 [kT].
        tilt: makes the well near -1 the deeper one, by about twice its value [kT].
        dimension: of the space.
        dtype: of positions and energies.
        device: where it computes.
    """

    def __init__(
        self,
        barrier: float = 4.0,
        tilt: float = 0.5,
        dimension: int = 2,
        dtype: torch.dtype = torch.float64,
        device: torch.device | str = "cpu",
    ) -> None:
        if not (barrier > 0 and dimension >= 1):
            raise ValueError(f"a double well needs barrier > 0 and dimension >= 1, got {barrier} and {dimension}")
        self.barrier, self.tilt = barrier, tilt
        self.event_shape, self.dimension = (dimension,), dimension
        self.dtype, self.device = dtype, torch.device(device)
        self._first = TabulatedDensity(lambda x: barrier * (x**2 - 1) ** 2 + tilt * x)

    def energy(self, x: Float[Tensor, "batch dim"]) -> Float[Tensor, " batch"]:
        """See :meth:`Target.energy`."""
        first, rest = x[:, 0], x[:, 1:]
        return self.barrier * (first.square() - 1).square() + self.tilt * first + 0.5 * rest.square().sum(-1)

    @property
    def log_normaliser(self) -> float:
        """Log Z to double precision."""
        return self._first.log_normaliser + 0.5 * (self.dimension - 1) * math.log(2 * math.pi)

    def expectation(self, function: Callable[[Float64[np.ndarray, " n"]], Float64[np.ndarray, " n"]]) -> float:
        """Return the mean of a function of the first coordinate, to double precision for a smooth one."""
        return self._first.expectation(function)

    def sample(self, n: int, generator: torch.Generator) -> Float[Tensor, "{n} dim"]:
        """Return independent samples, the first coordinate by inversion of its distribution."""
        x = torch.randn(n, self.dimension, generator=generator, dtype=self.dtype, device=self.device)
        uniform = torch.rand(n, generator=generator, dtype=torch.float64, device=self.device)
        x[:, 0] = torch.from_numpy(self._first.quantile(uniform.cpu().numpy())).to(x)
        return x


class ManyWell(AnalyticTarget):
    """The sum over pairs of coordinates of ``x^4 - 6 x^2 + tilt x + y^2 / 2`` [kT]: ``2^wells`` modes.

    Args:
        n_wells: pairs of coordinates; the dimension is twice that.
        tilt: slope along the first coordinate of every pair [kT per unit of x]; negative favours the right well.
        dtype: of positions and energies.
        device: where it computes.

    References:
        Midgley et al. 2023, arXiv:2208.01893, whose ``Many Well`` problem has 16 wells; the double well is that of
        Noe et al. 2019, Science 365:eaaw1147.
    """

    def __init__(
        self,
        n_wells: int = 16,
        tilt: float = -0.5,
        dtype: torch.dtype = torch.float64,
        device: torch.device | str = "cpu",
    ) -> None:
        if n_wells < 1:
            raise ValueError(f"many wells needs at least one well, got {n_wells}")
        self.n_wells, self.tilt = n_wells, tilt
        self.event_shape, self.dimension = (2 * n_wells,), 2 * n_wells
        self.dtype, self.device = dtype, torch.device(device)
        self._first = TabulatedDensity(lambda x: x**4 - 6 * x**2 + tilt * x)

    def energy(self, x: Float[Tensor, "batch dim"]) -> Float[Tensor, " batch"]:
        """See :meth:`Target.energy`."""
        first, second = x[:, ::2], x[:, 1::2]
        return (first**4 - 6 * first.square() + self.tilt * first + 0.5 * second.square()).sum(-1)

    @property
    def log_normaliser(self) -> float:
        """Log Z to double precision."""
        return self.n_wells * (self._first.log_normaliser + 0.5 * math.log(2 * math.pi))

    @property
    def right_share(self) -> float:
        """Probability that the first coordinate of a pair is positive."""
        return self._first.expectation(lambda x: np.heaviside(x, 0.5))

    def sample(self, n: int, generator: torch.Generator) -> Float[Tensor, "{n} dim"]:
        """Return independent samples, the first coordinate of every pair by inversion of its distribution."""
        x = torch.randn(n, self.dimension, generator=generator, dtype=self.dtype, device=self.device)
        uniform = torch.rand(n, self.n_wells, generator=generator, dtype=torch.float64, device=self.device)
        x[:, ::2] = torch.from_numpy(self._first.quantile(uniform.cpu().numpy().ravel())).view(n, -1).to(x)
        return x
