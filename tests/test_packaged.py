"""Frames that come with the package."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch

import systems
from benchmarks.packaged_frames import ROUNDED_NM, packaged
from boltzgen_diffclf.coordinates import remove_mean
from boltzgen_diffclf.errors import RunFailedError
from systems.beads import bead_atoms, bead_system
from systems.packaged import ALL_ATOMS, packaged_frames
from systems.peptide import peptide
from systems.store import load_ensemble, write_ensemble
from systems.user_trajectory import read_frames
from tests.small_reference import small_reference
from workflows import reference
from workflows.molecule_frames import state_frames
from workflows.reference import ReferenceConfig
from workflows.train import TrainConfig


@pytest.fixture(scope="module")
def chignolin():
    return systems.load("chignolin")


def test_chignolin_comes_with_frames_that_read_as_a_users_do(chignolin) -> None:
    file = packaged_frames(chignolin, "ca", "implicit", 340.0)
    frames = read_frames(file, chignolin, "ca", "implicit", 340.0)
    assert file.stat().st_size < 3e6
    assert frames.n_groups == 50
    assert len(frames) == 50 * frames.provenance.settings["frames_per_walker"]
    # Sampled with the force field that there is now, else they would have to be sampled again.
    assert frames.provenance.settings["all_atom_system_hash"] == chignolin.system_hash("implicit")
    neighbours = (frames.positions[:, 1:] - frames.positions[:, :-1]).norm(dim=-1)
    assert float((neighbours - 0.385).abs().max()) < 0.12  # cis and trans


def test_they_are_begun_folded_and_extended_in_turn(chignolin) -> None:
    frames = read_frames(packaged_frames(chignolin, "ca", "implicit", 340.0), chignolin, "ca", "implicit", 340.0)
    first = frames.select((frames.frame == 0).nonzero()[:, 0])
    end_to_end = (first.positions[:, 0] - first.positions[:, -1]).norm(dim=-1)
    is_folded_start = first.group % 2 == 0
    assert float(end_to_end[is_folded_start].median()) < 0.8
    assert float(end_to_end[~is_folded_start].median()) > 1.0


@pytest.mark.parametrize(
    "changed", [{"temperature_kelvin": 300.0}, {"state": "vacuum"}, {"beads": "heavy"}, {"system": "aldp"}]
)
def test_they_serve_what_they_are_of_and_nothing_else(chignolin, changed: dict[str, object]) -> None:
    of = {"beads": "ca", "state": "implicit", "temperature_kelvin": 340.0, **changed}
    system = systems.load(of.pop("system")) if "system" in of else chignolin
    assert packaged_frames(system, **of) is None


def test_another_molecule_of_the_name_has_none() -> None:
    assert packaged_frames(peptide("GYDPETGTWG", name="chignolin"), "ca", "implicit", 340.0) is None


def test_a_training_takes_them_where_no_forces_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    config = TrainConfig(system="chignolin", beads="ca", temperature_kelvin=340.0)
    assert len(state_frames(config, ["dsm_diffclf"])) == 11_900
    sampled: list[str] = []
    monkeypatch.setattr("workflows.reference.ensemble_of", lambda reference: sampled.append(reference.system))
    for objectives in (["dsm", "dsm_tsm_diffclf"], ["dsm_diffclf_beyond"]):
        state_frames(config, objectives)
    assert sampled == ["chignolin"] * 2


def test_frames_of_all_atoms_are_packed_as_those_that_come_with_the_package(tmp_path) -> None:
    aldp = systems.load("aldp")
    whole = load_ensemble(small_reference(tmp_path, "implicit", aldp))
    kept = packaged(whole, aldp, "heavy", "a command")
    assert kept.provenance.settings[ALL_ATOMS] == aldp.system_hash("implicit")
    write_ensemble(tmp_path / "kept.h5", kept, bead_system(aldp, "heavy").topology)
    found = read_frames(tmp_path / "kept.h5", aldp, "heavy", "implicit", 300.0)
    heavy = remove_mean(whole.positions[:, list(bead_atoms(aldp, "heavy"))])
    assert 0 < float((found.positions - heavy).abs().max()) < 1.1 * ROUNDED_NM
    assert torch.equal(found.group, whole.group)
    assert found.diagnostics["populations"].keys() == whole.diagnostics["populations"].keys()


def test_a_wheel_holds_the_frames_and_what_pages_are_made_of(tmp_path) -> None:
    root = Path(__file__).parents[1]
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(root / name, tmp_path)
    for name in ("boltzgen_diffclf", "systems", "workflows"):
        shutil.copytree(root / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    build = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", "made", "."]
    subprocess.run(build, cwd=tmp_path, check=True, capture_output=True)
    (wheel,) = (tmp_path / "made").glob("*.whl")
    held = zipfile.ZipFile(wheel).namelist()
    assert "systems/data/chignolin-ca-implicit-340K.h5" in held
    for page in (root / "workflows" / "report").iterdir():
        if page.suffix in (".html", ".css", ".js"):
            assert f"workflows/report/{page.name}" in held


def test_forces_that_those_frames_do_not_have_are_told_before_all_atoms_are_sampled(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def sampled(config: ReferenceConfig) -> None:
        raise RunFailedError("sampling")

    monkeypatch.setattr(reference, "ensemble_of", sampled)
    settings = TrainConfig(system="chignolin", beads="ca", temperature_kelvin=340.0)
    assert ALL_ATOMS in state_frames(settings, ["dsm"]).provenance.settings
    with pytest.raises(RunFailedError):
        state_frames(settings, ["dsm", "dsm_tsm"])
    assert "dsm_tsm learns from forces, which the frames that come with the package do not have" in caplog.text
