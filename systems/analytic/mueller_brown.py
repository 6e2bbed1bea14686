"""The Mueller-Brown surface: three bent wells in the plane."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from systems.analytic.exact import AnalyticTarget

_HEIGHT = (-200.0, -100.0, -170.0, 15.0)
_XX = (-1.0, -1.0, -6.5, 0.7)
_XY = (0.0, 0.0, 11.0, 0.6)
_YY = (-10.0, -10.0, -6.5, 0.7)
_CENTRE_X = (1.0, 0.0, -0.5, -1.0)
_CENTRE_Y = (0.0, 0.5, 1.5, 1.0)

_CELLS = 1200
"""Cells a side of the grid."""
_VANISHED = 40.0
"""Energy above the minimum [kT] at which the density outside the grid adds less than rounding."""


class MuellerBrown(AnalyticTarget):
    """``u = V / temperature``, V the sum of four anisotropic Gaussians with its minimum of -146.7 near (-0.56, 1.44).

    Args:
        temperature: in the units of V; at 20 the highest barrier is about 5 kT. At least 1, which the grid resolves.
        dtype: of positions and energies.
        device: where it computes.

    References:
        Mueller & Brown 1979, Theor. Chim. Acta 53:75.
    """

    def __init__(
        self,
        temperature: float = 20.0,
        dtype: torch.dtype = torch.float64,
        device: torch.device | str = "cpu",
    ) -> None:
        if not temperature >= 1:
            raise ValueError(f"the temperature needs to be 1 or more, got {temperature}")
        self.temperature = temperature
        self.event_shape, self.dimension = (2,), 2
        self.dtype, self.device = dtype, torch.device(device)
        # The first three terms are at least -470 together; the fourth exceeds 15 exp(0.4 r^2) about its centre.
        self._half_width = math.sqrt(math.log((_VANISHED * temperature + 470) / 15) / 0.4)
        self._cell = 2 * self._half_width / _CELLS
        self._log_weight = -self.energy(self._centres()).double().cpu()

    def energy(self, x: Float[Tensor, "batch 2"]) -> Float[Tensor, " batch"]:
        """See :meth:`Target.energy`."""
        potential = torch.zeros_like(x[:, 0])
        for height, xx, xy, yy, x_0, y_0 in zip(_HEIGHT, _XX, _XY, _YY, _CENTRE_X, _CENTRE_Y, strict=True):
            dx, dy = x[:, 0] - x_0, x[:, 1] - y_0
            potential = potential + height * torch.exp(xx * dx.square() + xy * dx * dy + yy * dy.square())
        return potential / self.temperature

    @property
    def log_normaliser(self) -> float:
        """Log Z by the sum over an even grid, which converges exponentially for a density that vanishes at its edge."""
        return float(self._log_weight.logsumexp(0)) + 2 * math.log(self._cell)

    def sample(self, n: int, generator: torch.Generator) -> Float[Tensor, "{n} 2"]:
        """Return independent samples: a cell of the grid by its weight, a uniform point of the cell.

        The density is so taken as constant over cells of about 0.006 a side, an error of second order in their size.
        """
        probability = self._log_weight.softmax(0).to(self.device)
        cell = torch.multinomial(probability, n, replacement=True, generator=generator)
        jitter = torch.rand(n, 2, generator=generator, dtype=torch.float64, device=self.device) - 0.5
        return (self._centres()[cell] + self._cell * jitter).to(self.dtype)

    def _centres(self) -> Float64[Tensor, "cells 2"]:
        steps = (torch.arange(_CELLS, dtype=torch.float64, device=self.device) + 0.5) * self._cell
        return torch.cartesian_prod(_CENTRE_X[3] - self._half_width + steps, _CENTRE_Y[3] - self._half_width + steps)
