"""The benchmark command end to end at tiny sizes, and the suites whose answers are known."""

from __future__ import annotations

import csv
import math
import subprocess
import sys
from dataclasses import fields

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from boltzgen_diffclf.energy import UnanchoredEnergyModel
from boltzgen_diffclf.errors import InputError
from boltzgen_diffclf.estimators import thermodynamic_integration
from boltzgen_diffclf.free_energy.chained_classes import chained_end_classes
from boltzgen_diffclf.free_energy.learned import LearningSettings, build_pools
from boltzgen_diffclf.free_energy.vector_space import VectorSpace
from boltzgen_diffclf.nets import WellPairsEnergyNet, find_wells
from boltzgen_diffclf.paths import arcsine_levels
from systems.analytic import GaussianMixture, InterpolatedMarginals, crossed_mixtures, feat_mixtures
from workflows.benchmark import PRESETS, BenchmarkConfig, run
from workflows.benchmark_pipeline import finished_rows, table
from workflows.benchmark_suites import SUITES
from workflows.benchmark_suites.mog40 import MOG40
from workflows.benchmark_suites.seeds import over_seeds, widened_by
from workflows.benchmark_suites.suite import Metric, RowContext, RowSpec, TableRow
from workflows.command_line import run_command
from workflows.progress import SilentProgress
from workflows.report.benchmark_page import by_target, pivot
from workflows.report.crossed_figure import mass_on_the_right
from workflows.report.one_sided_figures import densities_figure
from workflows.report.rounding import with_error
from workflows.run_folder import RunFolder, StageResult


