"""Reference ensembles: the right distribution, a stream that survives kill -9, and refusals."""

import json
import math
import os
import signal
import subprocess
import sys
import textwrap
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import openmm
import pytest
import torch
from openmm import app

import systems
from boltzgen_diffclf.coordinates import Arc, TorsionArc
from boltzgen_diffclf.errors import InputError, NotTrustworthyError, RunFailedError, UnsupportedSystemError
from boltzgen_diffclf.observables.chirality import handedness, stereocentres
from systems.derived_states import ConfinedState, MixedState
from systems.ensemble import energies_of
from systems.hydrogen_mass import masses_with_hydrogens, with_hydrogen_mass
from systems.molecular import MolecularSystem
from systems.openmm_engine import OpenMMDynamics, OpenMMSettings, generate_with_openmm
from systems.reference import ReferenceSettings, generate, geometric_ladder
from systems.replica_dynamics import ReplicaExchangeDynamics
from systems.store import load_ensemble, read_ensemble
from systems.temperature_ladder import ladder_for
from workflows.reference import ReferenceConfig, disagreement, ensemble_of, run, summary

TINY = ReferenceSettings(
    walkers=4,
    temperatures_kelvin=(300.0, 400.0),
    frames_per_walker=12,
    steps_per_frame=4,
    steps_per_sweep=2,
    equilibration_frames=2,
    hot_start_steps=10,
    timestep_fs=1.0,
)


@pytest.fixture(scope="module", autouse=True)
def eager():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BOLTZGEN_EAGER", "1")
        yield


@pytest.fixture(scope="module")
def aldp():
    return systems.load("aldp")


@pytest.fixture
def short_parts(monkeypatch):
    """Parts of two frames of four walkers, so that a tiny run has several."""
    monkeypatch.setattr("systems.recording._CONFIGURATIONS_PER_PART", 8)


def diatomic(stiffness=4000.0, length=0.12):
    """Two atoms on a soft spring: p(r) is r^2 exp(-k (r - r0)^2 / 2 kT)."""
    topology = app.Topology()
    residue = topology.addResidue("H2", topology.addChain())
    atoms = [topology.addAtom(name, app.element.hydrogen, residue) for name in ("H1", "H2")]
    topology.addBond(*atoms)
    system = openmm.System()
    for _ in atoms:
        system.addParticle(1.008)
    bond = openmm.HarmonicBondForce()
    bond.addBond(0, 1, length, stiffness)
    system.addForce(bond)
    positions = torch.tensor([[0.0, 0.0, 0.0], [length, 0.0, 0.0]], dtype=torch.float64)
    return MolecularSystem(name="diatomic", topology=topology, positions=positions, openmm_systems={"free": system})


def exact_moments(temperature, stiffness=4000.0, length=0.12):
    r = np.linspace(1e-4, 0.4, 20001)
    u = 0.5 * stiffness * (r - length) ** 2 / (0.00831446261815324 * temperature)
    weight = r**2 * np.exp(-u)
    weight /= weight.sum()
    return float(weight @ r), float(weight @ u)


@pytest.mark.parametrize("hydrogen_mass", [1.008, 6.0])
def test_coldest_walkers_sample_the_boltzmann_distribution(tmp_path, hydrogen_mass):
    system = diatomic()
    settings = ReferenceSettings(
        walkers=64,
        temperatures_kelvin=(300.0, 450.0),
        frames_per_walker=40,
        steps_per_frame=40,
        steps_per_sweep=10,
        equilibration_frames=4,
        hot_start_steps=50,
        timestep_fs=1.5,
        friction_per_ps=20.0,
        hydrogen_mass_amu=hydrogen_mass,
        seed=3,
    )
    ensemble = generate(system, "free", 300.0, settings, tmp_path / "free.h5")
    length = (ensemble.positions[:, 0] - ensemble.positions[:, 1]).norm(dim=-1).double()
    for values, exact in zip((length, ensemble.energies), exact_moments(300.0), strict=True):
        by_walker = ensemble.by_group(values).mean(1)
        stderr = by_walker.std() / len(by_walker) ** 0.5
        assert abs(by_walker.mean() - exact) < 4 * stderr
        assert stderr < 0.06 * exact
    diagnostics = ensemble.diagnostics
    assert 0.3 < diagnostics["exchange_acceptance"][0] < 1.0
    assert diagnostics["round_trips"] > 64
    assert diagnostics["split_r_hat"]["reduced_energy"] < 1.05
    assert diagnostics["effective_frames"]["reduced_energy"] > 200
    assert diagnostics["relaxation_frames"] == {}


