"""A density in the plane on a grid: its integral, its averages and its samples."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from boltzgen_diffclf.target import Target


class PlaneDensity:
    """The density ``exp(-u) / Z`` of a target in the plane, on the cells of an even grid about the origin.

    A plain sum over an even grid converges exponentially for a smooth density that has vanished at the edges.

    Args:
        target: in two dimensions.
        half_width: of the square; the density must have vanished at its edges.
        cells: along a side.

    Attributes:
        points: middles of the cells.
        probabilities: of the cells.
        log_normaliser: log Z.

    >>> from boltzgen_diffclf.target import GaussianTarget
    >>> target = GaussianTarget(2)
    >>> abs(PlaneDensity(target, half_width=8.0, cells=80).log_normaliser - target.log_normaliser) < 1e-12
    True
    """

    def __init__(self, target: Target, half_width: float, cells: int) -> None:
        self.cell = 2 * half_width / cells
        axis = (torch.arange(cells, dtype=torch.float64) + 0.5) * self.cell - half_width
        self.points: Float[Tensor, "points 2"] = torch.cartesian_prod(axis, axis)
        log_weight = -target.energy(self.points)
        self.probabilities: Float[Tensor, " points"] = log_weight.softmax(0)
        self.log_normaliser = float(log_weight.logsumexp(0)) + 2 * math.log(self.cell)

    def sample(self, n: int, generator: torch.Generator) -> Float[Tensor, "{n} 2"]:
        """Return independent samples, even within a cell."""
        place = torch.multinomial(self.probabilities, n, replacement=True, generator=generator)
        shift = torch.rand(n, 2, generator=generator, dtype=self.points.dtype) - 0.5
        return self.points[place] + self.cell * shift
