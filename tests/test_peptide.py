"""Peptides from their sequence: what is written, what is built, and what its energy is."""

from __future__ import annotations

import random

import mdtraj
import numpy as np
import openmm
import pytest
import torch
from openmm import unit

import systems
from boltzgen_diffclf.coordinates import InternalCoordinates
from boltzgen_diffclf.errors import InputError
from boltzgen_diffclf.observables import torsion_angles
from systems.chignolin import FOLDED, SEQUENCE
from systems.force_fields import FORCE_FIELDS
from systems.forcefield.reader import read_system
from systems.peptide import built_peptide, peptide
from systems.residue_geometry import SIDE_CHAIN_TORSIONS
from systems.sequence import ONE_LETTER, VARIANTS, parse_sequence

EVERY_RESIDUE = "ACE-" + "-".join(ONE_LETTER.values()) + "-HID-HIE-HIP-ASH-GLH-LYN-NME"


def as_trajectory(topology, positions) -> mdtraj.Trajectory:
    xyz = np.array(positions.value_in_unit(unit.nanometer))
    return mdtraj.Trajectory(xyz[None], mdtraj.Topology.from_openmm(topology))


@pytest.mark.parametrize(
    ("text", "residues"),
    [
        ("YYDPETGTWY", ("TYR", "TYR", "ASP", "PRO", "GLU", "THR", "GLY", "THR", "TRP", "TYR")),
        ("ace-ALA-ala-NME", ("ACE", "ALA", "ALA", "NME")),
        ("ACE-GSGA-NME", ("ACE", "GLY", "SER", "GLY", "ALA", "NME")),
        ("GSG", ("GLY", "SER", "GLY")),
        ("ala-GLY", ("ALA", "GLY")),
        ("HID-A", ("HID", "ALA")),
    ],
)
def test_sequences_are_read_as_they_are_written(text, residues):
    assert parse_sequence(text) == residues


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ACE-ALX-NME", "unknown residue 'ALX'"),
        ("YYDXE", "unknown residue 'X' in 'YYDXE'"),
        ("ALA", r"single residue \(as one-letter codes A-L-A\): it needs caps, ACE-ALA-NME"),
        ("ACE", "a cap needs residues beside it"),
        ("PRO", "is a single residue: it needs caps"),
        ("ACEALANME", r"is 3 residues \(as one-letter codes A-C-E.*\): write ACE-ALA-NME"),
        ("ACE-GLULEU-NME", "GLULEU is 2 residues: write GLU-LEU"),
        ("ACE-DAL-NME", r"unknown residue \'DAL\' \(as one-letter codes D-A-L\)"),
        ("ACE-HSD-NME", "unknown residue 'HSD' .* did you mean 'HIS'"),
        ("ALA-ACE-NME", "ACE is residue 2, and it can only be the first"),
        ("ACE-NME-ALA", "NME is residue 2, and it can only be the last"),
        ("ACE--NME", "nothing before, behind or between"),
        ("", "nothing before"),
        ("A", "single residue"),
    ],
)
def test_a_sequence_that_is_none_is_refused_in_one_line(text, expected):
    with pytest.raises(InputError, match=expected) as refusal:
        parse_sequence(text)
    assert "\n" not in str(refusal.value)


def test_every_residue_is_built_with_the_torsions_asked_for():
    residues = parse_sequence(EVERY_RESIDUE)
    numbers = range(1, len(residues) + 1)
    inner = numbers[1:-1]
    asked = {
        "phi": {number: -60.0 - number for number in inner},
        "psi": {number: -40.0 + number for number in inner},
        "omega": {number: 175.0 + 0.3 * number for number in numbers[:-1]},
        "chi1": {number: 50.0 + number for number in inner if residues[number - 1] not in ("ALA", "GLY", "PRO")},
        "chi2": {number: 80.0 + number for number in inner if residues[number - 1] in ("ILE", "TRP", "HIP", "LYN")},
    }
    topology, positions = built_peptide(EVERY_RESIDUE, torsions=asked)
    atoms = [{atom.name: atom.index for atom in residue.atoms()} for residue in topology.residues()]
    atoms[0]["CA"], atoms[-1]["CA"] = atoms[0]["CH3"], atoms[-1]["C"]
    places = {
        "phi": lambda n: (atoms[n - 1]["C"], atoms[n]["N"], atoms[n]["CA"], atoms[n]["C"]),
        "psi": lambda n: (atoms[n]["N"], atoms[n]["CA"], atoms[n]["C"], atoms[n + 1]["N"]),
        "omega": lambda n: (atoms[n]["CA"], atoms[n]["C"], atoms[n + 1]["N"], atoms[n + 1]["CA"]),
    }
    for chi, names in SIDE_CHAIN_TORSIONS.items():
        places[chi] = lambda n, names=names: tuple(
            atoms[n][name] for name in names[VARIANTS.get(residues[n], residues[n])]
        )
    x = np.array(positions.value_in_unit(unit.nanometer))[None]
    for torsion, values in asked.items():
        assert len(values) > 3
        for number, wanted in values.items():
            found = float(torsion_angles(x, np.array([places[torsion](number - 1)]))[0, 0])
            assert abs((np.degrees(found) - wanted + 180) % 360 - 180) < 0.01, (torsion, number)


