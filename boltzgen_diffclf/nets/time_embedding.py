"""Smooth features of the time on a path."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn


class FourierTimeFeatures(nn.Module):
    """Sines and cosines of ``t`` at geometrically spaced frequencies, and ``t`` itself.

    The slowest wave makes a quarter turn over the path, so that its ends are told apart.

    Args:
        n_frequencies: number of waves, at least one.
        max_cycles: turns of the fastest wave between t = 0 and t = 1.

    Raises:
        ValueError: if there is no wave, or the fastest is slower than the slowest.

    References:
        Vaswani et al. 2017, arXiv:1706.03762, section 3.5, here for a continuous time.

    >>> FourierTimeFeatures(n_frequencies=4)(torch.tensor([0.0, 0.5])).shape
    torch.Size([2, 9])
    """

    SLOWEST_CYCLES = 0.25

    angular_frequencies: Tensor

    def __init__(self, n_frequencies: int = 8, max_cycles: float = 8.0) -> None:
        super().__init__()
        if n_frequencies < 1 or max_cycles < self.SLOWEST_CYCLES:
            raise ValueError(f"n_frequencies must be >= 1 and max_cycles >= 0.25, not {n_frequencies} and {max_cycles}")
        exponents = torch.linspace(0.0, 1.0, n_frequencies, dtype=torch.float64)
        cycles = self.SLOWEST_CYCLES * (max_cycles / self.SLOWEST_CYCLES) ** exponents
        self.register_buffer("angular_frequencies", (2 * math.pi * cycles).float(), persistent=False)
        self.n_features = 2 * n_frequencies + 1

    def forward(self, t: Float[Tensor, " batch"]) -> Float[Tensor, "batch features"]:
        """Return the features of ``t``, each between -1 and 1 on the path."""
        angle = t[:, None] * self.angular_frequencies
        return torch.cat([t[:, None], torch.sin(angle), torch.cos(angle)], dim=-1)