def test_a_summary_says_how_well_walkers_mix_and_what_they_remember(aldp: MolecularSystem, tmp_path: Path) -> None:
    few = generate(aldp, "vacuum", 300.0, TINY, tmp_path / "few.h5")
    times = {"phi > 0": 2.0, "helical": 3.0}
    measured = {"split_r_hat": {"phi": 1.2, "psi": 1.1}, "relaxation_frames": times}
    each = few.frame_interval_ps * len(few) / few.n_groups
    told = summary(few.with_diagnostics(measured), tmp_path / "few.h5")
    assert told[-2].startswith("largest split R-hat: 1.200 (phi)")
    time = 3 * few.frame_interval_ps
    assert told[-1] == f"slowest relaxation: about {time:.3g} ps (helical), in {each:.3g} ps of each"
    # A basin that nobody knows of is the slowest.
    times["phi > 0"] = math.inf
    told = summary(few.with_diagnostics(measured), tmp_path / "few.h5")
    assert told[-1].startswith("slowest relaxation: not to be told, crossings are too few (phi > 0)")


def with_mirror_image(system: MolecularSystem) -> MolecularSystem:
    """Alanine dipeptide whose walkers begin in turn as it is and as its mirror image, which never turn into another."""
    return replace(system, other_starts=system.positions[None] * system.positions.new_tensor([1.0, 1.0, -1.0]))


@pytest.mark.parametrize("engine", ["compiled", "openmm"])
def test_walkers_begin_at_every_start_in_turn(tmp_path, aldp, engine):
    system, path = with_mirror_image(aldp), tmp_path / "vacuum.h5"
    if engine == "compiled":
        ensemble = generate(system, "vacuum", 300.0, TINY, path)
    else:
        ensemble = generate_with_openmm(system, "vacuum", 300.0, replace(OPENMM, walkers=4), path)
    hands = handedness(ensemble.positions.numpy(), stereocentres(aldp.elements, aldp.bonds))[:, 0]
    first = handedness(aldp.positions[None].numpy(), stereocentres(aldp.elements, aldp.bonds))[0, 0]
    assert (ensemble.by_group(torch.from_numpy(hands * first).double())[:, 0] == torch.tensor([1, -1, 1, -1])).all()


def test_a_mixture_of_states_begins_at_every_start_and_a_part_at_its_own(aldp):
    system, region = with_mirror_image(aldp), TorsionArc(aldp.torsions["phi"], Arc(0.0, 2.0))
    mixed = system.with_derived("mixed", MixedState(("vacuum", "implicit"), 0.5))
    part = system.with_derived("part", ConfinedState(("vacuum",), region, aldp.positions))
    assert [len(mixed.starts(state)) for state in ("vacuum", "mixed")] == [2, 2]
    assert len(part.starts("part")) == 1


@pytest.mark.parametrize("engine", ["compiled", "openmm"])
def test_walkers_that_began_elsewhere_are_another_run(tmp_path, aldp, engine):
    path, system = tmp_path / "vacuum.h5", with_mirror_image(aldp)
    few = replace(OPENMM, walkers=2, frames_per_walker=2)

    def sampled(of):
        if engine == "compiled":
            return generate(of, "vacuum", 300.0, replace(TINY, frames_per_walker=2), path)
        return generate_with_openmm(of, "vacuum", 300.0, few, path)

    sampled(aldp)
    sampled(aldp)
    with pytest.raises(InputError, match="was made with starts = None"):
        sampled(system)