def test_every_residue_is_whole_left_handed_and_has_internal_coordinates():
    system = peptide(EVERY_RESIDUE)
    x = system.positions[None]
    first, second = np.array(system.bonds).T
    lengths = (x[0, first] - x[0, second]).norm(dim=-1)
    assert 0.09 < lengths.min() < lengths.max() < 0.2
    names = [(atom.residue.name, atom.name) for atom in system.topology.atoms()]
    for residue in system.topology.residues():
        own = {atom.name: atom.index for atom in residue.atoms()}
        if "CB" in own:  # L: seen from the hydrogen, CO, R and N go clockwise
            n, carbonyl, beta = (x[0, own[name]] - x[0, own["CA"]] for name in ("N", "C", "CB"))
            assert float(n.cross(carbonyl, dim=0) @ beta) > 0, names[own["CA"]]
    internal = InternalCoordinates.from_bonds(
        system.n_atoms, system.bonds, system.elements, tuple(system.torsions.values())
    )
    back, _ = internal.to_cartesian(internal.from_cartesian(x))
    np.testing.assert_allclose(internal.from_cartesian(back), internal.from_cartesian(x), atol=1e-8)
    for name, quadruple in system.torsions.items():
        if "PRO" not in name:
            assert internal.torsion_column(quadruple) is not None, name


def test_the_same_peptide_comes_out_every_time_and_leaves_other_randomness_alone():
    random.seed(7)
    topology, positions = built_peptide("ACE-SER-NME")
    one = random.random()
    random.seed(8)
    again, other = built_peptide("ACE-SER-NME")
    assert one != random.random()
    assert positions == other
    assert [atom.name for atom in topology.atoms()] == [atom.name for atom in again.atoms()]


def test_alanine_dipeptide_of_the_builder_has_the_energies_of_the_registered_one():
    """Other atoms first, the same molecule: energies of one configuration agree."""
    known, made = systems.load("aldp-ildn"), peptide("ACE-ALA-NME")
    order = [atom.index for atom in made.topology.atoms()]
    graph = {(atom.residue.name, atom.name): atom.index for atom in known.topology.atoms()}
    renamed = {("NME", "C"): ("NME", "CH3"), ("NME", "H1"): ("NME", "HH31")}
    renamed |= {("NME", "H2"): ("NME", "HH32"), ("NME", "H3"): ("NME", "HH33")}
    renamed |= {("ACE", f"H{k}"): ("ACE", f"HH3{k}") for k in (1, 2, 3)}
    for atom in made.topology.atoms():
        key = (atom.residue.name, atom.name)
        order[graph[renamed.get(key, key)] if renamed.get(key, key) in graph else graph[key]] = atom.index
    assert sorted(order) == list(range(made.n_atoms))
    for state in known.states:
        energies = [
            energy_of(known.openmm_system(state), made.positions[order]),
            energy_of(made.openmm_system(state), made.positions),
        ]
        assert energies[0] == pytest.approx(energies[1], abs=1e-3), state


def energy_of(system: openmm.System, positions) -> float:
    """Potential energy [kJ/mol] on the Reference platform."""
    context = openmm.Context(system, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatform("Reference"))
    context.setPositions(positions.numpy())
    return context.getState(getEnergy=True).getPotentialEnergy().value_in_unit(unit.kilojoule_per_mole)


def test_torsions_are_named_by_residue_and_plainly_where_only_one_has_both():
    assert list(peptide("ACE-SER-NME").torsions) == ["phi", "psi"]
    assert list(peptide("GAG").torsions) == ["psi-GLY1", "phi", "psi", "phi-GLY3"]
    two = peptide("ACE-PRO-GLY-NME")
    assert list(two.torsions) == ["phi-PRO2", "psi-PRO2", "phi-GLY3", "psi-GLY3"]
    assert list(two.basins) == ["helical-PRO2", "phi-GLY3 > 0", "helical-GLY3"]
    assert two.basins["phi-GLY3 > 0"].high == pytest.approx(np.pi)
    names = [atom.name for atom in two.topology.atoms()]
    assert [names[atom] for atom in two.torsions["phi-GLY3"]] == ["C", "N", "CA", "C"]
    assert [names[atom] for atom in two.torsions["psi-GLY3"]] == ["N", "CA", "C", "N"]


