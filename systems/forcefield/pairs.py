"""Terms of one distance, and the way from pair slopes to forces on atoms."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from systems.forcefield.bonded import column
from systems.forcefield.geometry import dot, rows, stored, subtract
from systems.forcefield.parameters import PairParameters


def smallest_distance(dtype: torch.dtype) -> float:
    """Return the distance [nm] below which pair energies stop growing, so that they stay finite numbers."""
    return 1e-7 if dtype == torch.float64 else 3e-3


@dataclass(frozen=True)
class Distances:
    """Distances of all pairs, each ``(chunks, pairs, lanes)``."""

    square: Tensor
    r: Tensor
    inverse: Tensor


def pair_table(n_atoms: int, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """Return ``(atoms - 1, atoms)`` tables: the partners of each atom, and the pair of each partnership.

    Sums run along the first axis. Were it the last, ``torch.compile`` would vectorise along it, not along the
    lanes, and evaluations would take several times as long.
    """
    index = torch.zeros(n_atoms, n_atoms, dtype=torch.int64)
    index[first, second] = index[second, first] = torch.arange(len(first))
    partners = torch.stack([torch.tensor([j for j in range(n_atoms) if j != i]) for i in range(n_atoms)])
    return partners.T.contiguous(), torch.gather(index, 1, partners).T.contiguous()


class Pairs(nn.Module):
    """Lennard-Jones, Coulomb and harmonic bonds over all unique pairs."""

    first: Tensor
    second: Tensor
    lj12: Tensor
    lj6: Tensor
    coulomb: Tensor
    bond_k: Tensor
    bond_r0: Tensor

    def __init__(self, parameters: PairParameters, dtype: torch.dtype) -> None:
        super().__init__()
        self.register_buffer("first", torch.as_tensor(parameters.first))
        self.register_buffer("second", torch.as_tensor(parameters.second))
        for name in ("lj12", "lj6", "coulomb", "bond_k", "bond_r0"):
            self.register_buffer(name, column(getattr(parameters, name), dtype))
        self.floor = smallest_distance(dtype) ** 2

    def distances(self, x: Tensor) -> Distances:
        """Return the distances of all pairs of ``(chunks, 3, atoms, lanes)``."""
        apart = subtract(rows(x, self.first), rows(x, self.second))
        square = dot(apart, apart).clamp_min(self.floor)
        r = torch.sqrt(square)
        return Distances(square, stored(r), stored(torch.reciprocal(r)))

    def forward(self, distances: Distances) -> tuple[Tensor, Tensor]:
        """Return the energy of every pair and its slope over distance, ``u'(r) / r``."""
        inverse_square = distances.inverse.square()
        inverse_6 = inverse_square * inverse_square * inverse_square
        repulsion, attraction = self.lj12 * inverse_6 * inverse_6, self.lj6 * inverse_6
        coulomb = self.coulomb * distances.inverse
        stretch = distances.r - self.bond_r0
        tension = self.bond_k * stretch
        energy = repulsion - attraction + coulomb + 0.5 * tension * stretch
        slope = (6 * attraction - 12 * repulsion - coulomb) * inverse_square + tension * distances.inverse
        return energy, slope
