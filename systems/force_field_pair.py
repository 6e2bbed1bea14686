"""One molecule under two force fields as two states: a change of force field as a free-energy difference."""

from __future__ import annotations

import dataclasses

import torch

from boltzgen_diffclf.errors import InputError
from boltzgen_diffclf.streams import named_generator
from systems.derived_states import MixedState
from systems.ensemble import energies_of
from systems.force_fields import parametrised_states, require_force_field
from systems.legs import Leg
from systems.molecular import MolecularSystem

FORCE_FIELD_LEG = "forcefield"

_SHAKEN_NM = 0.02

_ROUNDING_KT = 1e-2
"""Less than by this do energies of one force field change where its parameters are written in other digits [kT]."""


def force_field_pair(system: MolecularSystem, state: str, forcefield: str) -> MolecularSystem:
    """Return the molecule in one state under its own force field (A) and under another (B), and the leg between them.

    States: ``STATE`` and ``STATE-FORCEFIELD``, of the same atoms in the same order; the model of the solvent keeps its
    name, and takes the parameters that go with the force field.

    Args:
        system: the molecule; its solvent model has a name.
        state: one of its states.
        forcefield: of B, one of :data:`~systems.force_fields.FORCE_FIELDS`.

    Raises:
        InputError: no such state or force field, a residue that it does not know, a molecule whose solvent model has
            no name, or twice the same energy.
    """
    system.require_state(state)
    if system.solvent is None:
        raise InputError(
            f"{system.name} comes with forces of its own, and which force field and solvent go with "
            f"'{forcefield}' is not known: give --peptide, --pdb or a named --system"
        )
    require_force_field(forcefield, system.solvent)
    others = parametrised_states(system.topology, forcefield, system.solvent)
    other = f"{state}-{forcefield}"
    pair = dataclasses.replace(
        system,
        openmm_systems={state: system.openmm_system(state), other: others[state]},
        basins={name: dataclasses.replace(basin, published={}) for name, basin in system.basins.items()},
        reweighted={},
        legs={
            FORCE_FIELD_LEG: Leg(
                FORCE_FIELD_LEG, state, other, about=f"B is {state} under {forcefield}, of the same atoms"
            )
        },
    )
    if _are_one(pair, state, other):
        raise InputError(f"{system.name} has the force field {forcefield} already: choose another one")
    return pair


def _are_one(pair: MolecularSystem, state: str, other: str) -> bool:
    """Return whether two states have one energy: parameters written in other digits are the same force field."""
    if pair.system_hash(state) == pair.system_hash(other):
        return True
    # Some force fields differ in torsions alone, which have to turn.
    shaken = torch.randn(8, pair.n_atoms, 3, generator=named_generator(0, "shaken"), dtype=torch.float64)
    x = pair.positions.double() + _SHAKEN_NM * shaken
    differences = energies_of(pair, state, 300.0, x) - energies_of(pair, other, 300.0, x)
    return bool((differences - differences[0]).abs().max() < _ROUNDING_KT)


def mixed_state(fraction: float) -> str:
    """Return the name of the state with a fraction of the second force field.

    >>> mixed_state(0.25)
    'mixed-0.25'
    """
    return f"mixed-{fraction:g}"


def with_mixed_state(pair: MolecularSystem, fraction: float) -> MolecularSystem:
    """Return the pair with the state ``(1 - fraction) u_A + fraction u_B`` too."""
    leg = pair.require_leg(FORCE_FIELD_LEG)
    return pair.with_derived(mixed_state(fraction), MixedState((leg.state_a, leg.state_b), fraction))
