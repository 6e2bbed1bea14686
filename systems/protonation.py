"""Protonation of the side chains of a PDB file: as their hydrogens are, else as they are called, else as at pH 7."""

from __future__ import annotations

from collections.abc import Mapping, Set

from openmm import app

from systems.sequence import VARIANTS

CHARMM_NAMES: Mapping[str, str] = {"HSD": "HID", "HSE": "HIE", "HSP": "HIP"}
"""What CHARMM calls the protonations of histidine."""

_ATOMS = ("ATOM", "HETATM")
"""How the lines of atoms begin."""


def protonation(text: str, topology: app.Topology) -> list[str | None]:
    """Return the variant of each residue as ``Modeller.addHydrogens`` takes it; None is the usual one at pH 7.

    Args:
        text: of the PDB file, whose names of variants OpenMM's reader replaces; empty of another file.
        topology: that was read from it, under :func:`usual_names`.
    """
    called = _names_in_file(text)
    found: list[str | None] = []
    for residue in topology.residues():
        name = called.get((residue.chain.id.strip(), residue.id, residue.insertionCode.strip()))
        hydrogens = {atom.name for atom in residue.atoms() if atom.element is app.element.hydrogen}
        found.append(_variant_of(residue.name, hydrogens) or (name if name in VARIANTS else None))
    return found


def _variant_of(residue: str, hydrogens: Set[str]) -> str | None:
    """Return the variant that the hydrogens of a residue say, None where they say nothing."""
    if residue == "ASP" and hydrogens & {"HD1", "HD2"}:
        return "ASH"
    if residue == "GLU" and hydrogens & {"HE1", "HE2"}:
        return "GLH"
    if residue == "LYS":
        return {2: "LYN", 3: "LYS"}.get(len(hydrogens & {"HZ1", "HZ2", "HZ3"}))
    if residue == "HIS":
        on_nitrogen = "HD1" in hydrogens, "HE2" in hydrogens
        return {(True, True): "HIP", (True, False): "HID", (False, True): "HIE"}.get(on_nitrogen)
    return None


def usual_names(text: str) -> str:
    """Return the text of a PDB file with variants under the names of their amino acids, whose bonds OpenMM knows."""
    return "".join(
        line[:17] + VARIANTS.get(_variant(line), _variant(line)) + line[20:] if line.startswith(_ATOMS) else line
        for line in text.splitlines(keepends=True)
    )


def _names_in_file(text: str) -> Mapping[tuple[str, str, str], str]:
    """Return what residues are called, by chain, number and insertion code."""
    names: dict[tuple[str, str, str], str] = {}
    for line in text.splitlines():
        if line.startswith(_ATOMS):
            names.setdefault((line[21].strip(), line[22:26].strip(), line[26:27].strip()), _variant(line).strip())
    return names


def _variant(line: str) -> str:
    """Return what the line of an atom calls its residue, a name of CHARMM in the usual one."""
    return CHARMM_NAMES.get(line[17:20], line[17:20])
