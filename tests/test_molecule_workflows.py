"""``workflows.train``, ``sample`` and ``ramachandran`` end to end on the real molecule, in sizes that take seconds."""

from __future__ import annotations

import copy
import csv
import json
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import get_args, get_type_hints

import openmm
import pytest
import torch
from openmm.app import Topology
from openmm.app.element import carbon

import systems
from boltzgen_diffclf.coordinates import CentredCoordinates
from boltzgen_diffclf.errors import FallenApartError, InputError, NotTrustworthyError, RunFailedError
from boltzgen_diffclf.free_energy import boltzmann_generator
from boltzgen_diffclf.noised_energy import NoisedEnergyModel
from boltzgen_diffclf.samplers import RESAMPLINGS, SOLVERS, ReverseSmcState
from boltzgen_diffclf.training.clean_data import CleanData, FixedPool
from boltzgen_diffclf.training.molecule_model import MoleculeModel, coordinates_of, load_molecule_model
from boltzgen_diffclf.training.noised_training import NoisedTraining
from systems import hot_frames, mean_forces
from systems.beads import bead_atoms
from systems.ensemble import ReferenceEnsemble
from systems.hot_frames import HotWalk, Walked
from systems.mean_forces import Felt, MeanForces
from systems.molecular import MolecularSystem
from systems.store import load_ensemble
from tests.small_reference import small_reference
from workflows import (
    hotter_frames,
    learned_molecule,
    molecule_sampling,
    molecule_stages,
    ramachandran,
    ramachandran_pipeline,
    resumable,
    sample,
    train,
)
from workflows.command_line import run_command
from workflows.progress import SilentProgress
from workflows.ramachandran import RamachandranConfig
from workflows.reference import ReferenceConfig
from workflows.run_folder import RunFolder, StageResult
from workflows.run_start import open_run_folder
from workflows.sample import SampleConfig
from workflows.sampling_settings import SAMPLING_PRESETS, SamplingSettings
from workflows.train import TrainConfig
from workflows.trust_generators import check_families

pytestmark = pytest.mark.usefixtures("eager_mode")

NETWORK = {"steps": 12, "groups": 16, "hidden": 16, "layers": 2, "levels": 16, "threads": 1}
SAMPLES = {
    "samples": 40,
    "reverse_levels": 16,
    "chains": 10,
    "frames_per_chain": 4,
    "equilibration_frames": 1,
    "steps_per_frame": 5,
}


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_reference(tmp_path_factory.mktemp("reference"), "implicit")


