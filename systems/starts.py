"""Where walkers begin: at a configuration of the molecule, or inside an arc of a torsion, or on both sides of it."""

from __future__ import annotations

import hashlib
import math

import openmm
import torch
from jaxtyping import Float
from openmm import unit
from torch import Tensor

from boltzgen_diffclf.coordinates import Arc, InternalCoordinates, TorsionArc
from boltzgen_diffclf.errors import InputError
from systems.derived_states import FavouredState
from systems.force_fields import minimised
from systems.internal import internal_coordinates
from systems.legs import Quadruple
from systems.molecular import MolecularSystem, positions_from_quantity

_STARTS = 24
"""Angles of an arc that are tried for a first configuration."""

_HOLD_KJ_PER_MOL = 1e4
"""Of the spring [kJ/mol/rad^2] that holds the torsion while the rest of the molecule moves downhill."""


def walker_starts(system: MolecularSystem, state: str) -> Float[Tensor, "starts atoms 3"]:
    """Return the configurations of a state [nm] where its walkers begin in turn.

    A favoured state has walkers on both sides of all that is favoured: a basin that is to hold half of them would else
    take as long to fill as barriers take to cross.

    Raises:
        InputError: unknown state, or a favoured torsion that does not turn freely.
    """
    starts, made = system.starts(state), system.derived.get(state)
    if not isinstance(made, FavouredState):
        return starts
    for region in (bias.region for bias in made.biases):
        torsion = next(name for name, atoms in system.torsions.items() if atoms == region.atoms)
        sides = {bool(inside) for inside in region(starts)}
        missing = [arc for inside, arc in ((True, region.arc), (False, region.arc.rest)) if inside not in sides]
        more = [start_in_arc(system, made.sources[0], torsion, arc)[None].to(starts) for arc in missing]
        starts = torch.cat([starts, *more])
    return starts


def begun_at(system: MolecularSystem, state: str) -> dict[str, object]:
    """Return what a file has to say of where its walkers began: nothing where there is one start alone."""
    starts = system.starts(state)
    content = hashlib.sha256(starts.double().numpy().tobytes()).hexdigest()[:16] if len(starts) > 1 else ""
    # What is found on the other side of a basin need not be the same on another machine.
    both = "both sides of what is favoured" if isinstance(system.derived.get(state), FavouredState) else ""
    told = ", ".join(filter(None, [content, both]))
    return {"starts": told} if told else {}


def soft_column(system: MolecularSystem, internal: InternalCoordinates, torsion: str) -> int:
    """Return the internal coordinate that is a named torsion about a freely turning bond.

    Raises:
        InputError: the torsion is in a ring, or stiff.
    """
    column = internal.torsion_column(system.torsions[torsion])
    if column is None or not bool(internal.is_soft[column]):
        raise InputError(f"torsion '{torsion}' of {system.name} does not turn freely: choose a basin of another one")
    return column


def start_in_arc(system: MolecularSystem, state: str, torsion: str, arc: Arc) -> Float[Tensor, "atoms 3"]:
    """Return a configuration inside an arc of a torsion [nm], as far downhill as that, held where it is, allows.

    Args:
        system: the molecule, whose own configuration is taken where that is inside.
        state: that gives the energy; it has an OpenMM System.
        torsion: by name.
        arc: where it has to be.

    Raises:
        InputError: the torsion is in a ring, or stiff, or nothing was found inside.
    """
    internal = internal_coordinates(system)
    column, region = soft_column(system, internal, torsion), TorsionArc(system.torsions[torsion], arc)
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
        raise InputError(
            f"no configuration of {system.name} was found with {torsion} from {math.degrees(arc.low):.0f} to "
            f"{math.degrees(arc.high):.0f} degrees: choose a wider basin"
        )
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
