"""Internal coordinates of a molecule."""

from __future__ import annotations

from boltzgen_diffclf.coordinates import InternalCoordinates
from systems.molecular import MolecularSystem


def internal_coordinates(system: MolecularSystem) -> InternalCoordinates:
    """Return the internal coordinates of a molecule, whose named torsions are columns of their own.

    Raises:
        InputError: the molecule is in several pieces, or too small.
    """
    return InternalCoordinates.from_bonds(
        system.n_atoms, system.bonds, system.elements, tuple(system.torsions.values())
    )