@pytest.fixture(scope="module", autouse=True)
def eager():
    with pytest.MonkeyPatch.context() as patch:
        from boltzgen_diffclf.compilation import can_fuse

        patch.setenv("BOLTZGEN_EAGER", "1")
        can_fuse.cache_clear()
        yield
    can_fuse.cache_clear()


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A run of a classical and a learned row, with two seeds."""
    folder = tmp_path_factory.mktemp("benchmark")
    with pytest.MonkeyPatch.context() as patch:
        shrink(patch)
        config = BenchmarkConfig(
            suite="crossed",
            dims=(2,),
            objectives=("bar", "dsm_diffclf"),
            seeds=(0, 1),
            steps=20,
            samples=200,
            out=folder,
            threads=1,
        )
        yield config, run(config)


def shrink(patch):
    sizes = {
        "levels": 9,
        "pool": 100,
        "evaluation_pool": 100,
        "groups": 8,
        "hidden": 8,
        "layers": 1,
        "anneal_levels": 10,
    }
    sizes |= {"anneal_particles": 20, "level_pool": 4, "measured": 60, "particles": 20}
    for suite in SUITES.values():
        for preset in suite.presets.values():
            own = {name: value for name, value in sizes.items() if name in preset.sizes}
            patch.setitem(preset.__dict__, "sizes", {**preset.sizes, **own})


def lines_of(path):
    with (path / "results.csv").open(encoding="utf-8") as handle:
        return list(csv.DictReader(handle))


def test_table_has_every_seed_their_combination_and_the_exact_answer(tiny):
    config, result = tiny
    lines = lines_of(config.folder)
    assert list(lines[0]) == [field.name for field in fields(TableRow)]
    assert [line["seed"] for line in lines if (line["objective"], line["metric"]) == ("bar", "delta_f")] == [
        "0",
        "1",
        "all",
    ]
    learned = {line["metric"]: line for line in lines if line["objective"] == "dsm_diffclf" and line["seed"] == "all"}
    assert {"delta_f", "delta_f_exact_ends", "seconds", "network_evaluations"} <= set(learned)
    assert float(learned["delta_f"]["limit"]) == 10.0
    assert float(learned["network_evaluations"]["value"]) > 0
    assert all(math.isfinite(row.value) for row in result.rows)


def test_page_holds_its_figures_and_the_command(tiny):
    config, _ = tiny
    page = (config.folder / "report.html").read_text(encoding="utf-8")
    assert "data:image/png;base64," in page
    assert "--objectives bar dsm_diffclf" in page
    assert (config.folder / "figures" / "crossed.png").stat().st_size > 10_000


def test_repeated_command_computes_nothing_and_more_rows_join_the_folder(tiny, monkeypatch):
    config, result = tiny
    before = (config.folder / "results.csv").read_bytes()
    computed = []
    suite = SUITES["crossed"]
    original = suite.run_row
    monkeypatch.setitem(
        suite.__dict__, "run_row", lambda spec, context: computed.append(spec) or original(spec, context)
    )
    assert run(config).rows == result.rows
    assert (config.folder / "results.csv").read_bytes() == before
    assert computed == []
    wider = BenchmarkConfig(
        suite="crossed",
        dims=(2,),
        objectives=("bar", "ais"),
        seeds=(0,),
        steps=20,
        samples=200,
        out=config.out,
        threads=1,
    )
    both = run(wider).rows
    assert [(spec.objective, spec.seed) for spec in computed] == [("ais", 0)]
    assert set(result.rows) < set(both)
    assert {row.objective for row in both} == {"bar", "ais", "dsm_diffclf"}
    assert run(config).rows == both
    other = BenchmarkConfig(
        suite="crossed", dims=(2,), objectives=("bar",), steps=21, samples=200, out=config.out, threads=1
    )
    with pytest.raises(InputError, match="steps"):
        run(other)


@pytest.mark.parametrize(
    ("words", "near"),
    [
        (["--suite", "crosed"], "did you mean 'crossed'"),
        (["--objectives", "dsm_difclf"], "did you mean 'dsm_diffclf'"),
        (["--dims", "19"], "did you mean 20"),
        (["--suite", "classical", "--targets", "ring"], "did you mean 'rings'"),
        (["--seeds", "-1"], "seeds"),
        (["--seed", "1"], "--seeds"),
        (["--loss", "foo"], "unknown option '--loss'; did you mean '--objectives'?"),
        (["--suite", "mixture-1d", "--objectives", "cd_0"], "behind cd_ stands how many steps its chains take"),
        (["--suite", "mog40", "--objectives", "cd_" + "9" * 400], "behind cd_ stands a number up to 10000"),
        (["--suite", "mog40", "--objectives", "nce_x"], "behind nce_ stands how many noise samples"),
        (["--suite", "crossed", "--objectives", "nce_2"], "suite crossed has none of that name"),
    ],
)
def test_names_that_match_nothing_are_refused_with_the_nearest(words, near, capsys):
    code = run_command(BenchmarkConfig, lambda config: None, program="test", presets=PRESETS, argv=words)
    error = capsys.readouterr().err
    assert code == 2
    assert near in error
    assert error.count("\n") == 1


def test_unknown_setting_is_refused_in_python_too():
    with pytest.raises(ValidationError):
        BenchmarkConfig(stepz=1)


def test_published_rows_stand_beside_ours(tmp_path, monkeypatch):
    shrink(monkeypatch)
    config = BenchmarkConfig(
        suite="ratios", dims=(40,), objectives=("bar",), seeds=(0,), samples=50, out=tmp_path, threads=1
    )
    result = run(config)
    published = {row.objective: row for row in result.rows if row.published}
    assert published["FEAT"].value == 0.04
    assert published["FEAT"].limit == 0.0
    assert set(published) == {"FEAT", "target-FEP"}
    assert "2504.11516" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_rows_of_other_sizes_are_refused_in_the_same_folder(tiny, monkeypatch):
    config, _ = tiny
    preset = SUITES["crossed"].presets["quick"]
    monkeypatch.setitem(preset.__dict__, "sizes", {**preset.sizes, "hidden": 9})
    with pytest.raises(InputError, match="has rows of hidden = 8, now 9 is asked for"):
        run(config)


@pytest.mark.parametrize("damage", ['{"threads": "abc"}', '{"threads": 1, "sizes": 3}'])
def test_damaged_choices_of_a_folder_are_told_in_one_line(damage, tmp_path, capsys):
    (tmp_path / "run.json").write_text(damage)
    assert run_command(BenchmarkConfig, run, program="test", presets=PRESETS, argv=["--out", str(tmp_path)]) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith(f"error: {tmp_path / 'run.json'} is altered, ")
    assert line.endswith("delete it, or choose another --out")


@pytest.mark.parametrize(
    "stage",
    [
        "crossed-crossed_mixtures-d33-bar-seed0",
        "crossed-foo-d2-bar-seed0",
        "crossed-crossed_mixtures-d2-foo-seed0",
        "crossed-crossed_mixtures-d02-bar-seed0",
    ],
)
def test_stages_of_what_a_suite_has_not_are_no_rows(stage, tmp_path):
    folder = RunFolder(tmp_path, SilentProgress(tmp_path / "status.json"))
    known = RowSpec("crossed", "crossed_mixtures", 5, "bar", 0)
    for name in (known.stage, stage):
        folder.save_stage(name, StageResult(facts={"metrics": []}))
    assert finished_rows(SUITES["crossed"], folder) == [known]


def test_targets_are_chosen_among_the_blocks_or_for_all_of_them():
    def chosen(suite, preset, **given):
        rows = BenchmarkConfig(suite=suite, preset=preset, **given).rows
        return {(spec.target, spec.dim) for spec in rows}, len(rows)

    assert chosen("classical", "quick", targets=("gaussian",)) == ({("gaussian", 2)}, 8)
    assert chosen("classical", "standard", targets=("rings",), seeds=(0,)) == ({("rings", 2)}, 8)
    assert chosen("classical", "standard", seeds=(0,)) == ({("mixture_2d", 2), ("rings", 2)}, 16)
    assert chosen("paths", "quick", targets=("mog40",)) == ({("mog40", 8)}, 5)


def test_the_row_of_equal_wall_time_is_the_same_objective_in_more_steps(tmp_path, monkeypatch):
    standard = BenchmarkConfig(suite="mog40", preset="standard", seeds=(0,)).rows
    assert [spec.dim for spec in standard if spec.objective == "dsm_longer"] == [128]
    seen = []
    monkeypatch.setattr(
        "workflows.benchmark_suites.one_sided.train_as", lambda name, sizes, *_: seen.append((name, sizes.steps))
    )
    monkeypatch.setattr("workflows.benchmark_suites.one_sided.measure", lambda *_: [Metric("seen", 1.0)])
    context = RowContext(SUITES["mog40"].presets["standard"].sizes, tmp_path, lambda _: None, "cpu")
    for objective in ("dsm", "dsm_longer"):
        SUITES["mog40"].run_row(RowSpec("mog40", "mog40", 128, objective, 0), context)
    assert seen == [("dsm", 4000), ("dsm", 5500)]


def test_standard_rows_of_few_dimensions_are_of_the_smaller_network(tmp_path, monkeypatch):
    shrink(monkeypatch)
    asked = []
    monkeypatch.setattr(
        "workflows.benchmark_suites.mog40.variance_preserving_row",
        lambda spec, context: asked.append(context.sizes["hidden"]) or [Metric("seen", 1.0)],
    )
    preset = SUITES["mog40"].presets["standard"]
    monkeypatch.setitem(preset.__dict__, "sizes", {**preset.sizes, "hidden": 7, "few_hidden": 5})
    context = RowContext(preset.sizes, tmp_path, lambda _: None, "cpu")
    for dim in (2, 128):
        SUITES["mog40"].run_row(RowSpec("mog40", "mog40", dim, "dsm", 0), context)
    assert asked == [5, 7]


def test_suites_of_one_density_are_rows_of_the_same_table(tmp_path, monkeypatch, capsys):
    """Killed after its training, a row goes on from its checkpoint; curves are in the CSV and not on the page."""
    shrink(monkeypatch)
    config = BenchmarkConfig(
        suite="mixture-1d", objectives=("dsm", "pcd"), seeds=(0,), steps=4, samples=100, out=tmp_path, threads=1
    )
    with monkeypatch.context() as patch:
        patch.setattr("workflows.benchmark_suites.one_sided.measure", killed)
        with pytest.raises(KeyboardInterrupt):
            run(config)
    checkpoint = tmp_path / "checkpoints" / "mixture-1d-mixture_1d-d1-dsm-seed0.safetensors"
    before = checkpoint.stat().st_mtime_ns
    result = run(config)
    assert checkpoint.stat().st_mtime_ns == before
    lines = {(line["objective"], line["metric"]): line for line in lines_of(tmp_path) if line["seed"] == "all"}
    seeds = {(line["objective"], line["metric"]): line for line in lines_of(tmp_path) if line["seed"] == "0"}
    weight = lines["dsm", "left_weight"]
    assert (float(weight["limit"]), weight["stderr"]) == (pytest.approx(0.25, abs=1e-3), "")
    share = lines["dsm", "pool_left_weight"]
    # Of a hundred samples.
    assert float(share["value"]) == pytest.approx(round(float(share["value"]), 2))
    assert 0.1 < float(share["value"]) < 0.4
    assert {"excess_classification.profiled_f", "smc_mode_total_variation"} <= {metric for _, metric in lines}
    assert sum(metric.startswith("density@") for _, metric in lines) > 300
    assert "density@" not in (tmp_path / "report.html").read_text(encoding="utf-8")
    assert [len(axis.lines) for axis in densities_figure(result.rows).axes] == [2, 2]
    exact = max(float(line["limit"]) for (_, metric), line in seeds.items() if metric.startswith("density@"))
    assert densities_figure(result.rows).axes[0].get_ylim()[1] == pytest.approx(3 * exact)
    assert "left_weight" in capsys.readouterr().out


def killed(*args):
    raise KeyboardInterrupt


def test_published_numbers_of_our_objectives_have_lines_of_their_own(tmp_path, monkeypatch, capsys):
    shrink(monkeypatch)
    objectives = ("dsm", "pcd")
    config = BenchmarkConfig(
        suite="mog40", dims=(128,), objectives=objectives, seeds=(0,), steps=2, samples=100, out=tmp_path, threads=1
    )
    result = run(config)
    (table,) = (pivot(rows) for rows in by_target(result.rows))
    assert {name: cells.keys() for (name, source), cells in table.cells.items() if source} == {
        name: {"classification", "excess_classification.learned_f", "reverse_mmd"}
        for name in ("dsm", "ctsm", "dsm_diffclf")
    }
    # Every published number has one of ours of the same name in the table and in the CSV.
    assert table.cells["dsm", MOG40.published[0].source].keys() <= table.cells["dsm", ""].keys()
    found = {(line["metric"], bool(line["published"])) for line in lines_of(tmp_path) if line["objective"] == "dsm"}
    assert {(one.metric, printed) for one in MOG40.published for printed in (True, False)} <= found
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert all(number in page for number in ("383.53 ± 35.99", "20.86 ± 4.93", "4.40 ± 1.00", "0.0199 ± 0.0035"))
    assert "energy_mode_total_variation" in table.cells["pcd", ""]
    assert table.cells["dsm", ""]["classification"] != table.cells["dsm", MOG40.published[0].source]
    assert [line.split()[2:4] for line in capsys.readouterr().out.splitlines()[1:3]] == [
        ["dsm", rounded(result, "excess_classification.profiled_f")],
        ["pcd", "-"],
    ]
    assert (tmp_path / "figures" / "mog40.png").stat().st_size > 10_000


def rounded(result, metric):
    (row,) = (row for row in result.rows if row.metric == metric and row.seed == "all")
    return with_error(row.value, row.stderr).split()[0]


def test_the_limit_over_seeds_is_their_mean_where_each_has_its_own():
    (combined,) = over_seeds([[Metric("classification", 3.0, 0.1, limit)] for limit in (1.0, 2.0)])
    assert combined.limit == 1.5


def test_published_rows_have_the_limit_over_seeds():
    (one, *_) = MOG40.published
    measured = {
        RowSpec("mog40", one.target, one.dim, "dsm", seed): [Metric(one.metric, 3.0, 0.1, limit)]
        for seed, limit in enumerate((1.0, 2.0))
    }
    assert {row.limit for row in table(MOG40, measured) if row.published and row.metric == one.metric} == {1.5}


def test_the_command_is_known_before_anything_heavy_is_loaded():
    script = "import sys, workflows.benchmark; print([name for name in ('torch', 'numpy') if name in sys.modules])"
    shown = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert shown == "[]\n"


def test_error_over_seeds_is_their_scatter_and_never_less_than_their_own():
    def seeds(values, own):
        return [[Metric("delta_f", value, own, 1.0), Metric("seconds", 2.0)] for value in values]

    scattered, costs = over_seeds(seeds([1.0, 2.0, 3.0], 0.01))
    assert scattered.value == 2.0
    assert scattered.stderr == pytest.approx(1 / math.sqrt(3) * 1.3213, rel=1e-3)
    assert costs == Metric("seconds", 2.0)
    alike, _ = over_seeds(seeds([1.0, 1.0, 1.0], 0.3))
    assert alike.stderr == pytest.approx(0.3 / math.sqrt(3))
    wider = widened_by([Metric("a", 1.0, 0.3), Metric("b", 1.4, 0.0), Metric("c", 0.0)], "a", "b")
    assert [metric.stderr for metric in wider] == [pytest.approx(0.5), pytest.approx(0.4), None]


def test_path_of_vectors_is_that_of_the_exact_marginals():
    """Integrate the oracle's dU/dt over the space's own samples: exact only if samples and oracle are one path."""
    pair = crossed_mixtures(3)
    generator = torch.Generator().manual_seed(0)
    samples = [state.sample(4000, generator) for state in (pair.state_a, pair.state_b)]
    space = VectorSpace(pair.state_a, pair.state_b, *samples)
    torch.testing.assert_close(space.path.noise_scale, torch.full((3,), math.sqrt(2)).double(), rtol=0.03, atol=0)
    oracle = InterpolatedMarginals(pair.state_a, pair.state_b, space.path)
    levels = arcsine_levels(17)
    derivatives = []
    for t in levels.tolist():
        time = torch.full((4000,), t, dtype=torch.float64)
        samples = [state.sample(4000, generator) for state in (pair.state_a, pair.state_b)]
        y = space.path.sample(samples[0], space.displacement(*samples), time, space.noise(4000, generator))
        derivatives.append(oracle.time_derivative(y, time).numpy())
    result = thermodynamic_integration(levels.numpy(), derivatives, rule="arcsine").estimate
    assert abs(result.value) < 4 * result.stderr
    assert result.stderr < 0.2


def test_wells_of_the_truth_have_the_energies_of_the_exact_marginals():
    pair = feat_mixtures(5)
    generator = torch.Generator().manual_seed(0)
    samples = [state.sample(300, generator) for state in (pair.state_a, pair.state_b)]
    space = VectorSpace(pair.state_a, pair.state_b, *samples, anchored=False)
    variances = [float(state.variances[0, 0]) for state in (pair.state_a, pair.state_b)]
    noise_variance = float(space.path.noise_scale[0]) ** 2
    net = WellPairsEnergyNet(pair.state_a.means, pair.state_b.means, tuple(variances), noise_variance)
    t = torch.rand(300, generator=generator, dtype=torch.float64)
    y = space.path.sample(samples[0], space.displacement(*samples), t, space.noise(300, generator))
    oracle = InterpolatedMarginals(pair.state_a, pair.state_b, space.path)
    torch.testing.assert_close(net(y, t).detach(), oracle.energy(y, t))


def test_wells_are_found_where_the_modes_are():
    mixture = feat_mixtures(20).state_a
    samples = mixture.sample(2000, torch.Generator().manual_seed(0))
    wells, variance = find_wells(samples)
    assert len(wells) == 40
    assert torch.cdist(mixture.means, wells).min(1).values.max() < 0.2
    assert variance == pytest.approx(float(mixture.variances[0, 0]), rel=0.05)


def test_chained_classes_of_exact_energies_give_the_exact_difference():
    def normal(place: float, width: float, log_z: float) -> GaussianMixture:
        one = torch.ones(1, dtype=torch.float64)
        return GaussianMixture(one, torch.full((1, 2), place, dtype=torch.float64), width * one, log_z)

    ends = normal(-1.0, 1.0, log_z=2.0), normal(1.0, 0.5, log_z=-1.0)
    generator = torch.Generator().manual_seed(0)
    frames = tuple(end.sample(2000, generator) for end in ends)
    space = VectorSpace(*ends, *frames, anchored=False)
    noise_variance = float(space.path.noise_scale[0]) ** 2
    net = WellPairsEnergyNet(ends[0].means, ends[1].means, (1.0, 0.25), noise_variance)
    data = build_pools(
        space, frames, frames, LearningSettings(levels=17, pool=1000, evaluation_pool=2), seed=0
    ).training
    model = UnanchoredEnergyModel(net, data.levels).double().requires_grad_(False)
    estimate = chained_end_classes(model, data, *ends)
    assert abs(estimate.value - 3.0) < 4 * estimate.stderr
    assert estimate.stderr < 0.1
    assert estimate.overlap > 0.1


def test_transport_shortens_the_way():
    pair = crossed_mixtures(2)
    generator = torch.Generator().manual_seed(1)
    x_0, x_1 = pair.state_a.sample(100, generator), pair.state_b.sample(100, generator)
    paired = VectorSpace(pair.state_a, pair.state_b, x_0, x_1, transport=True).pair(x_0, x_1)[0]
    assert (paired - x_0).square().sum() < 0.99 * (x_1 - x_0).square().sum()
    torch.testing.assert_close(paired.sort(0).values, x_1.sort(0).values)


def test_straight_line_moves_its_mass_at_one_point():
    """Of equal depth where 20 t = 12 (1 - t): at t = 0.375 half the mass is on either side."""
    right = mass_on_the_right(crossed_mixtures(1), np.array([0.3, 0.375, 0.45]))
    assert right[0] < 0.1
    assert right[1] == pytest.approx(0.5, abs=0.02)
    assert right[2] > 0.9


def test_rows_of_any_size_are_found_again_in_their_folder(tmp_path, monkeypatch):
    shrink(monkeypatch)
    config = BenchmarkConfig(
        suite="mixture-1d", objectives=("nce_0.5", "cd_3"), seeds=(0,), steps=2, samples=50, out=tmp_path, threads=1
    )
    result = run(config)
    assert list(dict.fromkeys(row.objective for row in result.rows)) == ["nce_0.5", "cd_3"]
    assert run(config).rows == result.rows
    checkpoints = {path.name for path in (tmp_path / "checkpoints").iterdir()}
    assert "mixture-1d-mixture_1d-d1-nce_0.5-seed0.safetensors" in checkpoints


@pytest.mark.parametrize("suite", ["crossed", "ratios"])
def test_exact_ends_are_a_row_with_the_difference_that_training_learned(suite, tmp_path, monkeypatch):
    shrink(monkeypatch)
    config = BenchmarkConfig(
        suite=suite,
        dims=(2,),
        objectives=("dsm_diffclf_ends",),
        seeds=(0,),
        steps=4,
        samples=200,
        out=tmp_path,
        threads=1,
    )
    found = {row.metric: row for row in run(config).rows if row.seed == "all"}
    assert {"delta_f", "delta_f_exact_ends", "delta_f_classifier", "held_out_classification"} <= set(found)
    assert found["delta_f_classifier"].limit == found["delta_f"].limit
    assert math.isfinite(found["delta_f_classifier"].value)
