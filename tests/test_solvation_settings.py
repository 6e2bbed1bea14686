"""What ``workflows.solvation`` judges before it samples: rows that come about, files, processes, devices."""

from __future__ import annotations

import dataclasses
import itertools
import pickle
from pathlib import Path

import mdtraj
import pytest
import torch

import systems
import workflows.solvation
from boltzgen_diffclf.errors import InputError
from boltzgen_diffclf.training import parallel
from workflows import solvation_pipeline, solvation_preflight
from workflows.run_start import open_run_folder
from workflows.solvation import FREE_SETTINGS, SolvationConfig, run
from workflows.solvation_estimators import ABLATIONS, AFTER_TRAINING, ESTIMATORS, FULL_LEARNED
from workflows.solvation_preflight import judge
from workflows.solvation_rows import NOTES


def test_names_of_rows_and_of_estimators_are_the_same() -> None:
    assert set(NOTES) == set(ESTIMATORS)


@pytest.mark.parametrize("name", AFTER_TRAINING)
def test_the_full_objective_is_trained_for_rows_that_start_from_it(name: str) -> None:
    leg = systems.load("aldp").require_leg("polar")
    assert solvation_pipeline._objectives(SolvationConfig(estimators=(name,), relaxation_steps=5), leg) == (
        FULL_LEARNED,
    )


def test_objectives_of_a_leg_are_those_asked_for() -> None:
    total, polar = (systems.load("aldp").require_leg(name) for name in ("total", "polar"))
    assert solvation_pipeline._objectives(SolvationConfig(), total) == (*ABLATIONS, FULL_LEARNED)
    assert solvation_pipeline._objectives(SolvationConfig(), polar) == (FULL_LEARNED,)
    assert solvation_pipeline._objectives(SolvationConfig(estimators=("mbar", "dsm_only")), total) == ("dsm_only",)
    assert solvation_pipeline._objectives(SolvationConfig(estimators=("mbar",)), total) == ()


def test_settings_of_every_single_estimator_are_refused_or_give_its_row() -> None:
    """By the rules of the pipeline: what is accepted has a leg where the row is made."""
    system = systems.load("aldp")
    for name, leg, steps in itertools.product(ESTIMATORS, ("all", "total", "polar", "nonpolar"), (0, 5)):
        try:
            config = SolvationConfig(estimators=(name,), leg=leg, cartesian_steps=steps, relaxation_steps=steps)
        except ValueError as error:
            assert "add" in str(error)  # noqa: PT017 - what to add is the point
            continue
        legs = [system.require_leg(one) for one in config.legs]
        if name in (*ABLATIONS, FULL_LEARNED, *AFTER_TRAINING):
            wanted = FULL_LEARNED if name in AFTER_TRAINING else name
            assert any(wanted in solvation_pipeline._objectives(config, one) for one in legs)
        elif name == "cartesian":
            assert any(solvation_pipeline.wants_cartesian(config, one) for one in legs)
        elif name in ("bar", "fep"):
            sources = [{system.reweighted.get(s, s) for s in (one.state_a, one.state_b)} for one in legs]
            assert any(len(several) == (2 if name == "bar" else 1) for several in sources)


def test_pickles_name_a_class_that_stays_importable() -> None:
    assert workflows.solvation.SolvationConfig is SolvationConfig
    config = SolvationConfig(seed=3, estimators=("mbar", "fep"))
    assert pickle.loads(pickle.dumps(config)) == config
    by_the_public_name = b"cworkflows.solvation\nSolvationConfig\n."
    assert pickle.loads(by_the_public_name) is SolvationConfig


def a_trajectory(path: Path, n_frames: int) -> Path:
    system = systems.load("aldp")
    noise = 1e-3 * torch.randn(n_frames, system.n_atoms, 3, generator=torch.Generator().manual_seed(0))
    positions = (system.positions.float() + noise).numpy()
    mdtraj.Trajectory(positions, mdtraj.Topology.from_openmm(system.topology)).save(str(path))
    return path


def test_a_trajectory_that_no_leg_uses_is_refused(tmp_path: Path) -> None:
    file = a_trajectory(tmp_path / "mine.dcd", 80)
    with pytest.raises(InputError, match=r"of a state that --leg nonpolar does not use \(nonpolar, vacuum\)"):
        judge(SolvationConfig(leg="nonpolar", out=tmp_path / "out", trajectory=(f"implicit={file}",)))
    judge(SolvationConfig(leg="nonpolar", out=tmp_path / "out", trajectory=(f"vacuum={file}",)))


