"""Which atoms of a molecule are alike, judged by element and bonds."""

from __future__ import annotations

from collections.abc import Sequence


def atom_types(elements: Sequence[str], bonds: Sequence[tuple[int, int]], reach: int = 3) -> list[int]:
    """Return an integer an atom, the same for atoms whose surroundings look the same up to ``reach`` bonds away.

    The hydrogens of one methyl are alike; those of different methyls are not where something within reach differs.

    Args:
        elements: symbol of each atom.
        bonds: pairs of bonded atoms.
        reach: rounds of refinement.

    References:
        Weisfeiler & Leman 1968 (colour refinement).

    >>> atom_types(["O", "H", "H"], [(0, 1), (0, 2)])
    [1, 0, 0]
    """
    neighbours: list[list[int]] = [[] for _ in elements]
    for first, second in bonds:
        neighbours[first].append(second)
        neighbours[second].append(first)
    colours = _numbered(list(elements))
    for _ in range(reach):
        colours = _numbered(
            [(own, tuple(sorted(colours[other] for other in neighbours[atom]))) for atom, own in enumerate(colours)]
        )
    return colours


def _numbered(labels: Sequence[str] | Sequence[tuple[int, tuple[int, ...]]]) -> list[int]:
    number = {label: index for index, label in enumerate(sorted(set(labels)))}  # type: ignore[type-var]
    return [number[label] for label in labels]
