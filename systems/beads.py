"""Some atoms of a molecule as a molecule of their own: what a coarse-grained density is a density of."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

import numpy as np
import openmm
from jaxtyping import Int
from openmm import unit
from openmm.app import Topology
from openmm.app.element import carbon
from openmm.app.topology import Atom, Residue

from boltzgen_diffclf.errors import InputError, nearest_name
from boltzgen_diffclf.nets.atom_types import atom_types
from boltzgen_diffclf.observables.chirality import stereocentres
from systems.ensemble import ReferenceEnsemble
from systems.molecular import Fold, MolecularSystem
from systems.sequence import ONE_LETTER, VARIANTS

BEADS: Mapping[str, str] = {
    "all": "every atom",
    "heavy": "every atom but hydrogens",
    "backbone": "the atoms of the named torsions",
    "ca": "the CA of every residue, bonded to the next along the chain",
}
"""Selections by name, each with what it takes."""

RESIDUE_TYPES: Mapping[str, int] = {
    **{name: index for index, name in enumerate(sorted(ONE_LETTER.values()))},
    **{variant: sorted(ONE_LETTER.values()).index(name) for variant, name in VARIANTS.items()},
}
"""Type of a CA bead by its residue: the same in every molecule."""


def bead_atoms(system: MolecularSystem, beads: str) -> tuple[int, ...]:
    """Return the indices of the selected atoms, growing.

    Raises:
        InputError: no such selection, or one that leaves fewer than two atoms.
    """
    if beads not in BEADS:
        raise InputError(
            f"there are no beads '{beads}': choose one of {', '.join(BEADS)}{nearest_name(beads, [*BEADS])}"
        )
    in_torsions = {atom for quadruple in system.torsions.values() for atom in quadruple}
    chosen = {
        "all": range(system.n_atoms),
        "heavy": [atom for atom, element in enumerate(system.elements) if element != "H"],
        "backbone": sorted(atom for atom in in_torsions if system.elements[atom] != "H"),
        "ca": [atom.index for atom in system.topology.atoms() if _is_alpha_carbon(atom)],
    }[beads]
    if len(chosen) < 2:
        raise InputError(f"beads '{beads}' of system '{system.name}' are {len(chosen)} atoms, and two are needed")
    return tuple(chosen)


def bead_types(system: MolecularSystem, beads: str) -> tuple[int, ...]:
    """Return an integer a bead, the same for atoms whose surroundings in the whole molecule look the same.

    That of a CA bead is its residue's, whatever the molecule: see :data:`RESIDUE_TYPES`.

    Raises:
        InputError: see :func:`bead_atoms`; a CA bead of a residue that is no amino acid.
    """
    if beads == "ca":
        atoms = list(system.topology.atoms())
        return tuple(_residue_type(atoms[index].residue) for index in bead_atoms(system, beads))
    types = atom_types(system.elements, system.bonds)
    chosen = [types[atom] for atom in bead_atoms(system, beads)]
    number = {kind: index for index, kind in enumerate(sorted(set(chosen)))}
    return tuple(number[kind] for kind in chosen)


def _is_alpha_carbon(atom: Atom) -> bool:
    # A calcium ion is called CA too.
    return bool(atom.name == "CA" and atom.element is carbon)


def _residue_type(residue: Residue) -> int:
    if residue.name not in RESIDUE_TYPES:
        raise InputError(
            f"residue {residue.name} {residue.id} has a CA and is none of {', '.join(RESIDUE_TYPES)}: its bead has no "
            "type; choose other --beads"
        )
    return RESIDUE_TYPES[residue.name]


def are_beads_alone(frames: ReferenceEnsemble, system: MolecularSystem) -> bool:
    """Return whether frames of a molecule hold some of its beads and no other atoms, see :func:`bead_system`."""
    return frames.provenance.system != system.name


def bead_stereocentres(system: MolecularSystem, beads: str) -> Int[np.ndarray, "centres 4"]:
    """Return the stereocentres of the molecule that can be told by its beads, in their numbers.

    Four of a centre's five atoms tell its hand; a bead model that lacks one of the four says nothing of it.
    """
    place = {atom: index for index, atom in enumerate(bead_atoms(system, beads))}
    rows = stereocentres(system.elements, system.bonds).tolist()
    kept = [[place[atom] for atom in row] for row in rows if set(row) <= place.keys()]
    return np.array(kept, dtype=np.int64).reshape(-1, 4)


def bead_system(system: MolecularSystem, beads: str) -> MolecularSystem:
    """Return the selected atoms as a system without any forces, whose frames can be stored and judged like others.

    It is named after the system and the beads, so that no reader takes its energies, which are learned, for those of
    the molecule. Torsions and basins whose atoms are all there remain, and bonds between them; CA beads are bonded
    where a peptide bond joins their residues.

    Raises:
        InputError: see :func:`bead_atoms`.
    """
    atoms = bead_atoms(system, beads)
    place = {atom: index for index, atom in enumerate(atoms)}
    torsions = {
        name: tuple(place[atom] for atom in quadruple)
        for name, quadruple in system.torsions.items()
        if set(quadruple) <= place.keys()
    }
    return MolecularSystem(
        name=f"{system.name}-{beads}",
        topology=_subset(system.topology, place, _chain_bonds(system.topology) if beads == "ca" else ()),
        positions=system.positions[list(atoms)],
        openmm_systems=dict.fromkeys(system.states, _without_forces(system, atoms)),
        torsions=torsions,  # type: ignore[arg-type]
        basins={name: basin for name, basin in system.basins.items() if basin.torsion in torsions},
        fold=_fold_of(system, place),
    )


def _fold_of(system: MolecularSystem, place: Mapping[int, int]) -> Fold | None:
    if system.fold is None or not set(system.fold.atoms) <= place.keys():
        return None
    return replace(system.fold, atoms=tuple(place[atom] for atom in system.fold.atoms))


def _without_forces(system: MolecularSystem, atoms: tuple[int, ...]) -> openmm.System:
    empty = openmm.System()
    for atom in atoms:
        empty.addParticle(float(system.masses[atom]) * unit.amu)
    return empty


def _chain_bonds(topology: Topology) -> Iterator[tuple[Atom, Atom]]:
    """Yield the CA of each two residues that a peptide bond joins."""
    alpha = {atom.residue: atom for atom in topology.atoms() if _is_alpha_carbon(atom)}
    for bond in topology.bonds():
        before, behind = sorted((bond[0], bond[1]), key=lambda atom: atom.name)
        if (before.name, behind.name) == ("C", "N") and {before.residue, behind.residue} <= alpha.keys():
            yield alpha[before.residue], alpha[behind.residue]


def _subset(topology: Topology, place: Mapping[int, int], joined: Iterable[tuple[Atom, Atom]]) -> Topology:
    """Return a topology of the atoms that have a place, with the bonds among them and those between atoms joined."""
    subset, made = Topology(), dict[Atom, Atom]()
    for chain in topology.chains():
        new_chain = subset.addChain(chain.id)
        for residue in chain.residues():
            kept = [atom for atom in residue.atoms() if atom.index in place]
            if kept:
                new_residue = subset.addResidue(residue.name, new_chain, residue.id)
                made |= {atom: subset.addAtom(atom.name, atom.element, new_residue) for atom in kept}
    for first, second in (*topology.bonds(), *joined):
        if first in made and second in made:
            subset.addBond(made[first], made[second])
    return subset
