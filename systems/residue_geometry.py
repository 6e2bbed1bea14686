"""Heavy atoms of a peptide from its torsions: residues of known shape, joined by peptide bonds of standard geometry."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import networkx as nx
import numpy as np
from jaxtyping import Float
from openmm import Vec3, app, unit
from scipy.spatial.transform import Rotation

from boltzgen_diffclf.errors import InputError
from systems.sequence import FIRST_CAP, LAST_CAP, VARIANTS

Point = Float[np.ndarray, "3"]

EXTENDED = {"phi": -135.0, "psi": 135.0, "omega": 180.0}
"""Torsions [degrees] where none are given."""

PROLINE_PHI = -70.0
"""Of proline [degrees], whose ring allows little else."""

PROLINE_PHI_RANGE = (-120.0, -30.0)
"""What it allows; what is asked for beyond would be pulled back by the ring without a word."""

# Bonds [nm] and angles [degrees] of the peptide group (Engh & Huber 2001, Int. Tables Cryst. F, 18.3).
_C_N, _N_CA, _CA_C, _C_O = 0.1336, 0.1459, 0.1525, 0.1229
_CA_C_N, _C_N_CA, _N_CA_C, _CA_C_O, _CA_C_OXT = 117.2, 121.7, 111.0, 120.1, 117.0

SIDE_CHAIN_TORSIONS: Mapping[str, Mapping[str, tuple[str, str, str, str]]] = {
    "chi1": {
        name: ("N", "CA", "CB", last)
        for last, names in {
            "CG": "ARG ASN ASP GLN GLU HIS LEU LYS MET PHE TRP TYR",
            "CG1": "ILE VAL",
            "OG": "SER",
            "OG1": "THR",
            "SG": "CYS",
        }.items()
        for name in names.split()
    },
    "chi2": {
        **{
            name: ("CA", "CB", "CG", last)
            for last, names in {
                "CD": "ARG GLN GLU LYS",
                "CD1": "LEU PHE TRP TYR",
                "OD1": "ASN ASP",
                "ND1": "HIS",
                "SD": "MET",
            }.items()
            for name in names.split()
        },
        "ILE": ("CA", "CB", "CG1", "CD1"),
    },
}
"""Atoms of the side-chain torsions of every residue that has them (IUPAC-IUB 1970); rings of proline do not turn."""


@dataclass(frozen=True, eq=False)
class ResidueTemplate:
    """Heavy atoms of a residue [nm] in the shape that it usually has."""

    name: str
    positions: Mapping[str, Point]
    elements: Mapping[str, app.Element]
    bonds: frozenset[frozenset[str]]


@lru_cache
def residue_template(name: str) -> ResidueTemplate:
    """Return the heavy atoms of a residue; those of pdbfixer.

    Raises:
        InputError: there is no such residue.
    """
    path = _template_folder() / f"{VARIANTS.get(name, name)}.pdb"
    if not path.is_file():
        raise InputError(f"residue {name} has no template: only amino acids and the caps ACE and NME can be built")
    file = app.PDBFile(str(path))
    atoms = list(file.topology.atoms())
    coordinates = np.array(file.positions.value_in_unit(unit.nanometer))
    return ResidueTemplate(
        name,
        {atom.name: coordinates[atom.index] for atom in atoms},
        {atom.name: atom.element for atom in atoms},
        frozenset(frozenset((first.name, second.name)) for first, second in file.topology.bonds()),
    )


def _template_folder() -> Path:
    # Found without importing pdbfixer: only its data are wanted.
    spec = importlib.util.find_spec("pdbfixer")
    if spec is None or spec.origin is None:
        raise InputError("the shapes of residues come with pdbfixer: pip install pdbfixer")
    return Path(spec.origin).parent / "templates"


def build_heavy_atoms(
    residues: Sequence[str], torsions: Mapping[str, Mapping[int, float]]
) -> tuple[app.Topology, unit.Quantity]:
    """Return topology and positions of the heavy atoms of a peptide.

    Args:
        residues: names, caps included; an end without a cap is the charged one.
        torsions: by name (``phi``, ``psi``, ``omega``, ``chi1``, ``chi2``), degrees of each residue, which are counted
            from 1, caps included. ``omega`` is that of the bond behind the residue. Where none is given the backbone
            is extended, and side chains are those of the templates.

    Raises:
        InputError: a torsion that a residue does not have.
    """
    require_torsions(residues, torsions)
    atoms = [dict(residue_template(name).positions) for name in residues]
    _place_backbone(residues, atoms, torsions)
    for name, found, number in zip(residues, atoms, range(1, len(residues) + 1), strict=True):
        for chi in SIDE_CHAIN_TORSIONS:
            if number in torsions.get(chi, {}):
                _turn_side_chain(name, found, chi, torsions[chi][number])
    return _assembled(residues, atoms)


def require_torsions(residues: Sequence[str], torsions: Mapping[str, Mapping[int, float]]) -> None:
    """Raise an InputError that names the first torsion that the residue does not have."""
    known = (*EXTENDED, *SIDE_CHAIN_TORSIONS)
    for torsion, values in torsions.items():
        if torsion not in known:
            raise InputError(f"unknown torsion '{torsion}': choose one of {', '.join(known)}")
        for number, degrees in values.items():
            if not 1 <= number <= len(residues):
                raise InputError(f"{torsion} of residue {number}: the peptide has residues 1 to {len(residues)}")
            if not np.isfinite(degrees):
                raise InputError(f"{torsion} of residue {number} is {degrees}: give degrees")
            if not _has(residues, number, torsion):
                raise InputError(f"residue {number}, {residues[number - 1]}, has no {torsion} that can be turned")
            low, high = PROLINE_PHI_RANGE
            if torsion == "phi" and residues[number - 1] == "PRO" and not low <= degrees <= high:
                raise InputError(
                    f"phi of residue {number}, PRO, is {degrees:g}, and its ring keeps it between {low:g} and {high:g} "
                    "degrees: give another"
                )


def _has(residues: Sequence[str], number: int, torsion: str) -> bool:
    name, is_last = residues[number - 1], number == len(residues)
    if torsion in SIDE_CHAIN_TORSIONS:
        return VARIANTS.get(name, name) in SIDE_CHAIN_TORSIONS[torsion]
    if torsion == "omega":
        return not is_last
    return name not in (FIRST_CAP, LAST_CAP) and (number > 1 if torsion == "phi" else True)


def _place_backbone(
    residues: Sequence[str], atoms: list[dict[str, Point]], torsions: Mapping[str, Mapping[int, float]]
) -> None:
    """Put every residue behind the one before it; side chains are carried along as rigid bodies."""
    for number, (name, own) in enumerate(zip(residues, atoms, strict=True), start=1):
        if number > 1:
            before = atoms[number - 2]
            start, axis = _before_carbonyl(residues[number - 2], before)
            psi, omega = (_degrees(residues, torsions, torsion, number - 1) for torsion in ("psi", "omega"))
            nitrogen = extended_by(start, axis, before["C"], _C_N, _CA_C_N, psi)
            alpha = extended_by(axis, before["C"], nitrogen, _N_CA, _C_N_CA, omega)
            if name == LAST_CAP:
                own |= {"N": nitrogen, "C": alpha}
                continue
            phi = _degrees(residues, torsions, "phi", number)
            carbon = extended_by(before["C"], nitrogen, alpha, _CA_C, _N_CA_C, phi)
            own |= _carried(own, (nitrogen, alpha, carbon))
        if name != FIRST_CAP:
            psi = _degrees(residues, torsions, "psi", number)
            own["O"] = extended_by(own["N"], own["CA"], own["C"], _C_O, _CA_C_O, psi + 180)
            if number == len(residues):
                own["OXT"] = extended_by(own["N"], own["CA"], own["C"], _C_O, _CA_C_OXT, psi)


def _before_carbonyl(name: str, atoms: Mapping[str, Point]) -> tuple[Point, Point]:
    """Return the two atoms that the torsion psi begins with; an acetyl has its oxygen for a nitrogen."""
    return (atoms["O"], atoms["CH3"]) if name == FIRST_CAP else (atoms["N"], atoms["CA"])


def _degrees(residues: Sequence[str], torsions: Mapping[str, Mapping[int, float]], torsion: str, number: int) -> float:
    name = residues[number - 1]
    if torsion == "psi" and name == FIRST_CAP:
        return 180.0  # across from the oxygen
    default = PROLINE_PHI if torsion == "phi" and name == "PRO" else EXTENDED[torsion]
    return torsions.get(torsion, {}).get(number, default)


def extended_by(first: Point, second: Point, third: Point, bond: float, angle: float, torsion: float) -> Point:
    """Return the point at a bond [nm] from ``third``, an angle and a torsion [degrees] to the two before it."""
    theta, phi = np.radians(angle), np.radians(torsion)
    along, across, normal = _frame(first, second, third)
    inside = -np.cos(theta) * along + np.sin(theta) * (np.cos(phi) * across + np.sin(phi) * normal)
    return third + bond * inside


def _frame(first: Point, second: Point, third: Point) -> Float[np.ndarray, "3 3"]:
    """Return unit vectors: from second to third, towards first across that, and normal to both."""
    along = (third - second) / np.linalg.norm(third - second)
    across = (first - second) - ((first - second) @ along) * along
    across = across / np.linalg.norm(across)
    return np.stack([along, across, np.cross(along, across)])


def _carried(own: Mapping[str, Point], backbone: tuple[Point, Point, Point]) -> dict[str, Point]:
    """Return a residue laid over the places of its N, CA and C, which it then has exactly."""
    nitrogen, alpha, carbon = backbone
    there = _frame(nitrogen, alpha, carbon)
    here = _frame(own["N"], own["CA"], own["C"])
    moved = {name: alpha + (point - own["CA"]) @ here.T @ there for name, point in own.items()}
    return {**moved, "N": nitrogen, "CA": alpha, "C": carbon}


def _turn_side_chain(name: str, atoms: dict[str, Point], chi: str, degrees: float) -> None:
    first, second, third, fourth = SIDE_CHAIN_TORSIONS[chi][VARIANTS.get(name, name)]
    graph = nx.Graph([tuple(bond) for bond in residue_template(name).bonds])
    graph.remove_edge(second, third)
    turned = nx.node_connected_component(graph, third) - {third}
    start = [atoms[atom] for atom in (first, second, third)]
    along, across, normal = _frame(*start)
    found = atoms[fourth] - atoms[third]
    angle = np.radians(degrees) - np.arctan2(found @ normal, found @ across)
    rotation = Rotation.from_rotvec(angle * along)
    for atom in turned:
        atoms[atom] = atoms[third] + rotation.apply(atoms[atom] - atoms[third])


def _assembled(residues: Sequence[str], atoms: Sequence[Mapping[str, Point]]) -> tuple[app.Topology, unit.Quantity]:
    topology, positions = app.Topology(), []
    chain = topology.addChain("A")
    for number, (name, own) in enumerate(zip(residues, atoms, strict=True), start=1):
        residue = topology.addResidue(VARIANTS.get(name, name), chain, str(number))
        elements = {"OXT": app.element.oxygen, **residue_template(name).elements}
        for atom, point in own.items():
            topology.addAtom(atom, elements[atom], residue)
            positions.append(Vec3(*map(float, point)))
    topology.createStandardBonds()
    return topology, unit.Quantity(positions, unit.nanometer)
