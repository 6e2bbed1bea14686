"""From bonds to a Z-matrix: which atom is placed from which, for any connected molecule, rings included."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import networkx as nx

from boltzgen_diffclf.errors import InputError

Edge = frozenset[int]


@dataclass(frozen=True)
class Placement:
    """How one atom is placed: at a bond from ``parent``, an angle to ``grandparent``, a torsion to ``reference``.

    Attributes:
        atom: the atom placed.
        parent: its bonded neighbour in the tree.
        grandparent: a bonded neighbour of ``parent``.
        reference: for a proper torsion a bonded neighbour of ``grandparent``; otherwise the sibling (another child
            of ``parent``) from which this atom's torsion is counted.
        is_proper: whether ``atom-parent-grandparent-reference`` is a chain of bonds.
        is_soft: whether the torsion turns a rotatable bond: one soft torsion a rotatable bond.
        symmetry: 3 where the soft torsion turns three identical leaves (methyl, ammonium), otherwise 1.
        level: distance in bonds from the root bond; atoms of a level are placed at once.
    """

    atom: int
    parent: int
    grandparent: int
    reference: int
    is_proper: bool
    is_soft: bool
    symmetry: int
    level: int


@dataclass(frozen=True)
class ZMatrix:
    """A spanning tree of the molecule that grows from both ends of one central bond.

    Attributes:
        n_atoms: number of atoms.
        root: ``(r0, r1, r2)``: the root bond ``r0-r1`` and the first child of ``r1``; they fix the frame.
        placements: the other ``n_atoms - 3`` atoms, by level.
    """

    n_atoms: int
    root: tuple[int, int, int]
    placements: tuple[Placement, ...]


def build_tree(
    n_atoms: int,
    bonds: Sequence[tuple[int, int]],
    elements: Sequence[str],
    torsions: Sequence[tuple[int, int, int, int]] = (),
) -> ZMatrix:
    """Return a Z-matrix in which every rotatable bond has exactly one soft, proper torsion.

    The root bond is the middle of the longest heavy-atom chain; peptide backbones, and the bonds of ``torsions``,
    are preferred for that chain and for the first child of every atom, so that phi, psi and omega are columns.

    Args:
        n_atoms: number of atoms, at least 4.
        bonds: pairs of atom indices; rings may close.
        elements: one symbol an atom; ``"H"`` is placed last.
        torsions: quadruples of atoms whose bonds are preferred; ``torsion_column`` tells which became columns.

    Raises:
        InputError: fewer than 4 atoms, a bond that names no atom, or a molecule in several pieces.

    >>> butane = build_tree(4, [(0, 1), (1, 2), (2, 3)], ["C"] * 4)
    >>> butane.root, butane.placements[0].is_soft
    ((1, 2, 3), True)
    """
    graph = _molecular_graph(n_atoms, bonds, elements)
    preferred = _peptide_bonds(graph) | {frozenset(pair) for quadruple in torsions for pair in pairwise(quadruple)}
    chain = _root_chain(graph, preferred)
    start = (len(chain) - 2) // 2
    root = (chain[start], chain[start + 1], chain[start + 2])
    children = _ordered_children(graph, chain, start, preferred)
    return ZMatrix(n_atoms, root, tuple(_placements(graph, root, children)))


def _molecular_graph(n_atoms: int, bonds: Sequence[tuple[int, int]], elements: Sequence[str]) -> nx.Graph:
    if n_atoms < 4:
        raise InputError(f"internal coordinates need at least 4 atoms, got {n_atoms}; give a larger molecule")
    if len(elements) != n_atoms:
        raise InputError(f"{len(elements)} elements for {n_atoms} atoms; give one symbol an atom")
    graph = nx.Graph()
    for atom, element in enumerate(elements):
        graph.add_node(atom, element=element)
    for first, second in sorted(tuple(sorted(bond)) for bond in bonds):
        if not 0 <= first < second < n_atoms:
            raise InputError(f"bond {first}-{second} does not join two of the atoms 0-{n_atoms - 1}; mend the topology")
        graph.add_edge(first, second)
    pieces = sorted(nx.connected_components(graph), key=len)
    if len(pieces) > 1:
        raise InputError(
            f"the molecule is in {len(pieces)} pieces: no bond joins atoms {_listed(pieces[0])} to the rest; "
            "add the bond"
        )
    return graph


def _listed(atoms: Iterable[int], at_most: int = 8) -> str:
    ordered = sorted(atoms)
    return ", ".join(map(str, ordered[:at_most])) + (", ..." if len(ordered) > at_most else "")


def _peptide_bonds(graph: nx.Graph) -> set[Edge]:
    """Return the bonds N-CA, CA-C and C-N of peptide backbones, known by their elements and degrees."""
    element = graph.nodes(data="element")
    carbonyls = {
        atom
        for atom in graph
        if element[atom] == "C" and any(element[n] == "O" and graph.degree(n) == 1 for n in graph[atom])
    }
    found = {frozenset((c, n)) for c in carbonyls for n in graph[c] if element[n] == "N"}
    for alpha in graph:
        nitrogens = [n for n in graph[alpha] if element[n] == "N"]
        carbons = [n for n in graph[alpha] if n in carbonyls]
        if element[alpha] == "C" and alpha not in carbonyls and nitrogens and carbons:
            found |= {frozenset((alpha, n)) for n in (*nitrogens, *carbons)}
    return found


def _root_chain(graph: nx.Graph, preferred: set[Edge]) -> list[int]:
    """Return a path of heavy atoms with as many preferred bonds, then atoms, as there are; at least three."""
    heavy = [atom for atom, element in graph.nodes(data="element") if element != "H"]
    pieces = nx.connected_components(graph.subgraph(heavy or list(graph)))
    backbone = graph.subgraph(max(pieces, key=lambda piece: (len(piece), -min(piece))))
    # Farthest from anywhere, then farthest from there: the best of all paths on a tree, a good one with rings.
    end = _farthest(backbone, min(backbone), preferred)[-1]
    chain = min(path := _farthest(backbone, end, preferred), path[::-1])
    while len(chain) < 3:
        beyond = [n for n in graph[chain[-1]] if n not in chain]
        before = [n for n in graph[chain[0]] if n not in chain]
        chain = [*chain, beyond[0]] if beyond else [before[0], *chain]
    return chain


def _farthest(graph: nx.Graph, source: int, preferred: set[Edge]) -> list[int]:
    """Return the shortest path from ``source`` that has most preferred bonds, then most atoms."""
    score, previous = {source: (0, 1)}, {source: source}
    for near, far in nx.bfs_edges(graph, source):
        score[far] = (score[near][0] + (frozenset((near, far)) in preferred), score[near][1] + 1)
        previous[far] = near
    path = [max(score, key=lambda atom: (score[atom], -atom))]
    while path[-1] != source:
        path.append(previous[path[-1]])
    return path[::-1]


def _ordered_children(graph: nx.Graph, chain: list[int], start: int, preferred: set[Edge]) -> dict[int, list[int]]:
    """Return each atom's children, the chain's next atom or else the one that leads farthest first."""
    children: dict[int, list[int]] = {atom: [] for atom in graph}
    for position, atom in enumerate(chain):
        if position not in (start, start + 1):
            children[chain[position + 1] if position < start else chain[position - 1]].append(atom)
    visited, order = set(chain), [chain[start], chain[start + 1]]
    for atom in order:  # grows while it is walked: breadth first
        new = [n for n in graph[atom] if n not in visited]
        visited.update(new)
        children[atom].extend(new)
        order.extend(children[atom])
    element, on_chain = graph.nodes(data="element"), set(chain)
    reach: dict[int, tuple[int, int]] = {}

    def key(parent: int, child: int) -> tuple[int, int]:
        bonds, length = reach[child]
        return bonds + (frozenset((parent, child)) in preferred), length + (element[child] != "H")

    for atom in reversed(order):
        keys = {child: key(atom, child) for child in children[atom]}
        reach[atom] = max(keys.values(), default=(0, 0))
        children[atom].sort(key=lambda child: (child not in on_chain, -keys[child][0], -keys[child][1], child))
    return children


def _placements(graph: nx.Graph, root: tuple[int, int, int], children: dict[int, list[int]]) -> list[Placement]:
    bridges = {frozenset(bond) for bond in nx.bridges(graph)}
    parent = {root[0]: root[1], root[1]: root[0]}
    placements, frontier, level = [], [root[1], root[0]], 1
    while frontier:
        for atom in frontier:
            grandparent = parent[atom]
            # The root bond's own torsion is counted from r2; everything else from the atom before the axis.
            ancestor = root[2] if atom == root[0] else parent[grandparent]
            rotatable = frozenset((atom, grandparent)) in bridges
            for child in children[atom]:
                parent[child] = atom
                is_proper = child == children[atom][0]
                if child == root[2]:
                    continue
                is_soft = is_proper and rotatable
                symmetry = 3 if is_soft and _is_threefold(graph, atom, grandparent) else 1
                reference = ancestor if is_proper else children[atom][0]
                placements.append(Placement(child, atom, grandparent, reference, is_proper, is_soft, symmetry, level))
        frontier = [child for atom in frontier for child in children[atom]]
        level += 1
    return placements


def _is_threefold(graph: nx.Graph, atom: int, axis: int) -> bool:
    leaves = [n for n in graph[atom] if n != axis]
    identical = len({graph.nodes[n]["element"] for n in leaves}) == 1
    return len(leaves) == 3 and identical and all(graph.degree(n) == 1 for n in leaves)
