"""States between ``nonpolar`` and ``implicit``: a share of the polarisation."""

from __future__ import annotations

import dataclasses

from systems.molecular import MolecularSystem
from systems.solvation_states import with_polarisation


def polar_state(fraction: float) -> str:
    """Return the name of the state with a fraction of the polarisation.

    >>> polar_state(0.25)
    'polar-0.25'
    """
    return f"polar-{fraction:g}"


def with_polar_state(system: MolecularSystem, fraction: float) -> MolecularSystem:
    """Return a molecule that has the state ``(1 - fraction) u_nonpolar + fraction u_implicit`` too.

    Args:
        system: with a state ``implicit``.
        fraction: of the polarisation, from 0 to 1.

    Raises:
        InputError: it has no such state.
    """
    system.require_state("implicit")
    between = with_polarisation(system.openmm_systems["implicit"], fraction)
    return dataclasses.replace(system, openmm_systems={**system.openmm_systems, polar_state(fraction): between})
