"""Energy correction on an internal-coordinate path: torsions, and quadratics of the stiff coordinates."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from boltzgen_diffclf.nets.initialisation import linear, zero_linear
from boltzgen_diffclf.nets.time_embedding import FourierTimeFeatures


@dataclass(frozen=True)
class TorsionConfig:
    """Sizes of a :class:`TorsionEnergyNet`.

    Attributes:
        hidden: width of the trunk.
        layers: number of hidden layers, at least one.
        harmonics: multiples of each torsion that the network sees.
        projections: learned directions in the space of the stiff columns that the network sees.
        saturation: stiff coordinates, in standard deviations, are felt linearly up to about here.
        n_frequencies: waves of the time features.
        max_cycles: turns of the fastest wave over the path; an anchored correction is smooth in t, and a wave that
            is faster than it needs to be makes dU/dt noisy.
    """

    hidden: int = 128
    layers: int = 3
    harmonics: int = 2
    projections: int = 16
    saturation: float = 6.0
    n_frequencies: int = 3
    max_cycles: float = 1.0

    def __post_init__(self) -> None:
        if min(self.layers, self.harmonics) < 1 or self.projections < 0 or self.saturation <= 0:
            raise ValueError(f"layers, harmonics, saturation must be positive, projections not negative: {self}")


class TorsionEnergyNet(nn.Module):
    r"""Energy [kT] of internal coordinates, exactly zero before training and bounded everywhere.

    .. math:: u(y, t) = h + \sum_i \tfrac12 a_i q_i^2 + b_i q_i, \qquad q_i = c \tanh(y_i / c)

    over the stiff columns, where ``c`` is the saturation and ``h``, ``a``, ``b`` come from one trunk that sees
    sines and cosines of the torsions, the time, and a few projections of ``q``.  As ``|q| < c`` the trunk's input
    is bounded, so neither a far outlier nor a bad step can meet an energy without floor.

    Args:
        is_periodic: which columns are torsions [rad]; the others are stiff and whitened.
        symmetry: rotational symmetry of each torsion, e.g. 3 for a methyl group; not read for stiff columns.
        generator: draws the starting weights.
        config: sizes.

    Raises:
        ValueError: if the two masks differ in length, or a torsion's symmetry is below one.

    >>> mask, symmetry = torch.tensor([True, False]), torch.tensor([3, 1])
    >>> net = TorsionEnergyNet(mask, symmetry, torch.Generator())
    >>> net(torch.ones(2, 2), torch.zeros(2)).tolist()
    [0.0, 0.0]
    """

    torsion_columns: Tensor
    stiff_columns: Tensor
    multiples: Tensor

    def __init__(
        self,
        is_periodic: Bool[Tensor, " dim"],
        symmetry: Int[Tensor, " dim"],
        generator: torch.Generator,
        config: TorsionConfig | None = None,
    ) -> None:
        super().__init__()
        if is_periodic.shape != symmetry.shape:
            raise ValueError(f"is_periodic has {len(is_periodic)} columns and symmetry has {len(symmetry)}")
        if bool((symmetry[is_periodic] < 1).any()):
            raise ValueError(f"a torsion's symmetry must be at least 1, got {symmetry[is_periodic].tolist()}")
        self.config = config or TorsionConfig()
        harmonics = torch.arange(1, self.config.harmonics + 1, device=symmetry.device)
        self.register_buffer("torsion_columns", is_periodic.nonzero()[:, 0], persistent=False)
        self.register_buffer("stiff_columns", (~is_periodic).nonzero()[:, 0], persistent=False)
        self.register_buffer("multiples", harmonics[:, None] * symmetry[is_periodic], persistent=False)
        self.time_features = FourierTimeFeatures(self.config.n_frequencies, self.config.max_cycles)
        self._build(generator)

    def _build(self, generator: torch.Generator) -> None:
        config, n_stiff = self.config, len(self.stiff_columns)
        n_input = 2 * self.multiples.numel() + self.time_features.n_features + config.projections
        directions = torch.randn(n_stiff, config.projections, generator=generator)
        self.projection = nn.Parameter(directions / max(n_stiff, 1) ** 0.5)
        widths = [n_input] + [config.hidden] * config.layers
        trunk = [linear(*pair, generator) for pair in pairwise(widths)]
        self.trunk = nn.ModuleList(trunk)
        self.readout = zero_linear(config.hidden, 1 + 2 * n_stiff)

    def forward(self, y: Float[Tensor, "batch dim"], t: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        """Return ``u(y, t)`` [kT]."""
        saturation = self.config.saturation
        felt = saturation * torch.tanh(y[:, self.stiff_columns] / saturation)
        features = torch.cat([self._torsion_features(y), self.time_features(t), felt @ self.projection], dim=-1)
        for layer in self.trunk:
            features = nn.functional.silu(layer(features))
        height, curvature, slope = self.readout(features).tensor_split((1, 1 + felt.shape[1]), dim=-1)
        return height[:, 0] + ((0.5 * curvature * felt + slope) * felt).sum(-1)

    def _torsion_features(self, y: Float[Tensor, "batch dim"]) -> Float[Tensor, "batch features"]:
        angle = (y[:, None, self.torsion_columns] * self.multiples).flatten(1)
        return torch.cat([torch.sin(angle), torch.cos(angle)], dim=-1)
