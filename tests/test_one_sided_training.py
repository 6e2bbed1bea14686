"""One-sided training: every objective by name learns, goes on after a kill bit for bit, and is measured truly."""

from __future__ import annotations

import math
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from boltzgen_diffclf.data_energy import DataEnergyModel
from boltzgen_diffclf.data_gaussian import DataGaussian
from boltzgen_diffclf.errors import InputError, TrainingDivergedError
from boltzgen_diffclf.losses import target_score_matching_loss
from boltzgen_diffclf.nets import MlpEnergyNet, MultiLevelNet, SquashedMlpTrunk, WellEnergyNet
from boltzgen_diffclf.noised_energy import NoisedEnergyModel
from boltzgen_diffclf.paths import VariancePreserving, path_levels, uniform_levels
from boltzgen_diffclf.streams import named_generator
from boltzgen_diffclf.training.clean_data import CleanSamples, FixedPool, FreshSamples
from boltzgen_diffclf.training.data_problem import DataObjective, DataSettings, PersistentContrastiveDivergence
from boltzgen_diffclf.training.level_curves import profile_curve
from boltzgen_diffclf.training.loop import LoopSettings, Progress, TrainingResult, optimise
from boltzgen_diffclf.training.noised_case import Setting
from boltzgen_diffclf.training.noised_problem import NoisedObjective, NoisedProblem, NoisedSettings
from boltzgen_diffclf.training.objectives import DATA_OBJECTIVES, NOISED_OBJECTIVES, named_objective
from systems.analytic import GaussianMixture, MixtureMarginals, mixture_1d
from tests.metric_names import by_name
from workflows.benchmark_suites.line_density import PATH as LATE_PATH
from workflows.benchmark_suites.line_density import density_metrics
from workflows.benchmark_suites.mog40 import MOG40, exact_row, row_sizes
from workflows.benchmark_suites.one_sided import measure
from workflows.benchmark_suites.one_sided_objectives import NOISED, NOISELESS, SIZED
from workflows.benchmark_suites.one_sided_rows import LONGER
from workflows.benchmark_suites.one_sided_training import (
    OneSidedSizes,
    Trained,
    one_sided_target,
    train_one_sided,
)
from workflows.benchmark_suites.suite import RowSpec

PATH = VariancePreserving(t_max=1 - 1e-4)
LEVELS = uniform_levels(12, 1e-2, 0.99).float()
TARGET = mixture_1d()
DATA = FreshSamples(TARGET)
TINY = OneSidedSizes(
    steps=6, groups=8, hidden=8, layers=1, levels=12, samples=400, level_pool=8, measured=200, particles=40
)


pytestmark = pytest.mark.usefixtures("eager_mode")


def gaussian(target: GaussianMixture = TARGET) -> DataGaussian:
    return DataGaussian(target.mean.float(), target.variance.float())


def noised_model(*, one_pass: bool = False, hidden: int = 16, data: DataGaussian | None = None) -> NoisedEnergyModel:
    stream = named_generator(0, "weights")
    net = MlpEnergyNet(1, stream, hidden=hidden, layers=2)
    if one_pass:
        net = MultiLevelNet(SquashedMlpTrunk(1, stream, hidden=hidden, layers=2), 2 * hidden, stream)
    return NoisedEnergyModel(net, PATH, data or gaussian(), LEVELS)


def train_noised(
    objective: NoisedObjective, settings: NoisedSettings, model: NoisedEnergyModel, **changes: object
) -> TrainingResult:
    return optimise(model, NoisedProblem(objective, PATH, LEVELS, DATA, DATA, settings), settings, **changes)


def data_model() -> DataEnergyModel:
    return DataEnergyModel(MlpEnergyNet(1, named_generator(0, "weights"), hidden=16, layers=2), gaussian())


def train_data(objective: DataObjective, settings: DataSettings, **changes: object) -> TrainingResult:
    settings = objective.settled(settings)
    return optimise(data_model(), objective.problem(LEVELS, DATA, DATA, settings), settings, **changes)


