"""The whole force field: energy and analytic force of a block of configurations."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from systems.forcefield.bonded import Bonded
from systems.forcefield.born import Born
from systems.forcefield.geometry import stored
from systems.forcefield.pairs import Pairs, pair_table
from systems.forcefield.parameters import ForceFieldParameters


class ForceField(nn.Module):
    """Energy [kT] and force [kT/nm] of blocks ``(chunks, 3, atoms, lanes)``.

    Sums over the partners of an atom gather from the table of unique pairs; nothing is scattered.
    """

    partners: Tensor
    joining: Tensor

    def __init__(self, parameters: ForceFieldParameters, dtype: torch.dtype) -> None:
        super().__init__()
        self.constant = parameters.constant
        self.bonded = Bonded(parameters, dtype)
        self.pairs = Pairs(parameters.pairs, dtype)
        first, second = parameters.pairs.first, parameters.pairs.second
        self.born = nn.ModuleList([Born(born, first, second, dtype) for born in parameters.born])
        partners, joining = pair_table(parameters.n_atoms, self.pairs.first, self.pairs.second)
        self.register_buffer("partners", partners)
        self.register_buffer("joining", joining)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the energy ``(chunks, lanes)`` and the force ``(chunks, 3, atoms, lanes)``."""
        energy, gradient = self.bonded(x)
        distances = self.pairs.distances(x)
        pair_energy, slope = self.pairs(distances)
        energy = energy + stored(pair_energy).sum(1) + self.constant
        for born in self.born:
            born_energy, born_slope = born(distances)
            energy, slope = energy + born_energy, slope + born_slope
        return energy, -(gradient + self.pair_gradient(x, stored(slope)))

    def pair_gradient(self, x: Tensor, slope: Tensor) -> Tensor:
        """Return the gradient ``(chunks, 3, atoms, lanes)`` of pair energies with the given ``u'(r) / r``."""
        apart = x[:, :, None] - x[:, :, self.partners]
        return (slope[:, None, self.joining] * apart).sum(2)
