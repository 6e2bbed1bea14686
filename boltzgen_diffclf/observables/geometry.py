"""Bond lengths and bond angles of many configurations at once."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int


def distances(
    positions: Float[np.ndarray, "frames atoms 3"], pairs: Int[np.ndarray, "pairs 2"]
) -> Float[np.ndarray, "frames pairs"]:
    """Return the distance of each pair of atoms [unit of the positions]; of bonds, the bond lengths."""
    return np.asarray(np.linalg.norm(positions[:, pairs[:, 0]] - positions[:, pairs[:, 1]], axis=-1))


def bond_angles(
    positions: Float[np.ndarray, "frames atoms 3"], triples: Int[np.ndarray, "angles 3"]
) -> Float[np.ndarray, "frames angles"]:
    """Return the angle [rad] at the second atom of each triple, 0 to pi.

    References:
        Kahan 2006, How futile are mindless assessments of roundoff, sec. 12 (exact also where the bonds are aligned).
    """
    first, centre, last = (positions[:, triples[:, corner]] for corner in range(3))
    one, other = first - centre, last - centre
    sine = np.linalg.norm(np.cross(one, other), axis=-1)
    return np.asarray(np.arctan2(sine, np.sum(one * other, axis=-1)))


def angle_triples(bonds: Sequence[tuple[int, int]]) -> Int[np.ndarray, "angles 3"]:
    """Return every two bonds that share an atom, as end, shared atom, end.

    >>> angle_triples([(0, 1), (1, 2)]).tolist()
    [[0, 1, 2]]
    """
    around: dict[int, list[int]] = {}
    for first, second in bonds:
        around.setdefault(first, []).append(second)
        around.setdefault(second, []).append(first)
    triples = [
        (one, centre, other)
        for centre in sorted(around)
        for one, other in itertools.combinations(sorted(around[centre]), 2)
    ]
    return np.array(triples, dtype=np.int64).reshape(-1, 3)
