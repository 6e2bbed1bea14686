"""Trajectories of beads alone, of any force field: read, learned from, judged, and refused where forces are wanted."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import mdtraj
import numpy as np
import pytest
import torch

import systems
from boltzgen_diffclf.errors import InputError
from systems.beads import are_beads_alone, bead_atoms, bead_system
from systems.store import load_ensemble, write_ensemble
from systems.user_trajectory import read_frames
from tests.small_reference import small_reference
from tests.test_molecule_workflows import NETWORK, SAMPLES
from workflows import ramachandran, train
from workflows.command_line import run_command
from workflows.ramachandran import RamachandranConfig
from workflows.train import TrainConfig

pytestmark = pytest.mark.usefixtures("eager_mode")


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_reference(tmp_path_factory.mktemp("reference"), "implicit")


def beads_alone(reference: Path, beads: str, path: Path) -> Path:
    """Leave the beads of frames, in order of time, in a file of any of mdtraj's formats."""
    aldp, frames = systems.load("aldp"), load_ensemble(reference)
    alone = bead_system(aldp, beads)
    positions = frames.positions[:, list(bead_atoms(aldp, beads))].numpy()
    trajectory = mdtraj.Trajectory(positions, mdtraj.Topology.from_openmm(alone.topology))
    trajectory.save(str(path))
    return path


@pytest.mark.parametrize("ending", ["dcd", "xtc", "h5", "nc", "trr"])
def test_beads_alone_are_read_from_every_format(reference: Path, tmp_path: Path, ending: str) -> None:
    aldp = systems.load("aldp")
    file = beads_alone(reference, "backbone", tmp_path / f"beads.{ending}")
    found = read_frames(file, aldp, "backbone", "implicit")
    assert found.provenance.system == "aldp-backbone"
    kept = load_ensemble(reference).positions[:, list(bead_atoms(aldp, "backbone"))][
        len(load_ensemble(reference)) % 20 :
    ]
    kept = kept - kept.mean(1, keepdim=True)
    torch.testing.assert_close(found.positions, kept, rtol=0, atol=1e-3 if ending == "xtc" else 1e-5)
    assert found.energies.abs().max() == 0


def test_all_atoms_are_read_as_all_atoms(reference: Path) -> None:
    assert read_frames(reference, systems.load("aldp"), "backbone", "implicit").provenance.system == "aldp"


def test_beads_alone_are_not_judged_by_energies_that_they_do_not_have(reference: Path, tmp_path: Path) -> None:
    found = read_frames(
        beads_alone(reference, "backbone", tmp_path / "x.dcd"), systems.load("aldp"), "backbone", "implicit"
    )
    assert "reduced_energy" not in found.diagnostics["effective_frames"]
    assert "sin_psi" in found.diagnostics["effective_frames"]


def test_what_is_all_of_a_molecule_is_not_taken_for_beads_of_it(reference: Path, tmp_path: Path) -> None:
    heavy = bead_system(systems.load("aldp"), "heavy")
    file = beads_alone(reference, "heavy", tmp_path / "x.dcd")
    assert not are_beads_alone(read_frames(file, heavy, "heavy", "implicit"), heavy)


@pytest.mark.parametrize("ending", ["pdb", "cif", "xyz"])
def test_formats_that_are_not_taken_are_refused_in_one_line(reference: Path, tmp_path: Path, ending: str) -> None:
    file = tmp_path / f"x.{ending}"
    file.write_text("nothing")
    with pytest.raises(InputError, match="rounded coordinates"):
        read_frames(file, systems.load("aldp"), "backbone", "implicit")


def test_samples_of_a_learned_energy_are_no_frames(reference: Path, tmp_path: Path) -> None:
    aldp = systems.load("aldp")
    frames = read_frames(beads_alone(reference, "backbone", tmp_path / "x.dcd"), aldp, "backbone", "implicit")
    made = dataclasses.replace(frames.provenance, settings={"model_hash": "0"})
    alone = bead_system(aldp, "backbone")
    write_ensemble(tmp_path / "reverse.h5", dataclasses.replace(frames, provenance=made), alone.topology)
    with pytest.raises(InputError, match="holds samples of a learned energy"):
        read_frames(tmp_path / "reverse.h5", aldp, "backbone", "implicit")