@pytest.mark.parametrize("forcefield", FORCE_FIELDS)
@pytest.mark.parametrize("solvent", ["obc1", "obc2", "hct", "gbn", "gbn2"])
@pytest.mark.usefixtures("eager_mode")
def test_every_force_field_and_solvent_is_compiled_and_agrees_with_openmm(forcefield, solvent):
    system = peptide("ACE-SER-NME", forcefield, solvent)
    assert system.name.endswith(f"-{forcefield}-{solvent}") or (forcefield, solvent) == ("amber99sb-ildn", "obc2")
    energies = {state: energy_of(system.openmm_system(state), system.positions) for state in system.states}
    for state, energy in energies.items():
        found = float(system.target(state, 300.0).energy(system.positions[None])[0])
        assert found == pytest.approx(energy / 2.494338785445972, rel=1e-6), state
    assert energies["implicit"] < energies["vacuum"] < energies["nonpolar"]


def test_vacuum_has_no_other_states():
    system = peptide("ACE-GLY-NME", solvent="vacuum")
    assert (system.states, system.legs, system.reweighted) == (("vacuum",), {}, {})


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"torsions": {"chi1": {2: 60.0}}}, "residue 2, PRO, has no chi1"),
        ({"torsions": {"phi": {2: 60.0}}}, "phi of residue 2, PRO, is 60, and its ring keeps it between -120 and -30"),
        ({"torsions": {"phi": {1: 60.0}}}, "residue 1, ACE, has no phi"),
        ({"torsions": {"omega": {3: 180.0}}}, "residue 3, NME, has no omega"),
        ({"torsions": {"psi": {9: 60.0}}}, "psi of residue 9: the peptide has residues 1 to 3"),
        ({"torsions": {"tau": {2: 60.0}}}, "unknown torsion 'tau'"),
        ({"torsions": {"psi": {2: float("nan")}}}, "psi of residue 2 is nan"),
        ({"forcefield": "ff15"}, "unknown force field 'ff15'.*did you mean 'ff14sb'"),
        ({"forcefield": "charmm22"}, "unknown force field 'charmm22'.*did you mean 'charmm36'"),
        ({"solvent": "pcm"}, "force field amber99sb-ildn has no solvent model 'pcm': choose one of obc2"),
    ],
)
def test_what_cannot_be_built_is_refused_in_one_line(options, expected):
    with pytest.raises(InputError, match=expected) as refusal:
        peptide("ACE-PRO-NME", **options)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(("name", "caps", "atoms"), [("chignolin", False, 166), ("chignolin-capped", True, 175)])
def test_chignolin_keeps_the_shape_of_the_crystal_when_it_is_minimised(name, caps, atoms):
    system = systems.load(name)
    torsions = {key: {number + caps: value for number, value in values.items()} for key, values in FOLDED.items()}
    built = as_trajectory(*built_peptide(f"ACE-{SEQUENCE}-NME" if caps else SEQUENCE, torsions=torsions))
    minimum = mdtraj.Trajectory(system.positions.numpy()[None], built.topology)
    alphas = built.topology.select("name CA")
    assert len(alphas) == 10
    assert system.n_atoms == atoms
    assert 10 * mdtraj.rmsd(minimum, built, atom_indices=alphas)[0] < 0.5  # Angstrom
    # A hairpin: the ends lie side by side.
    distance = np.linalg.norm(np.diff(minimum.xyz[0, alphas[[0, 9]]], axis=0))
    assert 0.4 < distance < 0.7
    # Every second walker begins as a chain of three nanometres.
    folded, chain = system.starts("implicit")
    assert torch.equal(folded, system.positions)
    assert (chain[alphas[0]] - chain[alphas[-1]]).norm() > 2.5
    for state in system.states:
        read_system(system.openmm_system(state))


def test_torsions_that_do_not_stay_where_they_were_asked_for_are_told(caplog: pytest.LogCaptureFixture) -> None:
    peptide("ACE-ALA-NME", torsions={"phi": {2: 0.0}, "psi": {2: 150.0}})
    (told,) = caplog.messages
    assert told.startswith("phi of ALA2 was asked for at 0 degrees, where it does not stay")
    caplog.clear()
    peptide("ACE-VAL-NME", torsions={"omega": {1: 180.0, 2: 0.0}, "chi1": {2: 60.0}})
    assert not caplog.messages
