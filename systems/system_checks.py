"""What a user's OpenMM System must be: of the atoms of its topology, and an energy of a free molecule, nothing else."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import openmm
from jaxtyping import Float
from openmm import app, unit
from scipy.spatial.transform import Rotation

from boltzgen_diffclf.errors import InputError, first_line
from systems.residue_checks import require_possible_bonds, told

_MOVING_COSTS_KJ_PER_MOL = 0.01
"""What the arithmetic makes of an energy that does not change."""

_MOVED_NM = np.array([0.31, -0.17, 0.23])
_TURNED = Rotation.from_rotvec([0.4, -0.7, 0.5]).as_matrix()

_MASS_TOLERANCE_AMU = 0.5
_HEAVIEST_HYDROGEN_AMU = 5.0
"""Hydrogens may have been made heavier, at the expense of their neighbours."""


def require_system(
    system_path: Path, system: openmm.System, path: Path, topology: app.Topology, positions: unit.Quantity
) -> None:
    """Refuse a System that is not of these atoms, or not the energy of a free molecule alone.

    Args:
        system_path: of its file, for what is said.
        system: that it holds.
        path: of the file of atoms.
        topology: of them.
        positions: of them.

    Raises:
        InputError: naming the atom or the force.
    """
    _require_same_atoms(system_path, system, path, topology)
    _require_energy_alone(system_path, system)
    require_possible_bonds(path, topology, positions)
    _require_free_molecule(system_path, system, positions)


def _require_same_atoms(system_path: Path, system: openmm.System, path: Path, topology: app.Topology) -> None:
    if system.getNumParticles() != topology.getNumAtoms():
        raise InputError(
            f"{system_path} has {system.getNumParticles()} particles and {path} {topology.getNumAtoms()} atoms: give "
            "the topology of this System"
        )
    atoms = list(topology.atoms())
    masses = [system.getParticleMass(atom.index).value_in_unit(unit.amu) for atom in atoms]
    is_usual = all(
        abs(mass - 1.008) < _MASS_TOLERANCE_AMU
        for atom, mass in zip(atoms, masses, strict=True)
        if atom.element is app.element.hydrogen
    )
    for atom, mass in zip(atoms, masses, strict=True):
        if mass == 0:
            raise InputError(
                f"particle {atom.index} of {system_path} has no mass: frozen atoms and virtual sites are not sampled "
                "here; give a System in which all atoms move"
            )
        if atom.element is not None and not _is_mass_of(atom.element, mass, is_usual):
            raise InputError(
                f"atom {atom.index}, {atom.name} in {told(atom.residue)} of {path}, is {atom.element.name}, and "
                f"particle {atom.index} of {system_path} has a mass of {mass:.4g} amu: give the topology of this "
                "System, atoms in its order"
            )
    _require_bonds(system_path, system, path, topology)


def _require_energy_alone(path: Path, system: openmm.System) -> None:
    """Refuse what changes the ensemble and is no energy of the molecule."""
    for force in system.getForces():
        name = type(force).__name__
        if "Barostat" in name:
            raise InputError(f"{path} has a {name}, and states here have no box whose volume could change: take it out")
        if "Thermostat" in name:
            raise InputError(
                f"{path} has a thermostat of its own, {name}, and the temperature here is --temperature-kelvin: "
                "take it out"
            )


def _require_free_molecule(path: Path, system: openmm.System, positions: unit.Quantity) -> None:
    """Refuse a force whose energy changes when the whole molecule is moved or turned: frames are kept centred."""
    points = np.array(positions.value_in_unit(unit.nanometer))

    def whole() -> float:
        try:
            return _changes(system, points)
        except openmm.OpenMMException as error:
            raise InputError(
                f"OpenMM cannot compute the System of {path} ({first_line(error)}): mend its file"
            ) from error

    for index, force in enumerate(system.getForces()):
        if _is_of_a_mesh(force):  # which stands still
            continue
        alone = copy.deepcopy(system)
        for other in reversed(range(alone.getNumForces())):
            if other != index:
                alone.removeForce(other)
        try:
            change = _changes(alone, points)
        except openmm.OpenMMException:  # some forces need another beside them
            change = whole()
        if change:
            raise InputError(
                f"{path}: the energy of its {type(force).__name__} (force {index}) changes by {change:.3g} kJ/mol when "
                "the whole molecule is moved or turned, and frames here are of a molecule that is free to: take that "
                "force out"
            )


def _is_of_a_mesh(force: openmm.Force) -> bool:
    methods = (openmm.NonbondedForce.Ewald, openmm.NonbondedForce.PME, openmm.NonbondedForce.LJPME)
    return isinstance(force, openmm.NonbondedForce) and force.getNonbondedMethod() in methods


def _changes(system: openmm.System, points: Float[np.ndarray, "atoms 3"]) -> float:
    """Return by how much the energy [kJ/mol] changes when all is moved, and turned unless in a box; 0 if not at all."""
    context = openmm.Context(system, openmm.VerletIntegrator(1e-3), openmm.Platform.getPlatformByName("Reference"))

    def energy(at: Float[np.ndarray, "atoms 3"]) -> float:
        context.setPositions(at)
        found: float = context.getState(getEnergy=True).getPotentialEnergy().value_in_unit(unit.kilojoule_per_mole)
        return found

    elsewhere = [points + _MOVED_NM]
    if not any(force.usesPeriodicBoundaryConditions() for force in system.getForces()):
        elsewhere.append(points @ _TURNED.T)
    here = energy(points)
    change = max(abs(energy(at) - here) for at in elsewhere)
    # What is no number is told by the minimiser.
    return change if change > _MOVING_COSTS_KJ_PER_MOL + 1e-5 * abs(here) else 0.0


def _is_mass_of(element: app.Element, mass_amu: float, hydrogens_are_usual: bool) -> bool:
    if hydrogens_are_usual:
        return bool(abs(mass_amu - element.mass.value_in_unit(unit.amu)) < _MASS_TOLERANCE_AMU)
    return (element is app.element.hydrogen) == (mass_amu < _HEAVIEST_HYDROGEN_AMU)


def _require_bonds(system_path: Path, system: openmm.System, path: Path, topology: app.Topology) -> None:
    """Refuse bonds that either has alone.

    Atoms two bonds apart may have a harmonic term of their own (Urey & Bradley).
    """
    springs = _springs(system)
    held = springs | {
        frozenset(system.getConstraintParameters(index)[:2]) for index in range(system.getNumConstraints())
    }
    neighbours: dict[int, set[int]] = {atom.index: set() for atom in topology.atoms()}
    for first, second in topology.bonds():
        if held and frozenset((first.index, second.index)) not in held:
            raise InputError(
                f"{path} bonds {first.name} and {second.name} in {told(second.residue)} (atoms {first.index} and "
                f"{second.index}), and {system_path} has no such bond: give the topology of this System, atoms in its "
                "order"
            )
        neighbours[first.index].add(second.index)
        neighbours[second.index].add(first.index)
    atoms = list(topology.atoms())
    for one, other in sorted(map(sorted, springs)):
        if other not in neighbours[one] and neighbours[one].isdisjoint(neighbours[other]):
            first, second = atoms[one], atoms[other]
            raise InputError(
                f"{system_path} bonds atoms {one} and {other}, {first.name} in {told(first.residue)} and {second.name} "
                f"in {told(second.residue)}, and {path} has no such bond: add it there (CONECT), or, if it is a "
                "restraint, write it as a CustomBondForce"
            )


def _springs(system: openmm.System) -> set[frozenset[int]]:
    """Return the pairs of atoms with a harmonic bond that pulls."""
    found = set()
    for force in system.getForces():
        if isinstance(force, openmm.HarmonicBondForce):
            for index in range(force.getNumBonds()):
                first, second, _, strength = force.getBondParameters(index)
                if strength.value_in_unit_system(unit.md_unit_system) > 0:
                    found.add(frozenset((first, second)))
    return found
