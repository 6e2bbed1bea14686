"""Suite ``classifier``: perfect for the exact posterior, trained by the one loop, and measured truly."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from boltzgen_diffclf.data_gaussian import DataGaussian
from boltzgen_diffclf.errors import InputError
from boltzgen_diffclf.nets import (
    ClassificationDiffusion,
    LevelClassifierNet,
    MlpEnergyNet,
    NoiseMlp,
    NoisePrediction,
    cosine_alpha_bar,
)
from boltzgen_diffclf.noised_energy import NoisedEnergyModel
from boltzgen_diffclf.streams import named_generator
from boltzgen_diffclf.training.clean_data import FreshSamples
from boltzgen_diffclf.training.level_problem import (
    ClassifierProblem,
    ClassifierWeights,
    LevelSettings,
    NoisePredictionProblem,
    systematic_levels,
)
from boltzgen_diffclf.training.loop import TrainingResult, optimise
from systems.analytic import GaussianMixture
from tests.metric_names import by_name
from workflows.benchmark import BenchmarkConfig, run
from workflows.benchmark_suites import SUITES
from workflows.benchmark_suites.classifier import OBJECTIVES
from workflows.benchmark_suites.classifier_measures import density_metrics, measure
from workflows.benchmark_suites.classifier_training import (
    ENERGY_PATH,
    ClassifierSizes,
    EnergyPosterior,
    ExactPosterior,
    TrainedLevels,
    classifier_target,
    exact_levels,
    train_levels,
)
from workflows.benchmark_suites.suite import Metric
from workflows.report.classifier_figure import classifier_figure

ALPHA_BAR = cosine_alpha_bar(8)
TINY = ClassifierSizes(steps=4, groups=16, hidden=8, layers=1, levels=6, samples=200, measured=100, averaged_steps=2)


pytestmark = pytest.mark.usefixtures("eager_mode")


def measured(model: nn.Module, dim: int, n: int = 500) -> dict[str, Metric]:
    return by_name(measure(TrainedLevels(classifier_target(dim), model, 0.0, 0), 0, n))


class Bent(nn.Module):
    """The exact posterior, with what ``bend`` says added to the logits of the data."""

    def __init__(self, dim: int, bend: object) -> None:
        super().__init__()
        self.exact, self.bend = ExactPosterior(classifier_target(dim), ALPHA_BAR), bend

    def forward(self, y: Tensor) -> Tensor:
        logits = self.exact(y)
        return torch.cat([logits[:, :1] + self.bend(y), logits[:, 1:]], dim=-1)  # type: ignore[operator]


@pytest.mark.parametrize("dim", [1, 2])
def test_the_exact_classifier_is_perfect_by_every_measure(dim: int) -> None:
    metrics = measured(exact_levels(classifier_target(dim), 10), dim)
    assert metrics["integral"].value == pytest.approx(1.0, abs=1e-8)
    for name in ("kullback_leibler", "log_density_rms", "excess_cross_entropy", "excess_denoising.mean"):
        assert metrics[name].value == pytest.approx(0.0, abs=1e-8)
    for name in ("cross_entropy", "log_likelihood"):
        assert metrics[name].value == pytest.approx(metrics[name].limit, abs=1e-8)
    assert sum(name.startswith("excess_denoising@") for name in metrics) == 8
    assert all(math.isfinite(metric.value) for metric in metrics.values())


def test_a_wrong_constant_is_seen_by_the_integral_and_a_wrong_shape_by_the_divergence() -> None:
    constant = measured(ClassificationDiffusion(Bent(1, lambda y: math.log(2) + 0 * y), ALPHA_BAR), 1)
    assert constant["integral"].value == pytest.approx(2.0, abs=1e-6)
    assert constant["kullback_leibler"].value == pytest.approx(0.0, abs=1e-6)
    assert constant["log_density_rms"].value == pytest.approx(math.log(2), abs=1e-6)
    assert constant["log_likelihood"].value == pytest.approx(constant["log_likelihood"].limit + math.log(2), abs=1e-6)
    assert constant["excess_cross_entropy"].value > 4 * constant["excess_cross_entropy"].stderr
    # exp(a x) p(x): the divergence is log E exp(a x) - a E x, for unit variance about a^2 / 2.
    shape = measured(ClassificationDiffusion(Bent(1, lambda y: 0.1 * y), ALPHA_BAR), 1)
    assert shape["kullback_leibler"].value == pytest.approx(0.005, abs=5e-4)
    assert shape["excess_denoising.mean"].value == pytest.approx(0.0, abs=1e-8)


def test_the_excess_of_a_denoiser_is_its_squared_distance_to_the_exact_one() -> None:
    target = classifier_target(2)

    class Off(NoisePrediction):
        def denoiser(self, y: Tensor, t: Tensor) -> Tensor:
            return exact_levels(target, 10).denoiser(y, t).detach() + 0.1 * t[:, None]

    metrics = measured(Off(nn.Identity(), ALPHA_BAR), 2)
    assert metrics["excess_denoising@0.3333"].value == pytest.approx(0.09)
    assert metrics["excess_denoising.high_noise"].value == pytest.approx((0.49 + 0.64) / 2)
    assert metrics["excess_denoising.mean"].value == pytest.approx(sum(t**2 for t in range(1, 9)) / 800)
    assert "integral" not in metrics


def test_an_energy_of_gaussian_data_is_the_exact_classifier_before_training() -> None:
    data = GaussianMixture(torch.ones(1).double(), torch.zeros(1, 1).double(), torch.ones(1).double())
    net = MlpEnergyNet(1, named_generator(0, "w"), hidden=8, layers=1)
    times = torch.tensor([ENERGY_PATH.t_min, 0.2, 0.6], dtype=torch.float64)
    energy = NoisedEnergyModel(net, ENERGY_PATH, DataGaussian(data.mean, data.variance), times).double()
    y = data.sample(20, named_generator(1, "y"))
    densities = ClassificationDiffusion(EnergyPosterior(energy, times), cosine_alpha_bar(2)).log_densities(y)
    torch.testing.assert_close(densities.detach(), data.log_density(y)[:, None].expand(20, 4))


def test_a_short_training_comes_closer_by_every_measure() -> None:
    target = classifier_target(1)
    sizes = ClassifierSizes(
        steps=300, groups=128, hidden=32, layers=2, levels=10, samples=5000, averaged_steps=50, measured=500
    )
    stream = named_generator(0, "weights")
    fresh = measured(ClassificationDiffusion(LevelClassifierNet(1, 10, stream), ALPHA_BAR).double(), 1)
    trained = by_name(measure(train_levels(target, "cdm", 0, sizes), 0, 500))
    for name in ("kullback_leibler", "log_density_rms", "excess_cross_entropy", "excess_denoising.mean"):
        assert trained[name].value < 0.5 * fresh[name].value
    assert trained["sampled_sliced_w2"].value < 0.5 * fresh["sampled_sliced_w2"].value
    fresh = measured(NoisePrediction(NoiseMlp(1, stream), ALPHA_BAR).double(), 1)
    plain = by_name(measure(train_levels(target, "plain_denoiser", 0, sizes), 0, 500))
    assert plain["excess_denoising.mean"].value < 0.5 * fresh["excess_denoising.mean"].value


@pytest.mark.slow
def test_a_trained_classifier_in_the_plane_integrates_to_one() -> None:
    sizes = ClassifierSizes(**SUITES["classifier"].presets["quick"].sizes)
    trained = train_levels(classifier_target(2), "cdm", 0, sizes)
    metrics = by_name(density_metrics(trained.model, trained.target))
    assert metrics["integral"].value == pytest.approx(1.0, abs=0.01)
    assert metrics["kullback_leibler"].value < 0.01


class KilledError(Exception):
    pass


def kill(step: int, steps: int, record: object) -> None:
    if step == 7:
        raise KilledError


@pytest.mark.parametrize("name", ["classifier", "plain"])
def test_a_killed_training_ends_in_the_same_numbers(name: str, tmp_path: Path) -> None:
    settings = LevelSettings(10, groups=16, log_every=1, checkpoint_every=3, learning_rate=1e-2)
    data, alpha_bar = FreshSamples(classifier_target(2)), ALPHA_BAR.float()

    def train(file: str, **changes: object) -> TrainingResult:
        changes["checkpoint"], stream = tmp_path / file, named_generator(0, "weights")
        if name == "plain":
            model = NoisePrediction(NoiseMlp(2, stream, hidden=8, layers=1), alpha_bar)
            return optimise(model, NoisePredictionProblem(alpha_bar, data, data, settings), settings, **changes)
        model = ClassificationDiffusion(LevelClassifierNet(2, 10, stream, hidden=8, layers=1), alpha_bar)
        problem = ClassifierProblem(ClassifierWeights(), alpha_bar, data, data, settings)
        return optimise(model, problem, settings, **changes)

    whole = train("whole")
    with pytest.raises(KilledError):
        train("killed", progress=kill)
    resumed = train("killed")
    assert resumed.history == whole.history
    for one, other in zip(resumed.model.state_dict().values(), whole.model.state_dict().values(), strict=True):
        assert torch.equal(one, other)


def test_a_checkpoint_of_other_weights_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "state"
    train_levels(classifier_target(1), "cdm", 0, TINY, checkpoint=file)
    with pytest.raises(InputError, match="objective cross_entropy"):
        train_levels(classifier_target(1), "cdm_denoising", 0, TINY, checkpoint=file)
    with pytest.raises(InputError, match="no objective 'cdn'"):
        train_levels(classifier_target(1), "cdn", 0, TINY)


def test_levels_come_as_often_as_the_prior_says() -> None:
    probabilities = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
    counts = [
        torch.bincount(systematic_levels(probabilities, 7, named_generator(k, "l")), minlength=3) for k in range(400)
    ]
    counts = torch.stack(counts).double()
    assert (counts.sum(1) == 7).all()
    assert ((counts - 7 * probabilities).abs() < 1).all()
    assert ((counts.mean(0) - 7 * probabilities).abs() < 4 * counts.std(0) / 20).all()


@pytest.mark.parametrize("weights", [{"denoising": 0.0, "cross_entropy": 0.0}, {"denoising": -1.0}])
def test_an_objective_that_asks_for_nothing_is_refused(weights: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="non-negative and not both zero"):
        ClassifierWeights(**weights)


def test_the_suite_runs_from_the_command_to_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = {"groups": 16, "hidden": 8, "layers": 1, "levels": 6, "measured": 50, "averaged_steps": 2}
    preset = SUITES["classifier"].presets["quick"]
    monkeypatch.setitem(preset.__dict__, "sizes", {**preset.sizes, **small})
    result = run(BenchmarkConfig(suite="classifier", steps=3, samples=100, out=tmp_path, threads=1))
    assert {(row.dim, row.objective) for row in result.rows} == {(d, name) for d in (1, 2) for name in OBJECTIVES}
    assert all(math.isfinite(row.value) for row in result.rows)
    with (tmp_path / "results.csv").open(encoding="utf-8") as handle:
        lines = {(line["dim"], line["objective"], line["metric"]): line for line in csv.DictReader(handle)}
    assert float(lines["1", "exact_posterior", "integral"]["value"]) == pytest.approx(1.0)
    assert ("1", "plain_denoiser", "integral") not in lines
    densities = {"integral", "log_density_rms", "excess_cross_entropy"}
    for name, wanted in {
        **dict.fromkeys(("cdm", "cdm_cross_entropy", "cdm_denoising"), densities),
        "plain_denoiser": set(),
    }.items():
        for dim in ("1", "2"):
            assert all((dim, name, one) in lines for one in (*wanted, "excess_denoising.high_noise"))
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert all(one in page for one in ("integral", "log density rms", "excess denoising.high noise"))
    figure = classifier_figure(result.rows)
    assert [len(axis.lines) for axis in figure.axes] == [5, 5, 5]
    alone = [row for row in result.rows if (row.dim, row.objective) == (2, "plain_denoiser")]
    assert [len(axis.lines) for axis in classifier_figure(alone).axes] == [1]
    assert (tmp_path / "figures" / "classifier.png").stat().st_size > 10_000