def divergence(model: DataEnergyModel) -> float:
    """Return KL(data || exp(-U) / Z) by quadrature."""
    x = torch.linspace(-8, 8, 2001)[:, None]
    with torch.no_grad():
        ours, exact = torch.log_softmax(-model.energy(x), 0), torch.log_softmax(TARGET.log_density(x.double()), 0)
    return float((exact.exp() * (exact - ours)).sum())


@pytest.mark.parametrize(
    ("name", "shape"), [("dsm", (256, 1)), ("dsm_diffclf_all", (256, 1)), ("dsm_diffclf", (64, 4))]
)
def test_groups_have_several_levels_only_where_these_are_compared(name: str, shape: tuple[int, int]) -> None:
    problem = NoisedProblem(NOISED_OBJECTIVES[name], PATH, LEVELS, DATA, DATA, NoisedSettings(1, groups=64))
    assert problem.draw(noised_model(one_pass="all" in name), named_generator(0, "draw")).level.shape == shape


@pytest.mark.parametrize("name", list(NOISED_OBJECTIVES))
def test_every_objective_of_a_noised_energy_learns(name: str) -> None:
    # The fast waves of the time features make time scores stiff, and perturbations say little each: both take smaller
    # steps, and more of them.
    steps, rate = (150, 5e-4) if "ctsm" in name or name == "cnce" else (25, 5e-3)
    settings = NoisedSettings(
        steps, groups=64, learning_rate=rate, curve_learning_rate=1e-2, ema_decay=0.7, log_every=25, warm_up=0.1
    )
    problem = NoisedProblem(NOISED_OBJECTIVES[name], PATH, LEVELS, DATA, DATA, settings)
    # A prior that is wrong leaves every objective much to learn at once.
    wrong = DataGaussian(TARGET.mean.float() + 1.5, 3 * TARGET.variance.float())
    before, model = (noised_model(one_pass="all" in name, data=wrong) for _ in range(2))
    after = optimise(model, problem, settings).model
    batch = problem.draw_held_out(after, named_generator(1, "unseen"))
    totals = [float((problem.weights * problem.losses(one, batch)).detach().sum()) for one in (before, after)]
    assert all(math.isfinite(total) for total in totals)
    assert totals[1] < totals[0]


@pytest.mark.parametrize("name", list(DATA_OBJECTIVES))
def test_every_objective_of_a_data_energy_comes_closer_to_the_data(name: str) -> None:
    # Chains of one step hardly leave the data: what they tell is little, and takes longer to learn from.
    steps = 150 if name == "cd_1" else 30
    settings = DataSettings(steps, groups=256, chain_steps=5, learning_rate=1e-2, ema_decay=0.5, log_every=30)
    result = train_data(DATA_OBJECTIVES[name], settings)
    assert divergence(result.model) < 0.99 * divergence(data_model())


def test_an_unknown_objective_is_refused_with_the_nearest() -> None:
    with pytest.raises(InputError, match="no objective 'dsm-diff-clf'; did you mean 'dsm_diffclf'"):
        named_objective("dsm-diff-clf")
    with pytest.raises(InputError, match="did you mean 'fokker_planck'"):
        named_objective("fokkerplanck")


class KilledError(Exception):
    pass


def kill(step: int, steps: int, record: object) -> None:
    if step == 7:
        raise KilledError


@pytest.mark.parametrize("name", ["pcd", "cd", "dsm_diffclf", "dsm_diffclf_cnce_cd"])
def test_a_killed_training_ends_in_the_same_numbers(name: str, tmp_path: Path) -> None:
    def run(file: str, **changes: object) -> TrainingResult:
        size = {"steps": 10, "groups": 16, "log_every": 1, "checkpoint_every": 3, "learning_rate": 1e-2}
        changes["checkpoint"] = tmp_path / file
        if name in DATA_OBJECTIVES:
            return train_data(DATA_OBJECTIVES[name], DataSettings(**size, chain_steps=2, chains=32), **changes)
        return train_noised(NOISED_OBJECTIVES[name], NoisedSettings(**size), noised_model(), **changes)

    whole = run("whole")
    with pytest.raises(KilledError):
        run("killed", progress=kill)
    resumed = run("killed")
    assert resumed.history == whole.history
    for one, other in zip(resumed.model.state_dict().values(), whole.model.state_dict().values(), strict=True):
        assert torch.equal(one, other)


