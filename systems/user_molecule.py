"""A user's own molecule: a PDB file under a named force field, or an OpenMM System with its topology."""

from __future__ import annotations

import io
import math
import warnings
from pathlib import Path

import numpy as np
import openmm
from openmm import app, unit

from boltzgen_diffclf.errors import InputError, first_line
from systems.force_fields import minimised, parametrised_states, require_force_field, with_hydrogens
from systems.molecular import MolecularSystem, positions_from_quantity
from systems.protonation import protonation, usual_names
from systems.residue_geometry import residue_template
from systems.sequence import FIRST_CAP, LAST_CAP, ONE_LETTER
from systems.solvation_states import (
    BORN_FORCES,
    backbone_basins,
    backbone_torsions,
    solvation_states,
    solvation_system,
    without_solvent,
)

_LONGEST_BOND_NM = 0.25
"""A longer one joins residues between which others are missing."""

_SHORTEST_BOND_NM = 0.05
"""A shorter one is in other units, or of atoms that lie on each other."""

_MASS_TOLERANCE_AMU = 0.5
_HEAVIEST_HYDROGEN_AMU = 5.0
"""Hydrogens may have been made heavier, at the expense of their neighbours."""


def from_pdb(path: Path, forcefield: str, solvent: str, name: str) -> MolecularSystem:
    """Return the peptide or protein of a PDB file, minimised, with the states of its solvation.

    Side chains are protonated as their hydrogens say, else as their residues are called (ASH, GLH, LYN, HID, HIE,
    HIP), else as at pH 7. Hydrogens that are missing are added, any other missing atom is refused.

    Args:
        path: of the file; its first model counts.
        forcefield: one of :data:`~systems.force_fields.FORCE_FIELDS`.
        solvent: one of :data:`~systems.force_fields.SOLVENTS`.
        name: of the system.

    Raises:
        InputError: no such file or force field, a residue that is not known, atoms that are missing.
    """
    require_force_field(forcefield, solvent)
    topology, positions, text = _read_topology(path)
    variants = protonation(text, topology)
    _require_known_residues(path, topology)
    _require_heavy_atoms(path, topology)
    _require_no_surplus(path, topology)
    _require_possible_bonds(path, topology, positions, _LONGEST_BOND_NM)
    topology, positions = with_hydrogens(topology, positions, forcefield, variants)
    return _solvated(name, topology, positions, parametrised_states(topology, forcefield, solvent), solvent)


def from_openmm(system_path: Path, topology_path: Path, name: str) -> MolecularSystem:
    """Return the molecule of a serialised OpenMM System, minimised.

    With a generalised-Born force the states are those of a solvation, ``implicit`` the System as it is; without one
    there is ``vacuum`` alone.

    Args:
        system_path: what ``openmm.XmlSerializer.serialize(system)`` wrote.
        topology_path: a PDB or mmCIF file with its atoms in order, and a configuration of them.
        name: of the system.

    Raises:
        InputError: files that cannot be read or do not describe the same atoms; the line names the first that differs.
    """
    system = _read_system(system_path)
    topology, positions, _ = _read_topology(topology_path)
    _require_same_atoms(system_path, system, topology_path, topology)
    _require_constant_volume(system_path, system)
    _require_possible_bonds(topology_path, topology, positions)
    is_solvated = any(isinstance(force, BORN_FORCES) for force in system.getForces())
    states = solvation_states(without_solvent(system), system if is_solvated else None)
    return _solvated(name, topology, positions, states)


def _solvated(
    name: str,
    topology: app.Topology,
    positions: unit.Quantity,
    states: dict[str, openmm.System],
    solvent: str | None = None,
) -> MolecularSystem:
    torsions = backbone_torsions(topology)
    start = positions_from_quantity(minimised(states.get("implicit", states["vacuum"]), positions))
    basins = backbone_basins(topology, torsions)
    return solvation_system(name, topology, start, states, torsions, basins, solvent=solvent)


