"""A larger peptide for the benchmarks: the first residues of T4 lysozyme, cut from openmmtools' example."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from openmm import app
from pdbfixer import PDBFixer

from systems.molecular import MolecularSystem, positions_from_quantity


def lysozyme_helix(residues: int = 12) -> MolecularSystem:
    """Return the first residues of the protein with charged ends, Amber ff99SB-ILDN, ``vacuum`` and ``implicit``."""
    spec = importlib.util.find_spec("openmmtools")
    folder = Path(str(spec.origin)).parent / "data" / "T4-lysozyme-L99A-implicit"
    fixer = PDBFixer(str(folder / "receptor.pdb"))
    kept = list(fixer.topology.residues())[:residues]
    modeller = app.Modeller(fixer.topology, fixer.positions)
    modeller.delete([residue for residue in fixer.topology.residues() if residue not in kept])
    fixer.topology, fixer.positions = modeller.topology, modeller.positions
    fixer.findMissingResidues()
    fixer.missingResidues = {}
    fixer.findMissingAtoms()
    fixer.addMissingAtoms()
    modeller = app.Modeller(fixer.topology, fixer.positions)
    hydrogens = [atom for atom in modeller.topology.atoms() if atom.element is app.element.hydrogen]
    modeller.delete(hydrogens)
    fields = {
        "vacuum": app.ForceField("amber99sbildn.xml"),
        "implicit": app.ForceField("amber99sbildn.xml", "amber99_obc.xml"),
    }
    modeller.addHydrogens(fields["vacuum"])
    return MolecularSystem(
        name=f"lysozyme 1-{residues}",
        topology=modeller.topology,
        positions=positions_from_quantity(modeller.positions),
        openmm_systems={
            state: field.createSystem(modeller.topology, nonbondedMethod=app.NoCutoff, constraints=None)
            for state, field in fields.items()
        },
    )