def test_pretraining_is_a_phase_of_its_own_and_a_killed_one_ends_in_the_same_numbers(tmp_path: Path) -> None:
    sizes = OneSidedSizes(steps=12, groups=8, hidden=8, layers=1, levels=9, samples=200, profile_pool=20)

    def run(name: str, progress: Progress | None = None) -> Trained:
        file = tmp_path / f"{name}.safetensors"
        return train_one_sided(TARGET, PATH, "dsm_diffclf", 0, sizes, checkpoint=file, progress=progress)

    seen: list[tuple[int, int]] = []
    whole = run("whole", lambda step, steps, record: seen.append((step, steps)))
    assert seen == [(step, 12) for step in (3, 12)]
    # Nine levels are too far apart, and training gave the curve more.
    assert len(whole.model.curve.levels) == len(whole.learned_curve) > 9
    # Denoising alone costs two evaluations a configuration; naming one of four levels asks for three more.
    assert whole.network_evaluations == 3 * 8 * 4 * 2 + 9 * 8 * 4 * (2 + 3)
    with pytest.raises(KilledError):
        run("killed", kill_late)
    resumed = run("killed")
    assert torch.equal(resumed.learned_curve, whole.learned_curve)
    for one, other in zip(resumed.model.state_dict().values(), whole.model.state_dict().values(), strict=True):
        assert torch.equal(one, other)


def kill_late(step: int, steps: int, record: object) -> None:
    if step > 6:
        raise KilledError


def test_groups_of_another_size_are_another_training(tmp_path: Path) -> None:
    """Both have the same losses with the same weights, and settings that differ in nothing."""
    settings, file = NoisedSettings(1, groups=4, group_size=4), tmp_path / "state.safetensors"
    train_noised(named_objective("dsm_diffclf"), settings, noised_model(), checkpoint=file)
    with pytest.raises(InputError, match="its levels of a group is 4, this one's is 2"):
        train_noised(named_objective("dsm_diffclf_binary"), settings, noised_model(), checkpoint=file)


def test_persistent_chains_are_part_of_the_checkpoint() -> None:
    settings = DataSettings(2, groups=16, chain_steps=2, chains=32)
    first = PersistentContrastiveDivergence(LEVELS, DATA, DATA, settings)
    first.draw(data_model(), named_generator(0, "a"))
    second = PersistentContrastiveDivergence(LEVELS, DATA, DATA, settings)
    second.restore({name: tensor.clone() for name, tensor in first.state.items()})
    before = first.state["position"].clone()
    first.draw_held_out(data_model(), named_generator(0, "c"))
    assert torch.equal(first.state["position"], before)
    batches = [problem.draw(data_model(), named_generator(0, "b")) for problem in (first, second)]
    assert all(torch.equal(*pair) for pair in zip(*batches, strict=True))
    assert not torch.equal(first.state["position"], before)


class StiffnessNet(torch.nn.Module):
    """Adds to the Gaussian of the data what makes it stiffer."""

    def __init__(self, stiffer: float) -> None:
        super().__init__()
        self.stiffer = torch.nn.Parameter(torch.tensor(stiffer))

    def forward(self, h: Tensor, t: Tensor) -> Tensor:
        return 0.5 * self.stiffer * h.square().sum(-1)


def test_held_out_negatives_of_persistent_chains_are_where_the_chains_are() -> None:
    """They may have found a hole far from all data, which short chains from held-out data would never tell."""
    settings = DataSettings(2, groups=64, chains=64, chain_steps=2)
    problem = PersistentContrastiveDivergence(LEVELS, DATA, DATA, settings)
    model, generator = data_model(), torch.Generator().manual_seed(0)
    problem.companions(model, torch.zeros(64, 1), generator)
    problem.position = torch.full_like(problem.position, 40.0)
    before, step_size = problem.position.clone(), problem.step_size.clone()
    negatives = problem.held_out_companions(model, torch.zeros(64, 1), generator)
    assert float((negatives[:, 0, 0] > 20).double().mean()) > 0.8
    assert torch.equal(problem.position, before)
    assert torch.equal(problem.step_size, step_size)


