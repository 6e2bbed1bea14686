"""Files of a user's own molecule: what they call residues and atoms counts, and what they have wrong is named."""

from __future__ import annotations

import io
import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import openmm
import pytest
from openmm import app, unit

from boltzgen_diffclf.errors import InputError
from systems.loading import SystemSource
from systems.peptide import built_peptide, peptide
from systems.protonation import names_in_pdb, protonation, usual_names
from systems.sequence import VARIANTS, parse_sequence
from systems.solvation_states import backbone_torsions
from systems.system_checks import require_system
from systems.user_molecule import from_openmm

USUAL_CHARGE = {"HIP": 1.0, "HID": 0.0, "HIE": 0.0, "ASH": 0.0, "LYN": 0.0}


def written(path: Path, sequence: str, forcefield: str = "ff14sb") -> list[str]:
    """Write a peptide, its hydrogens too, and return the lines of its atoms."""
    topology, positions = built_peptide(sequence, forcefield)
    with path.open("w") as handle:
        app.PDBFile.writeFile(topology, positions, handle, keepIds=True)
    return [line for line in path.read_text().splitlines(keepends=True) if line[:4] in ("ATOM", "HETA", "TER ")]


def renamed(lines: list[str], number: int, name: str) -> list[str]:
    return [line[:17] + name + line[20:] if int(line[22:26]) == number else line for line in lines]


def charge_of(path: Path) -> float:
    molecule = SystemSource(pdb=str(path), forcefield="ff14sb", solvent="vacuum").load()
    system = molecule.openmm_system("vacuum")  # its forces go when it goes
    (force,) = [one for one in system.getForces() if isinstance(one, openmm.NonbondedForce)]
    charges = [force.getParticleParameters(atom)[0] for atom in range(molecule.n_atoms)]
    return sum(charge.value_in_unit(unit.elementary_charge) for charge in charges)


@pytest.mark.parametrize("name", ["HIP", "HID", "ASH", "LYN", "HSE", "HSP"])
def test_an_mmcif_file_calls_its_side_chains_as_a_pdb_file_does(tmp_path, name):
    variant = {"HSE": "HIE", "HSP": "HIP"}.get(name, name)
    topology, positions = built_peptide(f"ACE-{variant}-NME", "ff14sb")
    bare = app.Modeller(topology, positions)
    bare.delete([atom for atom in topology.atoms() if atom.element is app.element.hydrogen])
    path = tmp_path / "a.cif"
    with path.open("w") as handle:
        app.PDBxFile.writeFile(bare.topology, bare.positions, handle)
    path.write_text(path.read_text().replace(VARIANTS[variant], name))
    assert charge_of(path) == pytest.approx(USUAL_CHARGE[variant], abs=1e-6)


def test_chains_that_have_no_name_keep_their_own_side_chains(tmp_path):
    path, both = tmp_path / "a.pdb", []
    for far, name in (("", "HIP"), ("9", "HID")):
        for line in renamed(written(path, f"ACE-{name}-NME"), 2, name):
            if line.startswith("TER"):
                both.append("TER\n")
            elif line[76:78] != " H":
                moved = f"{float(line[30:38]) + (30 if far else 0):8.3f}"
                both.append(line[:21] + " " + line[22:30] + moved + line[38:])
    topology = app.PDBFile(io.StringIO(usual_names("".join(both)))).topology
    found = protonation(names_in_pdb("".join(both)), topology)
    assert [variant for variant in found if variant is not None] == ["HIP", "HID"]
    assert [list(backbone_torsions(topology))[k] for k in (0, 3)] == ["phi-1-HIS2", "psi-2-HIS2"]
    path.write_text("".join(both))
    with pytest.raises(InputError, match=r"no bond joins atom \w+ of residue ACE 1 of chain .* to the first"):
        charge_of(path)


def test_residues_that_insertion_codes_tell_apart_have_torsions_of_their_own():
    topology, _ = built_peptide("ACE-GLY-GLY-NME", "ff14sb")
    residues = list(topology.residues())
    residues[2].id, residues[2].insertionCode = residues[1].id, "A"
    assert list(backbone_torsions(topology)) == ["phi-GLY2", "psi-GLY2", "phi-GLY2A", "psi-GLY2A"]
    residues[2].insertionCode = " "
    with pytest.raises(InputError, match="there are two residues GLY 2 in one chain: number them apart"):
        backbone_torsions(topology)


def test_the_first_of_several_frames_counts(tmp_path):
    path, lines = tmp_path / "a.pdb", "".join(written(tmp_path / "one.pdb", "ACE-ASH-NME"))
    path.write_text(f"{lines}END\n{lines}END\n")
    assert charge_of(path) == pytest.approx(0.0, abs=1e-6)


