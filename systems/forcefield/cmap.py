"""Correction maps: periodic bicubic splines as polynomials of grid cells."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Float
from openmm import unit
from scipy.interpolate import CubicSpline

from systems.forcefield.parameters import Array, CmapParameters

# Rows: value at 0, value at 1, derivative at 0, derivative at 1; columns: powers of the place in the cell.
HERMITE = np.array([[1.0, 0, -3, 2], [0, 0, 3, -2], [0, 1, -2, 1], [0, 0, -1, 1]])


def periodic_derivative(values: Array) -> Array:
    """Return the derivative along axis 0 of the periodic cubic spline, per grid step."""
    closed = np.concatenate([values, values[:1]])
    spline = CubicSpline(np.arange(len(closed)), closed, axis=0, bc_type="periodic")
    return np.asarray(spline(np.arange(len(values)), 1))


def cell_polynomials(energy: Float[Array, "grid grid"]) -> Float[Array, "grid grid 16"]:
    """Return the 4 x 4 polynomial coefficients of every cell of a periodic map.

    Args:
        energy: at grid points, the first torsion along axis 0 [kJ/mol].
    """
    by_first = periodic_derivative(energy)
    by_second = periodic_derivative(energy.T).T
    by_both = periodic_derivative(by_second)

    def corners(values: Array) -> Array:
        ahead = np.roll(values, -1, axis=0)
        both = np.array([[values, np.roll(values, -1, axis=1)], [ahead, np.roll(ahead, -1, axis=1)]])
        return np.moveaxis(both, (0, 1), (-2, -1))

    known = np.block([[corners(energy), corners(by_second)], [corners(by_first), corners(by_both)]])
    return np.einsum("xyab,ap,bq->xypq", known, HERMITE, HERMITE).reshape(*energy.shape, 16)


def read_cmaps(force: Any) -> list[CmapParameters]:
    """Return the correction maps of a CMAPTorsionForce, one entry for each grid size."""
    maps = [force.getMapParameters(index) for index in range(force.getNumMaps())]
    terms = [force.getTorsionParameters(index) for index in range(force.getNumTorsions())]
    collected = []
    for size in sorted({maps[term[0]][0] for term in terms}):
        members = [index for index, (grid, _) in enumerate(maps) if grid == size]
        of_size = [term for term in terms if term[0] in members]
        # OpenMM stores the first torsion fastest.
        energies = [
            np.array(maps[index][1].value_in_unit(unit.kilojoule_per_mole)).reshape(size, size).T for index in members
        ]
        atoms = np.array([term[1:] for term in of_size], dtype=np.int64)
        collected.append(
            CmapParameters(
                first=atoms[:, :4],
                second=atoms[:, 4:],
                map_index=np.array([members.index(term[0]) for term in of_size], dtype=np.int64),
                coefficients=np.array([cell_polynomials(energy) for energy in energies]),
            )
        )
    return collected