@pytest.mark.parametrize("stiffer", [-0.3, 0.0, 0.3])
def test_persistent_chains_as_they_are_run_pull_to_the_exact_density(stiffer: float) -> None:
    # Of Gaussian data the restarts follow the data, and bend nothing.
    data = FreshSamples(GaussianMixture(torch.ones(1).double(), TARGET.mean[None], TARGET.variance.sqrt()[None]))
    model = DataEnergyModel(StiffnessNet(stiffer), gaussian())
    problem = PersistentContrastiveDivergence(LEVELS, data, data, DataSettings(2, groups=256, chain_steps=10))
    stream, slopes = named_generator(0, "chains"), []
    for _ in range(120):
        (loss,) = problem.losses(model, problem.draw(model, stream))
        slopes.append(torch.autograd.grad(loss, model.get_submodule("net").stiffer)[0])
    settled = torch.stack(slopes[40:])
    exact = 0.5 - 0.5 / (1 + stiffer)  # of the mean energy of the data less that of the model
    assert float(settled.mean()) == pytest.approx(exact, abs=0.02)


def test_a_fixed_pool_gives_nothing_but_its_samples() -> None:
    pool = CleanSamples(torch.arange(5.0)[:, None], torch.arange(5.0)[:, None] ** 2)
    drawn = FixedPool(pool).draw(50, named_generator(0, "pool"))
    assert set(drawn.x.flatten().tolist()) == {0.0, 1.0, 2.0, 3.0, 4.0}
    assert torch.equal(drawn.score, drawn.x**2)


def test_profiling_finds_the_constants_of_the_energies() -> None:
    model = noised_model().double()
    data = FreshSamples(GaussianMixture(torch.ones(1).double(), TARGET.mean[None], TARGET.variance.sqrt()[None]))
    torch.nn.init.normal_(model.curve.values, generator=named_generator(0, "curve"))
    # A fresh energy of Gaussian data is normalised at every level: F must vanish.
    profile_curve(model, data, Setting(PATH, LEVELS.double()), 2000, named_generator(1, "profile"))
    assert float(model.free_energy(LEVELS.double()).detach().abs().max()) < 0.1
    for parameter in model.parameters():
        torch.nn.init.constant_(parameter, math.nan)
    with pytest.raises(TrainingDivergedError, match=r"no level free energies \(.*lower the learning rate"):
        profile_curve(model, data, Setting(PATH, LEVELS.double()), 2000, named_generator(1, "profile"))


def test_measures_are_perfect_for_a_perfect_model() -> None:
    target = GaussianMixture(torch.ones(1).double(), torch.tensor([[1.0, -2.0]]).double(), torch.tensor([0.6]).double())
    data = DataGaussian(target.mean, target.variance)
    levels = path_levels(PATH, 12)
    model = NoisedEnergyModel(MlpEnergyNet(2, named_generator(0, "w"), hidden=8, layers=1), PATH, data, levels)
    metrics = by_name(measure(Trained(target, model.double(), torch.zeros(12).double(), 0.0, 0), PATH, 0, TINY))
    for name in ("learned_f", "model_f"):
        assert metrics[f"excess_classification.{name}"].value == pytest.approx(0.0, abs=1e-9)
    assert metrics["fisher.mean"].value == pytest.approx(0.0, abs=1e-9)
    assert metrics["effective_fraction"].value == pytest.approx(1.0)
    assert metrics["energy_mode_total_variation"].value == pytest.approx(0.0, abs=1e-9)
    assert abs(metrics["reverse_mmd_squared"].value) < 4 * metrics["reverse_mmd_squared"].stderr
    assert abs(metrics["kullback_leibler.model_f"].value) < 1e-9
    root = metrics["reverse_mmd"]
    assert root.value == pytest.approx(math.sqrt(max(metrics["reverse_mmd_squared"].value, 0.0)))
    for name in ("reverse_w1", "reverse_w2", "reverse_sliced_ks"):
        assert 0 < metrics[name].value < 2 * metrics[name].limit
    wrong = by_name(measure(Trained(target, model, torch.linspace(0, 3, 12).double(), 0.0, 0), PATH, 0, TINY))
    assert wrong["excess_classification.learned_f"].value > 0.05
    assert wrong["free_energy_rms.learned_f"].value > 0.5