def test_a_charged_end_that_a_force_field_lacks_is_called_as_in_the_file(tmp_path):
    path = tmp_path / "a.pdb"
    lines = [line for line in renamed(written(path, "AK"), 2, "LYN") if line[12:16].strip() != "HZ1"]
    path.write_text("".join(line[:22] + f"{int(line[22:26]) + 100:4d}" + line[26:] for line in lines))
    with pytest.raises(InputError, match=r"LYN inside of a chain .* residue LYS 102 of chain A is a charged end"):
        charge_of(path)


def butane(folder: Path) -> tuple[Path, Path]:
    """Write butane without hydrogens, as a System and a PDB file."""
    system = openmm.System()
    bonds, angles, torsion = openmm.HarmonicBondForce(), openmm.HarmonicAngleForce(), openmm.PeriodicTorsionForce()
    for _ in range(4):
        system.addParticle(12.011)
    for k in range(3):
        bonds.addBond(k, k + 1, 0.153, 2e5)
    for k in range(2):
        angles.addAngle(k, k + 1, k + 2, 1.95, 500.0)
    torsion.addTorsion(0, 1, 2, 3, 3, 0.0, 6.0)
    for force in (bonds, angles, torsion):
        system.addForce(force)
    (folder / "b.xml").write_text(openmm.XmlSerializer.serialize(system))
    places = [(0.0, 1.5, 0.3), (0.0, 0.0, 0.0), (1.5, 0.0, 0.0), (1.8, -1.4, 0.4)]
    atoms = [
        f"HETATM{k:5d}  C{k}  BUT A   1    {x:8.3f}{y:8.3f}{z:8.3f}  1.00  0.00           C\n"
        for k, (x, y, z) in enumerate(places, 1)
    ]
    joined = "".join(f"CONECT{k:5d}{k + 1:5d}\n" for k in range(1, 4))
    (folder / "b.pdb").write_text("".join(atoms) + joined + "END\n")
    return folder / "b.xml", folder / "b.pdb"


def test_a_molecule_without_residues_is_watched_by_its_rotatable_bonds(tmp_path):
    molecule = from_openmm(*butane(tmp_path), "b")
    assert molecule.torsions == {"C1-C2-C3-C4": (0, 1, 2, 3)}
    assert molecule.states == ("vacuum",)
    assert from_openmm(*butane(tmp_path), "b") is molecule  # its files are as they were


def test_amber_calls_the_hydrogens_of_a_neutral_lysine_otherwise(tmp_path):
    path = tmp_path / "a.pdb"
    lines = renamed(written(path, "ACE-LYN-NME"), 2, "LYN")
    ambers = [line.replace(" HZ2 ", " HZ3 ").replace(" HZ1 ", " HZ2 ") for line in lines]
    assert ambers != lines
    path.write_text("".join(ambers))
    assert charge_of(path) == pytest.approx(0.0, abs=1e-6)


def test_half_a_disulfide_is_no_cysteine(tmp_path):
    path = tmp_path / "a.pdb"
    lines = [line for line in written(path, "ACE-CYS-NME") if line[12:16].strip() != "HG"]
    path.write_text("".join(renamed(lines, 2, "CYX")))
    with pytest.raises(InputError, match="residue CYS 2 of chain A is called CYX, half of a disulfide"):
        charge_of(path)
    path.write_text("".join(lines))
    charge_of(path)


@pytest.mark.parametrize(
    ("atom", "element", "expected"),
    [
        ("OG", "N", "residue SER 2 of chain A: atom OG is nitrogen by its element, and should be oxygen"),
        ("CA", "CA", "atom CA is calcium"),
        ("HA", "D", "atom HA is deuterium"),
        ("CH3", "N", "residue ACE 1 of chain A: atom CH3 is nitrogen"),
    ],
)
def test_an_element_that_is_not_that_of_its_atom_is_named(tmp_path, atom, element, expected):
    path = tmp_path / "a.pdb"
    lines = written(path, "ACE-SER-NME")
    path.write_text("".join(line[:76] + f"{element:>2}\n" if line[12:16].strip() == atom else line for line in lines))
    with pytest.raises(InputError, match=expected):
        charge_of(path)


