"""One loader of molecules: what may be given together, whose files are refused, and what tells molecules apart."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import openmm
import pytest
import torch
from openmm import app, unit
from pydantic import ValidationError

import systems
from boltzgen_diffclf.errors import InputError
from systems.ensemble import Provenance, ReferenceEnsemble
from systems.forcefield import compile_system
from systems.loading import SystemSource
from systems.molecular import MolecularSystem
from systems.peptide import built_peptide, peptide
from systems.store import read_ensemble, write_ensemble
from systems.user_molecule import from_openmm, from_pdb
from workflows.learned_molecule import beads_of
from workflows.ramachandran import RamachandranConfig
from workflows.reference import ReferenceConfig
from workflows.run_start import open_run_folder
from workflows.solvation import SolvationConfig
from workflows.solvation_preflight import judge
from workflows.system_settings import keep_system
from workflows.train import TrainConfig

CONFIGS = [SolvationConfig, ReferenceConfig, TrainConfig, RamachandranConfig]


@pytest.fixture(scope="module")
def dipeptide() -> MolecularSystem:
    return peptide("ACE-ALA-GLY-NME")


@pytest.fixture
def files(dipeptide, tmp_path) -> Path:
    """``mine.pdb`` and ``mine.xml`` of one molecule."""
    write_pdb(tmp_path / "mine.pdb", dipeptide.topology, dipeptide.positions.numpy())
    (tmp_path / "mine.xml").write_text(openmm.XmlSerializer.serialize(dipeptide.openmm_system("implicit")))
    return tmp_path


def write_pdb(path: Path, topology: app.Topology, positions: np.ndarray) -> None:
    with path.open("w") as handle:
        app.PDBFile.writeFile(topology, unit.Quantity(positions, unit.nanometer), handle, keepIds=True)


def without_lines(path: Path, *words: str) -> Path:
    """Take the lines out of a file that hold all these words."""
    lines = path.read_text().splitlines(keepends=True)
    kept = [line for line in lines if not all(word in line.split() for word in words)]
    assert len(kept) < len(lines)
    path.write_text("".join(kept))
    return path


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"system": "aldp", "peptide": "AAA"}, "--system aldp and --peptide AAA: give exactly one of --system"),
        ({"pdb": "a.pdb", "peptide": "AAA"}, "--peptide AAA and --pdb a.pdb: give exactly one"),
        ({"system": "aldp", "forcefield": "ff96"}, "--forcefield goes with --peptide or --pdb"),
        ({"solvent": "gbn2"}, "--solvent goes with --peptide or --pdb, and the molecule is --system aldp"),
        ({"pdb": "a.pdb", "torsions": ("phi:2=1",)}, "--torsions goes with --peptide"),
        ({"peptide": "AAA", "topology": "a.pdb"}, "--topology goes with --openmm-system"),
        ({"openmm_system": "a.xml"}, "--openmm-system a.xml needs --topology"),
        ({"peptide": "ACE-ALX-NME"}, "sequence 'ACE-ALX-NME': unknown residue 'ALX'"),
        ({"peptide": "AAA", "torsions": ("phi2=1",)}, "torsion 'phi2=1' is not written TORSION:RESIDUE=DEGREES"),
        ({"peptide": "AAA", "torsions": ("phi:2=1", "phi:2=3")}, "torsion phi of residue 2 is given twice"),
        ({"system": "chignoln"}, "did you mean 'chignolin'"),
    ],
)
@pytest.mark.parametrize("config", CONFIGS)
def test_exactly_one_molecule_is_taken_and_what_goes_with_it(config, given, expected):
    with pytest.raises(ValidationError, match=expected):
        config(**given)


@pytest.mark.parametrize("config", CONFIGS)
def test_default_folders_tell_molecules_apart(config):
    given = [
        {},
        {"system": "chignolin"},
        {"peptide": "ACE-ALA-NME"},
        {"peptide": "ACE-ALA-NME", "solvent": "gbn2"},
        {"peptide": "ACE-ALA-NME", "forcefield": "ff14sb"},
        {"pdb": "ala.pdb"},
        {"openmm_system": "system.xml", "topology": "own.pdb"},
    ]
    folders = [str(config(**one).folder) for one in given]
    assert len(set(folders)) == len(folders)
    assert folders[0] == str(config(system="aldp").folder)
    assert "ACE-ALA-NME" in folders[2]
    assert "ala" in folders[5]
    assert "own" in folders[6]


def test_a_source_survives_a_file(tmp_path):
    for source in (
        SystemSource(system="aldp"),
        SystemSource(peptide="AAA", torsions=("phi:2=-60",), solvent="obc1"),
        SystemSource(pdb=str(tmp_path / "a.pdb"), forcefield="ff14sb"),
    ):
        assert SystemSource.from_plain(source.as_plain()) == source


def test_a_molecule_is_chosen_without_heavy_imports():
    code = (
        "import sys; from workflows.solvation_settings import SolvationConfig; "
        "print(SolvationConfig(peptide='ACE-ALA-NME').folder); sys.exit(bool({'torch', 'openmm'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_run_of_a_peptide_goes_on_and_another_one_is_refused(tmp_path):
    first = ReferenceConfig(peptide="ACE-GLY-NME", out=tmp_path)
    for _ in range(2):
        with open_run_folder(tmp_path, first):
            pass
    with (
        pytest.raises(InputError, match='peptide = "ACE-GLY-NME", and now peptide = "ACE-ALA-NME"'),
        open_run_folder(tmp_path, ReferenceConfig(peptide="ACE-ALA-NME", out=tmp_path)),
    ):
        pass


def test_a_file_that_changes_under_a_run_is_noticed(files, tmp_path):
    out = tmp_path / "run"
    config = ReferenceConfig(pdb=files / "mine.pdb", out=out)
    with open_run_folder(out, config) as folder:
        keep_system(folder, config.source.load())
        other = peptide("ACE-GLY-NME")
        write_pdb(files / "mine.pdb", other.topology, other.positions.numpy())
        with pytest.raises(InputError, match="was begun with another molecule than the mine"):
            keep_system(folder, config.source.load())


def test_other_names_of_the_same_atoms_are_noticed(files, tmp_path):
    """The energies of a System that comes as a file do not know what its atoms are called."""
    source = SystemSource(openmm_system=str(files / "mine.xml"), topology=str(files / "mine.pdb"))
    config = ReferenceConfig(openmm_system=files / "mine.xml", topology=files / "mine.pdb", out=tmp_path / "run")
    model = model_of(source, source.load().system_hash("implicit"))
    model.origin |= source.load().identity("implicit")
    beads_of(model)
    with open_run_folder(tmp_path / "run", config) as folder:
        keep_system(folder, source.load())
        content = (files / "mine.pdb").read_text()
        (files / "mine.pdb").write_text(content.replace("ALA A   2", "ALA A   7"))
        with pytest.raises(InputError, match="was begun with another molecule than the mine"):
            keep_system(folder, source.load())
        with pytest.raises(InputError, match="the files of mine have changed since"):
            beads_of(model)


def test_a_mirror_image_is_not_the_molecule_of_a_model(files):
    source = SystemSource(pdb=str(files / "mine.pdb"))
    model = model_of(source, source.load().system_hash("implicit"))
    model.origin["hands"] = [-hand for hand in source.load().identity("implicit")["hands"]]
    assert model.origin["hands"]
    with pytest.raises(InputError, match="the files of mine have changed since"):
        beads_of(model)


def test_commands_name_the_molecule(files):
    command = SolvationConfig(peptide="ACE-GLY-NME", torsions=("phi:2=-60",), seed=1).command
    assert command == (
        "python -m workflows.solvation --preset quick --peptide ACE-GLY-NME --torsions phi:2=-60 --seed 1"
    )
    assert SolvationConfig().command == "python -m workflows.solvation --preset quick --system aldp"
    assert "None" not in RamachandranConfig(peptide="ACE-GLY-NME").command


def test_a_pdb_file_and_a_system_are_the_molecule_that_was_written(dipeptide, files):
    from_file = SystemSource(pdb=str(files / "mine.pdb")).load()
    given = SystemSource(openmm_system=str(files / "mine.xml"), topology=str(files / "mine.pdb")).load()
    assert (from_file.name, given.name) == ("mine", "mine")
    x = dipeptide.positions[None]
    for state in dipeptide.states:
        expected = energy_of(dipeptide.openmm_system(state), x[0])
        for system in (from_file, given):
            assert system.torsions == dipeptide.torsions
            assert energy_of(system.openmm_system(state), x[0]) == pytest.approx(expected, abs=1e-6)
            assert system.legs.keys() == dipeptide.legs.keys()


def energy_of(system: openmm.System, positions) -> float:
    context = openmm.Context(system, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatform("Reference"))
    context.setPositions(positions.numpy())
    return context.getState(getEnergy=True).getPotentialEnergy().value_in_unit(unit.kilojoule_per_mole)


def test_missing_hydrogens_are_added(dipeptide, files):
    pdb = files / "mine.pdb"
    pdb.write_text("".join(line for line in pdb.read_text().splitlines(keepends=True) if line[76:78] != " H"))
    assert SystemSource(pdb=str(pdb)).load().elements.count("H") == dipeptide.elements.count("H")


def test_side_chains_stay_protonated_as_they_are_in_the_file_or_as_it_calls_them(tmp_path):
    names = ("LYN", "ASH", "HIP", "GLH", "LYS", "HID")
    whole = peptide(f"ACE-{'-'.join(names)}-NME", "ff14sb", "vacuum")
    path = tmp_path / "whole.pdb"
    write_pdb(path, whole.topology, whole.positions.numpy())
    lines = path.read_text().splitlines(keepends=True)
    assert not any(name in "".join(lines) for name in ("LYN", "ASH", "HIP", "GLH", "HID"))
    assert SystemSource(pdb=str(path), forcefield="ff14sb", solvent="vacuum").load().elements == whole.elements
    # The same without hydrogens, under the names of the variants.
    called = {str(number): name for number, name in enumerate(names, start=2)}
    bare = [
        line[:17] + called.get(line[22:26].strip(), line[17:20]) + line[20:] if line[:4] in ("ATOM", "HETA") else line
        for line in lines
        if line[76:78] != " H" and not line.startswith("CONECT")
    ]
    without_chain = [line[:21] + " " + line[22:] if line[:4] in ("ATOM", "HETA") else line for line in bare]
    on_carbon = [
        line[:17] + called.get(line[22:26].strip(), line[17:20]) + line[20:]
        for line in lines
        if line[:4] in ("ATOM", "HETA") and (line[76:78] != " H" or line[12:16].strip().startswith(("HA", "HB")))
    ]
    for written in (bare, without_chain, on_carbon):
        path.write_text("".join(written))
        again = SystemSource(pdb=str(path), forcefield="ff14sb", solvent="vacuum").load()
        assert sorted(again.elements) == sorted(whole.elements)
        assert charge_of(again) == pytest.approx(2.0, abs=1e-6)  # of HIP and LYS
    # And as at pH 7 where nothing is said.
    path.write_text("".join(line for line in lines if line[76:78] != " H"))
    usual = SystemSource(pdb=str(path), forcefield="ff14sb", solvent="vacuum").load()
    assert charge_of(usual) == pytest.approx(0.0, abs=1e-6)  # two of LYS, and minus two of ASP and GLU


def charge_of(molecule: MolecularSystem) -> float:
    system = molecule.openmm_system("vacuum")  # its forces go when it goes
    (force,) = [one for one in system.getForces() if isinstance(one, openmm.NonbondedForce)]
    charges = [force.getParticleParameters(k)[0] for k in range(molecule.n_atoms)]
    return sum(charge.value_in_unit(unit.elementary_charge) for charge in charges)


def test_a_pdb_file_with_missing_atoms_names_residue_and_atom(files):
    path = without_lines(files / "mine.pdb", "CB")
    with pytest.raises(InputError, match="residue ALA 2 of chain A lacks CB"):
        SystemSource(pdb=str(path)).load()


@pytest.mark.parametrize(("element", "name"), [("H", "HB4"), ("C", "CG"), ("C", "CAY")])
def test_an_atom_too_many_is_named(files, element, name):
    advice = "give the cap a residue of its own" if name == "CAY" else "take it out"
    path = files / "mine.pdb"
    lines = path.read_text().splitlines(keepends=True)
    (beta,) = [line for line in lines if line[12:16].strip() == "CB"]
    moved = f"{float(beta[30:38]) + 0.9:8.3f}"
    lines.insert(lines.index(beta) + 1, f"{beta[:6]}   99 {name:>4}{beta[16:30]}{moved}{beta[38:76]} {element}\n")
    path.write_text("".join(lines))
    with pytest.raises(
        InputError, match=f"residue ALA 2 of chain A has no atom of the name {name}: call it by .*, or {advice}"
    ):
        SystemSource(pdb=str(path)).load()


def test_a_free_end_without_its_oxygen_is_named(tmp_path):
    topology, positions = built_peptide("ACE-ALA-GLY")
    write_pdb(tmp_path / "a.pdb", topology, positions.value_in_unit(unit.nanometer))
    with pytest.raises(InputError, match="residue GLY 3 of chain A lacks OXT"):
        SystemSource(pdb=str(without_lines(tmp_path / "a.pdb", "OXT"))).load()


def test_coordinates_in_other_units_are_noticed(dipeptide, files):
    write_pdb(files / "mine.pdb", dipeptide.topology, 0.1 * dipeptide.positions.numpy())
    for read in (
        lambda: from_pdb(files / "mine.pdb", "ff14sb", "obc2", "x"),
        lambda: from_openmm(files / "mine.xml", files / "mine.pdb", "x"),
    ):
        with pytest.raises(InputError, match=r"is 0\.01. nm long: the coordinates may not be in Å"):
            read()


def test_an_energy_that_is_no_number_is_refused_in_one_line(dipeptide, files):
    system = dipeptide.openmm_system("vacuum")
    charges = next(force for force in system.getForces() if isinstance(force, openmm.NonbondedForce))
    charges.setParticleParameters(3, math.nan, *charges.getParticleParameters(3)[1:])
    (files / "mine.xml").write_text(openmm.XmlSerializer.serialize(system))
    with pytest.raises(InputError, match=r"energy cannot be minimised .* parameter of the System"):
        from_openmm(files / "mine.xml", files / "mine.pdb", "x")


def test_a_barostat_is_refused(dipeptide, files):
    system = dipeptide.openmm_system("vacuum")
    system.addForce(openmm.MonteCarloBarostat(1.0, 300.0))
    (files / "mine.xml").write_text(openmm.XmlSerializer.serialize(system))
    with pytest.raises(InputError, match="has a MonteCarloBarostat"):
        from_openmm(files / "mine.xml", files / "mine.pdb", "x")


def test_a_gap_in_the_chain_is_named(tmp_path):
    topology, positions = built_peptide("ACE-ALA-GLY-SER-NME")
    write_pdb(tmp_path / "a.pdb", topology, positions.value_in_unit(unit.nanometer))
    with pytest.raises(InputError, match=r"the bond of C in residue ALA 2 .* to N in residue SER 4 .* is 0\.[3-9]"):
        SystemSource(pdb=str(without_lines(tmp_path / "a.pdb", "GLY"))).load()


def test_a_residue_that_is_no_amino_acid_is_named(files):
    path = files / "mine.pdb"
    path.write_text(path.read_text().replace("ALA", "LIG"))
    with pytest.raises(InputError, match="residue LIG 2 of chain A is no amino acid"):
        SystemSource(pdb=str(path)).load()


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("none.pdb", None, "there is no file"),
        ("a.xyz", "22\n", "unknown format '.xyz'"),
        ("a.pdb", "HEADER\n", r"a.pdb cannot be read \(it holds no atoms\)"),
        ("a.cif", "data_\nnonsense\n", "cannot be read"),
    ],
)
def test_a_file_that_is_no_structure_is_refused_in_one_line(name, content, expected, tmp_path):
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=expected) as refusal:
        SystemSource(pdb=str(tmp_path / name)).load()
    assert "\n" not in str(refusal.value)


def test_a_topology_of_another_system_is_refused(files):
    other = peptide("ACE-GLY-NME")
    write_pdb(files / "other.pdb", other.topology, other.positions.numpy())
    with pytest.raises(InputError, match=r"has 29 particles and .*other\.pdb 19 atoms"):
        from_openmm(files / "mine.xml", files / "other.pdb", "x")


def test_atoms_in_another_order_are_named(dipeptide, files):
    system = dipeptide.openmm_system("implicit")
    masses = [system.getParticleMass(i) for i in range(dipeptide.n_atoms)]
    carbon, hydrogen = dipeptide.elements.index("C"), dipeptide.elements.index("H")
    system.setParticleMass(carbon, masses[hydrogen])
    system.setParticleMass(hydrogen, masses[carbon])
    (files / "mine.xml").write_text(openmm.XmlSerializer.serialize(system))
    first = min(carbon, hydrogen)
    with pytest.raises(InputError, match=f"atom {first}, .* in residue ACE 1 .* particle {first} .* has a mass of"):
        from_openmm(files / "mine.xml", files / "mine.pdb", "x")


def test_a_bond_that_the_system_lacks_is_named(dipeptide, files):
    system = dipeptide.openmm_system("vacuum")
    bonds = next(force for force in system.getForces() if isinstance(force, openmm.HarmonicBondForce))
    first, second, *rest = bonds.getBondParameters(0)
    third = next(atom for atom in range(dipeptide.n_atoms) if tuple(sorted((first, atom))) not in dipeptide.bonds)
    bonds.setBondParameters(0, first, third, *rest)
    (files / "mine.xml").write_text(openmm.XmlSerializer.serialize(system))
    low, high = sorted((first, second))
    with pytest.raises(InputError, match=rf"\(atoms ({low} and {high}|{high} and {low})\), and .* has no such bond"):
        from_openmm(files / "mine.xml", files / "mine.pdb", "x")


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("nonsense", "is no serialised OpenMM System"),
        (openmm.XmlSerializer.serialize(openmm.VerletIntegrator(0.001)), "holds an OpenMM VerletIntegrator"),
    ],
)
def test_a_file_that_is_no_system_is_refused(files, content, expected):
    (files / "mine.xml").write_text(content)
    with pytest.raises(InputError, match=expected):
        from_openmm(files / "mine.xml", files / "mine.pdb", "x")


def test_heavier_hydrogens_are_still_hydrogens(dipeptide, files):
    system = dipeptide.openmm_system("vacuum")
    for first, second in dipeptide.bonds:
        for hydrogen, heavy in ((first, second), (second, first)):
            if dipeptide.elements[hydrogen] == "H":
                system.setParticleMass(heavy, system.getParticleMass(heavy) - 2 * unit.amu)
                system.setParticleMass(hydrogen, system.getParticleMass(hydrogen) + 2 * unit.amu)
    (files / "mine.xml").write_text(openmm.XmlSerializer.serialize(system))
    assert from_openmm(files / "mine.xml", files / "mine.pdb", "x").states == ("vacuum",)


def test_a_force_that_is_not_compiled_is_named_before_a_run_begins(dipeptide, files, tmp_path):
    system = dipeptide.openmm_system("implicit")
    force = openmm.CustomBondForce("r")
    force.addBond(0, 1, [])
    system.addForce(force)
    (files / "mine.xml").write_text(openmm.XmlSerializer.serialize(system))
    config = SolvationConfig(openmm_system=files / "mine.xml", topology=files / "mine.pdb", out=tmp_path / "run")
    with pytest.raises(InputError, match="CustomBondForce"):
        judge(config)
    with pytest.raises(InputError, match="CustomBondForce"):
        compile_system(system)


def test_a_molecule_without_solvent_has_no_solvation(dipeptide, files, tmp_path):
    with pytest.raises(InputError, match=r"ACE-GLY-NME-amber99sb-ildn-vacuum has the state vacuum alone.*--solvent"):
        judge(SolvationConfig(peptide="ACE-GLY-NME", solvent="vacuum", out=tmp_path / "run"))
    (files / "mine.xml").write_text(openmm.XmlSerializer.serialize(dipeptide.openmm_system("vacuum")))
    of_its_own = SolvationConfig(openmm_system=files / "mine.xml", topology=files / "mine.pdb", out=tmp_path / "run")
    with pytest.raises(InputError, match="give a System with a generalised-Born force"):
        judge(of_its_own)


def test_an_ensemble_of_another_molecule_is_refused(dipeptide, tmp_path):
    others = {
        "holds state 'implicit' of system 'ACE-ALA-GLY-NME', not state": peptide("ACE-GLY-NME"),
        "was made with other parameters of 'ACE-ALA-GLY-NME'": peptide(
            "ACE-ALA-GLY-NME", solvent="obc1", name=dipeptide.name
        ),
    }
    made = Provenance(dipeptide.name, "implicit", 300.0, dipeptide.system_hash("implicit"))
    frames = dipeptide.positions.float().expand(4, -1, -1)
    column = torch.arange(4)
    ensemble = ReferenceEnsemble(made, frames, column.double(), column, column)
    write_ensemble(tmp_path / "a.h5", ensemble, dipeptide.topology)
    assert len(read_ensemble(tmp_path / "a.h5", dipeptide, "implicit")) == 4
    for expected, other in others.items():
        with pytest.raises(InputError, match=expected):
            read_ensemble(tmp_path / "a.h5", other, "implicit")


def test_registered_names_are_sources():
    for name in ("aldp", "aldp-ildn"):
        assert SystemSource(system=name).load().system_hash("implicit") == systems.load(name).system_hash("implicit")


def test_names_of_force_fields_are_read_in_either_case():
    assert SystemSource(peptide="AA", forcefield="ff14SB", solvent="GBn2").name == "ALA-ALA-ff14sb-gbn2"


def test_a_trained_model_finds_the_molecule_it_is_of_again(dipeptide, files):
    sources = [
        SystemSource(peptide="ACE-ALA-GLY-NME"),
        SystemSource(pdb=str(files / "mine.pdb")),
        SystemSource(openmm_system=str(files / "mine.xml"), topology=str(files / "mine.pdb")),
    ]
    for source in sources:
        model = model_of(source, source.load().system_hash("implicit"))
        beads = beads_of(model)
        assert (beads.name, beads.n_atoms) == (f"{source.name}-backbone", 8)
        assert beads.torsions.keys() == dipeptide.torsions.keys()
    with pytest.raises(InputError, match="the files of mine have changed since the model was trained"):
        beads_of(model_of(sources[1], "another"))


def test_a_model_older_than_sources_is_of_the_system_that_it_names():
    origin = {"system": "aldp", "state": "implicit", "beads": "heavy"}
    origin["system_hash"] = systems.load("aldp").system_hash("implicit")
    assert beads_of(SimpleNamespace(origin=origin)).name == "aldp-heavy"


def model_of(source: SystemSource, system_hash: str) -> SimpleNamespace:
    origin = {"system": source.name, "state": "implicit", "beads": "backbone", "system_hash": system_hash}
    return SimpleNamespace(origin={**origin, "source": source.as_plain()})
