"""Torsions about rotatable bonds: of a molecule that has no backbone of residues, and of side chains."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import torch
from jaxtyping import Float
from openmm import app
from torch import Tensor

from boltzgen_diffclf.coordinates.tree import build_tree
from boltzgen_diffclf.observables.chirality import refined_colours
from systems.legs import Quadruple

_STRAIGHT = math.cos(math.radians(170))
"""Cosine of an angle beyond which a torsion through it is not defined."""

_MOST_TREES = 8
"""A tree that prefers the torsions of the one before has nearly always the same."""


def rotatable_torsions(
    topology: app.Topology, positions: Float[Tensor, "atoms 3"], preferred: Iterable[Quadruple] = ()
) -> dict[str, Quadruple]:
    """Return the torsions that internal coordinates turn about single bonds, where that changes what one sees.

    Left out are bonds at one end of which all sides are alike, as in a methyl or a phenyl ring, or that go straight
    on, as in a nitrile. Names are those of the atoms, with their residue where there are several, and with their
    numbers from 1 where that is not enough.

    Args:
        topology: of one molecule.
        positions: of its first configuration [nm].
        preferred: torsions that are coordinates in any case.

    Raises:
        InputError: a molecule in several pieces.
    """
    atoms = list(topology.atoms())
    if len(atoms) < 4:
        return {}
    elements = [atom.element.symbol if atom.element else "X" for atom in atoms]
    bonds = [(bond[0].index, bond[1].index) for bond in topology.bonds()]
    found: list[Quadruple] = []
    for _ in range(_MOST_TREES):
        before, found = found, _soft(len(atoms), bonds, elements, [*preferred, *found])
        if found == before:
            break
    torsions: dict[str, Quadruple] = {}
    for quadruple in found:
        if any(_is_straight(positions[list(three)]) for three in (quadruple[:3], quadruple[1:])):
            continue
        name, residue = "-".join(atoms[atom].name for atom in quadruple), atoms[quadruple[1]].residue
        if topology.getNumResidues() > 1:
            name += f"-{residue.name}{residue.id}{residue.insertionCode.strip()}"
        if name in torsions:
            name += f"-{quadruple[1] + 1}-{quadruple[2] + 1}"
        torsions[name] = quadruple
    return torsions


def side_torsions(
    topology: app.Topology, positions: Float[Tensor, "atoms 3"], named: Iterable[Quadruple]
) -> dict[str, Quadruple]:
    """Return :func:`rotatable_torsions` about bonds inside of a residue that no torsion of a name of its own turns."""
    named = tuple(named)
    atoms, known = list(topology.atoms()), {frozenset(quadruple[1:3]) for quadruple in named}
    return {
        name: quadruple
        for name, quadruple in rotatable_torsions(topology, positions, named).items()
        if frozenset(quadruple[1:3]) not in known and atoms[quadruple[1]].residue is atoms[quadruple[2]].residue
    }


def _soft(
    n_atoms: int, bonds: Sequence[tuple[int, int]], elements: Sequence[str], preferred: Sequence[Quadruple]
) -> list[Quadruple]:
    """Return the soft torsions of a tree, from the bond's first atom to its second, in the order of these."""
    neighbours: list[list[int]] = [[] for _ in range(n_atoms)]
    for first, second in bonds:
        neighbours[first].append(second)
        neighbours[second].append(first)
    alike = refined_colours(elements, neighbours)

    def are_told_apart(atom: int, axis: int) -> bool:
        sides = [alike[other] for other in neighbours[atom] if other != axis]
        return len(sides) == 1 or len(set(sides)) > 1

    found = []
    for one in build_tree(n_atoms, bonds, elements, preferred).placements:
        if one.is_soft and are_told_apart(one.parent, one.grandparent) and are_told_apart(one.grandparent, one.parent):
            chain = (one.atom, one.parent, one.grandparent, one.reference)
            found.append(chain if one.parent < one.grandparent else chain[::-1])
    return sorted(found, key=lambda quadruple: quadruple[1:3])


def _is_straight(three: Float[Tensor, "3 3"]) -> bool:
    one, other = three[0] - three[1], three[2] - three[1]
    return bool(torch.dot(one, other) < _STRAIGHT * one.norm() * other.norm())
