"""Files and settings that are not what they should be: one line that says so, and nothing sampled for nothing."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import h5py
import mdtraj
import numpy as np
import openmm
import pytest
from openmm.app import PDBFile
from openmm.unit import nanometer

import systems
from boltzgen_diffclf.errors import InputError
from boltzgen_diffclf.training.molecule_model import load_molecule_model
from systems.force_fields import minimised
from systems.solvation_states import without_polarisation
from systems.user_molecule import from_openmm
from systems.user_trajectory import read_user_trajectory
from tests.small_reference import small_reference
from workflows import molecule_frames, reference, train
from workflows.command_line import run_command
from workflows.ramachandran import RamachandranConfig
from workflows.reference import PRESETS, ReferenceConfig
from workflows.run_start import open_run_folder
from workflows.train import TrainConfig

pytestmark = pytest.mark.usefixtures("eager_mode")


@pytest.fixture(scope="module")
def ensemble(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_reference(tmp_path_factory.mktemp("reference"), "vacuum")


def nothing_of_it(file: h5py.File) -> None:
    for name in (*file, *file.attrs):
        (file.attrs if name in file.attrs else file).pop(name)
    file["something"] = [1.0]


@pytest.mark.parametrize(
    ("harm", "told"),
    [
        (nothing_of_it, "cannot be read as a trajectory of the 22 atoms of 'aldp'"),
        (lambda file: file.attrs.pop("provenance"), "does not say what it is of ('provenance')"),
        (lambda file: file.attrs.modify("diagnostics", b"{"), "does not say what it is of (Expecting property name"),
        (
            lambda file: file.attrs.create("schemaVersion", np.bytes_("one")),
            "has schema version one, this program reads 1",
        ),
    ],
)
def test_files_that_are_no_ensemble_are_refused(
    ensemble: Path, tmp_path: Path, harm: Callable[[h5py.File], object], told: str
) -> None:
    file = tmp_path / "frames.h5"
    shutil.copy(ensemble, file)
    with h5py.File(file, "a") as content:
        harm(content)
    with pytest.raises(InputError) as raised:
        read_user_trajectory(file, systems.load("aldp"), "vacuum")
    assert told in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_system_that_openmm_cannot_compute_is_refused() -> None:
    aldp = systems.load("aldp")
    broken = aldp.openmm_system("vacuum")
    force = openmm.CustomBondForce("oops(r)")
    force.addBond(0, 1)
    broken.addForce(force)
    with pytest.raises(InputError, match=r"OpenMM cannot compute this System .*oops.*: mend its file"):
        minimised(broken, aldp.positions.double().numpy() * nanometer)


def test_a_born_force_whose_charge_has_another_name_is_refused() -> None:
    system = openmm.System()
    force = openmm.CustomGBForce()
    force.addPerParticleParameter("q")
    system.addForce(force)
    with pytest.raises(InputError, match=r"has no parameter 'charge' among those of its particles \(q\)"):
        without_polarisation(system)


def test_beads_that_a_molecule_has_not_are_refused_before_anything_is_sampled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(molecule_frames, "sampled_frames", pytest.fail)
    words = ["--beads", "ca", "--out", str(tmp_path / "run")]
    assert run_command(TrainConfig, train.run, program="train", argv=words) == 2
    assert "ca" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("temperature", "hottest"), [(300.0, 800.0), (600.0, 900.0), (900.0, 1350.0)])
def test_a_hot_molecule_is_sampled_on_a_ladder_that_goes_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, temperature: float, hottest: float
) -> None:
    asked: list[ReferenceConfig] = []

    def ensemble_of(config: ReferenceConfig) -> None:
        asked.append(config)
        raise InputError("nothing is sampled here")

    monkeypatch.setattr(reference, "ensemble_of", ensemble_of)
    with pytest.raises(InputError, match="nothing is sampled"):
        train.run(TrainConfig(temperature_kelvin=temperature, out=tmp_path))
    assert asked[0].highest_temperature_kelvin == pytest.approx(hottest)


def test_atoms_written_twice_are_refused_in_one_line(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    aldp, file = systems.load("aldp"), tmp_path / "twice.pdb"
    with file.open("w") as handle:
        PDBFile.writeFile(aldp.topology, aldp.positions.double().numpy() * nanometer, handle)
    lines = file.read_text().splitlines()
    atom = next(k for k, line in enumerate(lines) if line.startswith("HETATM") or line.startswith("ATOM"))
    file.write_text("\n".join([*lines[: atom + 1], lines[atom], *lines[atom + 1 :]]) + "\n")
    words = ["--pdb", str(file), "--out", str(tmp_path / "run")]
    code = run_command(ReferenceConfig, reference.run, program="reference", presets=PRESETS, argv=words)
    # Log lines begin with the time.
    (told,) = [line for line in capfd.readouterr().err.splitlines() if not line[:4].isdigit()]
    assert code == 2
    assert told.startswith("error: ")


def test_what_a_reader_prints_of_a_cut_trajectory_is_not_shown(
    ensemble: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    whole, cut = tmp_path / "whole.dcd", tmp_path / "cut.dcd"
    mdtraj.load(str(ensemble)).save(str(whole))
    cut.write_bytes(whole.read_bytes()[:200])
    with pytest.raises(InputError) as raised:
        read_user_trajectory(cut, systems.load("aldp"), "vacuum")
    assert "cut.dcd cannot be read as a trajectory" in str(raised.value)
    assert capfd.readouterr() == ("", "")


def test_a_file_that_is_no_model_is_not_to_be_deleted(tmp_path: Path) -> None:
    file = tmp_path / "mine.pdb"
    file.write_text("ATOM      1  N   ALA A   1\n" * 20)
    with pytest.raises(InputError, match=r"mine.pdb cannot be read as a trained model: give the model"):
        load_molecule_model(file)


def test_frozen_particles_are_told_by_name(tmp_path: Path) -> None:
    aldp = systems.load("aldp")
    frozen = aldp.openmm_system("vacuum")
    frozen.setParticleMass(3, 0.0)
    (tmp_path / "system.xml").write_text(openmm.XmlSerializer.serialize(frozen))
    with (tmp_path / "atoms.pdb").open("w") as handle:
        PDBFile.writeFile(aldp.topology, 10 * aldp.positions.numpy(), handle)
    with pytest.raises(InputError, match=r"particle 3 of .*system.xml has no mass: frozen atoms"):
        from_openmm(tmp_path / "system.xml", tmp_path / "atoms.pdb", "frozen")


def test_frames_of_other_settings_are_offered_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    file = Path("runs/reference-aldp-implicit-quick-seed0/implicit.h5")

    with open_run_folder(file.parent, ReferenceConfig(walkers=4), frozenset()):
        assert run_command(TrainConfig, train.run, program="train", argv=["--out", "x"]) == 2
    assert "is in use by process" in capsys.readouterr().err
    assert run_command(TrainConfig, train.run, program="train", argv=["--out", "x"]) == 2
    told = capsys.readouterr().err
    assert "was started with walkers = 4, and now walkers = 64" in told
    assert f"give {file} as your own" in told


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--overweight-factor", "3"], "--overweight-factor 3 is of a basin: name it with --overweight"),
        (["--particles", "5"], "--particles 5 is of all atoms: add --beads all"),
        (["--bridge-keeps", "0.5"], "--bridge-keeps 0.5 is of all atoms: add --beads all"),
    ],
)
def test_settings_without_a_use_are_refused(words: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(RamachandranConfig, pytest.fail, program="ramachandran", argv=words) == 2
    assert told in capsys.readouterr().err
    whole = ["--beads", "all", "--overweight", "phi > 0", *words, "--print-config"]
    assert run_command(RamachandranConfig, pytest.fail, program="ramachandran", argv=whole) == 0
