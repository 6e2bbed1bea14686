"""Energy of a vector without symmetries, for analytic targets."""

from __future__ import annotations

from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn

from boltzgen_diffclf.nets.coordinate_waves import CoordinateWaves
from boltzgen_diffclf.nets.initialisation import linear, zero_linear
from boltzgen_diffclf.nets.time_embedding import FourierTimeFeatures


class MlpEnergyNet(nn.Module):
    """Energy ``u(x, t) = h(x, t) |x|^2 / 2 + <x, f(x, t)> + g(x, t)`` [kT] of a vector, zero before training.

    ``h``, ``f`` and ``g`` share one trunk. Where they are constant the energy is a Gaussian's, of any width and centre,
    so that for separated modes the trunk need only say which mode it is. ``h`` is bounded: the energy grows
    quadratically, as a Gaussian's does.

    Args:
        dim: length of ``x``; its columns should have a scale of about one.
        generator: draws the starting weights.
        hidden: width of the trunk.
        layers: number of hidden layers, at least one.
        waves: of the coordinates, beside ``x``, see :class:`CoordinateWaves`.
        n_frequencies: waves of the time features.
        max_cycles: turns of the fastest; the fewer, the more do neighbouring times share what they learn.

    Raises:
        ValueError: if ``layers`` is below one.

    References:
        OuYang, Grenioux & Hernandez-Lobato 2026, arXiv:2601.21025, for the inner-product form.

    >>> net = MlpEnergyNet(dim=2, generator=torch.Generator(), hidden=8, layers=1)
    >>> net(torch.ones(3, 2), torch.zeros(3)).tolist()
    [0.0, 0.0, 0.0]
    """

    def __init__(
        self,
        dim: int,
        generator: torch.Generator,
        *,
        hidden: int = 128,
        layers: int = 4,
        waves: int = 0,
        n_frequencies: int = 8,
        max_cycles: float = 8.0,
    ) -> None:
        super().__init__()
        if layers < 1:
            raise ValueError(f"layers must be at least 1, got {layers}")
        self.time_features = FourierTimeFeatures(n_frequencies, max_cycles)
        self.coordinates = CoordinateWaves(dim, waves, generator)
        widths = [self.coordinates.n_features + self.time_features.n_features] + [hidden] * layers
        trunk = [linear(*pair, generator) for pair in pairwise(widths)]
        self.trunk = nn.ModuleList(trunk)
        self.readout = zero_linear(hidden, dim + 1)
        self.curvature = zero_linear(hidden, 1)

    def forward(self, x: Float[Tensor, "batch dim"], t: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        """Return ``u(x, t)`` [kT]."""
        features = self._features(x, t)
        return 0.5 * self.curvature(torch.tanh(features))[:, 0] * x.square().sum(-1) + self._linear(x, features)

    def _features(self, x: Tensor, t: Tensor) -> Float[Tensor, "batch hidden"]:
        features = torch.cat([self.coordinates(x), self.time_features(t)], dim=-1)
        for layer in self.trunk:
            features = nn.functional.gelu(layer(features))
        return features

    def _linear(self, x: Tensor, features: Tensor) -> Float[Tensor, " batch"]:
        output = self.readout(features)
        return (x * output[:, :-1]).sum(-1) + output[:, -1]
