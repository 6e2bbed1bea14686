"""Stereocentres of a molecule, from its bonds, and which hand they have in a configuration."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int

from boltzgen_diffclf.errors import InputError

_FLAT = 1e-2
"""Triple product of unit vectors below which a centre of the reference has no hand."""


def stereocentres(elements: Sequence[str], bonds: Sequence[tuple[int, int]]) -> Int[np.ndarray, "centres 4"]:
    """Return every carbon with four different neighbours, and three of these, a row each.

    Two neighbours differ where no symmetry of the bond graph that colour refinement sees exchanges them; the centres
    of rings that the ring alone makes different are not found. Hydrogens come last among the neighbours, so that a
    row survives where hydrogens are left out.

    Args:
        elements: symbol of each atom, hydrogens included.
        bonds: index pairs.

    References:
        Morgan 1965, J. Chem. Doc. 5:107 (refinement of atom classes).

    >>> fluorochlorobromomethane = ["C", "H", "F", "Cl", "Br"]
    >>> stereocentres(fluorochlorobromomethane, [(0, 1), (0, 2), (0, 3), (0, 4)]).tolist()
    [[0, 2, 3, 4]]
    """
    neighbours: list[list[int]] = [[] for _ in elements]
    for first, second in bonds:
        neighbours[first].append(second)
        neighbours[second].append(first)
    colours = refined_colours(elements, neighbours)
    centres = []
    for atom, around in enumerate(neighbours):
        if elements[atom] == "C" and len(around) == 4 and len({colours[other] for other in around}) == 4:
            heavy_first = sorted(around, key=lambda other: (elements[other] == "H", other))
            centres.append([atom, *heavy_first[:3]])
    return np.array(centres, dtype=np.int64).reshape(-1, 4)


def handedness(
    positions: Float[np.ndarray, "frames atoms 3"], centres: Int[np.ndarray, "centres 4"]
) -> Int[np.ndarray, "frames centres"]:
    """Return the sign of the triple product of each centre's bonds, +1 or -1.

    Args:
        positions: in any unit of length.
        centres: centre and three neighbours, a row each.

    Raises:
        InputError: when an index names no atom.
    """
    return np.where(_volumes(positions, centres) > 0, 1, -1)


def reference_handedness(
    reference: Float[np.ndarray, "atoms 3"], centres: Int[np.ndarray, "centres 4"]
) -> Int[np.ndarray, " centres"]:
    """Return :func:`handedness` of the configuration that others are judged by.

    Raises:
        InputError: when an index names no atom, or a centre is flat there.
    """
    volumes = _volumes(reference[None], centres)[0]
    flat = centres[np.abs(volumes) < _FLAT, 0]
    if len(flat):
        raise InputError(f"atoms {flat.tolist()} are flat in the reference, so they have no hand; give another one")
    return np.where(volumes > 0, 1, -1)


def _volumes(
    positions: Float[np.ndarray, "frames atoms 3"], centres: Int[np.ndarray, "centres 4"]
) -> Float[np.ndarray, "frames centres"]:
    n_atoms = positions.shape[1]
    if centres.size and (centres.min() < 0 or centres.max() >= n_atoms):
        raise InputError(f"stereocentres {centres.tolist()} do not all exist among {n_atoms} atoms")
    centre, *around = (positions[:, centres[:, corner]].astype(np.float64) for corner in range(4))
    first, second, third = (_direction(neighbour - centre) for neighbour in around)
    return np.asarray(np.sum(first * np.cross(second, third), axis=-1))


def _direction(vector: Float[np.ndarray, "frames centres 3"]) -> Float[np.ndarray, "frames centres 3"]:
    return vector / np.maximum(np.linalg.norm(vector, axis=-1, keepdims=True), np.finfo(np.float64).tiny)


def refined_colours(elements: Sequence[str], neighbours: Sequence[Sequence[int]]) -> list[int]:
    """Return the class of each atom: equal where elements and, to any depth, surroundings are."""
    colours = _ranks([(element,) for element in elements])
    while True:
        around = [
            (colours[atom], *sorted(colours[other] for other in neighbours[atom])) for atom in range(len(colours))
        ]
        refined = _ranks(around)
        if len(set(refined)) == len(set(colours)):
            return refined
        colours = refined


def _ranks(keys: Sequence[tuple[object, ...]]) -> list[int]:
    order = {key: rank for rank, key in enumerate(dict.fromkeys(keys))}
    return [order[key] for key in keys]
