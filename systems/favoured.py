"""States with a bias that makes a rare basin a common one, and the weights that take the bias away again.

A basin that is 2 % of the frames is 2 % of what a network learns from and 2 % of its particles. Umbrella sampling
(Torrie & Valleau 1977, doi:10.1016/0021-9991(77)90121-8) gives it as many as one likes; the bias is known, so that
weights restore the state without it exactly. Walkers that cross from one basin to another seldom do so more often where
the barrier between is made lower too.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from boltzgen_diffclf.coordinates import Arc, TorsionArc
from boltzgen_diffclf.errors import InputError, nearest_name
from boltzgen_diffclf.favouring import ArcBias
from systems.derived_states import FavouredState
from systems.loading import FAVOURED
from systems.molecular import MolecularSystem

_ARC = re.compile(r"(.+?)\s+in\s+([-+]?[0-9.]+)\s*\.\.\s*([-+]?[0-9.]+)")

NARROWEST = 20.0
"""Arc [degrees] that a bias, whose edges are smooth, still fills by two thirds of its depth."""


@dataclass(frozen=True)
class Favour:
    """Where a molecule is made likelier.

    Attributes:
        where: a basin by its name, or ``TORSION in LOW..HIGH`` [degrees], such as a barrier between two basins.
        depth_kt: by how much it is made deeper [kT], in the middle of a wide arc, and less towards its smooth edges; a
            negative depth makes it shallower.
    """

    where: str
    depth_kt: float

    def __post_init__(self) -> None:
        """Refuse a depth that is no number, or none."""
        if not math.isfinite(self.depth_kt) or self.depth_kt == 0:
            raise InputError(f"'{self.where}' made {self.depth_kt} kT deeper: give a number that is not zero")


def favoured(system: MolecularSystem, favours: Sequence[Favour]) -> MolecularSystem:
    """Return the molecule with one more state beside each of its own, ``STATE-favoured``.

    Raises:
        InputError: the molecule has no such basin or torsion.
    """
    biases = biases_of(system, favours)
    for state in system.states:
        system = system.with_derived(f"{state}{FAVOURED}", FavouredState((state,), biases))
    return system


def biases_of(system: MolecularSystem, favours: Sequence[Favour]) -> tuple[ArcBias, ...]:
    """Return the biases on the torsions of a molecule, or of some of its beads.

    Raises:
        InputError: it has no such basin or torsion.
    """
    return tuple(ArcBias(region_of(system, one.where), one.depth_kt) for one in favours)


def bias_of(system: MolecularSystem, state: str) -> FavouredState | None:
    """Return a state with a bias, with the name of the one without it among its sources; None for any other."""
    made = system.derived.get(state)
    return made if isinstance(made, FavouredState) else None


def region_of(system: MolecularSystem, where: str) -> TorsionArc:
    """Return a basin by its name, or the arc of a torsion, see :class:`Favour`.

    Raises:
        InputError: the molecule has no such basin or torsion, or the arc has no length.
    """
    match = _ARC.fullmatch(where.strip())
    if match is None:
        basin = system.require_basin(where)
        return TorsionArc(system.torsions[basin.torsion], Arc(basin.low, basin.high))
    torsion, *ends = match.groups()
    if torsion not in system.torsions:
        raise InputError(
            f"system '{system.name}' has no torsion '{torsion}': choose one of "
            f"{', '.join(system.torsions)}{nearest_name(torsion, [*system.torsions])}"
        )
    try:
        low, high = (float(end) for end in ends)
    except ValueError:
        low = high = math.nan
    if not (-180 <= low <= 180 and -180 <= high <= 180 and NARROWEST <= (high - low) % 360 <= 360 - NARROWEST):
        raise InputError(
            f"'{where}' is no arc: write TORSION in LOW..HIGH, two angles from -180 to 180 degrees that are at least "
            f"{NARROWEST:g} degrees apart either way"
        )
    return TorsionArc(system.torsions[torsion], Arc(math.radians(low), math.radians(high)))
