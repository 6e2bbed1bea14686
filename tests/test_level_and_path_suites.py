"""The suites of levels and of paths: equal budgets, levels as asked for, exact energies without error, and verdicts."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import pytest
import torch

from boltzgen_diffclf.data_gaussian import DataGaussian, data_resolution
from boltzgen_diffclf.errors import InputError, TrainingDivergedError
from boltzgen_diffclf.nets import MlpEnergyNet
from boltzgen_diffclf.noised_energy import NoisedEnergyModel
from boltzgen_diffclf.paths import (
    LEVEL_LAYOUTS,
    PATHS,
    DiffusionPath,
    VarianceExploding,
    VariancePreserving,
    accumulated_length,
    arcsine_levels,
    gap_probabilities,
    length_at,
    log_snr_levels,
    path_levels,
    spaced_groups,
    uniform_levels,
)
from boltzgen_diffclf.streams import named_generator
from boltzgen_diffclf.training.clean_data import CleanSamples, FixedPool, FreshSamples
from boltzgen_diffclf.training.level_curves import energy_information, energy_length, gaussian_length
from boltzgen_diffclf.training.level_samplers import LEVEL_SAMPLERS, SPACING, TARGET_GAP
from boltzgen_diffclf.training.noised_case import Setting
from boltzgen_diffclf.training.noised_losses import Sizes
from boltzgen_diffclf.training.noised_problem import NoisedProblem, NoisedSettings
from boltzgen_diffclf.training.noised_training import NoisedSizes
from boltzgen_diffclf.training.objectives import NOISED_OBJECTIVES
from systems.analytic import (
    GaussianMixture,
    InterpolatedMarginals,
    MixtureMarginals,
    mixture_1d,
    mixture_2d,
    standardised,
    two_modes,
)
from workflows.benchmark import BenchmarkConfig, BenchmarkResult, run
from workflows.benchmark_suites import SUITES
from workflows.benchmark_suites.interpolant import interpolant_metrics, interpolant_pair
from workflows.benchmark_suites.levels import (
    AS_GOOD,
    CHOICES,
    LOSS,
    MODES,
    RECOMMENDED,
    conclusion,
    findings,
    row_objective,
    row_sizes,
)
from workflows.benchmark_suites.one_sided_rows import LARGE
from workflows.benchmark_suites.one_sided_training import OneSidedSizes
from workflows.benchmark_suites.stability import stability_metrics
from workflows.benchmark_suites.suite import ALL_SEEDS, TableRow
from workflows.report.levels_figure import levels_figure

PATH = VariancePreserving(t_max=1 - 1e-4)
LEVELS = uniform_levels(40, 1e-3, 0.99)
DATA = FreshSamples(mixture_1d())


@pytest.fixture(scope="module", autouse=True)
def eager():
    with pytest.MonkeyPatch.context() as patch:
        from boltzgen_diffclf.compilation import can_fuse

        patch.setenv("BOLTZGEN_EAGER", "1")
        can_fuse.cache_clear()
        yield
    can_fuse.cache_clear()


def stream() -> torch.Generator:
    return named_generator(0, "test")


def fresh_model(levels: torch.Tensor = LEVELS) -> NoisedEnergyModel:
    target = DATA.target
    net = MlpEnergyNet(1, stream(), hidden=8, layers=1)
    return NoisedEnergyModel(net, PATH, DataGaussian(target.mean, target.variance), levels).double()


def problem(sampler: str, group_size: int, length: torch.Tensor | None = None, groups: int = 400) -> NoisedProblem:
    settings = NoisedSettings(1, groups=groups, group_size=group_size, level_sampler=sampler)
    objective = NOISED_OBJECTIVES["dsm_diffclf"]
    return NoisedProblem(objective, PATH, LEVELS.float(), DATA, DATA, settings, length)


@pytest.mark.parametrize("preset", ["quick", "standard"])
def test_every_number_of_levels_costs_the_same(preset: str) -> None:
    suite = SUITES["levels"]
    sizes = suite.presets[preset].sizes
    rows = {name: row_sizes(choice, sizes) for name, choice in CHOICES.items()}
    spent = {
        name: row.groups * row_objective(CHOICES[name]).evaluations(Sizes(row.group_size, all_levels=1))
        for name, row in rows.items()
    }
    assert max(spent.values()) < 1.1 * min(spent.values())
    assert max(spent.values()) <= sizes["evaluations"]
    assert rows["n32"].groups >= 4


def test_price_of_a_group_is_that_of_naming_and_of_denoising() -> None:
    assert NOISED_OBJECTIVES["dsm_diffclf"].evaluations(Sizes(8, 1)) == 8 * (7 + 2)
    assert NOISED_OBJECTIVES["diffclf"].evaluations(Sizes(8, 1)) == 8 * 8
    assert NOISED_OBJECTIVES["dsm_diffclf_all"].evaluations(Sizes(8, 1)) == 8 * (1 + 2)


def test_levels_are_chosen_as_their_sampler_is_called() -> None:
    def share_of_neighbours(name: str) -> float:
        level = LEVEL_SAMPLERS[name].draw(LEVELS, 4, 400, stream())
        assert level.shape == (400, 4)
        assert bool((level.diff(dim=1) > 0).all())
        return float((level.diff(dim=1) == 1).all(1).double().mean())

    assert share_of_neighbours("neighbours") == 1.0
    assert share_of_neighbours("spaced") < 0.3
    assert share_of_neighbours("scattered") < 0.02


def test_an_eighth_of_the_spaced_groups_reach_all_over_the_path() -> None:
    length = torch.arange(200.0, dtype=torch.float64)
    level = LEVEL_SAMPLERS["spaced"].draw(length, 4, 800, stream())
    near = level[:, -1] - level[:, 0] <= 2.0 * 1.3 * 3 + 1
    assert bool(near[:700].all())
    assert float(near[700:].double().mean()) < 0.05
    alone = LEVEL_SAMPLERS["spaced"].draw(length, 1, 800, stream())
    assert torch.equal(alone, spaced_groups(length, SPACING, 1, 800, stream()))


def test_training_on_gap_aware_pairs_has_them_the_wanted_length_apart() -> None:
    length = energy_length(MixtureMarginals(DATA.target, PATH), DATA, Setting(PATH, LEVELS), 400, stream())
    level = problem("gap_aware", 2, length, groups=4000).draw(fresh_model().float(), stream()).level
    gap = (length[level[:, 1]] - length[level[:, 0]]).log()
    probability, apart = gap_probabilities(length, TARGET_GAP), (length - length[:, None]).clamp(min=1e-300).log()
    mean = float((probability * apart).sum())
    assert float(gap.mean()) == pytest.approx(mean, abs=4 * float(gap.std()) / math.sqrt(len(gap)))
    assert abs(mean - math.log(TARGET_GAP)) < 0.2
    assert float(gap.std()) == pytest.approx(0.5, abs=0.15)
    blind = problem("scattered", 2, groups=2000).draw(fresh_model().float(), stream()).level
    assert float((length[blind[:, 1]] - length[blind[:, 0]]).log().std()) > 0.75


def test_length_of_a_noised_point_is_the_closed_form() -> None:
    path, levels = VarianceExploding(0.1, 10.0), log_snr_levels(VarianceExploding(0.1, 10.0), 30)
    point = GaussianMixture(torch.ones(1).double(), torch.zeros(1, 8).double(), torch.full((1,), 1e-6).double())
    length = energy_length(MixtureMarginals(point, path), FreshSamples(point), Setting(path, levels), 400, stream())
    # I = (d / 2) (d log sigma^2 / dt)^2, so L = sqrt(d / 2) log(sigma_max^2 / sigma_min^2).
    assert float(length[-1]) == pytest.approx(2 * math.log(1e4), rel=0.03)
    assert float(length[0]) == 0.0


@pytest.mark.parametrize(
    ("sampler", "size", "words"),
    [
        ("gap_aware", 2, "needs the length"),
        ("gap-aware", 2, "did you mean 'gap_aware'"),
        ("spaced", 41, "groups of 41 levels"),
    ],
)
def test_levels_that_cannot_be_chosen_are_refused(sampler: str, size: int, words: str) -> None:
    with pytest.raises(InputError, match=words):
        problem(sampler, size)


def test_gap_aware_groups_are_pairs() -> None:
    with pytest.raises(InputError, match="pairs"):
        problem("gap_aware", 4, LEVELS).draw(fresh_model().float(), stream())


def test_measures_of_the_interpolant_are_perfect_for_the_exact_energies() -> None:
    pair = interpolant_pair(mixture_2d())
    torch.testing.assert_close(pair.state_a.mean, pair.state_b.mean)
    torch.testing.assert_close(pair.state_a.variance, pair.state_b.variance)
    from boltzgen_diffclf.free_energy.vector_space import VectorSpace

    samples = [state.sample(500, stream()) for state in (pair.state_a, pair.state_b)]
    space = VectorSpace(pair.state_a, pair.state_b, *samples)
    oracle, sizes = (
        InterpolatedMarginals(pair.state_a, pair.state_b, space.path),
        OneSidedSizes(level_pool=100, measured=1000),
    )
    metrics = {one.name: one for one in interpolant_metrics(oracle, oracle, arcsine_levels(17), sizes, 0)}
    assert metrics["excess_classification.learned_f"].value == pytest.approx(0.0, abs=1e-12)
    # F is fitted to other samples, and misses by their noise.
    assert metrics["excess_classification.profiled_f"].value == pytest.approx(0.0, abs=5e-3)
    assert metrics["free_energy_rms.learned_f"].value < 0.1
    fisher = [one.value for name, one in metrics.items() if name.startswith("fisher")]
    assert len(fisher) == 9
    assert max(fisher) < 1e-20
    assert abs(metrics["delta_f"].value) < 4 * metrics["delta_f"].stderr
    assert metrics["delta_f"].stderr < 0.2


def test_measures_of_the_interpolant_see_what_is_wrong() -> None:
    class Shallow(InterpolatedMarginals):
        def energy(self, y, t):
            return 0.5 * super().energy(y, t)

        def gradient(self, y, t):
            return 0.5 * super().gradient(y, t)

        def time_derivative(self, y, t):
            return 0.5 * super().time_derivative(y, t) + 1

    from boltzgen_diffclf.paths import StochasticInterpolant

    pair = interpolant_pair(mixture_2d())
    path = StochasticInterpolant(torch.full((2,), 2.0).double(), 2)
    wrong, oracle = (kind(pair.state_a, pair.state_b, path) for kind in (Shallow, InterpolatedMarginals))
    metrics = {
        one.name: one
        for one in interpolant_metrics(
            wrong, oracle, arcsine_levels(17), OneSidedSizes(level_pool=60, measured=1000), 0
        )
    }
    assert metrics[LOSS].value > 0.02
    assert metrics["fisher.mean"].value > 0.1
    assert metrics["delta_f"].value == pytest.approx(1.0, abs=4 * metrics["delta_f"].stderr)


def test_stability_is_read_from_the_history() -> None:
    norms = [100.0, 1.0, 2.0, 3.0, 10.0, 2.0]
    history = [{"step": float(k), "gradient_norm.denoising": norm} for k, norm in enumerate(norms)]
    found = {one.name: one.value for one in stability_metrics(history)}
    assert found == {"diverged": 0.0, "gradient_norm.denoising": 2.0, "gradient_burst.denoising": 5.0}


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    def compute(suite: str, **chosen: object) -> BenchmarkResult:
        sizes = {"levels": 10, "groups": 8, "hidden": 8, "layers": 1, "level_pool": 4, "measured": 60, "particles": 20}
        sizes |= {"evaluations": 240}
        preset = SUITES[suite].presets["quick"]
        own = {name: value for name, value in sizes.items() if name in preset.sizes}
        monkeypatch.setitem(preset.__dict__, "sizes", {**preset.sizes, **own})
        return run(BenchmarkConfig(suite=suite, steps=2, samples=200, out=tmp_path, threads=1, **chosen))

    return compute


def test_rows_of_the_levels_suite_end_in_a_recommendation(tiny, tmp_path: Path, capsys) -> None:
    names = ("n2", "n4", "one_pass", "n2_gap_aware", "n4_log_snr", "n4_thermodynamic")
    result = tiny("levels", dims=(2,), objectives=names, seeds=(0,))
    spent = {row.objective: row.value for row in result.rows if row.metric == "network_evaluations"}
    assert list(spent) == list(names)
    assert max(spent.values()) < 1.1 * min(spent.values())
    assert all(math.isfinite(row.value) for row in result.rows)
    assert "Take N = " in result.conclusion
    (taken,) = {row.value for row in result.rows if row.metric == RECOMMENDED}
    assert f"Take N = {taken:.0f}:" in result.conclusion
    assert f",{RECOMMENDED},{taken}," in (tmp_path / "results.csv").read_text(encoding="utf-8")
    assert result.conclusion[:20] in (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "Take N = " in capsys.readouterr().out
    assert len(levels_figure(result.rows).axes) == 3


def lines(dim: int, metric: str, values: dict[str, tuple[float, float]]) -> list[TableRow]:
    return [
        TableRow("levels", "mog40", dim, name, seed, metric, value, error, 0.0, "")
        for name, (value, error) in values.items()
        for seed in ("0", "1", ALL_SEEDS)
    ]


def test_the_recommendation_is_what_the_errors_allow() -> None:
    rows = lines(2, LOSS, {"n2": (0.10, 0.01), "n4": (0.05, 0.01), "n8": (0.04, 0.01), "n4_scattered": (0.0, 0.01)})
    rows += lines(8, LOSS, {"n2": (0.30, 0.01), "n4": (0.10, 0.01), "n8": (0.20, 0.01)})
    rows += lines(8, MODES, {"n2": (0.01, 0.001), "n4": (0.02, 0.001)})
    said = conclusion(rows)
    assert "In 2 dimensions N = 8 has the least excess classification loss, 0.040 ± 0.010 nats" in said
    assert "within two standard errors of it: N = 4." in said
    assert "In 8 dimensions N = 4 has the least" in said
    assert "every other N is worse. The mode weights of the energy are best for N = 2, 0.0100 ± 0.0010." in said
    assert said.endswith("Take N = 4: it is among the best in 2 of 2 dimensions.")
    single = [row for row in rows if row.seed != "1"]
    assert conclusion(single).endswith("not the scatter of trainings.")
    assert conclusion(lines(2, LOSS, {"n2": (0.1, 0.01)})) == ""


def test_the_recommendation_is_a_line_of_the_table() -> None:
    rows = lines(2, LOSS, {"n2": (0.10, 0.01), "n4": (0.05, 0.01), "n8": (0.04, 0.01)})
    rows += lines(8, LOSS, {"n2": (0.30, 0.01), "n4": (0.10, 0.01), "n8": (0.20, 0.01)})
    found = {(row.dim, row.objective, row.metric): row.value for row in findings(rows)}
    assert {key: value for key, value in found.items() if key[2] == RECOMMENDED} == {
        (2, "n4", RECOMMENDED): 4.0,
        (8, "n4", RECOMMENDED): 4.0,
    }
    assert [found[2, name, AS_GOOD] for name in ("n2", "n4", "n8")] == [0.0, 1.0, 1.0]
    assert [found[8, name, AS_GOOD] for name in ("n2", "n4", "n8")] == [0.0, 1.0, 0.0]
    assert findings(lines(2, LOSS, {"n2": (0.1, 0.01)})) == []


def test_group_size_of_the_library_is_what_the_suite_found_best() -> None:
    """By the table of the suite that is kept with the code."""
    file = Path(__file__).parents[1] / "benchmarks" / "results" / "levels.csv"
    with file.open(encoding="utf-8") as handle:
        table = list(csv.DictReader(handle))
    name = f"n{NoisedSizes(steps=1).group_size}"
    assert {line["objective"] for line in table if line["metric"] == RECOMMENDED} == {name}


def test_the_default_of_the_library_is_a_row_of_the_suite() -> None:
    size = NoisedSizes(steps=1).group_size
    assert {NoisedSettings(1).group_size, OneSidedSizes().group_size, LARGE["group_size"]} == {size}
    assert CHOICES[f"n{size}"].level_sampler == NoisedSettings(1).level_sampler


def test_networks_of_the_suite_are_those_of_forty_modes() -> None:
    suite = SUITES["levels"].presets["standard"].sizes
    for choice in CHOICES.values():
        assert row_sizes(choice, suite).wells_from == OneSidedSizes(**row_sizes_of_forty(32)).wells_from


def row_sizes_of_forty(dim: int) -> dict[str, int]:
    from workflows.benchmark_suites.mog40 import MOG40, row_sizes

    return row_sizes(dim, MOG40.presets["standard"].sizes)


@pytest.mark.parametrize("path", PATHS.values(), ids=PATHS.keys())
@pytest.mark.parametrize("layout", LEVEL_LAYOUTS)
def test_any_layout_lies_on_any_path(path: DiffusionPath, layout: str) -> None:
    oracle = MixtureMarginals(standardised(mixture_1d()), path)
    pool = FreshSamples(standardised(mixture_1d()))

    def information(nodes: torch.Tensor) -> torch.Tensor:
        return energy_information(oracle, pool, Setting(path, nodes), 200, stream())

    levels = path_levels(path, 20, layout, information)
    assert (float(levels[0]), float(levels[-1]), len(levels)) == (path.t_min, path.t_max, 20)
    assert bool((levels.diff() > 0).all())
    even = {"uniform": levels, "log_snr": path.log_snr(levels)}.get(layout)
    if even is None:
        nodes = log_snr_levels(path, 257)
        even = length_at(levels, nodes, accumulated_length(nodes, information(nodes)))
    steps = even.diff()
    torch.testing.assert_close(steps, steps.mean().expand_as(steps), rtol=1e-6, atol=1e-9)


def test_levels_lie_as_before_where_no_layout_is_named() -> None:
    for name, path in PATHS.items():
        assert torch.equal(path_levels(path, 9), path_levels(path, 9, "uniform" if name == "vp" else "log_snr"))
    with pytest.raises(InputError, match="did you mean 'log_snr'"):
        path_levels(PATHS["vp"], 9, "logsnr")
    with pytest.raises(InputError, match="Fisher information"):
        path_levels(PATHS["vp"], 9, "thermodynamic")


def test_rows_of_the_paths_suite_are_measured_alike(tiny, tmp_path: Path) -> None:
    names = ("edm", "interpolant", "interpolant_learned_ends", "interpolant_dsm", "ve_dsm")
    result = tiny("paths", dims=(2,), objectives=names, seeds=(0,))
    metrics = {name: {row.metric for row in result.rows if row.objective == name} for name in names}
    shared = {
        LOSS,
        "fisher.mean",
        "diverged",
        "gradient_burst.denoising",
        "network_evaluations",
        "free_energy_rms.learned_f",
    }
    assert all(shared <= found for found in metrics.values())
    assert "delta_f" in metrics["interpolant"] & metrics["interpolant_learned_ends"]
    assert MODES in metrics["edm"]
    assert all(math.isfinite(row.value) for row in result.rows)
    for name in ("paths", "paths-scores"):
        assert (tmp_path / "figures" / f"{name}.png").stat().st_size > 10_000


def test_a_training_that_diverges_is_a_row_and_not_the_end(tiny, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    def diverge(*args: object) -> None:
        raise TrainingDivergedError("training diverged")

    monkeypatch.setattr("workflows.benchmark_suites.one_sided.train_as", diverge)
    result = tiny("paths", dims=(2,), objectives=("vp", "interpolant_dsm"), seeds=(0,))
    (row,) = (row for row in result.rows if (row.objective, row.metric, row.seed) == ("vp", "diverged", ALL_SEEDS))
    assert row.value == 1.0
    assert not any(row.metric == LOSS for row in result.rows if row.objective == "vp")
    assert any(line.split()[2:4] == ["vp", "-"] for line in capsys.readouterr().out.splitlines()[1:])


def test_the_loop_says_that_a_training_diverged() -> None:
    from boltzgen_diffclf.training.loop import optimise

    model = fresh_model(LEVELS.float()).float()
    with torch.no_grad():
        model.net.readout.weight.fill_(math.nan)
    one = problem("spaced", 4, groups=8)
    with pytest.raises(TrainingDivergedError, match="lower the learning rate"):
        optimise(model, one, one.settings)


def test_paths_of_the_suite_are_those_that_exist() -> None:
    assert {"vp", "ve", "edm"} <= set(PATHS)


@pytest.mark.parametrize(("dim", "within"), [(8, 0.3), (32, 0.1)])
def test_length_of_narrow_modes_is_nearly_the_exact_one(dim: int, within: float) -> None:
    target = standardised(two_modes(dim))
    x, levels = target.sample(5000, stream()), uniform_levels(257, 1e-3, 1 - 1e-4)
    data = DataGaussian(x.mean(0), x.var(0))
    net = MlpEnergyNet(dim, stream(), hidden=4, layers=1)
    model = NoisedEnergyModel(net, PATH, data, levels, data_resolution(x, stream()))
    pool = FixedPool(CleanSamples(x, torch.zeros_like(x)))
    exact = energy_length(MixtureMarginals(target, PATH), pool, Setting(PATH, levels), 300, stream())
    length = gaussian_length(model, levels)
    assert bool((length.diff() > 0).all())
    assert float(length[-1] - length[0]) == pytest.approx(float(exact[-1]), rel=within)
