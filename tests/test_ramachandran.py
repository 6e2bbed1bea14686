"""The generator of all atoms end to end: weights against the true energy, and a command that says if they are none."""

from __future__ import annotations

import csv
import dataclasses
import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import systems
from boltzgen_diffclf.errors import InputError, NotTrustworthyError
from boltzgen_diffclf.estimators.replicates import student_factor
from boltzgen_diffclf.estimators.reweighting import family_log_weights, normalised_weights
from boltzgen_diffclf.observables import free_energy_surface, plane_free_energy, surface_agreement, unvisited_share
from boltzgen_diffclf.training.checkpoint import load_checkpoint
from systems.beads import bead_stereocentres, bead_system
from systems.conformers import basin_free_energy, overweighted
from systems.ensemble import Provenance, ReferenceEnsemble, energies_of
from systems.store import load_ensemble, write_ensemble
from tests.small_reference import small_reference
from workflows import ramachandran
from workflows.ramachandran import RamachandranConfig
from workflows.ramachandran_measures import Judge
from workflows.ramachandran_metrics import Measured
from workflows.ramachandran_pipeline import judging, mean, unlearned
from workflows.ramachandran_planes import torsion_planes
from workflows.ramachandran_run import Drawn, JudgedRun, Shown
from workflows.ramachandran_samples import Sample
from workflows.report.ramachandran_figure import Frame, maps_figure
from workflows.weighted_ensemble import WeightedEnsemble

pytestmark = pytest.mark.usefixtures("eager_mode")

SIZES = {
    "steps": 2, "groups": 4, "learning_rate": 1e-6, "hidden": 16, "layers": 2, "levels": 16, "threads": 1,
    "samples": 30, "reverse_levels": 12, "chains": 4, "frames_per_chain": 4, "equilibration_frames": 0,
    "steps_per_frame": 2, "timestep_fs": 0.1, "objectives": ("dsm",),
}  # fmt: skip
ALL_ATOMS = {"beads": "all", "particles": 16, "bridge_keeps": 0.05, "end_moves": 2}


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_reference(tmp_path_factory.mktemp("reference"), "vacuum")