def test_the_exact_row_says_what_measures_are_at_best() -> None:
    sizes = {**vars(TINY), "measured": 1000, "particles": 400, "annealing_levels": 100, "levels": 96}
    metrics = by_name(exact_row(RowSpec("mog40", "mog40", 2, "exact_density", 0), sizes))
    for name in ("excess_classification.learned_f", "excess_classification.model_f", "fisher.mean"):
        assert metrics[name].value == pytest.approx(0.0, abs=1e-9)
    assert metrics["effective_fraction"].value == pytest.approx(1.0)
    assert metrics["energy_mode_total_variation"].value < 0.2
    # Particles lose some of what as many exact samples know, and no more.
    assert metrics["smc_mode_total_variation"].value < 2.5 * metrics["smc_mode_total_variation"].limit
    assert metrics["reverse_mode_total_variation"].value < 2 * metrics["reverse_mode_total_variation"].limit
    assert metrics["network_evaluations"].value == 0


@pytest.mark.parametrize("objective", ["dsm_diffclf", "dsm_diffclf_all", "pcd"])
def test_a_row_is_made_of_finite_numbers(objective: str) -> None:
    trained = train_one_sided(one_sided_target("mog40", 2), PATH, objective, 0, TINY)
    metrics = by_name(measure(trained, PATH, 0, TINY))
    assert all(math.isfinite(metric.value) for metric in metrics.values())
    assert metrics["network_evaluations"].value > 0
    assert ("excess_classification.profiled_f" in metrics) == (objective != "pcd")


def test_classification_gives_separated_modes_the_weights_that_denoising_alone_leaves_open() -> None:
    target = mixture_1d((0.25, 0.75), (-4.0, 4.0), (0.5, 0.7))
    sizes = OneSidedSizes(
        250, 64, hidden=32, layers=2, levels=16, level_pool=16, samples=5000, learning_rate=1e-2, averaged_steps=20
    )

    def errors(objective: str) -> list[float]:
        trained = [train_one_sided(target, LATE_PATH, objective, seed, sizes) for seed in (0, 1)]
        return [abs(by_name(density_metrics(one))["left_weight"].value - 0.25) for one in trained]

    assert max(errors("dsm_diffclf")) < 0.1
    assert max(errors("dsm")) > 0.3


def test_an_unknown_target_is_refused() -> None:
    with pytest.raises(InputError, match="no one-sided target 'mog4'"):
        one_sided_target("mog4", 2)


class Shifted(torch.nn.Module):
    """A network that adds to a Gaussian energy what makes it the mixture, its left mode ``lift`` kT too high."""

    def __init__(self, data: DataGaussian, lift: float) -> None:
        super().__init__()
        self.data, self.lift = data, lift

    def forward(self, h: Tensor, t: Tensor) -> Tensor:
        x = self.data.mean + self.data.variance.sqrt() * h
        prior = 0.5 * h.square().sum(-1) + 0.5 * (2 * math.pi * self.data.variance).log().sum()
        return -TARGET.log_density(x) - prior + self.lift * (x[:, 0] < 0)


