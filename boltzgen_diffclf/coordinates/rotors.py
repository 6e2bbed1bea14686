"""Exact relabelling of symmetric rotors: a methyl's hydrogens, turned by whole thirds."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from boltzgen_diffclf.coordinates.internal import InternalCoordinates


def match_rotors(
    internal: InternalCoordinates, x: Float[Tensor, "batch atoms 3"], reference: Float[Tensor, "batch atoms 3"]
) -> Float[Tensor, "batch atoms 3"]:
    """Return ``x`` with the leaves of every threefold rotor relabelled cyclically, nearest to ``reference``.

    A cyclic relabelling of three identical leaves is a proper rotation of the rotor: it changes neither the energy
    nor the handedness, so an ensemble relabelled frame by frame stays exactly the ensemble, folded into one third
    of every rotor's circle relative to its partner.

    Args:
        internal: the internal coordinates that name the rotors.
        x: positions [nm].
        reference: the positions [nm] to which each rotor's torsion is brought closest.
    """
    torsions = 2 * internal.n_atoms - 3
    q, q_reference = internal.from_cartesian(x), internal.from_cartesian(reference)
    matched = x.clone()
    for leaves in _rotor_leaves(internal):
        first, *others = (torsions + row for row, _ in leaves)
        # The torsion of each leaf: the first is proper, the others are counted from it.
        own = torch.stack([q[:, first], *(q[:, first] + q[:, column] for column in others)], dim=-1)
        nearest = (own - q_reference[:, first, None]).cos().argmax(dim=-1)
        atoms = torch.tensor([atom for _, atom in leaves], device=x.device)
        cycle = (torch.arange(3, device=x.device) + nearest[:, None]) % 3
        matched[:, atoms] = x.gather(1, atoms[cycle][..., None].expand(-1, -1, 3))
    return matched


def _rotor_leaves(internal: InternalCoordinates) -> list[list[tuple[int, int]]]:
    """Return, a rotor each, the placements' rows and atoms of its three leaves, the proper one first."""
    placements = internal.tree.placements
    return [
        [(row, leaf.atom) for row, leaf in enumerate(placements) if leaf.parent == rotor.parent]
        for rotor in placements
        if rotor.symmetry == 3
    ]