@pytest.fixture(scope="module")
def trained(reference: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("train") / "whole"
    return train.run(TrainConfig(reference=reference, out=out, **NETWORK)).file


def test_a_training_leaves_one_file_that_says_what_it_is_of(trained: Path) -> None:
    model = load_molecule_model(str(trained))
    assert model.origin["beads"] == "backbone"
    assert model.origin["objective"] == "dsm_diffclf"
    assert model.coordinates.dimension == 12
    assert model.model.curve.values.abs().max() > 0
    # Of 12 steps 9 are of denoising alone, as the settings have it.
    assert trained.with_name("model-training-from-9.safetensors").exists()


def test_a_killed_training_ends_in_the_same_model(
    trained: Path, reference: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = TrainConfig(reference=reference, out=tmp_path / "killed", **NETWORK)

    def killed(self: MoleculeModel, path: Path) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(MoleculeModel, "save", killed)
        with pytest.raises(KeyboardInterrupt):
            train.run(config)
    (kept,) = (tmp_path / "killed" / "stages").glob("*.seconds")
    before = float(kept.read_text())
    kept.write_text(repr(before + 1000))
    again = train.run(config)
    assert again.model.fingerprint == load_molecule_model(trained).fingerprint
    assert before + 1000 < again.seconds < before + 1500, "the time of all starts together"
    assert not kept.exists()


@pytest.mark.parametrize(("beads", "path", "network"), [("heavy", "edm", "both"), ("all", "vp", "invariants")])
def test_other_beads_paths_and_networks_are_trained_and_sampled(
    reference: Path, tmp_path: Path, beads: str, path: str, network: str
) -> None:
    # Two steps teach nothing: short ones leave the Gaussian that the model begins as.
    sizes = {**NETWORK, "steps": 2, "groups": 2, "levels": 4, "objective": "dsm", "learning_rate": 1e-5}
    made = train.run(TrainConfig(reference=reference, out=tmp_path, beads=beads, path=path, network=network, **sizes))
    assert made.model.spec.network == network
    samples = sample.run(SampleConfig(model=made.file, samplers=("reverse",), samples=4, reverse_levels=8, threads=1))
    assert samples["reverse"].positions.shape[1] == {"heavy": 10, "all": 22}[beads]


@pytest.mark.parametrize("beads", ["all", "backbone"])
def test_forces_that_are_learned_from_are_slopes_of_the_true_energy(
    reference: Path, tmp_path: Path, beads: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[tuple[CentredCoordinates, CleanData]] = []

    class Seen(Exception):  # noqa: N818
        pass

    def look(model: NoisedEnergyModel, training: NoisedTraining) -> None:
        given.append((coordinates_of(model).double(), training.data))
        raise Seen

    monkeypatch.setattr(molecule_stages, "train_noised", look)
    sizes = {**NETWORK, "beads": beads, "objective": "dsm_tsm"}
    with pytest.raises(Seen):
        train.run(TrainConfig(reference=reference, out=tmp_path, **sizes))
    ((coordinates, pool),) = given
    assert isinstance(pool, FixedPool)
    aldp, learned = systems.load("aldp"), load_ensemble(reference).disjoint_groups(2)[0]
    energy = aldp.target("implicit", temperature_kelvin=300.0, dtype=torch.float64).energy
    step = torch.randn(1, coordinates.dimension, generator=torch.Generator().manual_seed(0)).double()
    moved = torch.zeros(1, 22, 3, dtype=torch.float64)
    moved[:, list(bead_atoms(aldp, beads))] = 1e-5 * coordinates.positions(step)
    x = learned.positions.double()
    slope = (energy(x - moved) - energy(x + moved)) / 2e-5
    torch.testing.assert_close((pool.samples.score.double() * step).sum(1), slope, rtol=1e-3, atol=1e-2)


@pytest.mark.parametrize(("beads", "objective"), [("all", "dsm_tsm_diffclf_beyond"), ("heavy", "dsm_diffclf_beyond")])
def test_frames_beyond_the_ensemble_are_hotter_and_have_the_forces_of_the_ensemble(
    reference: Path, tmp_path: Path, beads: str, objective: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[tuple[CentredCoordinates, CleanData]] = []
    hot: list[torch.Tensor] = []
    whole, walked, pulled = molecule_stages.train_noised, HotWalk.frames, MeanForces.step
    stepped = HotWalk.step

    def look(model: NoisedEnergyModel, training: NoisedTraining) -> object:
        given.append((copy.deepcopy(coordinates_of(model)).double(), training.data))
        return whole(model, training)

    def keep(walk: HotWalk, state: Walked) -> torch.Tensor:
        hot.append(walked(walk, state))
        return hot[-1]

    def stop(pull: MeanForces, state: Felt, generator: torch.Generator) -> tuple[Felt, int]:
        if len(state.forces):
            raise KeyboardInterrupt
        return pulled(pull, state, generator)

    monkeypatch.setattr(molecule_stages, "train_noised", look)
    monkeypatch.setattr(hotter_frames, "ATOMS", 22 * 20)
    for module, name, value in (
        (hot_frames, "SETTLING", 100),
        (hot_frames, "STRIDE", 20),
        (hot_frames, "FRAMES", 2),
        (mean_forces, "SETTLING", 50),
        (mean_forces, "DRAWS", 5),
        (mean_forces, "BATCH", 50),
        (resumable, "SECONDS", 0.0),
    ):
        monkeypatch.setattr(module, name, value)
    sizes = {**NETWORK, "beads": beads, "objective": objective, "steps": 2}
    killed = TrainConfig(reference=reference, out=tmp_path / "killed", **sizes)
    with monkeypatch.context() as patch:
        patch.setattr(MeanForces, "step", stop)
        with pytest.raises(KeyboardInterrupt):
            train.run(killed)
    assert len(list((tmp_path / "killed").glob("hotter-*-unfinished.safetensors"))) == 2
    with monkeypatch.context() as patch:
        patch.setattr(HotWalk, "frames", keep)
        first = train.run(TrainConfig(reference=reference, out=tmp_path, **sizes)).model.fingerprint
    # Killed before it was recorded, the training goes on from the same hotter frames.
    (record,) = (tmp_path / "stages").glob("training-*.json")
    record.unlink()
    with monkeypatch.context() as patch:
        patch.setattr(HotWalk, "step", None)
        assert train.run(TrainConfig(reference=reference, out=tmp_path, **sizes)).model.fingerprint == first
    # Killed while they were made, it ends in the same, and the walkers that had arrived do not walk again.
    walks: list[int] = []

    def walk(hot: HotWalk, state: Walked, generator: torch.Generator) -> tuple[Walked, float]:
        walks.append(hot.walkers)
        return stepped(hot, state, generator)

    with monkeypatch.context() as patch:
        patch.setattr(HotWalk, "step", walk)
        assert train.run(killed).model.fingerprint == first
    assert walks == [2] * 3
    assert not list((tmp_path / "killed").glob("*-unfinished.safetensors"))
    coordinates, data = given[0]
    assert isinstance(data, FixedPool)
    assert data.beyond is not None
    aldp = systems.load("aldp")
    atoms, frames = list(bead_atoms(aldp, beads)), hot[0]
    assert len(data.beyond.x) == len(frames) == 3 * 2 * 20
    target = aldp.target("implicit")
    energy, force = target.energy_and_force(frames)
    slope = coordinates.length_nm**2 * coordinates.from_cartesian(force[:, atoms])
    score = data.beyond.score.double()
    if beads == "all":
        torch.testing.assert_close(score, slope, rtol=1e-2, atol=0.1)
    else:
        # The hydrogens of a hotter frame are stretched as well, and those of the ensemble are not.
        assert float(torch.corrcoef(torch.stack([score.flatten(), slope.flatten()]))[0, 1]) > 0.6
        assert float(score.square().mean()) < 0.95 * float(slope.square().mean())
    # A degree of freedom at twice the temperature has half a kT more, of which short runs reach a part.
    usual = target.energy(load_ensemble(reference).positions.double())
    assert float(energy.mean() - usual.mean()) > 8


def test_a_mean_force_is_the_slope_of_the_free_energy() -> None:
    # Two atoms hang on a third by springs: with the third anywhere, they are on one spring, softer than either.
    springs, kt = (2e4, 5e3), 300.0 * 8.31446e-3
    made = openmm.System()
    bonds = openmm.HarmonicBondForce()
    topology = Topology()
    residue = topology.addResidue("THR", topology.addChain())
    for place in range(3):
        made.addParticle(12.0)
        topology.addAtom(f"C{place}", carbon, residue)
    for end, spring in enumerate(springs):
        bonds.addBond(end, 2, 0.0, spring)
    made.addForce(bonds)
    x = torch.tensor([[0.0, 0.0, 0.0], [0.1, 0.02, -0.05], [0.1, 0.1, 0.0]], dtype=torch.float64)
    three = MolecularSystem("three", topology, x, {"vacuum": made})

    def found_of(frames: torch.Tensor, atoms: tuple[int, ...]) -> torch.Tensor:
        pull = MeanForces(three, "vacuum", frames, atoms, 300.0)
        return resumable.carry_on(pull, Felt, pull.init, torch.Generator().manual_seed(0), None, {}).forces

    found = found_of(x.expand(3000, 3, 3), (0, 1))
    together = springs[0] * springs[1] / sum(springs) / kt
    error = found.std(0) / math.sqrt(len(found))
    exact = together * torch.stack([x[1] - x[0], x[0] - x[1]])
    assert bool(((found.mean(0) - exact).abs() < 4 * error).all())
    # A tenth of the slope between the atoms themselves.
    assert float(error.max()) < 0.1 * float(exact.norm(dim=-1).max())
    assert len(found) == 3000
    # Nothing is left to move: the force itself.
    force = three.target("vacuum").energy_and_force(x[None])[1]
    whole = found_of(x[None], (0, 1, 2))
    torch.testing.assert_close(whole, force)
    # An atom that has left says nothing, though springs would bring it back.
    away = x[None].repeat(2, 1, 1)
    away[1, 2] += 1e30
    found = found_of(away, (0, 1))
    assert found.isfinite().all(-1).all(-1).tolist() == [True, False]


def test_a_few_particles_may_descend_from_one_and_a_tenth_of_many() -> None:
    for share, n, passed in ((0.09, 1000, True), (0.11, 1000, False), (0.5, 10, True), (0.6, 10, False)):
        assert check_families("smc", share, n).passed is passed


def test_broken_walkers_are_no_frames_and_without_others_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    aldp = systems.load("aldp")
    start = aldp.starts("implicit").double()
    for name, value in (("SETTLING", 5), ("STRIDE", 5), ("FRAMES", 2)):
        monkeypatch.setattr(hot_frames, name, value)
    torn = start.repeat(2, 1, 1)
    torn[1, 0] += 1e4

    def made_of(start: torch.Tensor, walkers: int) -> torch.Tensor:
        walk = HotWalk(aldp, "implicit", start, 300.0, walkers)
        return walk.frames(resumable.carry_on(walk, Walked, walk.init, torch.Generator().manual_seed(0), None, {}))

    made = made_of(torn, 12)
    assert 0 < len(made) < 3 * 2 * 12
    assert float(made.abs().max()) < 10
    with pytest.raises(RunFailedError, match="all walkers of aldp at 450 K and above fell apart"):
        made_of(torn[1:], 4)


def test_other_frames_are_refused_by_a_run_that_goes_on(trained: Path, reference: Path, tmp_path: Path) -> None:
    other = tmp_path / "implicit.h5"
    other.write_bytes(reference.read_bytes())
    with pytest.raises(InputError, match="was started with reference"):
        train.run(TrainConfig(reference=other, out=trained.parent, **NETWORK))


@pytest.mark.parametrize("workflow", [train, ramachandran])
def test_a_folder_of_another_run_is_refused_before_frames_are_sampled(
    workflow: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = {train: TrainConfig, ramachandran: RamachandranConfig}[workflow]
    with open_run_folder(tmp_path, config(out=tmp_path)) as folder:
        folder.save_stage("some", StageResult())
    monkeypatch.setattr("workflows.reference.ensemble_of", None)
    with pytest.raises(InputError, match=r"was started with temperature_kelvin = 300\.0, and now"):
        workflow.run(config(out=tmp_path, temperature_kelvin=310.0))
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"could not make the folder .*file is no folder to write in"):
        workflow.run(config(out=tmp_path / "file" / "run"))


def test_samples_are_trajectories_with_learned_energies(trained: Path, tmp_path: Path) -> None:
    config = SampleConfig(model=trained, out=tmp_path, system="aldp", beads="backbone", threads=1, **SAMPLES)
    first = sample.drawn_of(config).samples
    assert len(first["reverse"]) + first["reverse"].diagnostics["broken_samples"] == 40
    assert len(first["langevin"]) == 40
    assert sample.summary(first["langevin"], tmp_path)[1].startswith("chains: 10 of 0.06 ps, 0.0006 ns in all, of")
    stored = load_ensemble(tmp_path / "langevin.h5")
    assert stored.provenance.system == "aldp-backbone"
    assert torch.equal(sample.drawn_of(config).samples["langevin"].energies, stored.energies)


def test_chains_that_are_lost_are_not_trusted(trained: Path, tmp_path: Path) -> None:
    hasty = {**SAMPLES, "timestep_fs": 10.0, "steps_per_frame": 200}
    config = SampleConfig(model=trained, out=tmp_path, samplers=("langevin",), threads=1, **hasty)
    what, lost, total = sample.lost_of(sample.drawn_of(config).samples["langevin"].diagnostics)
    assert (what, total) == ("chains", 10)
    assert lost > 0
    with pytest.raises(NotTrustworthyError, match=f"{lost} of the 10 chains of langevin were lost .* in {tmp_path}"):
        sample.run(config)
    assert json.loads((tmp_path / "status.json").read_text())["state"] == "not trustworthy"
    config = SampleConfig(model=trained, out=tmp_path / "reverse", samplers=("reverse",), threads=1, **SAMPLES)
    assert sample.lost_of(sample.run(config)["reverse"].diagnostics) == ("samples", 0, 40)


@pytest.mark.parametrize("begin", ["one", "samples"])
def test_chains_begin_at_one_configuration_or_each_at_a_sample(trained: Path, tmp_path: Path, begin: str) -> None:
    still = {**SAMPLES, "equilibration_frames": 0, "frames_per_chain": 1, "steps_per_frame": 1, "timestep_fs": 1e-3}
    config = SampleConfig(model=trained, out=tmp_path, samplers=("langevin",), chains_begin=begin, threads=1, **still)
    chains = sample.drawn_of(config).samples["langevin"]
    distances = torch.pdist(chains.positions[:, 1] - chains.positions[:, 0])
    assert (distances < 1e-4).all() == (begin == "one")
    assert (distances > 1e-3).all() == (begin == "samples")
    assert chains.provenance.settings["chains_begin"] == begin


def test_longer_chains_go_on_from_those_that_are_there(trained: Path, tmp_path: Path) -> None:
    """Frame by frame the same as chains that were as long from the beginning; shorter ones are refused."""

    def chains(out: str, frames: int, *samplers: str) -> ReferenceEnsemble:
        sizes = {**SAMPLES, "frames_per_chain": frames, "samplers": ("langevin", *samplers)}
        return sample.drawn_of(SampleConfig(model=trained, out=tmp_path / out, threads=1, **sizes)).samples["langevin"]

    short, long, whole = chains("longer", 3), chains("longer", 7, "reverse"), chains("whole", 7)
    assert torch.equal(long.positions, whole.positions)
    assert torch.equal(long.positions[: len(short)], short.positions)
    assert len(long) == 7 * SAMPLES["chains"]
    record = tmp_path / "longer" / "stages" / "langevin.json"
    content = json.loads(record.read_text())["content"]
    del content["facts"]["frames_per_chain"]
    folder = RunFolder(tmp_path / "longer", SilentProgress(tmp_path / "status.json"))
    folder.save_stage("langevin", StageResult(facts=content["facts"], files=[tmp_path / "longer" / "langevin.h5"]))
    before = record.stat().st_mtime_ns
    assert torch.equal(chains("longer", 7).positions, long.positions)  # its file tells how long it is
    assert record.stat().st_mtime_ns == before
    with pytest.raises(InputError, match=r"made with frames_per_chain = 7, now 3 is asked for: ask for as many or mor"):
        chains("longer", 3)


def test_particles_down_the_noise_have_families_and_go_on_where_they_were_killed(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = {**SAMPLES, "samples": 400, "threads": 1, "samplers": ("smc",)}
    first = sample.drawn_of(SampleConfig(model=trained, out=tmp_path / "whole", **sizes)).samples["smc"]
    assert first.diagnostics["families"] == first.n_groups == len(first.group.unique())
    assert first.largest_group_share == max(first.group.tolist().count(one) for one in first.group.unique()) / len(
        first
    )
    assert len(first) + first.diagnostics["broken_samples"] == 400
    monkeypatch.setattr(resumable, "SECONDS", 0.0)
    steps = 0
    whole_step = boltzmann_generator.Descent.step

    def killed(self: object, *given: object) -> object:
        nonlocal steps
        steps += 1
        if steps == 8:
            raise KeyboardInterrupt
        return whole_step(self, *given)  # type: ignore[arg-type]

    config = SampleConfig(model=trained, out=tmp_path / "killed", **sizes)
    with monkeypatch.context() as patch:
        patch.setattr(boltzmann_generator.Descent, "step", killed)
        with pytest.raises(KeyboardInterrupt):
            sample.drawn_of(config)
    assert torch.equal(sample.drawn_of(config).samples["smc"].positions, first.positions)
    assert not list((tmp_path / "killed").glob("*unfinished*"))


def test_particles_down_the_noise_are_kept_by_their_weights(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, heavy = molecule_sampling.carry_on, []

    def weighed(*given: object) -> object:
        state = whole(*given)  # type: ignore[arg-type]
        if not isinstance(state, ReverseSmcState):
            return state
        heavy.extend(state.root[:3].tolist())
        return replace(state, log_weights=torch.where(torch.arange(len(state.root)) < 3, 0.0, -math.inf).double())

    monkeypatch.setattr(molecule_sampling, "carry_on", weighed)
    sizes = {**SAMPLES, "threads": 1, "samplers": ("smc",)}
    found = sample.drawn_of(SampleConfig(model=trained, out=tmp_path, **sizes)).samples["smc"]
    assert set(found.group.tolist()) <= set(heavy)
    assert len(found.energies.unique()) <= 3
    with pytest.raises(NotTrustworthyError, match=r"of the samples of smc descend from one particle \(limit 1\d %\)"):
        sample.run(SampleConfig(model=trained, out=tmp_path, **sizes))


def test_the_commands_know_every_solver_and_every_scheme(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hints = get_type_hints(SamplingSettings)
    assert get_args(hints["solver"]) == tuple(SOLVERS)
    assert get_args(hints["resampling"]) == tuple(RESAMPLINGS)
    sizes = {**SAMPLES, "threads": 1, "samples": 60}
    made = {
        name: sample.drawn_of(
            SampleConfig(model=trained, out=tmp_path / name, samplers=("reverse",), solver=name, **sizes)
        ).samples["reverse"]
        for name in SOLVERS
    }
    assert len({float(one.positions.sum()) for one in made.values()}) == len(SOLVERS)
    assert made["heun"].provenance.settings["solver"] == "heun"
    calls: list[int] = []

    def counted(log_weights: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        calls.append(len(log_weights))
        return RESAMPLINGS["multinomial"](log_weights, generator)

    monkeypatch.setattr(molecule_sampling, "RESAMPLINGS", {"multinomial": counted})
    times = []
    for below in (0.0, 1.0):
        calls.clear()
        options = {"samplers": ("smc",), "resampling": "multinomial", "resample_below": below}
        sample.drawn_of(SampleConfig(model=trained, out=tmp_path / f"{below:g}", **options, **sizes))
        times.append(len(calls))
    # At the end alone, or at every level too.
    assert times[0] == 1
    assert times[1] > NETWORK["levels"] // 2


def test_a_model_of_other_beads_is_refused_by_the_command_in_one_line(trained: Path, tmp_path: Path) -> None:
    words = ["--model", str(trained), "--beads", "all", "--out", str(tmp_path / "out")]
    done = subprocess.run(
        [sys.executable, "-m", "workflows.sample", *words], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 2
    assert done.stderr.strip().splitlines()[1:] == [
        "error: the model is of beads backbone, not all: give the model that was trained for it"
    ]
    assert not (tmp_path / "out").exists()


def test_a_model_has_to_be_named_and_the_error_says_where_it_lies(capsys: pytest.CaptureFixture[str]) -> None:
    words: list[str] = ["--beads", "backbone"]
    assert run_command(SampleConfig, pytest.fail, program="sample", presets=SAMPLING_PRESETS, argv=words) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert "option '--model' is missing" in told
    assert "workflows.train leaves model.safetensors in its folder below runs/" in told


def test_groups_of_more_levels_than_there_are_are_refused_before_anything_is_made(
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = ["--group-size", "40", "--levels", "16"]
    assert run_command(TrainConfig, pytest.fail, program="train", argv=words) == 2
    assert capsys.readouterr().err == "error: --group-size 40 is more than --levels 16: lower it\n"


def test_a_rate_of_later_steps_is_refused_where_nothing_is_prepared(capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["--objective", "dsm"], ["--pretraining", "0"]):
        assert run_command(TrainConfig, train.run, program="train", argv=[*words, "--later-rate", "0.25"]) == 2
    several = ["--objectives", "dsm", "dsm_tsm", "--later-rate", "0.25"]
    assert run_command(RamachandranConfig, ramachandran.run, program="ramachandran", argv=several) == 2
    told = capsys.readouterr().err
    assert told.count("error: ") == 3
    assert "and dsm with --pretraining 0.75 has none: leave --later-rate out" in told
    assert "and dsm_diffclf with --pretraining 0 has none: leave --later-rate out" in told
    assert "and dsm, dsm_tsm with --pretraining 0.75 has none: leave --later-rate out" in told
    molecule_stages.check_training(TrainConfig(later_rate=0.25), ["dsm", "dsm_diffclf"])


@pytest.mark.parametrize(
    ("config", "names"),
    [
        (TrainConfig, {"state": ["implicit", "nonpolar", "vacuum"]}),
        (ReferenceConfig, {"state": ["implicit", "nonpolar", "vacuum"]}),
        (SampleConfig, {"state": ["implicit", "nonpolar", "vacuum"]}),
        (RamachandranConfig, {"overweight": ["'phi > 0'", "'helical'"]}),
    ],
)
def test_the_help_names_what_a_molecule_has(config: type, names: dict[str, list[str]]) -> None:
    aldp = systems.load("aldp")
    known = {"state": set(aldp.states), "overweight": {f"'{name}'" for name in aldp.basins}}
    for field, values in names.items():
        assert set(values) == known[field]
        assert all(value in config.__pydantic_fields__[field].description for value in values)  # type: ignore[attr-defined]


def test_a_folder_keeps_to_one_model(trained: Path, reference: Path, tmp_path: Path) -> None:
    sizes = {**SAMPLES, "threads": 1, "samplers": ("reverse",), "out": tmp_path / "samples"}
    sample.drawn_of(SampleConfig(model=trained, **sizes))
    other = train.run(TrainConfig(reference=reference, out=tmp_path / "other", seed=1, **NETWORK)).file
    with pytest.raises(InputError, match="holds samples of another model"):
        sample.drawn_of(SampleConfig(model=other, **sizes))


def test_maps_of_every_objective_and_seed_come_with_their_noise_floor(reference: Path, tmp_path: Path) -> None:
    config = RamachandranConfig(
        reference=reference, out=tmp_path, objectives=("dsm", "dsm_diffclf"), seeds=(0,), **NETWORK, **SAMPLES
    )
    result = ramachandran.run(config)
    with (tmp_path / "results.csv").open(encoding="utf-8") as handle:
        rows = list(csv.DictReader(handle))
    assert list(rows[0]) == [
        "system", "beads", "objective", "seed", "metric", "value", "noise_floor", "published", "stderr", "n_seeds",
    ]  # fmt: skip
    found = {(row["objective"], row["seed"], row["metric"]): row for row in rows}
    for objective in ("dsm", "dsm_diffclf"):
        for metric in ("iid_js", "iid_pmf_error", "langevin_js", "langevin_pmf_error"):
            row = found[objective, "0", metric]
            assert float(row["value"]) > 0
            assert float(row["noise_floor"]) > 0
            assert float(row["stderr"]) > 0
            # The limits of the published JS are those of the pooled range.
            assert (row["published"] == "") == metric.endswith("_js")
        assert float(found[objective, "0", "iid_js_pooled_range"]["published"]) > 0
        assert float(found[objective, "0", "iid_tica_js"]["noise_floor"]) > 0
        assert found[objective, "0", "iid_tica_js"]["published"] == ""
        assert 0 <= float(found[objective, "0", "langevin_bins_within_2_stderr"]["value"]) <= 1
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert page.count("data:image/png") == 7
    assert "TICA of cosines and sines of 2 named torsions, fitted on the reference at a lag of 1 frame" in page
    assert "Reweighting is not applicable" in page
    assert "python -m workflows.ramachandran --preset quick" in page
    assert (tmp_path / "figures" / "maps-dsm.png").stat().st_size > 10_000
    again = ramachandran.run(RamachandranConfig(**{**vars_of(config), "seeds": (0, 1)}))
    kept = [row for row in again.rows if row.seed == "0"]
    assert kept == [row for row in result.rows if row.seed == "0"]
    assert {row.seed for row in again.rows} == {"0", "1", "all"}


def vars_of(config: RamachandranConfig) -> dict[str, object]:
    return {name: getattr(config, name) for name in config.__dataclass_fields__}


@pytest.mark.parametrize(
    ("sampler", "label", "metric"),
    [("reverse_samples", "iid", "js"), ("smc_samples", "smc", "families"), ("langevin_samples", "langevin", "js")],
)
def test_samples_that_all_fall_into_a_hole_are_a_row_and_not_the_end_of_the_table(
    reference: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sampler: str, label: str, metric: str
) -> None:
    whole, calls = getattr(molecule_sampling, sampler), []

    def fall(*arguments: object, **options: object) -> object:
        calls.append(arguments)
        if len(calls) == 1:
            raise FallenApartError("40 of 40 samples of the model have fallen apart: train for more steps")
        return whole(*arguments, **options)

    monkeypatch.setattr(molecule_sampling, sampler, fall)
    monkeypatch.setattr(ramachandran_pipeline, "NAMED", 1000)
    result = ramachandran.run(
        RamachandranConfig(reference=reference, out=tmp_path, objectives=("dsm",), seeds=(0, 1), **NETWORK, **SAMPLES)
    )
    found = {row.metric: row.value for row in result.rows if row.seed == "0"}
    assert found[f"{label}_broken"] == 1
    assert f"{label}_js" not in found
    other = "langevin" if label == "iid" else "iid"
    assert f"{other}_js" in found
    assert any(f"no samples of dsm-seed0, {label}: 40 of 40" in told for told in result.warnings)
    # The mean is that of the other seed, and says so.
    together = {row.metric: row for row in result.rows if row.seed == "all"}
    assert (together[f"{label}_{metric}"].n_seeds, together[f"{other}_js"].n_seeds) == (1, 2)
    (told,) = (told for told in result.warnings if told.startswith("not all of the 2 seeds of dsm have "))
    assert f" {label}_{metric}" in told


def test_a_model_of_which_no_sample_is_left_has_a_page(
    reference: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fall(*arguments: object, **options: object) -> object:
        raise FallenApartError("all samples of the model have fallen apart: train for more steps")

    for sampler in ("reverse_samples", "langevin_samples", "smc_samples"):
        monkeypatch.setattr(molecule_sampling, sampler, fall)
    result = ramachandran.run(
        RamachandranConfig(reference=reference, out=tmp_path, objectives=("dsm",), seeds=(0,), **NETWORK, **SAMPLES)
    )
    assert sum("fallen apart" in told for told in result.warnings) == 3
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "no sample is left" in page
    assert (tmp_path / "figures" / "maps-dsm.png").stat().st_size > 5_000


def test_chains_that_begin_again_are_told_on_the_page(
    reference: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(learned_molecule, "REACH", 1e-3)
    monkeypatch.setattr(
        molecule_sampling, "whole_samples", lambda model, positions, energies: torch.arange(len(positions))
    )
    result = ramachandran.run(
        RamachandranConfig(reference=reference, out=tmp_path, objectives=("dsm",), seeds=(0,), **NETWORK, **SAMPLES)
    )
    assert any("10 of the 10 chains of dsm-seed0, langevin were lost to holes" in told for told in result.warnings)
    found = {row.metric: row.value for row in result.rows if row.seed == "0"}
    assert found["langevin_broken"] == 1
    assert found["langevin_chain_ps"] == pytest.approx(4 * 5 * 3e-3)
    assert found["langevin_aggregate_ns"] == pytest.approx(10 * 4 * 5 * 3e-6)


def test_settings_are_read_without_heavy_imports() -> None:
    modules = "workflows.train, workflows.sample, workflows.ramachandran"
    script = f"import sys, {modules}; print([name for name in ('torch', 'numpy', 'openmm') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"


def test_killed_samples_go_on_where_they_were(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resumable, "SECONDS", 0.0)
    monkeypatch.setattr(molecule_sampling, "ROWS", 8)
    model, cpu, file = load_molecule_model(trained), torch.device("cpu"), tmp_path / "unfinished.safetensors"

    def killed(done: float) -> None:
        if file.exists():
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        molecule_sampling.reverse_samples(model, 30, 8, 0, cpu, file, killed)
    made: list[float] = []
    resumed = molecule_sampling.reverse_samples(model, 30, 8, 0, cpu, file, made.append)
    assert sum(made) < 32
    whole = molecule_sampling.reverse_samples(model, 30, 8, 0, cpu)
    assert torch.equal(resumed.positions, whole.positions)