@pytest.mark.parametrize(
    ("n_frames", "settings", "words"),
    [
        (79, {}, "has 79 frames, fewer than the 80"),
        (80, {"training_seeds": 11}, "holds 20 independent groups, and --training-seeds 11 want 22"),
        (80, {"training_seeds": 21, "estimators": ("dsm_diffclf",)}, "holds 20 independent groups"),
    ],
)
def test_a_trajectory_is_judged_before_the_folder_keeps_anything(
    n_frames: int, settings: dict[str, object], words: str, tmp_path: Path
) -> None:
    file = a_trajectory(tmp_path / "mine.dcd", n_frames)
    with pytest.raises(InputError, match=words):
        run(SolvationConfig(out=tmp_path / "out", trajectory=(f"vacuum={file}",), **settings))
    assert not (tmp_path / "out").exists()


def test_a_trajectory_of_another_temperature_or_state_is_judged_first(tmp_path: Path) -> None:
    from systems.reference import ReferenceSettings, generate

    tiny = ReferenceSettings(
        walkers=2,
        temperatures_kelvin=(300.0,),
        frames_per_walker=2,
        steps_per_frame=2,
        steps_per_sweep=2,
        equilibration_frames=0,
        hot_start_steps=2,
    )
    file = tmp_path / "vacuum.h5"
    generate(systems.load("aldp"), "vacuum", 300.0, tiny, file)
    for state, temperature, words in (
        ("implicit", 300.0, "holds state 'vacuum'"),
        ("vacuum", 310.0, "300 K, not 310 K"),
        ("vacuum", 300.0, "2 independent groups"),
    ):
        settings = {"temperature_kelvin": temperature, "trajectory": (f"{state}={file}",)}
        with pytest.raises(InputError, match=words):
            run(SolvationConfig(out=tmp_path / "out", **settings))
    assert not (tmp_path / "out").exists()


def test_a_trajectory_that_is_a_folder_has_a_fingerprint(tmp_path: Path) -> None:
    from workflows.solvation_stages import _fingerprint

    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "frames").write_bytes(b"frames")
    assert _fingerprint(tmp_path / "a") == _fingerprint(tmp_path / "b") == _fingerprint(tmp_path / "a" / "frames")
    (tmp_path / "b" / "frames").write_bytes(b"others")
    assert _fingerprint(tmp_path / "a") != _fingerprint(tmp_path / "b")


@pytest.mark.parametrize(
    ("n", "settings", "words"),
    [
        (3, {}, "--batch-groups 128 cannot be shared by 3 processes"),
        (3, {"batch_groups": 3, "cartesian_steps": 5}, "16 groups of a Cartesian batch"),
        (3, {"batch_groups": 3, "cartesian_steps": 5, "leg": "total"}, None),
        (2, {"cartesian_steps": 5}, None),
    ],
)
def test_processes_that_cannot_share_a_batch_are_refused(
    n: int, settings: dict[str, object], words: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parallel, "size", lambda: n)
    if words is None:
        solvation_preflight.judge(SolvationConfig(**settings))
        return
    with pytest.raises(InputError, match=words):
        solvation_preflight.judge(SolvationConfig(**settings))


def test_atoms_in_a_straight_line_have_classical_rows_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    aldp = systems.load("aldp")
    straight = aldp.positions.clone()
    straight[8] = 2 * straight[6] - straight[4]
    monkeypatch.setattr(SolvationConfig, "load", lambda _: dataclasses.replace(aldp, positions=straight))
    with pytest.raises(InputError, match=r"atoms C-N-CA of aldp are in a straight line \(180 degrees\)"):
        solvation_preflight.judge(SolvationConfig())
    solvation_preflight.judge(SolvationConfig(estimators=("mbar", "bar"), leg="total"))


def test_the_folder_keeps_the_device_that_was_chosen(tmp_path: Path) -> None:
    for asked in ("auto", "cpu"):
        with open_run_folder(tmp_path, SolvationConfig(device=asked), FREE_SETTINGS) as folder:
            solvation_preflight.keep_device(folder, "cpu")
    with (
        open_run_folder(tmp_path, SolvationConfig(device="cuda"), FREE_SETTINGS) as folder,
        pytest.raises(InputError, match="was started on cpu, and this would go on on cuda: give --device cpu"),
    ):
        solvation_preflight.keep_device(folder, "cuda")


def test_a_folder_older_than_a_setting_goes_on_with_its_default(tmp_path: Path) -> None:
    config = SolvationConfig(out=tmp_path)
    with open_run_folder(tmp_path, config, FREE_SETTINGS):
        pass
    kept = tmp_path / "config.toml"
    kept.write_text(kept.read_text().replace('engine = "compiled"\n', ""))
    assert "engine =" not in kept.read_text()
    with open_run_folder(tmp_path, config, FREE_SETTINGS):
        pass
    other = SolvationConfig(out=tmp_path, engine="openmm", timestep_fs=1.0)
    with pytest.raises(InputError, match="engine = "), open_run_folder(tmp_path, other, FREE_SETTINGS):
        pass
