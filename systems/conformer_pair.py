"""The two conformers of a molecule as two states: one state, confined to a basin and to the rest."""

from __future__ import annotations

import math
import re
from dataclasses import replace

from boltzgen_diffclf.coordinates import Arc, TorsionArc
from boltzgen_diffclf.errors import InputError
from systems.derived_states import ConfinedState
from systems.legs import Basin, Division, Leg
from systems.molecular import MolecularSystem
from systems.starts import start_in_arc

CONFORMER_LEG = "conformers"

ALDP_BASIN = "phi > 0"
"""Where no basin is named and the molecule has this one."""

_OWN_BASIN = re.compile(r"\s*([^:]+?)\s*:\s*\(?\s*([^,()\s]+)\s*,\s*([^,()\s]+)\s*\)?\s*")


def conformer_pair(system: MolecularSystem, state: str, conformer: str | None = None) -> MolecularSystem:
    """Return the molecule in one state, in the two parts that a basin cuts it into, and the leg between them.

    States: ``STATE``; ``STATE-rest`` (A), the same energy outside the basin and infinite inside; ``STATE-basin`` (B),
    the other way round. ``F_B - F_A = -log(p_B / p_A)`` of their populations in the whole state.

    Args:
        system: the molecule.
        state: one of its states, which has an OpenMM System.
        conformer: a basin by its name, or ``TORSION:LOW,HIGH`` [rad], through pi where LOW > HIGH; brackets may be
            written. The left-handed basin of the only residue that has one where None.

    Raises:
        InputError: no such state, basin or torsion, an arc without length, or a torsion that no bond turns freely.
    """
    name, basin = _basin(system, conformer)
    arc = Arc(basin.low, basin.high)
    whole = replace(
        system,
        openmm_systems={state: system.openmm_system(state)},
        basins={key: replace(one, published={}) for key, one in {**system.basins, name: basin}.items()},
        reweighted={},
        legs={},
    )
    atoms = system.torsions[basin.torsion]
    for suffix, part in (("rest", arc.rest), ("basin", arc)):
        start = start_in_arc(whole, state, basin.torsion, part)
        whole = whole.with_derived(f"{state}-{suffix}", ConfinedState((state,), TorsionArc(atoms, part), start))
    about = f"B is {basin.torsion} in ({basin.low:g}, {basin.high:g}) rad, A all the rest of {state}"
    published = basin.published.get(state, ())
    leg = Leg(CONFORMER_LEG, f"{state}-rest", f"{state}-basin", published, Division(state, name), about)
    return whole.with_legs({leg.name: leg})


def _basin(system: MolecularSystem, conformer: str | None) -> tuple[str, Basin]:
    if conformer is None and ALDP_BASIN not in system.basins:
        known = ", ".join(f"'{name}'" for name in system.basins) or "none"
        raise InputError(f"{system.name} has no basin '{ALDP_BASIN}': name one with --conformer (its basins: {known})")
    name = conformer or ALDP_BASIN
    own = _OWN_BASIN.fullmatch(name)
    if name in system.basins or own is None:
        return name, system.require_basin(name)
    torsion, low, high = own[1], _angle(name, own[2]), _angle(name, own[3])
    if torsion not in system.torsions:
        raise InputError(
            f"{system.name} has no torsion '{torsion}': choose one of {', '.join(system.torsions) or 'none'}"
        )
    if abs(high - low) > 2 * math.pi:
        raise InputError(
            f"conformer '{name}': from {low:g} to {high:g} radians is more than a turn; if these are degrees, write "
            f"{torsion}:{math.radians(low):.4g},{math.radians(high):.4g}"
        )
    try:
        Arc(low, high)
    except ValueError as error:
        raise InputError(f"conformer '{name}': {error}") from error
    return f"{torsion} in ({low:g}, {high:g})", Basin(torsion, low, high)


def _angle(conformer: str, word: str) -> float:
    try:
        angle = float(word)
    except ValueError:
        angle = math.nan
    if not math.isfinite(angle):
        raise InputError(f"conformer '{conformer}': {word} is no angle; write TORSION:LOW,HIGH in radians")
    return angle
