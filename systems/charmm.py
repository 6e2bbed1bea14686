"""CHARMM36 for peptides, out of the file that OpenMM ships: the amino acids, the ends of a chain, and its caps."""

from __future__ import annotations

import io
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from xml.etree import ElementTree

import openmm
from openmm import app

from boltzgen_diffclf.errors import InputError
from systems.sequence import FIRST_CAP, LAST_CAP, ONE_LETTER

CHARMM36 = "charmm36.xml"
"""OpenMM's file: CHARMM36 with correction maps for proteins, beside lipids, nucleic acids, sugars and drugs."""

RESIDUES = frozenset({*ONE_LETTER.values()} - {"HIS"} | {"HSD", "HSE", "HSP"})
"""Templates of the amino acids; histidine has one for each protonation."""

PATCHES = frozenset({"NTER", "GLYP", "PROP", "CTER", "ASPP", "GLUP", "LSN", "DISU"})
"""What changes them: charged ends (those of glycine and proline apart), neutral side chains, disulfide bridges."""

CAPS = {FIRST_CAP: "ACE", LAST_CAP: "CT3"}
"""The patches that add a cap to an amino acid, which they leave as it is otherwise."""

MISSING_IMPROPERS = {
    ("CC", "CT1", "OC", "OC"): 401.664,
    ("CC", "CP1", "OC", "OC"): 401.664,
    ("CD", "CT2", "OB", "OH1"): 418.4,
}
"""What holds carboxyl groups flat in CHARMM and is not in the file: of charged ends, and of neutral ASP and GLU.

By atom types, the corner first, k of ``k (theta - theta0)^2`` [kJ/mol/rad^2] as in OpenMM's ``charmm36_2024.xml``.
"""


def charmm_force_field(solvent_file: str | None = None) -> app.ForceField:
    """Return CHARMM36 of peptides, with a solvent model where one is named.

    Templates match by elements and bonds, whatever atoms are called. In the file caps are part of the amino acid
    that they are patched to; here they are residues, as in every other force field, and the energy is the same. The
    other molecules of the file are left out: some are the same as a capped amino acid, and OpenMM would not choose
    between them. :data:`MISSING_IMPROPERS` are added; that of the amide of ASN and GLN is as in the file, half of
    CHARMM's.

    Args:
        solvent_file: OpenMM's file of a solvent model.

    Raises:
        InputError: another CHARMM36 than the one of OpenMM 8.

    References:
        Best et al. 2012, doi:10.1021/ct300400x.
    """
    files = [solvent_file] if solvent_file else []
    return app.ForceField(io.StringIO(_peptide_part()), *files)


@lru_cache
def _peptide_part() -> str:
    root = ElementTree.parse(Path(app.__file__).parent / "data" / CHARMM36).getroot()
    residues, patches = _child(root, "Residues"), _child(root, "Patches")
    caps = [_cap(name, patches, patch) for name, patch in CAPS.items()]
    _keep(residues, lambda residue: residue.get("name") in RESIDUES)
    _keep(patches, lambda patch: patch.get("name") in PATCHES)
    for residue in residues:
        _keep(residue, lambda part: part.tag != "AllowPatch" or part.get("name") in PATCHES)
    residues.extend(caps)
    impropers = _child(root, "CustomTorsionForce")
    for types, k in MISSING_IMPROPERS.items():
        named = {f"type{place}": kind for place, kind in enumerate(types, start=1)}
        ElementTree.SubElement(impropers, "Improper", named, k=str(k), theta0="0.0")
    return ElementTree.tostring(root, encoding="unicode")


def _cap(name: str, patches: ElementTree.Element, patch_name: str) -> ElementTree.Element:
    """Return the atoms that a patch adds as a residue; its bond to the amino acid is an external one."""
    patch = next((patch for patch in patches if patch.get("name") == patch_name), None)
    if patch is None:
        raise InputError(f"{CHARMM36} of OpenMM {openmm.__version__} has no patch {patch_name}: install OpenMM 8")
    cap = ElementTree.Element("Residue", name=name)
    added = patch.findall("AddAtom")
    names = {atom.get("name") for atom in added}
    for atom in added:
        ElementTree.SubElement(cap, "Atom", atom.attrib)
    for bond in patch.findall("AddBond"):
        inside = [end for end in (bond.get("atomName1"), bond.get("atomName2")) if end in names]
        if len(inside) == 2:
            ElementTree.SubElement(cap, "Bond", bond.attrib)
        else:
            ElementTree.SubElement(cap, "ExternalBond", atomName=str(inside[0]))
    return cap


def _child(element: ElementTree.Element, tag: str) -> ElementTree.Element:
    found = element.find(tag)
    if found is None:
        raise InputError(f"{CHARMM36} of OpenMM {openmm.__version__} has no {tag}: install OpenMM 8")
    return found


def _keep(elements: ElementTree.Element, is_wanted: Callable[[ElementTree.Element], bool]) -> None:
    elements[:] = [element for element in elements if is_wanted(element)]


def with_types_in_order(system: openmm.System) -> openmm.System:
    """Return a System whose Lennard-Jones types are numbered as the atoms come; it is changed in place.

    OpenMM numbers them by a set of strings, in another order in every process, and the fingerprint of a molecule
    must be the same in all.
    """
    for force in system.getForces():
        if isinstance(force, openmm.CustomNonbondedForce):
            _number_types(force)
    return system


def _number_types(force: openmm.CustomNonbondedForce) -> None:
    types = [int(force.getParticleParameters(atom)[0]) for atom in range(force.getNumParticles())]
    order = list(dict.fromkeys(types))
    for atom, kind in enumerate(types):
        force.setParticleParameters(atom, [order.index(kind)])
    for index in range(force.getNumTabulatedFunctions()):
        table = force.getTabulatedFunction(index)
        width, _, values = table.getFunctionParameters()
        table.setFunctionParameters(len(order), len(order), [values[i + width * j] for j in order for i in order])
