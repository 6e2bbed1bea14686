"""Waves of a vector, beside the vector: a network of smooth activations sees fine structure in few coordinates."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn


class CoordinateWaves(nn.Module):
    """A vector, and sines and cosines of it along random directions, which are learned on.

    Of forty narrow modes in a plane a network learned energies and scores several times as well with them. In eight
    dimensions its scores were a little better at the least noise and worse at more, and for two modes on the line
    worse.

    Args:
        dim: length of the vector; its columns should have a scale of about one.
        waves: how many; none gives the vector alone.
        generator: draws the directions.

    References:
        Tancik et al. 2020, Fourier features let networks learn high frequency functions, arXiv:2006.10739.

    >>> CoordinateWaves(2, 3, torch.Generator())(torch.zeros(1, 2)).tolist()
    [[0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 1.0, 1.0]]
    """

    FASTEST = 32.0
    """Radians a unit of the fastest wave; the slowest has one, the others lie evenly between them in the logarithm."""

    def __init__(self, dim: int, waves: int, generator: torch.Generator) -> None:
        super().__init__()
        self.n_features = dim + 2 * waves
        self.waves: nn.Parameter | None = None
        if waves:
            directions = nn.functional.normalize(torch.randn(dim, waves, generator=generator), dim=0)
            self.waves = nn.Parameter(directions * self.FASTEST ** torch.linspace(0, 1, waves))

    def forward(self, x: Float[Tensor, "batch dim"]) -> Float[Tensor, "batch features"]:
        """Return ``x`` and its waves."""
        if self.waves is None:
            return x
        phase = x @ self.waves
        return torch.cat([x, phase.sin(), phase.cos()], dim=-1)