def _read_topology(path: Path) -> tuple[app.Topology, unit.Quantity, str]:
    """Return what a file holds, and the text of a PDB file."""
    if not path.is_file():
        raise InputError(f"there is no file {path}: check the path")
    readers = {".pdb": app.PDBFile, ".ent": app.PDBFile, ".cif": app.PDBxFile}
    if path.suffix.lower() not in readers:
        raise InputError(f"{path} has the unknown format '{path.suffix}': give one of {', '.join(readers)}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)  # of atoms that are there twice, for one
            text, is_pdb = path.read_text(encoding="utf-8"), path.suffix.lower() != ".cif"
            file = readers[path.suffix.lower()](io.StringIO(usual_names(text) if is_pdb else text))
        if not file.topology.getNumAtoms():
            raise ValueError("it holds no atoms")
    except Exception as error:
        # OpenMM's reader looks for the first atom of a file that has none.
        said = "it holds no atoms" if isinstance(error, IndexError) else first_line(error)
        raise InputError(f"{path} cannot be read ({said}): check that it is a whole {path.suffix} file") from error
    return file.topology, file.positions, text if is_pdb else ""


def _read_system(path: Path) -> openmm.System:
    if not path.is_file():
        raise InputError(f"there is no file {path}: check the path")
    try:
        system = openmm.XmlSerializer.deserialize(path.read_text(encoding="utf-8"))
    except (openmm.OpenMMException, UnicodeDecodeError, OSError, ValueError) as error:
        raise InputError(f"{path} is no serialised OpenMM System ({first_line(error)})") from error
    if not isinstance(system, openmm.System):
        raise InputError(f"{path} holds an OpenMM {type(system).__name__}, and a System is needed")
    return system


def _told(residue: app.topology.Residue) -> str:
    return f"residue {residue.name} {residue.id} of chain {residue.chain.id}"


def _require_known_residues(path: Path, topology: app.Topology) -> None:
    known = (*ONE_LETTER.values(), FIRST_CAP, LAST_CAP)
    for residue in topology.residues():
        if residue.name not in known:
            raise InputError(
                f"{path}: {_told(residue)} is no amino acid that the force fields know: take it out, or make its "
                "System elsewhere and give --openmm-system"
            )


def _require_heavy_atoms(path: Path, topology: app.Topology) -> None:
    for chain in topology.chains():
        residues = list(chain.residues())
        for residue in residues:
            wanted = dict.fromkeys(residue_template(residue.name).positions)
            if residue is residues[-1] and residue.name != LAST_CAP:
                wanted["OXT"] = None
            found = {atom.name for atom in residue.atoms()}
            # The methyl of a cap is C or CH3, as one likes.
            missing = [name for name in wanted if name not in found]
            if residue.name == LAST_CAP and "CH3" in found:
                missing = [name for name in missing if name != "C"]
            if missing:
                raise InputError(
                    f"{path}: {_told(residue)} lacks {', '.join(missing)}: add the missing atoms (pdbfixer does), or "
                    "cap the end of the chain"
                )


def _require_no_surplus(path: Path, topology: app.Topology) -> None:
    # Bonds of amino acids are known by the names of their atoms.
    bonded = {atom for bond in topology.bonds() for atom in bond}
    for atom in topology.atoms():
        if atom not in bonded:
            raise InputError(
                f"{path}: {_told(atom.residue)} has no atom of the name {atom.name}: take it out, or call it by its "
                "usual name"
            )


def _require_possible_bonds(
    path: Path, topology: app.Topology, positions: unit.Quantity, longest_nm: float = math.inf
) -> None:
    points = np.array(positions.value_in_unit(unit.nanometer))
    for first, second in topology.bonds():
        length = float(np.linalg.norm(points[first.index] - points[second.index]))
        bond = (
            f"{path}: the bond of {first.name} in {_told(first.residue)} to {second.name} in {_told(second.residue)} "
            f"is {length:.3f} nm long"
        )
        if not length < longest_nm:
            raise InputError(f"{bond}: residues between them may be missing, or the coordinates not in Å")
        if length < _SHORTEST_BOND_NM:
            raise InputError(f"{bond}: the coordinates may not be in Å, or atoms lie on each other")


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
                f"atom {atom.index}, {atom.name} in {_told(atom.residue)} of {path}, is {atom.element.name}, and "
                f"particle {atom.index} of {system_path} has a mass of {mass:.4g} amu: give the topology of this "
                "System, atoms in its order"
            )
    _require_bonds(system_path, system, path, topology)


def _require_constant_volume(path: Path, system: openmm.System) -> None:
    for force in system.getForces():
        if "Barostat" in type(force).__name__:
            raise InputError(
                f"{path} has a {type(force).__name__}, and states here have no box whose volume could change: take it "
                "out"
            )


def _is_mass_of(element: app.Element, mass_amu: float, hydrogens_are_usual: bool) -> bool:
    if hydrogens_are_usual:
        return bool(abs(mass_amu - element.mass.value_in_unit(unit.amu)) < _MASS_TOLERANCE_AMU)
    return (element is app.element.hydrogen) == (mass_amu < _HEAVIEST_HYDROGEN_AMU)


def _require_bonds(system_path: Path, system: openmm.System, path: Path, topology: app.Topology) -> None:
    held = {frozenset(system.getConstraintParameters(index)[:2]) for index in range(system.getNumConstraints())}
    for force in system.getForces():
        if isinstance(force, openmm.HarmonicBondForce):
            held |= {frozenset(force.getBondParameters(index)[:2]) for index in range(force.getNumBonds())}
    for first, second in topology.bonds():
        if held and frozenset((first.index, second.index)) not in held:
            raise InputError(
                f"{path} bonds {first.name} and {second.name} in {_told(second.residue)} (atoms {first.index} and "
                f"{second.index}), and {system_path} has no such bond: give the topology of this System, atoms in its "
                "order"
            )
