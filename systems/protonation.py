"""Protonation of side chains in a file: as their hydrogens are, else as they are called, else as at pH 7."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence, Set
from typing import Any

from openmm import app
from openmm.app.internal.pdbx.reader.PdbxReader import PdbxReader

from systems.sequence import VARIANTS

CHARMM_NAMES: Mapping[str, str] = {"HSD": "HID", "HSE": "HIE", "HSP": "HIP"}
"""What CHARMM calls the protonations of histidine."""

_AMINE = ("HZ1", "HZ2", "HZ3")
"""Hydrogens at the end of lysine."""

_ATOMS = ("ATOM", "HETATM")
"""How the lines of atoms begin."""


def protonation(called: Sequence[str], topology: app.Topology) -> list[str | None]:
    """Return the variant of each residue as ``Modeller.addHydrogens`` takes it; None is the usual one at pH 7.

    Args:
        called: what the file calls each residue; OpenMM's reader replaces names of variants.
        topology: that was read from it.
    """
    found: list[str | None] = []
    for residue, name in zip(topology.residues(), called, strict=True):
        usual = CHARMM_NAMES.get(name, name)
        hydrogens = {atom.name for atom in residue.atoms() if atom.element is app.element.hydrogen}
        found.append(_variant_of(residue.name, hydrogens) or (usual if usual in VARIANTS else None))
    return found


def name_amines_as_they_are_built(topology: app.Topology, variants: Sequence[str | None]) -> None:
    """Call the two hydrogens of a neutral lysine HZ1 and HZ2, as OpenMM builds them; Amber's are HZ2 and HZ3."""
    for residue, variant in zip(topology.residues(), variants, strict=True):
        if variant == "LYN":
            amine = [atom for atom in residue.atoms() if atom.name in _AMINE]
            for atom, name in zip(amine, _AMINE, strict=False):
                atom.name = name


def _variant_of(residue: str, hydrogens: Set[str]) -> str | None:
    """Return the variant that the hydrogens of a residue say, None where they say nothing."""
    if residue == "ASP" and "HD2" in hydrogens:
        return "ASH"
    if residue == "GLU" and "HE2" in hydrogens:
        return "GLH"
    if residue == "LYS":
        return {2: "LYN", 3: "LYS"}.get(len(hydrogens & set(_AMINE)))
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


def usual_names_in_cif(text: str) -> str:
    """Return the same of an mmCIF file, in whose lines of atoms names are words."""
    usual = {name: VARIANTS.get(CHARMM_NAMES.get(name, name)) for name in (*VARIANTS, *CHARMM_NAMES)}
    word = re.compile(rf"(?<=\s)({'|'.join(usual)})(?=\s)")
    return "".join(
        word.sub(lambda found: str(usual[found[1]]), line) if line.startswith(_ATOMS) else line
        for line in text.splitlines(keepends=True)
    )


def names_in_pdb(text: str) -> list[str]:
    """Return what the first model of a PDB file calls its residues, in their order."""
    names: list[str] = []
    last = None
    for line in text.splitlines():
        if line.startswith("ENDMDL"):
            break
        if line.startswith("TER"):
            last = None
        elif line.startswith(_ATOMS):
            place = line[21:27]  # chain, number and insertion code
            if place != last:
                names.append(_variant(line).strip())
            last = place
    return names


def names_in_cif(text: str, topology: app.Topology) -> list[str]:
    """Return what an mmCIF file calls the residues of the topology that was read from it."""
    blocks: list[Any] = []
    PdbxReader(io.StringIO(text)).read(blocks)
    atoms = blocks[0].getObj("atom_site")
    author, label, number = map(atoms.getAttributeIndex, ("auth_comp_id", "label_comp_id", "id"))
    called = {row[number]: row[label if author == -1 else author] for row in atoms.getRowList()}
    return [called[next(residue.atoms()).id] for residue in topology.residues()]


def _variant(line: str) -> str:
    """Return what the line of an atom calls its residue, a name of CHARMM in the usual one."""
    return CHARMM_NAMES.get(line[17:20], line[17:20])