def test_file_holds_what_was_sampled(tmp_path, aldp):
    path = tmp_path / "vacuum.h5"
    heard = []
    ensemble = generate(aldp, "vacuum", 300.0, TINY, path, heard.append)
    assert sum(heard) == TINY.equilibration_frames + TINY.frames_per_walker
    assert (len(ensemble), ensemble.n_groups) == (48, 4)
    assert torch.equal(read_ensemble(path, aldp, "vacuum", 300.0).positions, ensemble.positions)
    torch.testing.assert_close(
        energies_of(aldp, "vacuum", 300.0, ensemble.positions), ensemble.energies, rtol=1e-9, atol=0.0
    )
    assert ensemble.positions.mean(1).abs().max() < 1e-6
    assert ensemble.provenance.settings["timestep_fs"] == 1.0
    assert not (tmp_path / "vacuum.h5.parts").exists()
    assert ensemble.diagnostics["populations"].keys() == {"phi > 0", "helical"}


def test_seeds_and_states_have_streams_of_their_own(tmp_path, aldp):
    settings = replace(TINY, frames_per_walker=2)
    same = [generate(aldp, "vacuum", 300.0, settings, tmp_path / f"{name}.h5") for name in "ab"]
    other = generate(aldp, "vacuum", 300.0, replace(settings, seed=1), tmp_path / "c.h5")
    assert torch.equal(same[0].positions, same[1].positions)
    assert not torch.equal(same[0].positions, other.positions)


SCRIPT = """
    import sys, time
    from pathlib import Path
    import torch
    import systems
    from systems import recording
    from systems.reference import ReferenceSettings, generate

    torch.set_num_threads(1)
    recording._CONFIGURATIONS_PER_PART = 8
    settings = ReferenceSettings({settings})
    generate(systems.load("aldp"), "vacuum", 300.0, settings, Path(sys.argv[1]), lambda frames: time.sleep(0.05))
"""


def start_run(path):
    keywords = ", ".join(f"{key}={value!r}" for key, value in vars(TINY).items())
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(SCRIPT).format(settings=keywords), str(path)],
        env={**os.environ, "BOLTZGEN_EAGER": "1"},
    )


def test_kill_and_resume_gives_the_same_file(tmp_path, aldp, short_parts):
    torch.set_num_threads(1)
    whole, killed = tmp_path / "whole.h5", tmp_path / "killed.h5"
    generate(aldp, "vacuum", 300.0, TINY, whole)
    parts = tmp_path / "killed.h5.parts"
    for survivors in (1, 3):
        process = start_run(killed)
        deadline = time.monotonic() + 120
        while len(list(parts.glob("part-*.h5"))) < survivors and process.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert not killed.exists()
        assert len(load_ensemble(sorted(parts.glob("part-*.h5"))[0])) == 8
    resumed = []
    generate(aldp, "vacuum", 300.0, TINY, killed, resumed.append)
    assert resumed[0] >= TINY.equilibration_frames + 4
    assert killed.read_bytes() == whole.read_bytes()
    assert not parts.exists()


class StopError(Exception):
    pass


def stop_after(frames):
    done = 0.0

    def advance(amount):
        nonlocal done
        done += amount
        if done >= frames:
            raise StopError

    return advance


def test_other_settings_are_refused_and_nothing_is_destroyed(tmp_path, aldp, short_parts):
    path = tmp_path / "vacuum.h5"
    with pytest.raises(StopError):
        generate(aldp, "vacuum", 300.0, TINY, path, stop_after(9))
    with pytest.raises(InputError, match=r"made with timestep_fs = 1.0, now 2.0 is asked for"):
        generate(aldp, "vacuum", 300.0, replace(TINY, timestep_fs=2.0), path)
    generate(aldp, "vacuum", 300.0, TINY, path)
    before = path.read_bytes()
    with pytest.raises(InputError, match=r"made with seed = 0, now 5"):
        generate(aldp, "vacuum", 300.0, replace(TINY, seed=5), path)
    with pytest.raises(InputError, match="holds state 'vacuum'"):
        generate(aldp, "implicit", 300.0, TINY, path)
    assert path.read_bytes() == before


