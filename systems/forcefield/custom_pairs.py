"""Lennard-Jones terms that come as a CustomNonbondedForce or a CustomBondForce, recognised by value.

Whatever the expression looks like, its coefficients are read off where the atoms all but touch and where they are far
apart; it is accepted where ``lj12 / r^12 - lj6 / r^6`` then is its value in between.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import openmm

from systems.forcefield.custom_terms import CustomTerms
from systems.forcefield.expressions import ExpressionError, Value
from systems.forcefield.parameters import Array, Indices
from systems.forcefield.refusal import refuse

_NEAR, _FAR = 1e-8, 1e8
"""Distances [nm] where one of both powers alone is left: they differ by 48 orders of magnitude and more."""

_PROBES = (0.05, 0.17, 0.3, 0.42, 0.9, 3.1)
"""Distances [nm] where the expression and the powers are compared."""

_AGREEMENT = 1e-9


def read_custom_nonbonded(index: int, force: Any) -> tuple[Array, Array]:
    """Return ``lj12`` and ``lj6`` of all pairs of a CustomNonbondedForce, above the diagonal of ``(atoms, atoms)``.

    Raises:
        UnsupportedSystemError: for a cutoff, groups, or an expression that is not of Lennard and Jones.
    """
    if force.getNonbondedMethod() != openmm.CustomNonbondedForce.NoCutoff:
        refuse(index, force, "has a cutoff, and only NoCutoff is computed")
    if force.getNumInteractionGroups():
        refuse(index, force, "has interaction groups")
    n = force.getNumParticles()
    names = [force.getPerParticleParameterName(i) for i in range(force.getNumPerParticleParameters())]
    values = np.array([force.getParticleParameters(i) for i in range(n)]).reshape(n, len(names))
    first, second = np.triu_indices(n, k=1)

    def of_pairs(one: Indices, two: Indices) -> dict[str, Value]:
        numbered = {f"{name}1": values[one, i] for i, name in enumerate(names)}
        return numbered | {f"{name}2": values[two, i] for i, name in enumerate(names)}

    terms = CustomTerms(index, force)
    lj12, lj6 = np.zeros((n, n)), np.zeros((n, n))
    pair = (first, second)
    lj12[pair], lj6[pair] = powers = _powers(index, force, terms, of_pairs(first, second), len(first))
    _require(index, force, terms, of_pairs(second, first), powers)
    for exclusion in range(force.getNumExclusions()):
        i, j = sorted(force.getExclusionParticles(exclusion))
        lj12[i, j] = lj6[i, j] = 0.0
    return lj12, lj6


def read_custom_bonds(index: int, force: Any, n_atoms: int) -> tuple[Array, Array]:
    """Return ``lj12`` and ``lj6`` of the pairs of a CustomBondForce, above the diagonal of ``(atoms, atoms)``.

    Raises:
        UnsupportedSystemError: for an expression that is not of Lennard and Jones.
    """
    lj12, lj6 = np.zeros((n_atoms, n_atoms)), np.zeros((n_atoms, n_atoms))
    bonds = [force.getBondParameters(bond) for bond in range(force.getNumBonds())]
    names = [force.getPerBondParameterName(i) for i in range(force.getNumPerBondParameters())]
    variables: dict[str, Value] = {name: np.array([bond[2][i] for bond in bonds]) for i, name in enumerate(names)}
    of_bonds = _powers(index, force, CustomTerms(index, force), variables, len(bonds))
    pairs = np.sort(np.array([bond[:2] for bond in bonds], dtype=np.int64).reshape(-1, 2), axis=1)
    np.add.at(lj12, tuple(pairs.T), of_bonds[0])
    np.add.at(lj6, tuple(pairs.T), of_bonds[1])
    return lj12, lj6


Powers = tuple[Array, Array]


def _powers(index: int, force: Any, terms: CustomTerms, variables: dict[str, Value], count: int) -> Powers:
    """Return ``lj12`` and ``lj6`` of every pair; refuse an expression that has anything else."""
    energy = _energy(index, force, terms, variables)
    found = np.broadcast_to(energy(_NEAR) * _NEAR**12, count), np.broadcast_to(-energy(_FAR) * _FAR**6, count)
    _require(index, force, terms, variables, found)
    return found


def _require(index: int, force: Any, terms: CustomTerms, variables: dict[str, Value], powers: Powers) -> None:
    energy = _energy(index, force, terms, variables)
    for r in _PROBES:
        repulsion, attraction = powers[0] / r**12, powers[1] / r**6
        error = np.abs(energy(r) - (repulsion - attraction))
        if not np.all(error <= _AGREEMENT * (np.abs(repulsion) + np.abs(attraction))):
            text = force.getEnergyFunction()
            refuse(index, force, f"has the energy '{text}', and only lj12 / r^12 - lj6 / r^6 of each pair is computed")


def _energy(index: int, force: Any, terms: CustomTerms, variables: dict[str, Value]) -> Callable[[float], Array]:
    def energy(r: float) -> Array:
        try:
            return terms.evaluate(force.getEnergyFunction(), {**variables, "r": r})
        except ExpressionError as error:
            refuse(index, force, f"has the energy '{force.getEnergyFunction()}', which cannot be read ({error})")

    return energy