def test_mirrored_beads_are_refused(reference: Path, tmp_path: Path) -> None:
    file = beads_alone(reference, "backbone", tmp_path / "beads.dcd")
    aldp = systems.load("aldp")
    heavy = bead_system(aldp, "heavy")
    positions = -load_ensemble(reference).positions[:, list(bead_atoms(aldp, "heavy"))].numpy()
    mirrored = tmp_path / "mirrored.dcd"
    mdtraj.Trajectory(positions, mdtraj.Topology.from_openmm(heavy.topology)).save(str(mirrored))
    with pytest.raises(InputError, match="has the other chirality than in 'aldp-heavy'"):
        read_frames(mirrored, aldp, "heavy", "implicit")
    with pytest.raises(InputError, match=r"has 5 atoms: give all 22 of 'aldp', or the 10 of --beads heavy"):
        read_frames(file, aldp, "heavy", "implicit")


def test_beads_alone_are_learned_from_and_judged_by(reference: Path, tmp_path: Path) -> None:
    file = beads_alone(reference, "backbone", tmp_path / "beads.xtc")
    result = ramachandran.run(
        RamachandranConfig(reference=file, out=tmp_path / "run", objectives=("dsm",), **NETWORK, **SAMPLES)
    )
    metrics = {row.metric: row.value for row in result.rows}
    assert np.isfinite(metrics["iid_js"])
    whole = train.run(TrainConfig(reference=reference, out=tmp_path / "whole", objective="dsm", **NETWORK))
    alone = train.run(TrainConfig(reference=file, out=tmp_path / "alone", objective="dsm", **NETWORK))
    assert alone.model.spec == whole.model.spec
    assert alone.model.statistics.length_nm == pytest.approx(whole.model.statistics.length_nm, rel=0.02)


def test_a_file_of_this_package_may_be_of_beads_alone(reference: Path, tmp_path: Path) -> None:
    aldp = systems.load("aldp")
    file = beads_alone(reference, "backbone", tmp_path / "beads.dcd")
    frames = read_frames(file, aldp, "backbone", "implicit")
    write_ensemble(tmp_path / "beads.h5", frames, bead_system(aldp, "backbone").topology)
    again = read_frames(tmp_path / "beads.h5", aldp, "backbone", "implicit")
    assert torch.equal(again.positions, frames.positions)
    assert torch.equal(again.group, frames.group)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--objective", "dsm_tsm"], "objective dsm_tsm learns from forces"),
        (["--objective", "dsm_diffclf_beyond"], "objective dsm_diffclf_beyond learns from forces"),
    ],
)
def test_what_wants_all_atoms_is_refused(
    reference: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], told: str
) -> None:
    file = beads_alone(reference, "backbone", tmp_path / "beads.dcd")
    argv = ["--reference", str(file), "--out", str(tmp_path / "run"), *words]
    assert run_command(TrainConfig, train.run, program="train", argv=argv) == 2
    *_, last = capsys.readouterr().err.splitlines()
    assert last.startswith(f"error: {told}")
    assert not (tmp_path / "run").exists()


def test_frames_with_a_bias_of_beads_alone_are_judged_by_those_of_the_state(
    reference: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = beads_alone(reference, "backbone", tmp_path / "beads.dcd")
    argv = ["--frames", str(file), "--favour", "phi > 0", "--favour-kt", "2", "--out", str(tmp_path / "run")]
    assert run_command(RamachandranConfig, ramachandran.run, program="ramachandran", argv=argv) == 2
    assert "have no energies to take the bias away with: give --reference" in capsys.readouterr().err


def test_weights_are_wrong_on_purpose_of_beads_alone_too(
    reference: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = beads_alone(reference, "backbone", tmp_path / "beads.dcd")
    argv = ["--reference", str(file), "--frames", str(file), "--out", str(tmp_path / "run"), "--overweight", "phi > 0"]
    assert run_command(RamachandranConfig, ramachandran.run, program="ramachandran", argv=argv) == 2
    assert "none of the 80 frames lies in the basin 'phi > 0'" in capsys.readouterr().err
