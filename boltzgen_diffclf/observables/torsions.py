"""Torsion angles of many configurations at once."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int, Shaped

from boltzgen_diffclf.errors import InputError


def torsion_angles(
    positions: Float[np.ndarray, "frames atoms 3"], quadruples: Int[np.ndarray, "torsions 4"]
) -> Float[np.ndarray, "frames torsions"]:
    """Return torsion angles [rad] in [-pi, pi), positive when the far bond is turned clockwise (IUPAC).

    Args:
        positions: in any unit of length.
        quadruples: atoms i, j, k, l of each torsion about the bond j-k.

    Raises:
        InputError: when an index names no atom.

    References:
        Blondel & Karplus 1996, J. Comput. Chem. 17:1132 (the arctangent form).
    """
    n_atoms = positions.shape[1]
    if quadruples.size and (quadruples.min() < 0 or quadruples.max() >= n_atoms):
        raise InputError(f"torsion atoms {quadruples.tolist()} do not all exist among {n_atoms} atoms")
    i, j, k, last = (positions[:, quadruples[:, corner]] for corner in range(4))
    axis = k - j
    normal_near, normal_far = np.cross(j - i, axis), np.cross(axis, last - k)
    sine = np.linalg.norm(axis, axis=-1) * np.sum((j - i) * normal_far, axis=-1)
    return wrap(np.arctan2(sine, np.sum(normal_near * normal_far, axis=-1)))


def wrap(angle: Float[np.ndarray, "*shape"]) -> Float[np.ndarray, "*shape"]:
    """Return angles [rad] brought to [-pi, pi).

    >>> wrap(np.array([np.pi])).tolist() == [-np.pi]
    True
    """
    inside = np.mod(angle + np.pi, 2 * np.pi) - np.pi
    # The remainder of a tiny negative number rounds up to the whole turn.
    return np.where(inside >= np.pi, -np.pi, inside).astype(angle.dtype)


def paired_torsions(phi: Int[np.ndarray, "phis 4"], psi: Int[np.ndarray, "psis 4"]) -> Shaped[np.ndarray, "pairs 2"]:
    """Return the rows of ``phi`` and ``psi`` that belong to one residue: those that share N, CA and C.

    A chain's first residue has no phi and its last no psi, so pairing by position in the list is wrong.
    """
    rows = {tuple(quadruple[:3]): row for row, quadruple in enumerate(psi.tolist())}
    pairs = [
        (row, rows[tuple(quadruple[1:])]) for row, quadruple in enumerate(phi.tolist()) if tuple(quadruple[1:]) in rows
    ]
    return np.array(pairs, dtype=np.int64).reshape(-1, 2)
