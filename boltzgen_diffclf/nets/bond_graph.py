"""How far apart two atoms are along the bonds of a molecule."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Int
from torch import Tensor

BOND_CLASSES = 5
"""The same atom, one to three bonds apart, or farther (also: not connected)."""


def bond_separation(n_atoms: int, bonds: Sequence[tuple[int, int]]) -> Int[Tensor, "atoms atoms"]:
    """Return the number of bonds between each two atoms, 4 standing for all that is farther.

    Raises:
        ValueError: if a bond names an atom that is not there, or joins an atom to itself.

    >>> bond_separation(3, [(0, 1), (1, 2)]).tolist()
    [[0, 1, 2], [1, 0, 1], [2, 1, 0]]
    """
    adjacency = torch.zeros(n_atoms, n_atoms)
    for first, second in bonds:
        if first == second or not (0 <= first < n_atoms and 0 <= second < n_atoms):
            raise ValueError(f"bond ({first}, {second}) does not join two of the atoms 0 to {n_atoms - 1}")
        adjacency[first, second] = adjacency[second, first] = 1.0
    reached = torch.eye(n_atoms)
    separation = torch.full((n_atoms, n_atoms), BOND_CLASSES - 1)
    separation.fill_diagonal_(0)
    for distance in range(1, BOND_CLASSES - 1):
        reached = reached @ adjacency
        separation[(reached > 0) & (separation > distance)] = distance
    return separation
