"""Protonation of the side chains of a PDB file: as their hydrogens are, else as they are called, else as at pH 7."""

from __future__ import annotations

from collections.abc import Mapping, Set
from pathlib import Path

from openmm import app

from systems.sequence import VARIANTS

_ATOMS = ("ATOM", "HETATM")
"""How the lines of atoms begin."""

_BACKBONE = frozenset({"H", "H1", "H2", "H3", "HN", "HXT", "HA", "HA2", "HA3"})
"""Hydrogens that every residue may have."""


def protonation(path: Path, topology: app.Topology) -> list[str | None]:
    """Return the variant of each residue as ``Modeller.addHydrogens`` takes it; None is the usual one at pH 7.

    Args:
        path: of the file; only a PDB file has names of variants.
        topology: that was read from it, under :func:`usual_names`.
    """
    called = _names_in_file(path) if path.suffix.lower() in (".pdb", ".ent") else {}
    found: list[str | None] = []
    for residue in topology.residues():
        name = called.get((residue.chain.id, residue.id, residue.insertionCode.strip()), residue.name)
        hydrogens = {atom.name for atom in residue.atoms() if atom.element is app.element.hydrogen} - _BACKBONE
        said = _variant_of(residue.name, hydrogens) if hydrogens else name if name in VARIANTS else None
        found.append(said)
    return found


def _variant_of(residue: str, hydrogens: Set[str]) -> str | None:
    """Return the variant of a residue that has hydrogens in its side chain."""
    if residue == "ASP":
        return "ASH" if hydrogens & {"HD1", "HD2"} else "ASP"
    if residue == "GLU":
        return "GLH" if hydrogens & {"HE1", "HE2"} else "GLU"
    if residue == "LYS":
        # Of a file without the hydrogens of nitrogen nothing is known.
        return {2: "LYN", 3: "LYS"}.get(len(hydrogens & {"HZ1", "HZ2", "HZ3"}))
    if residue == "HIS":
        return {(True, True): "HIP", (True, False): "HID", (False, True): "HIE"}.get(
            ("HD1" in hydrogens, "HE2" in hydrogens)
        )
    return None


def usual_names(text: str) -> str:
    """Return the text of a PDB file with variants under the names of their amino acids, whose bonds OpenMM knows."""
    return "".join(
        line[:17] + VARIANTS.get(line[17:20], line[17:20]) + line[20:] if line.startswith(_ATOMS) else line
        for line in text.splitlines(keepends=True)
    )


def _names_in_file(path: Path) -> Mapping[tuple[str, str, str], str]:
    """Return what residues are called, by chain, number and insertion code: OpenMM's reader replaces some names."""
    names: dict[tuple[str, str, str], str] = {}
    with path.open(encoding="utf-8", errors="replace") as file:
        for line in file:
            if line.startswith(_ATOMS):
                names.setdefault((line[21].strip(), line[22:26].strip(), line[26].strip()), line[17:20].strip())
    return names
