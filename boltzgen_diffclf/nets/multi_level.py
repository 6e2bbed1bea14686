"""Energies of one configuration at every noise level, from one pass through a trunk that never sees the time."""

from __future__ import annotations

from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn

from boltzgen_diffclf.nets.coordinate_waves import CoordinateWaves
from boltzgen_diffclf.nets.initialisation import linear, zero_linear
from boltzgen_diffclf.nets.time_embedding import FourierTimeFeatures


class SquashedMlpTrunk(nn.Module):
    """Features of a vector whose scale spans decades: a network of ``q = asinh(x)``, and its products with ``q``.

    ``asinh`` resolves ``x`` absolutely where ``|x| < 1`` and relatively beyond, so that one input serves levels whose
    spreads differ by orders of magnitude. The products let an energy grow as ``q^2``.

    Args:
        dim: length of ``x``; scaled so that the narrowest level has a spread of about one.
        generator: draws the starting weights.
        hidden: width of the trunk; it gives twice as many features.
        layers: number of hidden layers, at least one.
        waves: of the coordinates, beside ``q``, see :class:`CoordinateWaves`.

    Raises:
        ValueError: if ``layers`` is below one.
    """

    def __init__(
        self, dim: int, generator: torch.Generator, *, hidden: int = 128, layers: int = 4, waves: int = 0
    ) -> None:
        super().__init__()
        if layers < 1:
            raise ValueError(f"layers must be at least 1, got {layers}")
        self.n_features = 2 * hidden
        self.coordinates = CoordinateWaves(dim, waves, generator)
        widths = [self.coordinates.n_features] + [hidden] * layers
        self.layers = nn.ModuleList([linear(*pair, generator) for pair in pairwise(widths)])
        self.projection = linear(dim, hidden, generator, bias=False)

    def forward(self, x: Float[Tensor, "batch dim"]) -> Float[Tensor, "batch features"]:
        """Return the features of ``x``."""
        squashed = torch.asinh(x)
        features = self.coordinates(squashed)
        for layer in self.layers:
            features = nn.functional.gelu(layer(features))
        return torch.cat([features, features * self.projection(squashed)], dim=-1)


class MultiLevelNet(nn.Module):
    r"""Energy ``u(x, t) = sum_k phi_k(x) b_k(t)`` [kT], exactly zero before training.

    The trunk ``phi`` sees the configuration only, and the head ``b`` the time only: the energies of one ``x`` at any
    number of levels cost one pass through the trunk and one matrix product. ``b`` is a small network of Fourier
    features of ``t``, so every level is reached and the energy is smooth in ``t``.

    What is lost against a network of ``(x, t)``: ``x`` and ``t`` meet only in a sum of ``n_features`` products, and
    ``x`` cannot be standardised level by level. The trunk resolves the narrowest level everywhere, and must learn
    to be flat on that scale where the noise has washed it out.

    Args:
        trunk: ``x -> (batch, n_features)``.
        n_features: how many features the trunk gives.
        generator: draws the starting weights of the head.
        hidden: width of the head.
        n_frequencies: waves of the time features.
        max_cycles: turns of the fastest wave over the path.

    References:
        Yadin, Elata & Michaeli 2024, arXiv:2402.10095, for all levels from one pass; here for a continuous time.

    >>> net = MultiLevelNet(SquashedMlpTrunk(2, torch.Generator(), hidden=8), 16, torch.Generator())
    >>> net.energies(torch.ones(3, 2), torch.linspace(0, 1, 5)).shape
    torch.Size([3, 5])
    """

    def __init__(
        self,
        trunk: nn.Module,
        n_features: int,
        generator: torch.Generator,
        *,
        hidden: int = 64,
        n_frequencies: int = 4,
        max_cycles: float = 2.0,
    ) -> None:
        super().__init__()
        self.trunk = trunk
        self.time_features = FourierTimeFeatures(n_frequencies, max_cycles)
        self.time_hidden = linear(self.time_features.n_features, hidden, generator)
        self.time_readout = zero_linear(hidden, n_features)

    def forward(self, x: Float[Tensor, "batch dim"], t: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        """Return ``u(x, t)`` [kT], each configuration at its own time."""
        return (self.trunk(x) * self.basis(t)).sum(-1)

    def energies(self, x: Float[Tensor, "batch dim"], t: Float[Tensor, " levels"]) -> Float[Tensor, "batch levels"]:
        """Return ``u(x_i, t_j)`` [kT], every configuration at every time."""
        return self.trunk(x) @ self.basis(t).T

    def basis(self, t: Float[Tensor, " levels"]) -> Float[Tensor, "levels features"]:
        """Return the learned basis functions ``b_k(t)``."""
        return self.time_readout(nn.functional.gelu(self.time_hidden(self.time_features(t))))