def test_more_frames_are_added_to_those_that_are_there(tmp_path, aldp, short_parts):
    whole, path, short = tmp_path / "whole.h5", tmp_path / "vacuum.h5", replace(TINY, frames_per_walker=5)
    at_once = generate(aldp, "vacuum", 300.0, TINY, whole)
    first = generate(aldp, "vacuum", 300.0, short, path)
    before = path.read_bytes()
    with pytest.raises(StopError):
        generate(aldp, "vacuum", 300.0, TINY, path, stop_after(11))
    # Stopped on the way, the shorter run is whole, and what there is of the longer one is kept.
    assert torch.equal(generate(aldp, "vacuum", 300.0, short, path).positions, first.positions)
    assert path.read_bytes() == before
    heard = []
    longer = generate(aldp, "vacuum", 300.0, TINY, path, heard.append)
    assert heard[0] >= 9
    for name in ("positions", "group", "frame"):
        assert torch.equal(getattr(longer, name), getattr(at_once, name))
    torch.testing.assert_close(longer.energies, at_once.energies, rtol=1e-12, atol=0)
    assert longer.diagnostics["round_trips"] == at_once.diagnostics["round_trips"]
    assert torch.equal(read_ensemble(path, aldp, "vacuum", 300.0).positions, at_once.positions)
    assert not (tmp_path / "vacuum.h5.parts").exists()
    with pytest.raises(
        InputError, match="made with frames_per_walker = 12, now 5 is asked for: ask for as many or more"
    ):
        generate(aldp, "vacuum", 300.0, short, path)


def test_more_frames_survive_a_kill_at_any_moment(tmp_path, aldp, short_parts, monkeypatch):
    path, short = tmp_path / "vacuum.h5", replace(TINY, frames_per_walker=5)
    expected = generate(aldp, "vacuum", 300.0, TINY, tmp_path / "whole.h5").positions

    def killed(*args, **kwargs):
        raise StopError

    # After the file and before its checkpoint is put beside it; then in the first part of the continuation.
    for place, settings in (("_keep_the_end", short), ("_save", TINY)):
        with monkeypatch.context() as patch:
            patch.setattr(f"systems.recording.{place}", killed)
            with pytest.raises(StopError):
                generate(aldp, "vacuum", 300.0, settings, path)
    assert torch.equal(generate(aldp, "vacuum", 300.0, TINY, path).positions, expected)


def test_a_continuation_of_a_file_that_is_gone_is_refused(tmp_path, aldp, short_parts):
    path = tmp_path / "vacuum.h5"
    generate(aldp, "vacuum", 300.0, replace(TINY, frames_per_walker=5), path)
    with pytest.raises(StopError):
        generate(aldp, "vacuum", 300.0, TINY, path, stop_after(11))
    path.unlink()
    heard = []
    with pytest.raises(InputError, match=r"vacuum.h5.parts does not go on from what"):
        generate(aldp, "vacuum", 300.0, TINY, path, heard.append)
    assert not heard


def test_a_file_without_its_checkpoint_is_not_made_longer(tmp_path, aldp, short_parts):
    path = tmp_path / "vacuum.h5"
    generate(aldp, "vacuum", 300.0, replace(TINY, frames_per_walker=5), path)
    (tmp_path / "vacuum.h5.checkpoint").unlink()
    with pytest.raises(InputError, match="has no checkpoint of its last frame to go on from"):
        generate(aldp, "vacuum", 300.0, TINY, path)


def test_a_refused_command_leaves_a_continuation_alone(tmp_path, aldp, short_parts):
    path, short = tmp_path / "vacuum.h5", replace(TINY, frames_per_walker=5)
    generate(aldp, "vacuum", 300.0, short, path)
    with pytest.raises(StopError):
        generate(aldp, "vacuum", 300.0, TINY, path, stop_after(11))
    # Its checkpoint is after nine frames, as the end of this one would be.
    with pytest.raises(InputError, match="made with equilibration_frames = 2, now 4"):
        generate(aldp, "vacuum", 300.0, replace(short, equilibration_frames=4), path)
    expected = generate(aldp, "vacuum", 300.0, TINY, tmp_path / "whole.h5").positions
    assert torch.equal(generate(aldp, "vacuum", 300.0, TINY, path).positions, expected)


def test_a_checkpoint_of_another_device_is_refused(tmp_path, aldp, short_parts, monkeypatch):
    path, short = tmp_path / "vacuum.h5", replace(TINY, frames_per_walker=5)
    generate(aldp, "vacuum", 300.0, short, path)
    monkeypatch.setattr(ReplicaExchangeDynamics, "device_type", property(lambda self: "cuda", lambda self, kind: None))
    with pytest.raises(InputError, match="checkpoint was begun on cpu, whose random stream does not go on on cuda"):
        generate(aldp, "vacuum", 300.0, TINY, path)