def test_the_left_weight_and_the_densities_are_those_of_the_energy() -> None:
    data = DataGaussian(TARGET.mean, TARGET.variance)
    trained = Trained(TARGET, DataEnergyModel(Shifted(data, math.log(3)), data).double(), torch.zeros(0), 0.0, 0)
    metrics = by_name(density_metrics(trained))
    assert metrics["left_weight"].limit == pytest.approx(0.25, abs=2e-3)
    assert metrics["left_weight"].value == pytest.approx(0.1, abs=2e-3)
    curve = [metric for metric in metrics.values() if metric.name.startswith("density@")]
    spacing = (float(curve[-1].name[8:]) - float(curve[0].name[8:])) / (len(curve) - 1)
    assert spacing * sum(metric.value for metric in curve) == pytest.approx(1.0, abs=1e-3)


def test_the_suites_know_every_objective() -> None:
    assert {*NOISED, *(objective for objective, _ in LONGER.values())} == set(NOISED_OBJECTIVES)
    assert {*NOISELESS, *SIZED} == set(DATA_OBJECTIVES)


@pytest.mark.parametrize(
    ("dims", "objectives", "expected"),
    [
        ((), (), {2: 8 * 3 + 24, 8: 8 * 3 + 24, 32: 8 * 3, 128: 9 * 3}),
        ((2, 128), (), {2: 8 * 3 + 24, 128: 9 * 3}),
        ((), ("cnce",), {2: 1, 8: 1}),
        ((8, 32), ("dsm", "cnce"), {8: 3 + 1, 32: 3 + 3}),
    ],
)
def test_all_objectives_run_where_they_are_affordable_or_asked_for(
    dims: tuple[int, ...], objectives: tuple[str, ...], expected: dict[int, int]
) -> None:
    specs = MOG40.rows("standard", dims, objectives)
    assert len(set(specs)) == len(specs)
    assert {dim: sum(spec.dim == dim for spec in specs) for dim in {spec.dim for spec in specs}} == expected


def test_few_dimensions_have_a_smaller_network_at_the_same_steps() -> None:
    sizes = {"steps": 10, "hidden": 64, "layers": 4, "few_hidden": 16, "few_layers": 2}
    assert row_sizes(32, sizes) == {"steps": 10, "hidden": 64, "layers": 4}
    assert row_sizes(8, sizes) == {"steps": 10, "hidden": 16, "layers": 2}


def test_wells_are_as_stiff_as_the_factor_of_their_energy_has_it() -> None:
    target = one_sided_target("two_modes", 4)
    plain, wells = (
        train_one_sided(target, PATH, "dsm_diffclf", 0, replace(TINY, wells_from=first)).model for first in (5, 4)
    )
    assert isinstance(plain, NoisedEnergyModel)
    assert isinstance(wells, NoisedEnergyModel)
    assert type(plain.net) is MlpEnergyNet
    assert isinstance(wells.net, WellEnergyNet)
    ends = wells.net_weight(wells.curve.levels[[0, -1]]).log()
    torch.testing.assert_close(ends, ends.new_tensor(wells.net.log_factors), rtol=1e-5, atol=1e-5)


