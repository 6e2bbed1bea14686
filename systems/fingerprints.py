"""What tells one molecule from another: its energy function, its names and bonds, and its hands."""

from __future__ import annotations

import hashlib
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence

import numpy as np
import openmm
from jaxtyping import Float
from openmm.app import Topology

from boltzgen_diffclf.observables.chirality import handedness, stereocentres


def hash_system(system: openmm.System) -> str:
    """Return the SHA-256 of a System's XML, less what changes no energy (version, names, drift removal)."""
    root = ElementTree.fromstring(openmm.XmlSerializer.serialize(system))
    root.attrib.pop("openmmVersion", None)
    for parent in root.iter("Forces"):
        for force in list(parent):
            if force.get("type") == "CMMotionRemover":
                parent.remove(force)
            for attribute in ("name", "forceGroup"):
                force.attrib.pop(attribute, None)
    return hashlib.sha256(ElementTree.canonicalize(ElementTree.tostring(root), strip_text=True).encode()).hexdigest()


def hash_topology(topology: Topology, elements: Sequence[str], bonds: Sequence[tuple[int, int]]) -> str:
    """Return the SHA-256 of the names of all atoms and residues, of elements and of bonds."""
    atoms = [
        (atom.name, atom.residue.name, atom.residue.id, atom.residue.insertionCode, atom.residue.chain.index)
        for atom in topology.atoms()
    ]
    return hashlib.sha256(repr((atoms, tuple(elements), tuple(bonds))).encode()).hexdigest()


def hands_of(
    positions: Float[np.ndarray, "atoms 3"], elements: Sequence[str], bonds: Sequence[tuple[int, int]]
) -> list[int]:
    """Return the handedness of every stereocentre, 1 or -1."""
    hands: list[int] = handedness(positions[None], stereocentres(elements, bonds))[0].tolist()
    return hands