def test_openmm_adds_frames_too(tmp_path, aldp):
    path, longer = tmp_path / "vacuum.h5", replace(OPENMM, frames_per_walker=11)
    generate_with_openmm(aldp, "vacuum", 300.0, OPENMM, path)
    made = generate_with_openmm(aldp, "vacuum", 300.0, longer, path)
    at_once = generate_with_openmm(aldp, "vacuum", 300.0, longer, tmp_path / "whole.h5")
    assert torch.equal(made.positions, at_once.positions)


def test_a_damaged_checkpoint_is_one_line(tmp_path, aldp, short_parts):
    path = tmp_path / "vacuum.h5"
    with pytest.raises(StopError):
        generate(aldp, "vacuum", 300.0, TINY, path, stop_after(9))
    checkpoint = tmp_path / "vacuum.h5.parts" / "checkpoint.safetensors"
    checkpoint.write_bytes(checkpoint.read_bytes()[:200])
    with pytest.raises(InputError, match=r"checkpoint.safetensors is damaged.*delete") as caught:
        generate(aldp, "vacuum", 300.0, TINY, path)
    assert "\n" not in str(caught.value)


def test_frames_beside_a_damaged_checkpoint_stay(tmp_path, aldp):
    path = tmp_path / "vacuum.h5"
    made = generate(aldp, "vacuum", 300.0, TINY, path)
    end = tmp_path / "vacuum.h5.checkpoint"
    end.write_bytes(end.read_bytes()[:200])
    with pytest.raises(InputError, match=r"is damaged.*the frames beside it are whole, but none can be added"):
        generate(aldp, "vacuum", 300.0, replace(TINY, frames_per_walker=TINY.frames_per_walker + 1), path)
    assert torch.equal(generate(aldp, "vacuum", 300.0, TINY, path).positions, made.positions)


def test_openmm_dynamics_that_blow_up_fail(tmp_path, aldp):
    wild = replace(OPENMM, timestep_fs=20.0, steps_per_frame=500)
    with pytest.raises(RunFailedError, match="the simulation blew up; choose a smaller timestep"):
        generate_with_openmm(aldp, "vacuum", 300.0, wild, tmp_path / "x.h5")


def test_a_basin_that_no_walker_has_seen_has_no_error(tmp_path, aldp):
    ensemble = generate(aldp, "vacuum", 300.0, TINY, tmp_path / "x.h5")
    never = {"population": 0.0, "stderr": 0.0, "smallest": 0.0, "largest": 0.0}
    lines = summary(ensemble.with_diagnostics({"populations": {"phi > 0": never}}), tmp_path / "x.h5")
    assert any(line.startswith("population of phi > 0: no walker has been there") for line in lines)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"exchange_temperatures": 3}, "--exchange-temperatures 3 goes with"),
        ({"device": "cuda"}, "leave --device cuda out"),
    ],
)
def test_what_openmm_would_ignore_is_refused(settings, words):
    ReferenceConfig(engine="openmm", exchange_temperatures=1, hydrogen_mass_amu=2.0)
    with pytest.raises(ValueError, match=words):
        ReferenceConfig(engine="openmm", **settings)


def test_dynamics_that_blow_up_fail(tmp_path, aldp):
    with pytest.raises(RunFailedError, match="timestep below 40 fs"):
        generate(aldp, "vacuum", 300.0, replace(TINY, timestep_fs=40.0, hot_start_steps=200), tmp_path / "x.h5")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"walkers": 0}, "walkers is 0"),
        ({"timestep_fs": -1.0}, "timestep_fs is -1.0"),
        ({"steps_per_frame": 5}, "give a multiple of steps_per_sweep"),
        ({"temperatures_kelvin": (300.0, 300.0)}, "rising temperatures"),
        ({"equilibration_frames": -1}, "equilibration_frames is -1"),
    ],
)
def test_impossible_settings_are_refused(changes, words):
    with pytest.raises(InputError, match=words):
        replace(TINY, **changes)