def test_an_acid_end_that_is_not_charged_is_named(tmp_path):
    path = tmp_path / "a.pdb"
    lines = written(path, "ACE-GLY-GLY")
    (last,) = [line for line in lines if line[12:16].strip() == "OXT"]
    acid = last.replace(" OXT", " HXT")[:30] + f"{float(last[30:38]) + 0.9:8.3f}" + last[38:76] + " H\n"
    path.write_text("".join([*lines[: lines.index(last) + 1], acid.replace(last[6:11], "   99")]))
    with pytest.raises(InputError, match="residue GLY 3 of chain A has an acid hydrogen, HXT"):
        charge_of(path)


def test_a_proton_that_an_amine_gets_is_told(tmp_path, caplog):
    path = tmp_path / "a.pdb"
    lines = written(path, "AG")
    with caplog.at_level(logging.WARNING):
        charged = charge_of(path)
        assert not caplog.records
        path.write_text("".join(line for line in lines if line[12:16].strip() != "H3"))
        assert charge_of(path) == charged
    assert "residue ALA 1 of chain A has 2 hydrogens on its N; ends are charged here, and it gets 3" in caplog.text


def test_the_hand_of_a_residue_is_told_where_its_name_says_another(tmp_path, caplog):
    path = tmp_path / "a.pdb"
    lines = [line for line in written(path, "ACE-ALA-SER-NME") if line[:4] != "TER " and line[76:78] != " H"]
    with caplog.at_level(logging.WARNING):
        path.write_text("".join(lines))
        charge_of(path)
        assert "hand" not in caplog.text
        mirrored = [line[:30] + f"{-float(line[30:38]):8.3f}" + line[38:] for line in lines]
        path.write_text("".join(mirrored))
        charge_of(path)
    told = [record.getMessage() for record in caplog.records]
    assert [
        f"residue {name} of chain A has the hand of a D-amino acid" in line
        for name, line in zip(("ALA 2", "SER 3"), told, strict=True)
    ] == [True, True]


@pytest.mark.parametrize("sequence", ["ASH-ALA", "ALA-GLH", "LYN-GLY", "ALA-HIP-LYN"])
def test_variants_that_have_no_charged_end_are_named(sequence):
    with pytest.raises(
        InputError, match=r"of a chain alone, and residue \w+ \d of chain \w is a charged end: cap that"
    ):
        peptide(sequence, "ff14sb", "vacuum")
    assert peptide(sequence, "charmm36", "vacuum").n_atoms > 20


@pytest.mark.parametrize(
    ("sequence", "expected"),
    [
        ("ACE-dALA-NME", "dALA may be a hand and ALA, and D-amino acids are not built: write ALA, or ASP for"),
        ("D-ALA-GLY", "D-ALA may be a hand and ALA"),
        ("ACE-ALA-L-SER-NME", "L-SER may be a hand and SER, .* or LEU for"),
        ("ACE-\u00df-NME", "\u00df is no letter of an amino acid"),
        ("ACE\u2013ALA\u2013NME", "\u2013 is no letter of an amino acid, and no plain hyphen"),
    ],
)
def test_hands_are_not_taken_for_residues(sequence, expected):
    with pytest.raises(InputError, match=expected):
        parse_sequence(sequence)


def test_aspartate_and_leucine_may_still_be_written_in_one_letter():
    assert parse_sequence("ACE-D-L-NME") == ("ACE", "ASP", "LEU", "NME")
    assert parse_sequence("DL") == ("ASP", "LEU")
    assert parse_sequence("ACE-DL-NME") == ("ACE", "ASP", "LEU", "NME")
    assert parse_sequence("DALA") == parse_sequence("dala") == ("ASP", "ALA", "LEU", "ALA")


@pytest.mark.parametrize("written_as", ["phi:2=..", "phi:2=1.2.3", "phi:2="])
def test_a_torsion_that_is_no_number_is_named(written_as):
    with pytest.raises(InputError, match="is not written TORSION:RESIDUE=DEGREES"):
        SystemSource(peptide="ACE-ALA-NME", torsions=(written_as,)).require_one()


def test_an_empty_name_of_a_force_field_is_not_the_usual_one():
    with pytest.raises(InputError, match="unknown force field ''"):
        SystemSource(peptide="ACE-ALA-NME", forcefield="").load()


@pytest.fixture(scope="module")
def alanine():
    return peptide("ACE-ALA-NME")


def from_files(folder: Path, molecule, *forces: openmm.Force):
    system = molecule.openmm_system("implicit")
    for force in forces:
        system.addForce(force)
    (folder / "a.xml").write_text(openmm.XmlSerializer.serialize(system))
    with (folder / "a.pdb").open("w") as handle:
        app.PDBFile.writeFile(molecule.topology, unit.Quantity(molecule.positions.numpy(), unit.nanometer), handle)
    return from_openmm(folder / "a.xml", folder / "a.pdb", "a")


