"""The two conformers of a molecule as two states: one state, confined to a basin and to the rest."""

from __future__ import annotations

import math
import re
from dataclasses import replace

import openmm
import torch
from jaxtyping import Float
from openmm import unit
from torch import Tensor

from boltzgen_diffclf.coordinates import Arc, InternalCoordinates, TorsionArc
from boltzgen_diffclf.errors import InputError
from systems.derived_states import ConfinedState
from systems.force_fields import minimised
from systems.internal import internal_coordinates
from systems.legs import Basin, Division, Leg, Quadruple
from systems.molecular import MolecularSystem, positions_from_quantity

CONFORMER_LEG = "conformers"

ALDP_BASIN = "phi > 0"
"""Where no basin is named and the molecule has this one."""

_OWN_BASIN = re.compile(r"\s*([^:]+?)\s*:\s*\(?\s*([^,()\s]+)\s*,\s*([^,()\s]+)\s*\)?\s*")
_STARTS = 24
"""Angles of an arc that are tried for a first configuration."""

_HOLD_KJ_PER_MOL = 1e4
"""Of the spring [kJ/mol/rad^2] that holds the torsion while the rest of the molecule moves downhill."""


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
    internal = internal_coordinates(system)
    column = soft_column(system, internal, basin.torsion)
    whole = replace(
        system,
        openmm_systems={state: system.openmm_system(state)},
        basins={key: replace(one, published={}) for key, one in {**system.basins, name: basin}.items()},
        reweighted={},
        legs={},
    )
    atoms = system.torsions[basin.torsion]
    for suffix, part in (("rest", arc.rest), ("basin", arc)):
        start = _start(whole, state, internal, column, TorsionArc(atoms, part))
        whole = whole.with_derived(f"{state}-{suffix}", ConfinedState((state,), TorsionArc(atoms, part), start))
    about = f"B is {basin.torsion} in ({basin.low:g}, {basin.high:g}) rad, A all the rest of {state}"
    published = basin.published.get(state, ())
    leg = Leg(CONFORMER_LEG, f"{state}-rest", f"{state}-basin", published, Division(state, name), about)
    return replace(whole, legs={leg.name: leg})


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


def soft_column(system: MolecularSystem, internal: InternalCoordinates, torsion: str) -> int:
    """Return the internal coordinate that is a named torsion about a freely turning bond.

    Raises:
        InputError: the torsion is in a ring, or stiff.
    """
    column = internal.torsion_column(system.torsions[torsion])
    if column is None or not bool(internal.is_soft[column]):
        raise InputError(f"torsion '{torsion}' of {system.name} does not turn freely: choose a basin of another one")
    return column


def _start(
    system: MolecularSystem, state: str, internal: InternalCoordinates, column: int, region: TorsionArc
) -> Float[Tensor, "atoms 3"]:
    """Return a configuration inside a region [nm], as far downhill as its torsion, held where it is, allows."""
    if bool(region(system.positions[None])):
        return system.positions
    angles = region.arc.low + region.arc.length * torch.linspace(0, 1, _STARTS + 2, dtype=torch.float64)[1:-1]
    turned = internal.from_cartesian(system.positions[None].double()).repeat(_STARTS, 1)
    turned[:, column] = angles
    candidates = internal.to_cartesian(turned)[0]
    with torch.no_grad():
        energies = system.target(state).energy(candidates)
    best = int(energies.nan_to_num(nan=torch.inf).argmin())
    held = _held(system.openmm_system(state), region.atoms, float(angles[best]))
    settled = positions_from_quantity(minimised(held, unit.Quantity(candidates[best].numpy(), unit.nanometer)))
    if not bool(region(settled[None])):
        raise InputError(f"no configuration of {system.name} was found in {region.arc}: choose a wider basin")
    return settled


def _held(system: openmm.System, atoms: Quadruple, angle: float) -> openmm.System:
    """Return the System with a spring that holds a torsion at an angle [rad]."""
    spring = openmm.CustomTorsionForce(
        f"0.5 * {_HOLD_KJ_PER_MOL} * min(away, {2 * math.pi} - away)^2; away = abs(theta - centre)"
    )
    spring.addPerTorsionParameter("centre")
    spring.addTorsion(*atoms, [math.remainder(angle, 2 * math.pi)])
    system.addForce(spring)
    return system
