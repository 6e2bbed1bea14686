"""What a user's file of residues must be: known, whole, named and built as amino acids are."""

from __future__ import annotations

import collections
import logging
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from openmm import app, unit

from boltzgen_diffclf.errors import InputError
from systems.residue_geometry import residue_template
from systems.sequence import FIRST_CAP, LAST_CAP, ONE_LETTER

_log = logging.getLogger(__name__)

_LONGEST_BOND_NM = 0.25
"""A longer one joins residues between which others are missing."""

_CHARMM_CAPS = ("CAY", "HY1", "HY2", "HY3", "CY", "OY", "NT", "HNT", "CAT", "HT1", "HT2", "HT3")
"""What CHARMM calls the atoms of caps that are patches of an amino acid."""

_SHORTEST_BOND_NM = 0.05
"""A shorter one is in other units, or of atoms that lie on each other."""


def require_peptides(path: Path, topology: app.Topology, positions: unit.Quantity, called: Sequence[str]) -> None:
    """Refuse what a force field cannot be given; hydrogens may be missing.

    Args:
        path: of the file, for what is said.
        topology: that it holds.
        positions: of its atoms.
        called: what the file calls its residues.

    Raises:
        InputError: naming the residue and the atom.
    """
    _require_known_residues(path, topology)
    _require_heavy_atoms(path, topology)
    _require_usual_atoms(path, topology)
    _require_whole_disulfides(path, topology, called)
    require_possible_bonds(path, topology, positions, _LONGEST_BOND_NM)
    _tell_other_hands(path, topology, positions)
    _tell_neutral_amines(path, topology)


def told(residue: app.topology.Residue) -> str:
    """Return a residue in words."""
    return f"residue {residue.name} {residue.id}{residue.insertionCode.strip()} of chain {residue.chain.id}"


def _require_known_residues(path: Path, topology: app.Topology) -> None:
    known = (*ONE_LETTER.values(), FIRST_CAP, LAST_CAP)
    for residue in topology.residues():
        if residue.name not in known:
            raise InputError(
                f"{path}: {told(residue)} is no amino acid that the force fields know: take it out, or make its "
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
                    f"{path}: {told(residue)} lacks {', '.join(missing)}: add the missing atoms (pdbfixer does), or "
                    "cap the end of the chain"
                )


def _require_usual_atoms(path: Path, topology: app.Topology) -> None:
    # Bonds of amino acids are known by the names of their atoms.
    bonded = {atom for bond in topology.bonds() for atom in bond}
    for atom in topology.atoms():
        atom_of = f"{path}: {told(atom.residue)}"
        if atom not in bonded:
            advice = "give the cap a residue of its own, ACE or NME" if atom.name in _CHARMM_CAPS else "take it out"
            raise InputError(f"{atom_of} has no atom of the name {atom.name}: call it by its usual name, or {advice}")
        if atom.name == "HXT":
            raise InputError(f"{atom_of} has an acid hydrogen, HXT, and ends are charged here: take it out, or add NME")
        wanted = residue_template(atom.residue.name).elements.get(atom.name)
        wanted = wanted or (app.element.oxygen if atom.name == "OXT" else app.element.hydrogen)
        is_cap_carbon = atom.residue.name == LAST_CAP and atom.name in ("C", "CH3")
        if atom.element is not wanted and not is_cap_carbon:
            found = "no element" if atom.element is None else atom.element.name
            raise InputError(f"{atom_of}: atom {atom.name} is {found} by its element, and should be {wanted.name}")


def _require_whole_disulfides(path: Path, topology: app.Topology, called: Sequence[str]) -> None:
    joined = {atom.residue for bond in topology.bonds() for atom in bond if {one.name for one in bond} == {"SG"}}
    for residue, name in zip(topology.residues(), called, strict=True):
        if name == "CYX" and residue not in joined:
            raise InputError(
                f"{path}: {told(residue)} is called CYX, half of a disulfide, and no other sulphur is near its own: "
                "call it CYS, or add the other half"
            )


def _tell_other_hands(path: Path, topology: app.Topology, positions: unit.Quantity) -> None:
    points = np.array(positions.value_in_unit(unit.nanometer))
    for residue in topology.residues():
        place = {atom.name: points[atom.index] for atom in residue.atoms()}
        if "CB" in place:
            to_n, to_c, to_cb = (place[name] - place["CA"] for name in ("N", "C", "CB"))
            if np.dot(np.cross(to_n, to_c), to_cb) < 0:
                _log.warning(
                    "%s: %s has the hand of a D-amino acid, and is taken as it is; basins are those of L",
                    path,
                    told(residue),
                )


def _tell_neutral_amines(path: Path, topology: app.Topology) -> None:
    firsts = {next(chain.residues()) for chain in topology.chains()}
    hydrogens = collections.Counter(
        one.residue
        for bond in topology.bonds()
        for one, other in (bond, reversed(bond))
        if one.name == "N" and other.element is app.element.hydrogen
    )
    for residue in topology.residues():
        charged = 2 if residue.name == "PRO" else 3
        if residue in firsts and residue.name != FIRST_CAP and 0 < hydrogens[residue] < charged:
            _log.warning(
                "%s: %s has %d hydrogens on its N; ends are charged here, and it gets %d (add ACE for one that is not)",
                path,
                told(residue),
                hydrogens[residue],
                charged,
            )


def require_possible_bonds(
    path: Path, topology: app.Topology, positions: unit.Quantity, longest_nm: float = math.inf
) -> None:
    """Refuse bonds that no molecule has.

    Raises:
        InputError: naming the bond.
    """
    points = np.array(positions.value_in_unit(unit.nanometer))
    for first, second in topology.bonds():
        length = float(np.linalg.norm(points[first.index] - points[second.index]))
        bond = (
            f"{path}: the bond of {first.name} in {told(first.residue)} to {second.name} in {told(second.residue)} "
            f"is {length:.3f} nm long"
        )
        if not length < longest_nm:
            raise InputError(f"{bond}: residues between them may be missing, or the coordinates not in Å")
        if length < _SHORTEST_BOND_NM:
            raise InputError(f"{bond}: the coordinates may not be in Å, or atoms lie on each other")