def test_the_ladder_begins_at_the_temperature_wanted(tmp_path, aldp):
    assert geometric_ladder(300.0, 300.0, 1) == (300.0,)
    with pytest.raises(InputError, match="begins at 300 K, the ensemble is wanted at 310 K"):
        generate(aldp, "vacuum", 310.0, TINY, tmp_path / "x.h5")


def test_heavier_hydrogens_change_no_other_mass(aldp):
    masses = masses_with_hydrogens(aldp, 4.0)
    hydrogen = torch.tensor([element == "H" for element in aldp.elements])
    assert (masses[hydrogen] == 4.0).all()
    assert torch.equal(masses[~hydrogen], aldp.masses[~hydrogen])


def test_openmm_moves_heavier_hydrogens_where_nothing_is_constrained(aldp):
    heavier = with_hydrogen_mass(aldp, "implicit", 4.0)
    found = torch.tensor([heavier.getParticleMass(atom)._value for atom in range(aldp.n_atoms)], dtype=torch.float64)
    torch.testing.assert_close(found, masses_with_hydrogens(aldp, 4.0))
    moving = OpenMMDynamics(aldp, "implicit", 300.0, OPENMM).dynamics_system
    assert moving.getParticleMass(aldp.elements.index("H"))._value == OPENMM.hydrogen_mass_amu
    rigid = aldp.openmm_system("implicit")
    rigid.addConstraint(0, 1, 0.1)
    constrained = replace(aldp, openmm_systems={**aldp.openmm_systems, "implicit": rigid})
    with pytest.raises(InputError, match="has constraints"):
        with_hydrogen_mass(constrained, "implicit", 4.0)
    still = aldp.openmm_system("implicit")
    still.setParticleMass(0, 0.0)
    still.setParticleMass(1, 40.0)
    frozen = with_hydrogen_mass(
        replace(aldp, openmm_systems={**aldp.openmm_systems, "implicit": still}), "implicit", 4.0
    )
    assert (aldp.elements[0], aldp.elements[1]) == ("H", "C")
    assert [frozen.getParticleMass(atom)._value for atom in range(3)] == [0.0, 40.0, 4.0]


def constrained_diatomic():
    free = diatomic()
    rigid = free.openmm_system("free")
    rigid.addConstraint(0, 1, 0.12)
    return MolecularSystem(
        name="rigid", topology=free.topology, positions=free.positions, openmm_systems={"free": rigid}
    )


OPENMM = OpenMMSettings(
    walkers=3, frames_per_walker=8, steps_per_frame=5, equilibration_frames=1, platform="Reference", seed=2
)


def test_openmm_samples_what_the_compiler_refuses(tmp_path):
    system = constrained_diatomic()
    with pytest.raises(UnsupportedSystemError):
        generate(system, "free", 300.0, TINY, tmp_path / "compiled.h5")
    ensemble = generate_with_openmm(system, "free", 300.0, OPENMM, tmp_path / "free.h5")
    length = (ensemble.positions[:, 0] - ensemble.positions[:, 1]).norm(dim=-1)
    torch.testing.assert_close(length, torch.full_like(length, 0.12), rtol=1e-4, atol=0)
    assert (len(ensemble), ensemble.n_groups) == (24, 3)
    assert ensemble.provenance.settings["hydrogen_mass_amu"] is None
    assert torch.equal(load_ensemble(tmp_path / "free.h5").positions, ensemble.positions)


def test_openmm_samples_the_boltzmann_distribution(tmp_path):
    settings = replace(OPENMM, walkers=8, frames_per_walker=60, steps_per_frame=50, friction_per_ps=50.0)
    ensemble = generate_with_openmm(diatomic(), "free", 300.0, settings, tmp_path / "free.h5")
    length = (ensemble.positions[:, 0] - ensemble.positions[:, 1]).norm(dim=-1).double()
    for values, exact in zip((length, ensemble.energies), exact_moments(300.0), strict=True):
        by_walker = ensemble.by_group(values).mean(1)
        stderr = by_walker.std() / len(by_walker) ** 0.5
        assert abs(by_walker.mean() - exact) < 4 * stderr