def test_one_schedule_goes_through_both_phases(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[LoopSettings] = []

    def watched(model: NoisedEnergyModel, problem: NoisedProblem, settings: LoopSettings, **state: object) -> object:
        asked.append(settings)
        return optimise(model, problem, settings, **state)

    monkeypatch.setattr("boltzgen_diffclf.training.noised_training.optimise", watched)
    objective = replace(NOISED_OBJECTIVES["dsm_diffclf"], pretraining=0.25)
    train_one_sided(one_sided_target("two_modes", 2), PATH, objective, 0, replace(TINY, steps=40))
    first, second = asked
    whole = LoopSettings(40, hold=second.hold)
    assert whole.rate(2) == whole.rate(16) == 1.0 > whole.rate(18)
    assert first.rate(9) == pytest.approx(whole.rate(9), abs=0.05)
    assert first.rate(9) > 0.8
    # After a warm-up of its own the second goes on where the first was, down to one hundredth.
    assert second.rate(0) < second.rate(2)
    assert second.rate(15) == pytest.approx(whole.rate(25), abs=0.05)
    assert second.rate(29) == pytest.approx(whole.rate(39), abs=0.01)


def test_every_level_of_a_group_has_a_clean_sample_of_its_own() -> None:
    settings = NoisedSettings(1, groups=5, group_size=3)
    data = FreshSamples(TARGET)
    levels = path_levels(PATH, 6)
    problem = NoisedProblem(NOISED_OBJECTIVES["diffclf"], PATH, levels, data, data, settings)
    model = NoisedEnergyModel(MlpEnergyNet(1, named_generator(0, "w"), hidden=8, layers=1), PATH, gaussian(), levels)
    assert len(problem.draw(model.double(), named_generator(0, "batch")).x.unique()) == 15


def test_target_score_matching_is_stationary_at_the_exact_energy() -> None:
    oracle, n = MixtureMarginals(TARGET, PATH), 20_000
    stream = named_generator(3, "target score")
    x = TARGET.sample(n, stream)
    t, z = torch.full((n,), 0.3, dtype=torch.float64), torch.randn(n, 1, generator=stream, dtype=torch.float64)
    y, factor = PATH.sample(x, t, z), torch.ones((), dtype=torch.float64, requires_grad=True)
    losses = target_score_matching_loss(factor * oracle.gradient(y, t), TARGET.score(x), PATH.alpha(t), 1)
    # Per-sample slopes in the scale of the energy: zero on average at the exact one, and not without the factor alpha.
    slopes = (
        2
        * PATH.alpha(t)
        * oracle.gradient(y, t)[:, 0]
        * (PATH.alpha(t) * oracle.gradient(y, t)[:, 0] + TARGET.score(x)[:, 0])
    )
    (slope,) = torch.autograd.grad(losses.mean(), factor)
    torch.testing.assert_close(slope, slopes.mean())
    assert float(slope.abs()) < 4 * float(slopes.std()) / math.sqrt(n)
    wrong = target_score_matching_loss(factor * oracle.gradient(y, t), TARGET.score(x), torch.ones(n).double(), 1)
    assert float(torch.autograd.grad(wrong.mean(), factor)[0].abs()) > 0.1


COMPILED_STEP = """
import torch
from boltzgen_diffclf.nets import MlpEnergyNet
from boltzgen_diffclf.data_gaussian import DataGaussian
from boltzgen_diffclf.noised_energy import NoisedEnergyModel
from boltzgen_diffclf.paths import VariancePreserving, uniform_levels
from boltzgen_diffclf.training.clean_data import CleanSamples, FixedPool
from boltzgen_diffclf.training.noised_case import Case
from boltzgen_diffclf.training.noised_losses import NOISED_LOSSES
from boltzgen_diffclf.training.noised_problem import NoisedProblem, NoisedSettings
from boltzgen_diffclf.training.objectives import NOISED_OBJECTIVES

path, levels = VariancePreserving(t_max=1 - 1e-4), uniform_levels(12, 1e-2, 0.99).float()
draw = torch.Generator().manual_seed(0)
samples = torch.randn(64, 8, generator=draw)
pool = FixedPool(CleanSamples(samples, -samples))
net = MlpEnergyNet(8, draw, hidden=256, layers=4)
model = NoisedEnergyModel(net, path, DataGaussian(torch.zeros(8), torch.ones(8)), levels)
settings = NoisedSettings(2, groups=128, reference_batch=512)
problem = NoisedProblem(NOISED_OBJECTIVES["dsm_ctsm"], path, levels, pool, pool, settings)
batch = problem.draw(model, draw)
losses = problem.losses(model, batch)
losses.sum().backward()
eager = [NOISED_LOSSES[name].mean(Case(model, batch, problem.setting)) for name in problem.names]
torch.testing.assert_close(losses, torch.stack(eager))
"""


@pytest.mark.skipif(shutil.which("g++") is None, reason="compiles")
def test_time_scores_of_a_wide_network_survive_compilation() -> None:
    # In a process of its own: the run-time checks of types do not compile.
    surroundings = {name: value for name, value in os.environ.items() if name != "BOLTZGEN_EAGER"}
    done = subprocess.run(
        [sys.executable, "-c", COMPILED_STEP],
        env=surroundings,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
