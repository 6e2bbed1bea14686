"""The plain denoiser of a diffusion model: a network of the noisy vector and the level predicts the noise."""

from __future__ import annotations

from itertools import pairwise

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from boltzgen_diffclf.nets.discrete_levels import DiscreteLevels
from boltzgen_diffclf.nets.initialisation import linear, zero_linear
from boltzgen_diffclf.nets.time_embedding import FourierTimeFeatures


class NoiseMlp(nn.Module):
    """A vector ``f(y, t)`` as long as ``y``, zero before training.

    Args:
        dim: length of ``y``; its columns should have a scale of about one.
        generator: draws the starting weights.
        hidden: width of the trunk.
        layers: number of hidden layers, at least one.
        n_frequencies: waves of the time features.

    Raises:
        ValueError: if ``layers`` is below one.
    """

    def __init__(
        self, dim: int, generator: torch.Generator, *, hidden: int = 128, layers: int = 4, n_frequencies: int = 4
    ) -> None:
        super().__init__()
        if layers < 1:
            raise ValueError(f"layers must be at least 1, got {layers}")
        self.time_features = FourierTimeFeatures(n_frequencies, max_cycles=2.0)
        widths = [dim + self.time_features.n_features] + [hidden] * layers
        self.layers = nn.ModuleList([linear(*pair, generator) for pair in pairwise(widths)])
        self.readout = zero_linear(hidden, dim)

    def forward(self, y: Float[Tensor, "batch dim"], t: Float[Tensor, " batch"]) -> Float[Tensor, "batch dim"]:
        """Return ``f(y, t)``."""
        features = torch.cat([y, self.time_features(t)], dim=-1)
        for layer in self.layers:
            features = nn.functional.gelu(layer(features))
        return self.readout(features)


class NoisePrediction(DiscreteLevels):
    """Denoisers and sampler steps of a network that predicts the noise; it knows no density.

    Args:
        net: ``(y, t) -> E[eps | y_t]``, with t from 0 (data) to 1 (noise).
        alpha_bar: from 1 (data) down to 0 (noise), one a level.
        prior: see :class:`DiscreteLevels`.

    References:
        Ho, Jain & Abbeel 2020, arXiv:2006.11239.
    """

    def __init__(
        self, net: nn.Module, alpha_bar: Float[Tensor, " classes"], prior: Float[Tensor, " priors"] | None = None
    ) -> None:
        super().__init__(alpha_bar, prior)
        self.net = net

    def denoiser(self, y: Float[Tensor, "batch dim"], t: Int[Tensor, " batch"]) -> Float[Tensor, "batch dim"]:
        """Return ``E[eps | y_t]``, the noise in ``y``."""
        return self.net(y, t.to(y.dtype) / self.last)