def test_openmm_resumes_with_the_same_stream(tmp_path, aldp, short_parts):
    whole, stopped = tmp_path / "whole.h5", tmp_path / "stopped.h5"
    generate_with_openmm(aldp, "vacuum", 300.0, OPENMM, whole)
    with pytest.raises(StopError):
        generate_with_openmm(aldp, "vacuum", 300.0, OPENMM, stopped, stop_after(6))
    generate_with_openmm(aldp, "vacuum", 300.0, OPENMM, stopped)
    assert stopped.read_bytes() == whole.read_bytes()
    ensemble = read_ensemble(whole, aldp, "vacuum", 300.0)
    expected = energies_of(aldp, "vacuum", 300.0, ensemble.positions)
    torch.testing.assert_close(ensemble.energies, expected, rtol=1e-6, atol=1e-5)


def test_unknown_platform_is_refused():
    with pytest.raises(InputError, match="no platform 'Quantum' here: choose one of Reference"):
        replace(OPENMM, platform="Quantum")


def test_the_standard_ensemble_has_the_frames_that_figures_are_published_for():
    """200,000 of the implicit solvent, at least 0.1 ps apart; 3.4e8 walker-steps are half an hour on two cores."""
    config = ReferenceConfig(preset="standard")
    assert config.state == "implicit"
    assert config.walkers * config.frames_per_walker >= 200_000
    assert config.steps_per_frame * config.timestep_fs >= 100
    steps = config.steps_per_frame * (config.frames_per_walker + config.equilibration_frames)
    temperatures = ladder_for(22, 300.0, config.highest_temperature_kelvin, config.exchange_temperatures)
    assert config.walkers * len(temperatures) * steps < 3.5e8


@pytest.mark.usefixtures("eager_mode")
@pytest.mark.parametrize("name", systems.names())
def test_any_system_is_sampled_and_summed_up(tmp_path, name):
    system, file = systems.load(name), tmp_path / "implicit.h5"
    ensemble = generate(system, "implicit", 300.0, TINY, file)
    first = summary(ensemble, file)[0]
    assert f"48 frames of {name}, state implicit, 300 K, 0.004 ps apart, from 4 independent groups" in first
    assert len(read_ensemble(file, system, "implicit")) == 48


def test_the_command_goes_on_with_a_run_that_is_done(tmp_path):
    sizes = {
        "exchange_temperatures": 2,
        "walkers": 2,
        "steps_per_frame": 4,
        "steps_per_sweep": 2,
        "equilibration_frames": 1,
        "threads": 1,
    }
    first, second = (ReferenceConfig(state="vacuum", out=tmp_path, frames_per_walker=n, **sizes) for n in (3, 5))
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    before, after = ensemble_of(first).positions, ensemble_of(second).positions
    assert torch.get_num_threads() == 2
    torch.set_num_threads(threads)
    assert (len(before), len(after)) == (6, 10)
    assert torch.equal(after[:6], before)
    with pytest.raises(NotTrustworthyError, match=r"R-hat .*limit 1.1\).*frames that are kept"):
        run(second)
    status = json.loads((tmp_path / "status.json").read_text())
    assert (status["state"], status["exit_code"]) == ("not trustworthy", 3)
    assert (status["stage"], status["fraction"]) == ("reference vacuum", 1.0)
    assert "R-hat" in status["message"]
    with pytest.raises(NotTrustworthyError, match="too few to tell whether walkers agree"):
        run(replace(first, out=tmp_path / "short"))
    with pytest.raises(InputError, match="started with steps_per_frame = 4, and now steps_per_frame = 6"):
        run(ReferenceConfig(state="vacuum", out=tmp_path, frames_per_walker=7, **{**sizes, "steps_per_frame": 6}))


def test_walkers_that_agree_because_none_has_moved_are_told_of(tmp_path, aldp):
    ensemble = generate(aldp, "vacuum", 300.0, TINY, tmp_path / "x.h5")
    agreed = {"split_r_hat": {"helical": 1.0, "phi > 0": 1.0}, "effective_frames": {"helical": 700.0, "phi > 0": 49.0}}
    told = "the frames of vacuum are worth 49 independent ones by phi > 0"
    assert disagreement(ensemble.with_diagnostics(agreed)).startswith(told)
    assert disagreement(ensemble.with_diagnostics({**agreed, "effective_frames": {"phi > 0": 51.0}})) == ""
