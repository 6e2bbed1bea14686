"""Torsions about rotatable bonds: of a molecule that has no backbone of residues, and of side chains."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable

import networkx as nx
import torch
from jaxtyping import Float
from openmm import app
from torch import Tensor

from boltzgen_diffclf.observables.chirality import refined_colours
from systems.legs import Quadruple

_STRAIGHT = math.cos(math.radians(170))
"""Cosine of an angle beyond which a torsion through it is not defined."""


def rotatable_torsions(topology: app.Topology, positions: Float[Tensor, "atoms 3"]) -> dict[str, Quadruple]:
    """Return a torsion about every bond that is in no ring and turns what can be told from what it was.

    Left out are bonds at one end of which all sides are alike, as in a methyl or a phenyl ring. Names are those of the
    atoms, with their residue where there are several, and with their numbers from 1 where that is not enough.

    Args:
        topology: of one molecule.
        positions: of its first configuration [nm].
    """
    atoms = list(topology.atoms())
    elements = [atom.element.symbol for atom in atoms]
    graph = nx.Graph((bond[0].index, bond[1].index) for bond in topology.bonds())
    graph.add_nodes_from(range(len(atoms)))
    alike = refined_colours(elements, [sorted(graph[atom]) for atom in range(len(atoms))])

    def sides(atom: int, axis: int) -> list[int]:
        """Return the other neighbours of an atom of a bond, hydrogens last; none where they are all alike."""
        found = sorted(set(graph[atom]) - {axis}, key=lambda n: (elements[n] == "H", n))
        return found if len(found) < 2 or len({alike[n] for n in found}) > 1 else []

    torsions: dict[str, Quadruple] = {}
    for first, second in sorted(tuple(sorted(bond)) for bond in nx.bridges(graph)):
        for before, behind in itertools.product(sides(first, second)[:1], sides(second, first)[:1]):
            quadruple = (before, first, second, behind)
            if any(_is_straight(positions[list(three)]) for three in (quadruple[:3], quadruple[1:])):
                continue
            name, residue = "-".join(atoms[atom].name for atom in quadruple), atoms[first].residue
            if topology.getNumResidues() > 1:
                name += f"-{residue.name}{residue.id}{residue.insertionCode.strip()}"
            if name in torsions:
                name += f"-{first + 1}-{second + 1}"
            torsions[name] = quadruple
    return torsions


def side_torsions(
    topology: app.Topology, positions: Float[Tensor, "atoms 3"], named: Iterable[Quadruple]
) -> dict[str, Quadruple]:
    """Return :func:`rotatable_torsions` about bonds inside of a residue that no torsion of a name of its own turns."""
    atoms, known = list(topology.atoms()), {frozenset(quadruple[1:3]) for quadruple in named}
    return {
        name: quadruple
        for name, quadruple in rotatable_torsions(topology, positions).items()
        if frozenset(quadruple[1:3]) not in known and atoms[quadruple[1]].residue is atoms[quadruple[2]].residue
    }


def _is_straight(three: Float[Tensor, "3 3"]) -> bool:
    one, other = three[0] - three[1], three[2] - three[1]
    return bool(torch.dot(one, other) < _STRAIGHT * one.norm() * other.norm())
