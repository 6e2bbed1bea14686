"""The whole force field: energy and analytic force of a block of configurations."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from systems.forcefield.bonded import Bonded
from systems.forcefield.born import Born
from systems.forcefield.pairs import Distances, Pairs, pair_table
from systems.forcefield.parameters import ForceFieldParameters


class ForceField(nn.Module):
    """Energy [kT] and force [kT/nm] of blocks ``(chunks, 3, atoms, lanes)``.

    Sums over the partners of an atom gather from the table of unique pairs; nothing is scattered.
    """

    partners: Tensor
    joining: Tensor
    joining_ordered: Tensor

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
        # Descreening is stored for both orders, one after the other.
        is_second = partners < torch.arange(parameters.n_atoms)
        self.register_buffer("joining_ordered", joining + is_second * len(first))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the energy ``(chunks, lanes)`` and the force ``(chunks, 3, atoms, lanes)``."""
        energy, gradient = self.bonded(x)
        distances = self.pairs.distances(x)
        pair_energy, slope = self.pairs(distances)
        energy = energy + pair_energy.sum(1) + self.constant
        for born in self.born_models():
            born_energy, born_slope = self.generalised_born(born, distances)
            energy, slope = energy + born_energy, slope + born_slope
        return energy, -(gradient + self.pair_gradient(x, slope))

    def born_models(self) -> list[Born]:
        """Return the generalised Born terms."""
        return [born for born in self.born if isinstance(born, Born)]

    def generalised_born(self, born: Born, distances: Distances) -> tuple[Tensor, Tensor]:
        """Return the energy ``(chunks, lanes)`` and the slope over distance of every pair."""
        by_second, by_first = born.of_first(distances), born.of_second(distances)
        integral = torch.cat([by_second.value, by_first.value], dim=1)[:, self.joining_ordered].sum(1)
        per_b, per_b_slope = born.inverse_radii(integral)
        b = torch.reciprocal(per_b)
        single, by_radius = born.single(per_b)
        energy = single.sum(1)
        slope = torch.zeros_like(distances.r)
        if born.is_polar:
            polar, slope, by_product = born.polar(distances.square, b, per_b)
            energy = energy + polar.sum(1)
            by_radius = by_radius + (by_product[:, self.joining] * b[:, self.partners]).sum(1)
        by_integral = -by_radius * b * b * per_b_slope
        chain = by_integral[:, born.first] * by_second.slope + by_integral[:, born.second] * by_first.slope
        return energy, slope + chain * distances.inverse

    def pair_gradient(self, x: Tensor, slope: Tensor) -> Tensor:
        """Return the gradient ``(chunks, 3, atoms, lanes)`` of pair energies with the given ``u'(r) / r``."""
        apart = x[:, :, None] - x[:, :, self.partners]
        return (slope[:, None, self.joining] * apart).sum(2)
