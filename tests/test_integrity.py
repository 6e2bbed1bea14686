"""Broken, clashing and mirrored configurations are counted, and those of a force field are not among them."""

from __future__ import annotations

import numpy as np
import pytest
from openmm import app

import systems
from boltzgen_diffclf.errors import InputError
from boltzgen_diffclf.observables import handedness, integrity, stereocentres
from workflows.trust import failures
from workflows.trust_generators import check_integrity

ALANINE_CENTRE = [8, 6, 10, 14]  # CA, then N, CB, C


@pytest.fixture(scope="module")
def aldp():
    return systems.load("aldp")


@pytest.fixture(scope="module")
def reference(aldp):
    return aldp.positions.numpy()


@pytest.fixture(scope="module")
def positions(reference):
    """Noise of 0.003 nm on every coordinate: bonds as wide as at 600 K, angles wider."""
    return reference + 0.003 * np.random.default_rng(0).normal(size=(5000, *reference.shape))


def found_in(aldp, positions, **options):
    return integrity(positions, aldp.positions.numpy(), aldp.elements, aldp.bonds, **options)


def test_the_alpha_carbon_is_the_only_stereocentre(aldp):
    assert stereocentres(aldp.elements, aldp.bonds).tolist() == [ALANINE_CENTRE]


def test_stereocentres_of_threonine_and_of_a_ring():
    """Two centres in threonine, and none in valine's side chain, whose methyls are alike."""
    names = ["N", "CA", "HA", "C", "CB", "HB", "OG1", "CG2", "H1", "H2", "H3"]
    elements = [name[0] for name in names]
    bonds = [(0, 1), (1, 2), (1, 3), (1, 4), (4, 5), (4, 6), (4, 7), (7, 8), (7, 9), (7, 10)]
    assert stereocentres(elements, bonds)[:, 0].tolist() == [1, 4]
    alike = [*elements[:6], "C", "C", "H", "H", "H", "H", "H", "H"]
    methyls = [(6, 8), (6, 9), (6, 10), (7, 11), (7, 12), (7, 13)]
    assert stereocentres(alike, [*bonds[:7], *methyls])[:, 0].tolist() == [1]
    cyclopropane = [(0, 1), (1, 2), (2, 0), (0, 3), (0, 4), (1, 5), (1, 6), (2, 7), (2, 8)]
    assert stereocentres([*"CCC", *"HHHHHH"], cyclopropane).shape == (0, 4)


def test_whole_molecules_are_whole(aldp, positions):
    found = found_in(aldp, positions)
    assert found.n_frames == 5000
    assert found.broken_share == 0


def test_each_fault_is_seen_by_itself(aldp, positions):
    frames = positions[:4].copy()
    frames[0] *= np.array([1.0, 1.0, -1.0])
    carbon, hydrogen = 1, 0
    frames[1, hydrogen] = frames[1, carbon] + 1.3 * (frames[1, hydrogen] - frames[1, carbon])
    frames[2, 21] = frames[2, 5] + np.array([0.0, 0.0, 0.13])  # onto an oxygen, and off its own carbon
    found = found_in(aldp, frames)
    assert found.mirrored.tolist() == [True, False, False, False]
    assert found.stretched.tolist() == [False, True, True, False]
    assert found.clashing.tolist() == [False, False, True, False]
    assert found.broken.tolist() == [True, True, True, False]
    assert found.broken_share == 0.75


def test_a_swap_of_two_neighbours_is_another_hand(aldp, reference):
    """Also in heavy atoms alone, where the topology no longer tells and the row does."""
    heavy = [atom for atom, element in enumerate(aldp.elements) if element != "H"]
    centres = np.searchsorted(heavy, [ALANINE_CENTRE])
    swapped = reference[heavy].copy()
    first, second = centres[0, 1], centres[0, 2]
    swapped[[first, second]] = swapped[[second, first]]
    hands = handedness(np.stack([reference[heavy], swapped]), centres)
    assert hands[0] == -hands[1]
    elements = [aldp.elements[atom] for atom in heavy]
    bonds = [tuple(np.searchsorted(heavy, bond).tolist()) for bond in aldp.bonds if set(bond) <= set(heavy)]
    assert stereocentres(elements, bonds).shape == (0, 4)
    found = integrity(reference[None, heavy], reference[heavy], elements, bonds, centres)
    assert not found.broken.any()
    # A reflection is seen whatever the molecule turns to.
    assert integrity(-reference[None, heavy], reference[heavy], elements, bonds, centres).mirrored.all()


def test_what_cannot_be_judged_is_refused(aldp, reference):
    with pytest.raises(InputError, match="no covalent radius for X"):
        integrity(reference[None], reference, ["X"] * 22, aldp.bonds)
    with pytest.raises(InputError, match="3 NaN"):
        found_in(aldp, np.where(np.arange(22)[:, None] == 3, np.nan, reference)[None])
    with pytest.raises(InputError, match="returned nothing"):
        found_in(aldp, np.zeros((0, 22, 3)))
    flat = reference * np.array([1.0, 1.0, 0.0])
    with pytest.raises(InputError, match=r"atoms \[8\] are flat"):
        integrity(reference[None], flat, aldp.elements, aldp.bonds)
    with pytest.raises(InputError, match="do not all exist"):
        found_in(aldp, reference[None], centres=np.array([[8, 6, 10, 22]]))


def test_broken_molecules_fail_the_gate(aldp, positions):
    assert failures([check_integrity("samples", found_in(aldp, positions))]) == ()
    mirrored = np.concatenate([positions[:90], -positions[:10]])
    (sentence,) = failures([check_integrity("samples", found_in(aldp, mirrored))])
    assert "10.0 % of the 100 configurations" in sentence
    assert "10.0 % the wrong chirality" in sentence


def test_a_protein_has_one_alpha_centre_a_residue_less_glycine():
    """Lysozyme's first helix: isoleucine and threonine have a second centre."""
    folder = app.__path__[0] + "/data/test.pdb"
    topology = app.PDBFile(folder).topology
    atoms = list(topology.atoms())
    protein = [atom for atom in atoms if atom.residue.name not in ("HOH", "Cl", "CL", "NA")]
    index = {atom.index: row for row, atom in enumerate(protein)}
    bonds = [
        (index[bond[0].index], index[bond[1].index])
        for bond in topology.bonds()
        if bond[0].index in index and bond[1].index in index
    ]
    centres = stereocentres([atom.element.symbol for atom in protein], bonds)
    chiral = [f"{protein[row].residue.name}-{protein[row].name}" for row in centres[:, 0]]
    residues = {atom.residue for atom in protein}
    named = [residue.name for residue in residues]
    assert sum(name.endswith("-CA") for name in chiral) == sum(name not in ("GLY", "ACE", "NME") for name in named)
    assert len(chiral) - sum(name.endswith("-CA") for name in chiral) == named.count("ILE") + named.count("THR")
