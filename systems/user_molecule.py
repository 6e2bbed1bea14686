"""A user's own molecule: a PDB file under a named force field, or an OpenMM System with its topology."""

from __future__ import annotations

import io
import re
import warnings
from functools import lru_cache
from pathlib import Path

import networkx as nx
import openmm
from openmm import app, unit

from boltzgen_diffclf.errors import InputError, first_line
from systems.force_fields import (
    minimised,
    parametrised_states,
    require_force_field,
    with_hydrogens,
)
from systems.molecular import MolecularSystem, positions_from_quantity
from systems.protonation import (
    name_amines_as_they_are_built,
    names_in_cif,
    names_in_pdb,
    protonation,
    usual_names,
    usual_names_in_cif,
)
from systems.residue_checks import require_peptides, told
from systems.rotatable import rotatable_torsions
from systems.solvation_states import (
    BORN_FORCES,
    backbone_basins,
    backbone_torsions,
    solvation_states,
    solvation_system,
    without_solvent,
)
from systems.system_checks import require_system


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
    topology, positions, called = _read_topology(path)
    protonation(called, topology)
    require_peptides(path, topology, positions, called)
    return _peptide(path, forcefield, solvent, name, _content(path))


@lru_cache(maxsize=4)
def _peptide(path: Path, forcefield: str, solvent: str, name: str, content: bytes) -> MolecularSystem:
    # Kept as long as the file says the same: a workflow asks for its molecule several times.
    topology, positions, called = _read_topology(path)
    variants = protonation(called, topology)
    name_amines_as_they_are_built(topology, variants)
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
    return _of_openmm(system_path, topology_path, name, _content(system_path), _content(topology_path))


@lru_cache(maxsize=4)
def _of_openmm(
    system_path: Path, topology_path: Path, name: str, system_content: bytes, topology_content: bytes
) -> MolecularSystem:
    system = _read_system(system_path)
    topology, positions, _ = _read_topology(topology_path)
    require_system(system_path, system, topology_path, topology, positions)
    is_solvated = any(isinstance(force, BORN_FORCES) for force in system.getForces())
    states = solvation_states(without_solvent(system), system if is_solvated else None)
    return _solvated(name, topology, positions, states)


def _content(path: Path) -> bytes:
    """Return what is in a file, nothing where it cannot be read, which its reader explains."""
    try:
        return path.read_bytes()
    except OSError:
        return b""


def _solvated(
    name: str,
    topology: app.Topology,
    positions: unit.Quantity,
    states: dict[str, openmm.System],
    solvent: str | None = None,
) -> MolecularSystem:
    _require_one_molecule(topology)
    start = positions_from_quantity(minimised(states.get("implicit", states["vacuum"]), positions))
    torsions = backbone_torsions(topology)
    basins = backbone_basins(topology, torsions)
    torsions = torsions or rotatable_torsions(topology, start)
    return solvation_system(name, topology, start, states, torsions, basins, solvent=solvent)


def _require_one_molecule(topology: app.Topology) -> None:
    """Refuse molecules that nothing holds together: without a box they part, and have no equilibrium."""
    graph = nx.Graph((bond[0].index, bond[1].index) for bond in topology.bonds())
    graph.add_nodes_from(range(topology.getNumAtoms()))
    first = nx.node_connected_component(graph, 0)
    if len(first) < len(graph):
        apart = next(atom for atom in topology.atoms() if atom.index not in first)
        raise InputError(
            f"no bond joins atom {apart.name} of {told(apart.residue)} to the first: give one molecule, as several "
            "in no box drift apart, and the bonds of residues that are no amino acids in CONECT records"
        )


def _read_topology(path: Path) -> tuple[app.Topology, unit.Quantity, list[str]]:
    """Return what a file holds, and what it calls its residues."""
    if not path.is_file():
        raise InputError(f"there is no file {path}: check the path")
    readers = {".pdb": app.PDBFile, ".ent": app.PDBFile, ".cif": app.PDBxFile}
    if path.suffix.lower() not in readers:
        raise InputError(f"{path} has the unknown format '{path.suffix}': give one of {', '.join(readers)}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)  # of atoms that are there twice, for one
            text, is_pdb = path.read_text(encoding="utf-8"), path.suffix.lower() != ".cif"
            if is_pdb:  # frames without MODEL records end in END, which the reader passes over
                text = re.split(r"^END\s*$", text, maxsplit=1, flags=re.MULTILINE)[0]
            usual = usual_names(text) if is_pdb else usual_names_in_cif(text)
            file = readers[path.suffix.lower()](io.StringIO(usual))
            if not file.topology.getNumAtoms():
                raise ValueError("it holds no atoms")
            called = names_in_pdb(text) if is_pdb else names_in_cif(text, file.topology)
    except Exception as error:
        # OpenMM's reader looks for the first atom of a file that has none.
        said = "it holds no atoms" if isinstance(error, IndexError) else first_line(error)
        raise InputError(f"{path} cannot be read ({said}): check that it is a whole {path.suffix} file") from error
    if len(called) != file.topology.getNumResidues():
        raise InputError(f"{path}: lines of one residue stand apart: put them together")
    return file.topology, file.positions, called


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