def test_a_force_that_holds_the_molecule_in_place_is_refused(tmp_path, alanine):
    place = openmm.CustomExternalForce("500*((x-0.1)^2+y^2+z^2)")
    place.addParticle(4, [])
    with pytest.raises(InputError, match=r"energy of its CustomExternalForce .* changes by .* is moved or turned"):
        from_files(tmp_path, alanine, place)
    direction = openmm.CustomCompoundBondForce(2, "50*(x2-x1)")  # moved it is the same, and turned it is not
    direction.addBond([0, 4], [])
    with pytest.raises(InputError, match=r"energy of its CustomCompoundBondForce .* changes by"):
        from_files(tmp_path, alanine, direction)
    free = openmm.CustomBondForce("5*(r-0.2)^2")
    free.addBond(0, 4, [])
    assert from_files(tmp_path, alanine, free, openmm.CMMotionRemover()).n_atoms == 22


def test_a_weak_hold_is_seen_beside_energies_that_are_large(tmp_path, alanine):
    clash = alanine.positions.clone()
    clash[5] = clash[8] + 0.003
    crashed = replace(alanine, positions=clash)
    place = openmm.CustomExternalForce("50*((x-0.1)^2+y^2+z^2)")
    place.addParticle(4, [])
    with pytest.raises(InputError, match=r"energy of its CustomExternalForce \(force \d+\) changes by"):
        from_files(tmp_path, crashed, place, openmm.CustomExternalForce("0"))


def test_a_bond_that_the_topology_lacks_is_refused(tmp_path, alanine):
    slack, tight = openmm.HarmonicBondForce(), openmm.HarmonicBondForce()
    slack.addBond(4, 16, 0.3, 0.0)
    tight.addBond(4, 16, 0.3, 100.0)
    assert from_files(tmp_path, alanine, slack).n_atoms == 22
    with pytest.raises(InputError, match=r"a\.xml bonds atoms 4 and 16, .* has no such bond: add it there \(CONECT\)"):
        from_files(tmp_path, alanine, tight)


def test_a_system_that_cannot_be_computed_is_refused_in_one_line(tmp_path, alanine):
    unknown = openmm.CustomBondForce("r*nothing")
    unknown.addBond(0, 1, [])
    with pytest.raises(InputError, match=r"OpenMM cannot compute the System of .*a\.xml \("):
        from_files(tmp_path, alanine, unknown)


def test_a_system_of_many_forces_is_taken(tmp_path, alanine):
    assert from_files(tmp_path, alanine, *(openmm.CustomBondForce("r^2") for _ in range(40))).n_atoms == 22


def test_a_mesh_that_stands_still_is_no_force_that_holds_the_molecule(alanine):
    boxed = alanine.openmm_system("vacuum")
    (charges,) = [force for force in boxed.getForces() if isinstance(force, openmm.NonbondedForce)]
    charges.setNonbondedMethod(openmm.NonbondedForce.PME)
    boxed.setDefaultPeriodicBoxVectors(*(3.0 * np.eye(3)))
    place = unit.Quantity(alanine.positions.numpy(), unit.nanometer)
    require_system(Path("a.xml"), boxed, Path("a.pdb"), alanine.topology, place)
    held = openmm.CustomExternalForce("500*x^2")
    held.addParticle(4, [])
    boxed.addForce(held)
    with pytest.raises(InputError, match=r"energy of its CustomExternalForce \(force 5\) changes"):
        require_system(Path("a.xml"), boxed, Path("a.pdb"), alanine.topology, place)


def test_a_thermostat_of_the_file_is_refused(tmp_path, alanine):
    with pytest.raises(
        InputError,
        match="a thermostat of its own, AndersenThermostat, and the temperature here is --temperature-kelvin",
    ):
        from_files(tmp_path, alanine, openmm.AndersenThermostat(900.0, 200.0))


def test_frames_that_are_one_frame_are_refused(tmp_path, alanine):
    import mdtraj

    from systems.user_trajectory import judge_user_trajectory, read_user_trajectory

    same = np.repeat(alanine.positions.numpy()[None].astype(np.float32), 200, axis=0)
    mdtraj.Trajectory(same, mdtraj.Topology.from_openmm(alanine.topology)).save_dcd(str(tmp_path / "a.dcd"))
    for read in (judge_user_trajectory, read_user_trajectory):
        with pytest.raises(InputError, match="has 200 times the same frame"):
            read(tmp_path / "a.dcd", alanine, "implicit")