def test_weights_that_are_not_to_be_believed_are_named_first_and_exit_3(reference: Path, tmp_path: Path) -> None:
    """Frames of any file are learned from; page, table, frames and ``u_kn`` are there all the same."""
    learned, run = load_ensemble(reference), tmp_path / "run"
    half = learned.select(torch.arange(len(learned) // 2))
    write_ensemble(tmp_path / "learned.h5", half, systems.load("aldp").topology)
    config = RamachandranConfig(
        reference=reference, frames=tmp_path / "learned.h5", state="vacuum", out=run, **SIZES, **ALL_ATOMS
    )
    with pytest.raises(NotTrustworthyError, match=r"dsm-seed0 .*all is written in .*report\.html"):
        ramachandran.run(config)
    page = (run / "report.html").read_text(encoding="utf-8")
    first = page[: page.index("<main>")]
    assert "The reweighted results are not to be believed" in first
    assert "16 samples of dsm-seed0" in first
    assert f"The networks have learned from {tmp_path / 'learned.h5'}" in first
    with (run / "results.csv").open(encoding="utf-8") as handle:
        found = {row["metric"]: float(row["value"]) for row in csv.DictReader(handle) if row["seed"] == "0"}
    assert 0 < found["iid_mirrored"] < 1
    assert not list((run / "stages").glob("*.safetensors"))
    stages = {path: path.stat().st_mtime for path in (run / "stages").iterdir()}
    with pytest.raises(NotTrustworthyError):
        ramachandran.run(config)
    assert {path: path.stat().st_mtime for path in (run / "stages").iterdir()} == stages


@pytest.fixture(scope="module")
def frames() -> ReferenceEnsemble:
    """Eight walkers of noise about one configuration, half of each with phi turned over to the other side."""
    aldp, rng = systems.load("aldp"), np.random.default_rng(0)
    n, groups = 400, 8
    positions = aldp.positions.numpy() + 0.002 * rng.normal(size=(n, aldp.n_atoms, 3))
    mirrored = np.arange(n) % 2 == 0
    positions[mirrored] *= [-1, 1, 1]
    tensor = torch.from_numpy(positions).float()
    return ReferenceEnsemble(
        provenance=Provenance("aldp", "vacuum", 300.0, aldp.system_hash("vacuum"), 0, {"made": "here"}),
        positions=tensor - tensor.mean(1, keepdim=True),
        energies=energies_of(aldp, "vacuum", 300.0, tensor),
        group=torch.arange(n) % groups,
        frame=torch.arange(n) // groups,
    )


def judge_of(frames: ReferenceEnsemble) -> tuple[Judge, Sample]:
    aldp = systems.load("aldp")
    beads = bead_system(aldp, "all")
    reference = Sample("reference", frames)
    return Judge(aldp, beads, "all", reference, torsion_planes(beads)), reference


def test_bins_agree_as_often_as_those_of_two_halves_of_the_reference(frames: ReferenceEnsemble) -> None:
    judge, reference = judge_of(frames)
    (row,) = [one for one in judge.measure(reference, judge.findings) if one.metric.endswith("within_2_stderr")]
    assert 0.6 < (row.noise_floor or 0) < 1.0
    assert 0 < (row.error or 0) < 0.3
    # Walkers of which each stays on one side know nothing of how much it weighs, and say so.
    index = torch.arange(len(frames))
    parted = dataclasses.replace(frames, group=index % 2 + 2 * (index % 8 // 4))
    few, sample = judge_of(dataclasses.replace(parted, group=parted.group % 3))
    (row,) = [one for one in few.measure(sample, few.findings) if one.metric.endswith("within_2_stderr")]
    assert (row.noise_floor, row.error) == (None, None)


def test_weights_of_mirror_images_go_into_every_number(frames: ReferenceEnsemble) -> None:
    """Half of the frames are mirror images; without weight they are in no share, no map and no conformer."""
    judge, reference = judge_of(frames)
    found = {row.metric: row.value for row in judge.measure(reference, judge.findings)}
    assert found["reference_mirrored"] == pytest.approx(0.5)
    assert found["reference_bins_within_2_stderr"] == 1.0
    assert found["reference_largest_deviation"] == 0.0
    log_w = np.where(np.arange(len(frames)) % 2 == 0, -np.inf, 0.0)
    weighted = Sample("reweighted", frames, log_w=log_w)
    findings = judge.look_at(weighted)
    whole = {row.metric: row for row in judge.measure(weighted, findings)}
    assert whole["reweighted_mirrored"].value == 0.0
    assert isinstance(findings.conformers["phi > 0"], str)
    assert "reference_sunken" not in found  # nobody has said what a network makes of them
    kept = Sample("kept", frames.select(torch.arange(1, len(frames), 2)))
    expected = judge.look_at(kept).surfaces[0].probability
    np.testing.assert_allclose(findings.surfaces[0].probability, expected, atol=1e-12)


def test_what_lies_in_a_hole_is_told_by_the_learned_energies(frames: ReferenceEnsemble) -> None:
    judge, reference = judge_of(frames)
    judge = replace(judge, reference=replace(reference, learned=frames.energies))
    low = torch.where(torch.arange(len(frames)) % 4 == 0, frames.energies.min() - 11.0, frames.energies)
    sample = Sample("low", frames, learned=low)
    found = {row.metric: row.value for row in judge.measure(sample, judge.look_at(sample))}
    assert found["low_sunken"] == pytest.approx(0.25)
    half = sample.select(np.arange(0, len(frames), 2))
    assert {row.metric: row.value for row in judge.measure(half, judge.look_at(half))}["low_sunken"] == pytest.approx(
        0.5
    )


def turned(frames: ReferenceEnsemble) -> ReferenceEnsemble:
    """Return frames of the right hand whose walkers of even number are at phi = 60 degrees, and the others at -60."""
    x, angle = frames.positions.double(), torch.where(frames.group % 2 == 0, -2 * math.pi / 3, 2 * math.pi / 3)
    x[::2, :, 0] *= -1
    axis = torch.nn.functional.normalize(x[:, 8] - x[:, 6], dim=-1)[:, None]  # from N to CA
    arm, turn = x[:, 9:] - x[:, 8:9], angle[:, None, None]
    along = (arm * axis).sum(-1, keepdim=True) * axis
    across = torch.linalg.cross(axis.expand_as(arm), arm, dim=-1)
    moved = x[:, 8:9] + along + turn.cos() * (arm - along) + turn.sin() * across
    return replace(frames, positions=torch.cat([x[:, :9], moved], 1).float())


def test_what_a_network_says_of_conformers_has_the_error_of_what_it_learned_from(frames: ReferenceEnsemble) -> None:
    two_sided = turned(frames)
    judge, reference = judge_of(two_sided)
    drawn = Sample("iid", two_sided, independent=True)
    network = replace(drawn, of_a_network=True)

    def found(sample: Sample, learned_from: Sample | None) -> Measured:
        here = replace(judge, learned_from=learned_from)
        told = {one.metric: one for one in here.measure(sample, here.look_at(sample))}
        return told[f"{sample.label}_delta_f[phi > 0]"]

    own, of_walkers, of_network = found(drawn, reference), found(reference, reference), found(network, reference)
    assert own.error is not None
    assert of_walkers.error is not None
    # Walkers stay on one side, and a frame does not know of its walker.
    assert own.error < 0.2 * of_walkers.error
    assert of_network == own._replace(shared=of_walkers.error)
    assert of_network.error == pytest.approx(math.hypot(own.error, of_walkers.error))
    assert found(network, None) == own
    assert replace(judge, learned_from=reference).learned["delta_f[phi > 0]"].value == of_walkers.value
    for few in (two_sided.group % 2 == 1, two_sided.group == 0):  # walkers of one side, and one walker
        never = found(network, Sample("learned_from", two_sided.select(few.nonzero()[:, 0])))
        assert (never.value, never.error) == (own.value, math.inf)


def test_weighted_samples_have_to_be_those_of_the_reference(frames: ReferenceEnsemble) -> None:
    two_sided = turned(frames)
    judge, reference = judge_of(two_sided)
    config = RamachandranConfig(system="aldp", beads="all")
    run = JudgedRun(config, None, two_sided, judge.planes, None, "dsm", 3)  # type: ignore[arg-type]
    right = (two_sided.group % 2 == 0).numpy()
    families = np.zeros(len(frames))

    def told(log_w: np.ndarray) -> dict[str, str]:
        weighted = WeightedEnsemble(two_sided, log_w, families, families, 0.0)
        sample = Sample("reweighted", two_sided, log_w=log_w, independent=True)
        seen = {"reference": reference, "reweighted": sample}
        findings = {label: judge.look_at(one) for label, one in seen.items()}
        shown = Shown(judge, seen, findings, weighted, None, Drawn())
        return {check.name: check.sentence for check in run.checks(shown) if not check.passed}

    assert told(families) == {}
    one_side = told(np.where(right, -np.inf, 0.0))
    assert list(one_side) == ["coverage of dsm-seed3", "conformer phi > 0 of dsm-seed3", "map of dsm-seed3"]
    assert "50.0 % of the reference is where no weighted sample" in one_side["coverage of dsm-seed3"]
    assert "one was never visited" in one_side["map of dsm-seed3"]
    # Walkers stay on one side, so that the reference knows its own free energy to within a kT; 8 kT are too many.
    wrong = told(np.where(right, 8.0, 0.0))
    assert "differs from that of the reference by -8.00 kT" in wrong["conformer phi > 0 of dsm-seed3"]


def test_weights_learned_wrong_are_not_put_right_without_a_true_energy(
    frames: ReferenceEnsemble, tmp_path: Path
) -> None:
    file = tmp_path / "two-sided.h5"
    write_ensemble(file, turned(frames), systems.load("aldp").topology)
    sizes = {**SIZES, "beads": "backbone", "objectives": ("dsm",), "steps": 2, "overweight": "phi > 0"}
    told = "dsm-seed0 has learned 'phi > 0' too likely and it cannot be corrected"
    with pytest.raises(NotTrustworthyError, match=told):
        ramachandran.run(RamachandranConfig(**sizes, state="vacuum", reference=file, out=tmp_path / "run"))
    page = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert "nothing here can put it right" in page


def test_seeds_that_share_their_frames_do_not_lessen_the_error_of_these() -> None:
    one = Measured("iid_delta_f[phi > 0]", 4.0, None, 0.02, 0.2)
    same = mean([one, one, one])
    assert (same.value, same.error) == (4.0, pytest.approx(math.hypot(0.02 / math.sqrt(3), 0.2)))
    apart = mean([one, one._replace(value=5.0), one._replace(value=3.0)])
    assert apart.error == pytest.approx(math.hypot(student_factor(3) / math.sqrt(3), 0.2))
    assert mean([Measured("training_seconds", 3.0)]).error is None


def test_the_table_and_the_page_show_what_was_learned_from(frames: ReferenceEnsemble, tmp_path: Path) -> None:
    aldp, file, run = systems.load("aldp"), tmp_path / "two-sided.h5", tmp_path / "run"
    write_ensemble(file, turned(frames), aldp.topology)
    sizes = {**SIZES, "beads": "backbone", "objectives": ("dsm_diffclf",), "steps": 4, "learning_rate": 1e-3}
    ramachandran.run(
        RamachandranConfig(**sizes, state="vacuum", reference=file, out=run, pretraining=0.5, later_rate=0.25)
    )
    with (run / "results.csv").open() as handle:
        rows = {(row["seed"], row["metric"]): row for row in csv.DictReader(handle)}
    learned = float(rows["all", "learned_from_delta_f[phi > 0]"]["stderr"])
    assert learned > 0.5
    for seed in ("0", "all"):
        assert float(rows[seed, "iid_delta_f[phi > 0]"]["stderr"]) > learned
    assert "frames learned from" in (run / "report.html").read_text(encoding="utf-8")
    model = run / "models" / "dsm_diffclf-seed0.safetensors"
    rates = [
        load_checkpoint(model.with_name(f"{model.stem}-training{part}.safetensors"), {})[1]["identity"]["settings"]
        for part in ("", "-from-2")
    ]
    assert [one["learning_rate"] for one in rates] == [1e-3, 0.25e-3]


def test_weighted_frames_are_saved_with_their_weights_and_nothing_else(
    frames: ReferenceEnsemble, tmp_path: Path
) -> None:
    aldp = systems.load("aldp")
    log_w = np.where(np.arange(len(frames)) % 2 == 0, -np.inf, frames.energies.numpy() * 0.01)
    families = family_log_weights(log_w, frames.group.numpy(), 8)
    found = WeightedEnsemble(frames, log_w, families, families, 0.0)
    assert found.n_families == 4
    found.save(tmp_path / "model-reweighted.h5", tmp_path / "model-u_kn.npz", aldp)
    with np.load(tmp_path / "model-u_kn.npz") as file:
        assert file["N_k"].tolist() == [200, 0]
        assert file["states"].tolist() == ["unweighted samples", "vacuum"]
        assert file["families"].tolist() == frames.group[1::2].tolist()
        u_kn = file["u_kn"]
    kept = load_ensemble(tmp_path / "model-reweighted.h5")
    assert torch.equal(kept.positions, frames.positions[1::2])
    np.testing.assert_allclose(u_kn[1], kept.energies.numpy())
    expected = normalised_weights(log_w)[1::2]
    np.testing.assert_allclose(normalised_weights(u_kn[0] - u_kn[1]), expected)
    nothing = WeightedEnsemble(frames, np.full(400, -np.inf), families, np.full(8, -np.inf), 0.0)
    nothing.save(tmp_path / "none.h5", tmp_path / "none.npz", aldp)
    assert list(nothing.worth) == ["before"]
    assert not list(tmp_path.glob("none*"))


def test_bins_agree_within_their_errors() -> None:
    rng = np.random.default_rng(0)
    reference, same, other = (rng.vonmises(centre, 8.0, size=(20_000, 2)) for centre in (0.0, 0.0, 0.3))
    surfaces = [free_energy_surface(*angles.T, bins=24) for angles in (reference, same, other)]
    agreed, moved = (surface_agreement(surfaces[0], one) for one in surfaces[1:])
    assert agreed.n_bins > 50
    assert agreed.within > 0.88
    assert agreed.largest < 4.5
    assert moved.within < 0.5
    assert moved.largest > 10
    half = free_energy_surface(*reference[reference[:, 0] > 0].T, bins=24)
    assert surface_agreement(surfaces[0], half).largest == np.inf


def test_what_lies_beyond_the_limits_is_told_above_its_map() -> None:
    points, limits = np.random.default_rng(2).normal(size=(1000, 2)), ((-5.0, 5.0), (-5.0, 5.0))
    moved = np.where(np.arange(1000)[:, None] < 250, points, np.inf)
    several = {"reference": points, "iid": points + 100, "langevin": moved}
    surfaces = {name: plane_free_energy(one, limits, bins=8) for name, one in several.items()}
    drawn = maps_figure(surfaces, {"iid": "generated"}, Frame(("one", "other"), (-5, 5, -5, 5)))
    titles = [axis.get_title(loc="left") or axis.get_title() for axis in drawn.axes]
    assert titles[:3] == ["reference", "generated\n100 % outside", "langevin\n75 % outside"]


def test_what_no_sample_visits_is_its_share_of_the_reference() -> None:
    rng = np.random.default_rng(1)
    here, there = rng.normal(size=(9900, 2)) * 0.2 + 1.0, rng.normal(size=(100, 2)) * 0.05 - 2.0
    assert unvisited_share(here, np.concatenate([here, there])) == pytest.approx(0.01, abs=1e-3)
    assert unvisited_share(np.concatenate([here, there]), here) == 0.0


def test_a_basin_is_made_too_likely_by_the_factor_that_was_asked_for(frames: ReferenceEnsemble) -> None:
    aldp, stream = systems.load("aldp"), torch.Generator().manual_seed(0)
    arcs = dataclasses.replace(aldp.basins["phi > 0"], low=0.0, high=math.pi)
    aldp = dataclasses.replace(aldp, basins={"that": arcs})
    made = overweighted(frames, aldp, "that", 10.0, stream)
    before, after = (basin_free_energy(aldp, "that", one.positions.numpy()) for one in (frames, made))
    assert before.value - after.value == pytest.approx(np.log(10), abs=0.4)
    assert made.provenance.settings["overweighted"] == "that times 10"
    assert len(made) == len(frames)
    nowhere = dataclasses.replace(aldp, basins={"that": dataclasses.replace(arcs, low=0.1, high=0.2)})
    with pytest.raises(InputError, match="none of the 400 frames lies in the basin 'that'"):
        overweighted(frames, nowhere, "that", 10.0, stream)


def test_hands_are_told_by_the_beads_that_show_them() -> None:
    aldp = systems.load("aldp")
    assert bead_stereocentres(aldp, "all").tolist() == [[8, 6, 10, 14]]
    heavy = bead_system(aldp, "heavy")
    (centre,) = bead_stereocentres(aldp, "heavy").tolist()
    assert [list(heavy.topology.atoms())[atom].name for atom in centre] == ["CA", "N", "CB", "C"]
    assert len(bead_stereocentres(aldp, "backbone")) == 0


def test_a_basin_that_is_not_there_is_refused_before_anything_is_sampled(tmp_path: Path) -> None:
    config = RamachandranConfig(overweight="phi > 1", out=tmp_path / "run", **SIZES, **ALL_ATOMS)
    with pytest.raises(InputError, match="has no basin 'phi > 1'"):
        ramachandran.run(config)
    assert not (tmp_path / "run").exists()


def test_what_was_not_learned_from_judges(frames: ReferenceEnsemble) -> None:
    judged = unlearned(frames, frames.disjoint_groups(2)[0])
    assert sorted(judged.group.unique().tolist()) == [4, 5, 6, 7]
    assert torch.equal(judged.positions, frames.disjoint_groups(2)[1].positions)
    # Another file of the same frames, its walkers counted otherwise.
    copied = replace(frames, positions=frames.positions.clone(), group=frames.group + 100)
    judged = unlearned(copied, frames.disjoint_groups(2)[0])
    assert sorted(judged.group.unique().tolist()) == [104, 105, 106, 107]


def test_a_reference_that_was_learned_from_to_its_last_walker_does_not_judge(frames: ReferenceEnsemble) -> None:
    stages = SimpleNamespace(training=frames)
    with pytest.raises(InputError, match="nothing is left to judge by: leave --frames out"):
        judging(stages, "implicit", frames, replace(frames, positions=frames.positions.clone()))


def test_frames_of_too_few_walkers_are_refused_before_a_training(tmp_path: Path) -> None:
    whole = load_ensemble(small_reference(tmp_path, "implicit"))
    few, out = tmp_path / "few.h5", tmp_path / "out"
    write_ensemble(few, whole.select((whole.group < 3).nonzero()[:, 0]), systems.load("aldp").topology)
    with pytest.raises(InputError, match=r"independent walkers to learn from, .* to judge by: give frames of more"):
        ramachandran.run(RamachandranConfig(reference=few, out=out, device="cpu", threads=1))
    assert not (out / "config.toml").exists()
    ramachandran.require_groups(2, 2)
    with pytest.raises(InputError, match="1 independent walkers to learn from, and 2 to judge by"):
        ramachandran.require_groups(1, 2)
