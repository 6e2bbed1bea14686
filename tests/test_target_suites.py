"""Suites rings, two-modes and classical: their metrics are right for energies that are exact, and the rows run."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from boltzgen_diffclf.data_energy import DataEnergyModel
from boltzgen_diffclf.data_gaussian import DataGaussian
from boltzgen_diffclf.errors import InputError
from boltzgen_diffclf.losses import contrastive_divergence_loss, noise_contrastive_loss
from boltzgen_diffclf.nets import MlpEnergyNet
from boltzgen_diffclf.noised_energy import NoisedEnergyModel
from boltzgen_diffclf.paths import PATHS, DiffusionPath, path_levels
from boltzgen_diffclf.streams import named_generator
from boltzgen_diffclf.training.clean_data import FreshSamples
from boltzgen_diffclf.training.data_problem import ContrastiveDivergence, DataObjective, DataSettings, NoiseContrast
from boltzgen_diffclf.training.objectives import DATA_OBJECTIVES, named_objective
from systems.analytic import GaussianMixture, MixtureMarginals
from tests.metric_names import by_name
from workflows.benchmark import BenchmarkConfig, run
from workflows.benchmark_suites import SUITES
from workflows.benchmark_suites.learned_density import LearnedDensity, late_path
from workflows.benchmark_suites.one_sided import measure
from workflows.benchmark_suites.one_sided_training import (
    OneSidedSizes,
    Trained,
    one_sided_target,
    train_one_sided,
)
from workflows.benchmark_suites.plane_density import likelihood_metrics, plane_density, quadrature_metrics
from workflows.benchmark_suites.suite import RowSpec, TableRow
from workflows.report.one_sided_figures import PANELS, dimensions_figure
from workflows.report.plane_figures import costs_figure, mode_weights_figure

TINY = {"groups": 8, "hidden": 8, "layers": 1, "levels": 9, "level_pool": 8, "measured": 200, "particles": 40}


pytestmark = pytest.mark.usefixtures("eager_mode")


class OfData(torch.nn.Module):
    """A network that makes the Gaussian energy of the data that of a mixture, ``lift`` kT higher in its first mode."""

    def __init__(self, target: GaussianMixture, lift: float) -> None:
        super().__init__()
        self.target, self.lift = target, lift

    def forward(self, h: Tensor, t: Tensor) -> Tensor:
        target = self.target
        x = target.mean + target.variance.sqrt() * h
        prior = 0.5 * h.square().sum(-1) + 0.5 * (2 * math.pi * target.variance).log().sum()
        return -target.log_density(x) - prior + self.lift * target.responsibilities(x)[:, 0]


class OfNoisedData(torch.nn.Module):
    """The same at every level of noise."""

    def __init__(self, target: GaussianMixture, path: DiffusionPath, lift: float) -> None:
        super().__init__()
        self.target, self.oracle, self.lift = target, MixtureMarginals(target, path), lift

    def forward(self, h: Tensor, c: Tensor) -> Tensor:
        path, target = self.oracle.path, self.target
        first, last = (path.log_snr(torch.tensor([t], dtype=h.dtype)) for t in (path.t_min, path.t_max))
        t = path.time_at_log_snr(first + c * (last - first))
        alpha, sigma = path.alpha(t)[:, None], path.sigma(t)[:, None]
        spread = (alpha.square() * target.variance + sigma.square()).sqrt()
        y = alpha * target.mean + spread * h
        prior = (0.5 * h.square() + spread.log() + 0.5 * math.log(2 * math.pi)).sum(-1)
        lifted = self.lift * target.responsibilities(y / alpha)[:, 0]
        weight = path.alpha(t) / path.sigma(t) * target.variance.mean().sqrt()
        return (self.oracle.energy(y, t) - prior + lifted) / weight


def of_data(target: GaussianMixture, lift: float = 0.0) -> Trained:
    model = DataEnergyModel(OfData(target, lift), DataGaussian(target.mean, target.variance))
    return Trained(target, model.requires_grad_(False), torch.zeros(0), 0.0, 0)


def of_noised_data(target: GaussianMixture, path: DiffusionPath, lift: float = 0.0) -> Trained:
    data, levels = DataGaussian(target.mean, target.variance), path_levels(path, 12)
    model = NoisedEnergyModel(OfNoisedData(target, path, lift), path, data, levels).double().requires_grad_(False)
    return Trained(target, model, torch.zeros(12, dtype=torch.float64), 0.0, 0)


@pytest.mark.parametrize("name", ["rings", "mixture_2d"])
@pytest.mark.parametrize("energy", [of_data, lambda target: of_noised_data(target, late_path(target))])
def test_quadrature_finds_nothing_wrong_with_an_exact_energy(
    name: str, energy: Callable[[GaussianMixture], Trained]
) -> None:
    target = one_sided_target(name, 2)
    learned = LearnedDensity(energy(target), late_path(target))
    metrics = by_name(quadrature_metrics(learned, plane_density(learned)))
    for one in ("mode_weight_error", "kullback_leibler.normalised", "log_z_error.learned"):
        assert metrics[one].value == pytest.approx(0.0, abs=1e-5)


def test_weights_of_the_clusters_are_those_of_the_energy() -> None:
    target = one_sided_target("rings", 2)
    assert (36 * target.weights).tolist() == pytest.approx([1, 2, 3, 4, 5, 6, 7, 8])
    learned = LearnedDensity(of_data(target, lift=-math.log(19)), late_path(target))
    metrics = by_name(quadrature_metrics(learned, plane_density(learned)))
    # The lightest cluster becomes nineteen times as heavy: 19 of 54 parts.
    assert metrics["mode_weight@1"].value == pytest.approx(19 / 54, abs=1e-4)
    assert metrics["mode_weight@8"].value == pytest.approx(8 / 54, abs=1e-4)
    assert metrics["mode_weight@8"].limit == pytest.approx(8 / 36)
    assert metrics["mode_weight_error"].value == pytest.approx(19 / 54 - 1 / 36, abs=1e-4)
    assert metrics["log_z_error.learned"].value == pytest.approx(-math.log(54 / 36), abs=1e-4)


def test_annealing_brackets_the_likelihood_that_quadrature_gives() -> None:
    target = one_sided_target("mixture_2d", 2)
    learned = LearnedDensity(of_data(target), late_path(target))
    metrics = by_name(likelihood_metrics(learned, plane_density(learned), 0, {"measured": 500, "particles": 200}))
    own = metrics["log_likelihood"]
    assert own.value == pytest.approx(own.limit, abs=1e-5)
    for side in ("lower", "upper"):
        error = metrics[f"log_z_error.{side}"]
        assert abs(error.value) < 4 * error.stderr < 0.6
        assert metrics[f"log_likelihood.{side}"].limit == own.limit
    difference = metrics["log_likelihood.upper"].value - own.value
    assert difference == pytest.approx(-metrics["log_z_error.lower"].value)


def test_two_modes_have_no_error_where_the_energy_has_none() -> None:
    target, sizes = one_sided_target("two_modes", 8), OneSidedSizes(levels=12, level_pool=8, measured=400, particles=20)
    path = PATHS["vp"]
    exact = by_name(measure(of_noised_data(target, path), path, 0, sizes))
    assert exact["energy_mode_total_variation"].value == pytest.approx(0.0, abs=0.05)
    assert exact["energy_mode_effective"].value == pytest.approx(400)
    assert exact["excess_classification.model_f"].value == pytest.approx(0.0, abs=1e-6)
    # The mode of weight 2/3 four times heavier: 8/9.
    lifted = by_name(measure(of_noised_data(target, path, -math.log(4)), path, 0, sizes))
    assert lifted["energy_mode_total_variation"].value == pytest.approx(8 / 9 - 2 / 3, abs=0.05)


def test_names_that_state_a_size_have_it() -> None:
    settings = DataSettings(1, draws=7, chain_steps=5)
    settled = {name: objective.settled(settings) for name, objective in DATA_OBJECTIVES.items()}
    assert [settled[name].draws for name in ("nce", "nce_1", "nce_16")] == [7, 1, 16]
    assert [settled[name].chain_steps for name in ("cd", "cd_1", "cd_10", "pcd")] == [5, 1, 10, 5]
    assert all(one.noise_ratio is None for one in settled.values())


def test_any_noise_ratio_and_any_length_of_chains_have_a_name() -> None:
    settings = DataSettings(1, draws=7, chain_steps=5)
    objectives = {name: named_objective(name) for name in ("nce_2", "nce_0.5", "nce_2.5", "cd_3", "cd_25")}
    settled = {name: one.settled(settings) for name, one in objectives.items() if isinstance(one, DataObjective)}
    assert [(settled[name].draws, settled[name].noise_ratio) for name in ("nce_2", "nce_0.5", "nce_2.5")] == [
        (2, 2.0),
        (1, 0.5),
        (3, 2.5),
    ]
    assert [settled[name].chain_steps for name in ("cd_3", "cd_25")] == [3, 25]


@pytest.mark.parametrize("ratio", [0.5, 4.0])
def test_a_stated_noise_ratio_is_the_odds_of_the_loss_not_the_number_of_draws(ratio: float) -> None:
    target = one_sided_target("mixture_2d", 2)
    data = FreshSamples(target)
    gaussian = DataGaussian(target.mean, target.variance)
    model = DataEnergyModel(MlpEnergyNet(2, named_generator(0, "w"), hidden=8, layers=1), gaussian).double()
    like = target.mean
    problem = NoiseContrast(like, data, data, DataSettings(1, groups=32, draws=4, noise_ratio=ratio))
    batch = problem.draw(model, named_generator(0, "draw"))
    expected = noise_contrastive_loss(
        model.energy, model.gaussian_log_density, batch.x, batch.other, model.log_normaliser, ratio
    )
    torch.testing.assert_close(problem.losses(model, batch)[0], expected.mean())
    unstated = NoiseContrast(like, data, data, DataSettings(1, groups=32, draws=4))
    same = torch.equal(unstated.losses(model, batch), problem.losses(model, batch))
    assert same == (ratio == 4.0)


def test_contrastive_divergence_is_regularised_as_its_settings_say() -> None:
    target = one_sided_target("mixture_2d", 2)
    data, like = FreshSamples(target), target.mean
    net = MlpEnergyNet(2, named_generator(0, "w"), hidden=8, layers=1)
    model = DataEnergyModel(net, DataGaussian(target.mean, target.variance)).double()
    settings = DataSettings(1, groups=32, chain_steps=1, regulariser=0.3)
    problem = ContrastiveDivergence(like, data, data, settings)
    batch = problem.draw(model, named_generator(0, "draw"))
    expected = contrastive_divergence_loss(model.energy, batch.x, batch.other[:, 0], 0.3).mean()
    torch.testing.assert_close(problem.losses(model, batch)[0], expected)


@pytest.mark.parametrize("name", ["cd_0", "cd_1.5", "cd_-1", "cd_", "nce_x", "nce_0", "nce_0.0", "nce_-2", "nce_04"])
def test_sizes_that_make_no_sense_are_refused(name: str) -> None:
    base = name.partition("_")[0]
    with pytest.raises(InputError, match=f"no objective '{name}': behind {base}_ stands how many"):
        named_objective(name)


def test_sized_rows_stand_behind_their_like_where_the_suite_has_it() -> None:
    suite = SUITES["mixture-1d"]
    names = ["cd_3", "pcd", "nce_20", "nce", "nce_0.5", "cd"]
    places = {name: suite.place(name) for name in names}
    assert sorted(names, key=lambda name: places[name]) == ["nce", "nce_0.5", "nce_20", "cd", "cd_3", "pcd"]
    assert SUITES["classical"].place("nce_4") == (1, 0.0)
    assert SUITES["crossed"].place("nce_2") is None
    spec = RowSpec("mixture-1d", "mixture_1d", 1, "nce_0.5", 0)
    assert RowSpec.from_stage("mixture-1d", spec.stage) == spec


@pytest.mark.parametrize("objective", ["nce_1", "cd_1"])
def test_log_z_is_told_where_it_was_learned(objective: str) -> None:
    target = one_sided_target("mixture_2d", 2)
    trained = train_one_sided(target, PATHS["vp"], objective, 0, OneSidedSizes(steps=2, samples=100, **TINY))
    learned = LearnedDensity(trained, PATHS["vp"])
    names = {metric.name for metric in quadrature_metrics(learned, plane_density(learned))}
    names |= {metric.name for metric in measure(trained, PATHS["vp"], 0, OneSidedSizes(**TINY))}
    assert {"log_z_error.learned", "kullback_leibler"} & names == (
        {"log_z_error.learned", "kullback_leibler"} if objective == "nce_1" else set()
    )


@pytest.mark.parametrize(
    ("suite", "dims", "targets", "objectives", "pictures"),
    [
        ("rings", (), (), ("dsm", "nce"), ["rings"]),
        ("two-modes", (1, 2), (), ("dsm_diffclf",), ["two-modes"]),
        (
            "classical",
            (),
            (),
            ("nce_16", "cd_1", "dsm_diffclf"),
            ["classical-mixture_2d", "classical-mixture_2d-weights"],
        ),
        (
            "classical",
            (),
            ("gaussian",),
            ("nce_1", "dsm_diffclf"),
            ["classical-gaussian", "classical-gaussian-weights"],
        ),
    ],
)
def test_every_suite_runs_and_draws(
    suite: str,
    dims: tuple[int, ...],
    targets: tuple[str, ...],
    objectives: tuple[str, ...],
    pictures: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    preset = SUITES[suite].presets["quick"]
    monkeypatch.setitem(preset.__dict__, "sizes", {**preset.sizes, **TINY})
    config = BenchmarkConfig(
        suite=suite,
        dims=dims,
        targets=targets,
        objectives=objectives,
        seeds=(0,),
        steps=2,
        samples=100,
        out=tmp_path,
        threads=1,
    )
    result = run(config)
    assert all(math.isfinite(row.value) for row in result.rows)
    assert {row.objective for row in result.rows if row.metric == SUITES[suite].headline} == set(objectives)
    assert sorted(path.stem for path in (tmp_path / "figures").glob("*.png")) == sorted(pictures)
    assert SUITES[suite].headline in capsys.readouterr().out
    if suite == "classical":
        assert len(mode_weights_figure(result.rows).axes) == 1 + len(objectives)
        assert len(costs_figure(result.rows).axes) == 2


def test_a_figure_of_many_objectives_shows_those_of_every_dimension_and_no_error_takes_half_of_it() -> None:
    def legend_of(narrow: int) -> tuple[list[str], float]:
        dims = {"wide": (2, 8, 32), "other": (2, 8, 32), **{f"narrow{k}": (2, 8) for k in range(narrow)}}
        rows = [
            TableRow("mog40", "mog40", dim, name, "all", metric, 100.0, 300.0, None, "")
            for name, several in dims.items()
            for dim in several
            for metric in PANELS
        ]
        figure = dimensions_figure(rows)
        return [text.get_text() for text in figure.legends[0].get_texts()], figure.axes[0].get_ylim()[0]

    assert legend_of(3) == (["wide", "other", "narrow0", "narrow1", "narrow2"], 0.0)
    assert legend_of(7) == (["wide", "other"], 0.0)
