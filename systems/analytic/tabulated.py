"""A one-dimensional density on a grid: its integral, its averages and its samples."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from jaxtyping import Float64
from scipy.special import logsumexp, softmax

_VANISHED = 800.0
"""Energy [kT] at the edges of the grid: ``exp(-800)`` is zero in double precision."""


class TabulatedDensity:
    """The density of one coordinate, out to where it has vanished.

    A plain sum over an even grid is the trapezoidal rule, which converges exponentially for such a density.

    Args:
        energy: of the coordinate [kT]; must grow beyond all bounds on both sides.
    """

    def __init__(self, energy: Callable[[Float64[np.ndarray, " n"]], Float64[np.ndarray, " n"]]) -> None:
        half_width = 1.0
        while energy(np.array([-half_width, half_width])).min() < _VANISHED:
            half_width *= 1.25
        self.grid = np.linspace(-half_width, half_width, 20_001)
        self._log_weight = -energy(self.grid)

    @property
    def log_normaliser(self) -> float:
        """Log of the integral of ``exp(-energy)``, to double precision."""
        return float(logsumexp(self._log_weight)) + math.log(self.grid[1] - self.grid[0])

    def expectation(self, function: Callable[[Float64[np.ndarray, " n"]], Float64[np.ndarray, " n"]]) -> float:
        """Return the mean of a function of the coordinate, to double precision for a smooth one."""
        return float(function(self.grid) @ softmax(self._log_weight))

    def quantile(self, uniform: Float64[np.ndarray, " n"]) -> Float64[np.ndarray, " n"]:
        """Return the inverse of the cumulative distribution: samples, for uniform numbers."""
        # Half a cell to the right is where the mass of all cells up to this one ends.
        edges = self.grid + 0.5 * (self.grid[1] - self.grid[0])
        return np.interp(uniform, np.cumsum(softmax(self._log_weight)), edges)
