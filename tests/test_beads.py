"""Some atoms of a molecule as a molecule of their own, and Langevin chains that run on any target of theirs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import mdtraj
import numpy as np
import pytest
import torch
from torch import Tensor

import systems
from boltzgen_diffclf.coordinates import CentredCoordinates, remove_mean
from boltzgen_diffclf.errors import InputError
from boltzgen_diffclf.observables import torsion_angles
from boltzgen_diffclf.target import Target
from systems.beads import bead_atoms, bead_system, bead_types
from systems.chains import ChainDynamics, ChainSettings
from systems.conformers import residue_pairs
from systems.ensemble import Provenance
from systems.folds import deviation
from systems.molecular import MolecularSystem
from systems.peptide import peptide
from systems.recording import record
from systems.store import read_ensemble

STIFFNESS = 400.0
"""Of the springs [kT/nm^2] that hold the centred atoms of :class:`Springs`."""


@pytest.fixture(scope="module")
def aldp() -> MolecularSystem:
    return systems.load("aldp")


class Springs(Target):
    """Independent springs to the centroid, with a hole far out where the energy is not a number."""

    def __init__(self, n_atoms: int, hole_nm: float = float("inf")) -> None:
        self.event_shape, self.dimension, self.hole_nm = (n_atoms, 3), 3 * (n_atoms - 1), hole_nm

    def energy(self, x: Tensor) -> Tensor:
        square = remove_mean(x).square().sum((1, 2))
        return torch.where(square > self.hole_nm**2, torch.nan, 0.5 * STIFFNESS * square)


def test_beads_are_the_atoms_that_their_name_says(aldp: MolecularSystem) -> None:
    assert bead_atoms(aldp, "backbone") == (4, 6, 8, 14, 16)
    assert bead_atoms(replace(aldp, torsions={"methyl": (0, 1, 4, 6)}, basins={}), "backbone") == (1, 4, 6)
    assert len(bead_atoms(aldp, "heavy")) == 10
    assert bead_atoms(aldp, "all") == tuple(range(22))
    with pytest.raises(InputError, match=r"there are no beads 'heavi'.*did you mean 'heavy'"):
        bead_atoms(aldp, "heavi")
    with pytest.raises(InputError, match="are 0 atoms, and two are needed"):
        bead_atoms(replace(aldp, torsions={}, basins={}), "backbone")


def test_beads_keep_torsions_bonds_masses_and_basins(aldp: MolecularSystem) -> None:
    beads = bead_system(aldp, "backbone")
    assert beads.name == "aldp-backbone"
    assert beads.bonds == ((0, 1), (1, 2), (2, 3), (3, 4))
    assert beads.elements == ("C", "N", "C", "C", "N")
    assert set(beads.basins) == set(aldp.basins)
    torch.testing.assert_close(beads.masses, aldp.masses[[4, 6, 8, 14, 16]])
    angles = [
        torsion_angles(system.positions[None].numpy(), np.array(list(system.torsions.values())))
        for system in (aldp, beads)
    ]
    np.testing.assert_allclose(*angles)
    # CB and its neighbours tell the two carbons, and the two nitrogens, of the backbone apart.
    assert len(set(bead_types(aldp, "backbone"))) == 5
    assert max(bead_types(aldp, "heavy")) + 1 == len(set(bead_types(aldp, "heavy")))


def test_ca_beads_are_a_chain_of_residues_with_types_that_hold_in_any_molecule() -> None:
    first, second = peptide("ACE-ALA-GLY-HIE-NME"), peptide("ACE-HID-ALA-NME")
    beads = bead_system(first, "ca")
    assert [(atom.residue.name, atom.name) for atom in beads.topology.atoms()][:2] == [("ALA", "CA"), ("GLY", "CA")]
    assert beads.bonds == ((0, 1), (1, 2))
    assert beads.torsions == {}
    alanine, glycine, histidine = bead_types(first, "ca")
    assert len({alanine, glycine, histidine}) == 3
    assert bead_types(second, "ca") == (histidine, alanine)
    with pytest.raises(InputError, match="are 1 atoms, and two are needed"):
        bead_atoms(peptide("ACE-GLY-NME"), "ca")


def test_chignolin_has_ten_ca_beads_and_a_fold() -> None:
    chignolin = systems.load("chignolin")
    beads = bead_system(chignolin, "ca")
    assert CentredCoordinates(beads.n_atoms, 1.0).dimension == 27
    assert beads.bonds == tuple((first, first + 1) for first in range(9))
    assert beads.fold is not None
    assert beads.fold.atoms == tuple(range(10))
    for system in (chignolin, bead_system(chignolin, "backbone"), beads):
        assert system.fold is not None
        moved = system.positions.numpy() @ np.array([[0.0, 1, 0], [-1, 0, 0], [0, 0, 1]])
        assert deviation(system, moved[None]) == pytest.approx(0.0, abs=1e-6)
    assert len(residue_pairs(chignolin)) == 8
    assert len(bead_atoms(chignolin, "backbone")) == 30


def chains(beads: MolecularSystem, target: Target, settings: ChainSettings) -> ChainDynamics:
    start = remove_mean(beads.positions) * 0.2
    return ChainDynamics(target, target, start.expand(settings.chains, -1, -1), beads.masses, 300.0, 2.0, settings)


def provenance(beads: MolecularSystem) -> Provenance:
    return Provenance(beads.name, "implicit", 300.0, beads.system_hash("implicit"), seed=0)


def test_chains_reproduce_a_gaussian_in_the_store_s_format(aldp: MolecularSystem, tmp_path: Path) -> None:
    beads, file = bead_system(aldp, "backbone"), tmp_path / "chains.h5"
    settings = ChainSettings(200, 20, 40, 10, timestep_fs=20.0, friction_per_ps=5.0)
    ensemble = record(chains(beads, Springs(5), settings), beads, provenance(beads), file, lambda frames: None)
    assert ensemble.diagnostics["exploded_chains"] == 0
    expected = 12 / 2
    scatter = ensemble.energies.reshape(20, 200).mean(0)
    assert abs(float(scatter.mean()) - expected) < 4 * float(scatter.std()) / 200**0.5
    assert len(read_ensemble(file, beads, "implicit")) == mdtraj.load(str(file)).n_frames == 4000
    with pytest.raises(InputError, match="holds state 'implicit' of system 'aldp-backbone', not state 'implicit'"):
        read_ensemble(file, aldp, "implicit")


def test_chains_that_explode_begin_again_and_are_counted(aldp: MolecularSystem, tmp_path: Path) -> None:
    beads = bead_system(aldp, "backbone")
    settings = ChainSettings(50, 5, 40, timestep_fs=20.0, friction_per_ps=5.0)
    source = chains(beads, Springs(5, hole_nm=0.19), settings)
    ensemble = record(source, beads, provenance(beads), tmp_path / "chains.h5", lambda frames: None)
    assert 0 < ensemble.diagnostics["exploded_chains"] <= 50
    assert bool(ensemble.positions.isfinite().all())


def test_killed_chains_go_on_bit_for_bit(aldp: MolecularSystem, tmp_path: Path) -> None:
    beads, settings = bead_system(aldp, "backbone"), ChainSettings(400, 6, 5, timestep_fs=20.0)

    def run(file: Path, kill_after: float) -> Tensor:
        done = 0.0

        def progress(frames: float) -> None:
            nonlocal done
            done += frames
            if done >= kill_after:
                raise KeyboardInterrupt

        source = chains(beads, Springs(5), settings)
        return record(source, beads, provenance(beads), file, progress).positions

    whole = run(tmp_path / "whole.h5", float("inf"))
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "killed.h5", 5)
    assert torch.equal(run(tmp_path / "killed.h5", float("inf")), whole)
