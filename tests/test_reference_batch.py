"""Targets averaged over a reference batch: the mean of every loss stays, its noise goes."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from boltzgen_diffclf.data_gaussian import DataGaussian
from boltzgen_diffclf.errors import InputError
from boltzgen_diffclf.losses import clean_posterior, level_posterior
from boltzgen_diffclf.nets import MlpEnergyNet
from boltzgen_diffclf.noised_energy import NoisedEnergyModel
from boltzgen_diffclf.paths import DiffusionPath, Edm, VariancePreserving, path_levels
from boltzgen_diffclf.streams import named_generator
from boltzgen_diffclf.training import parallel
from boltzgen_diffclf.training.clean_data import CleanSamples, FreshSamples
from boltzgen_diffclf.training.loop import optimise
from boltzgen_diffclf.training.noised_case import Case, NoisedBatch, Setting, coefficients, noised_batch
from boltzgen_diffclf.training.noised_problem import NoisedObjective, NoisedProblem, NoisedSettings
from systems.analytic import MixtureMarginals, mixture_2d

PATHS = [VariancePreserving(), Edm()]
ROWS, OTHERS = 40, 30

pytestmark = pytest.mark.usefixtures("eager_mode")


def drawn(path: DiffusionPath, t: float) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return clean samples, noise, noised samples, their times and other clean samples."""
    stream = named_generator(0, "drawn")
    x, others = (mixture_2d().sample(n, stream) for n in (ROWS, OTHERS))
    z, at = torch.randn(x.shape, generator=stream, dtype=x.dtype), torch.full((ROWS,), t, dtype=x.dtype)
    return x, z, path.sample(x, at, z), at, others


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("t", [0.1, 0.5])
def test_weights_are_those_of_the_conditional_densities(path: DiffusionPath, t: float) -> None:
    x, z, y, at, others = drawn(path, t)
    found = clean_posterior(y, z, coefficients(path, at), others)
    every = torch.cat([x[:, None], others.expand(ROWS, -1, -1)], dim=1)
    rows = [path.conditional_log_density(y, one, at) for one in every.unbind(1)]
    expected = torch.stack(rows, dim=1).softmax(1)
    torch.testing.assert_close(torch.cat([found.own[:, None], found.others], dim=1), expected)
    torch.testing.assert_close(found.mean(x, others), (expected[..., None] * every).sum(1))


@pytest.mark.parametrize("path", PATHS)
def test_the_level_is_told_by_the_mixture_of_all_that_may_be_behind_a_sample(path: DiffusionPath) -> None:
    x, z, y, at, others = drawn(path, 0.4)
    classes = torch.tensor([0.35, 0.4, 0.6], dtype=x.dtype)
    found = level_posterior(
        x[:, None], z[:, None], coefficients(path, at[:, None]), coefficients(path, classes.expand(ROWS, -1)), others
    )
    every = torch.cat([x[:, None], others.expand(ROWS, -1, -1)], dim=1)
    rows = [
        torch.stack([path.conditional_log_density(y, one, t.expand(ROWS)) for one in every.unbind(1)], dim=1)
        for t in classes
    ]
    torch.testing.assert_close(found[:, 0], torch.stack(rows, dim=-1).logsumexp(1).softmax(-1))


@pytest.mark.parametrize("path", PATHS)
def test_the_time_score_is_that_of_the_mixture_of_all_that_may_be_behind_a_sample(path: DiffusionPath) -> None:
    x, z, y, at, others = drawn(path, 0.3)
    every = torch.cat([x[:, None], others.expand(ROWS, -1, -1)], dim=1)

    def log_mixture(t: Tensor) -> Tensor:
        return torch.stack([path.conditional_log_density(y, one, t) for one in every.unbind(1)], dim=1).logsumexp(1)

    t = at.clone().requires_grad_(True)
    expected = torch.autograd.grad(log_mixture(t).sum(), t)[0]
    noising = coefficients(path, at)
    zz, xz = clean_posterior(y, z, noising, others).mean_products(x, y, z, noising, others)
    torch.testing.assert_close(path.time_score_of_products(at, zz, xz, 2), expected)


def test_small_distances_are_right_in_single_precision() -> None:
    path, stream = VariancePreserving(), named_generator(4, "near")
    x = 5 + 0.01 * torch.randn(50, 1, generator=stream)
    t = torch.full((50,), 1e-4)
    z = torch.randn(x.shape, generator=stream)
    single = clean_posterior(path.sample(x, t, z), z, coefficients(path, t), x.flip(0))
    x, t, z = x.double(), t.double(), z.double()
    double = clean_posterior(path.sample(x, t, z), z, coefficients(path, t), x.flip(0))
    torch.testing.assert_close(single.logits.double(), double.logits, rtol=1e-3, atol=2e-3)


AVERAGED = ["denoising", "denoising_by_force", "target_score", "classification", "time_score"]


def problem_of(name: str, first: float, settings: NoisedSettings) -> tuple[NoisedProblem, NoisedEnergyModel]:
    """Return a loss as a problem, and a model of random weights."""
    path, stream = VariancePreserving(), named_generator(1, "slopes")
    levels = torch.linspace(first, 0.9, 8, dtype=torch.float64)
    net = MlpEnergyNet(2, stream, hidden=8, layers=1)
    for weight in net.parameters():
        torch.nn.init.normal_(weight, std=0.3, generator=stream)
    model = NoisedEnergyModel(net, path, DataGaussian(torch.zeros(2), 8 * torch.ones(())), levels).double()
    data = FreshSamples(mixture_2d())
    objective = NoisedObjective({name: 1.0}, level_sampler="scattered")
    return NoisedProblem(objective, path, levels, data, data, settings), model


def slope(problem: NoisedProblem, model: NoisedEnergyModel, batch: NoisedBatch, others: int) -> Tensor:
    """Return the gradient of the loss by the weights, with some of the others of a batch."""
    few = batch._replace(others=batch.others[:others], others_score=batch.others_score[:others])
    weights = list(model.net.parameters())
    grown = torch.autograd.grad(problem.losses(model, few).sum(), weights, allow_unused=True)
    return torch.cat([one.flatten() for one in grown if one is not None])


@pytest.mark.parametrize("name", AVERAGED)
def test_others_leave_the_mean_of_the_gradient_alone(name: str) -> None:
    problem, model = problem_of(name, 0.15, NoisedSettings(1, groups=8, group_size=3, reference_batch=24))
    stream, repeats = named_generator(2, "batches"), 100
    batches = [problem.draw(model, stream) for _ in range(repeats)]
    change = torch.stack([slope(problem, model, one, 4) - slope(problem, model, one, 0) for one in batches])
    spread = change.std(0) / repeats**0.5
    moved = spread > 1e-9 * spread.max()
    assert int(moved.sum()) > 30
    assert float((change.mean(0)[moved] / spread[moved]).square().mean()) < 4


@pytest.mark.parametrize("name", AVERAGED)
def test_others_take_the_noise_of_the_gradient_where_there_is_much_noise(name: str) -> None:
    problem, model = problem_of(name, 0.4, NoisedSettings(1, groups=2, group_size=3, reference_batch=1024))
    stream = named_generator(3, "batches")
    batches = [problem.draw(model, stream) for _ in range(40)]
    alone, among, limit = (
        torch.stack([slope(problem, model, one, others) for one in batches]) for others in (0, 64, 1024)
    )
    noise = [float((one - limit).square().sum(1).mean()) for one in (alone, among)]
    assert noise[1] < 0.5 * noise[0]


def test_a_reference_batch_smaller_than_a_step_is_refused() -> None:
    with pytest.raises(InputError, match="a reference batch of 23 is less than the 24 configurations a step"):
        problem_of("denoising", 0.4, NoisedSettings(1, groups=8, group_size=3, reference_batch=23))


def test_many_others_say_what_the_density_says() -> None:
    target, path, stream = mixture_2d(), VariancePreserving(), named_generator(2, "many")
    setting = Setting(path, torch.tensor([0.3, 0.6], dtype=torch.float64))
    clean, others = (FreshSamples(target).draw(n, stream) for n in (200, 20_000))
    level = torch.arange(200)[:, None] % 2
    batch = noised_batch(clean, level, setting, stream, others)
    model = NoisedEnergyModel(
        MlpEnergyNet(2, stream, hidden=4, layers=1),
        path,
        DataGaussian(torch.zeros(2), torch.ones(())),
        setting.levels,
    ).double()
    case = Case(model, batch, setting)
    rows, oracle = batch.rows, MixtureMarginals(target, path)
    exact = torch.stack([oracle.at(float(t)).score(y[None])[0] for y, t in zip(rows.y, rows.t, strict=True)])
    denoised = (rows.y + path.sigma(rows.t)[:, None].square() * exact) / path.alpha(rows.t)[:, None]
    error = (case.clean() - denoised).square().mean()
    assert float(error) < 0.02 * float((rows.x - denoised).square().mean())


def test_held_out_losses_are_taken_over_held_out_others() -> None:
    train, held_out = (CleanSamples(torch.full((5, 2), value), torch.zeros(5, 2)) for value in (0.0, 1.0))

    class Constant:
        def __init__(self, samples: CleanSamples) -> None:
            self.samples = samples

        def draw(self, n: int, generator: torch.Generator) -> CleanSamples:
            return CleanSamples(*(value[:1].expand(n, -1) for value in self.samples))

        draw_beyond = draw

    path, stream = VariancePreserving(), named_generator(3, "held out")
    levels = path_levels(path, 8).float()
    model = NoisedEnergyModel(
        MlpEnergyNet(2, stream, hidden=4, layers=1), path, DataGaussian(torch.zeros(2), torch.ones(())), levels
    )
    problem = NoisedProblem(
        NoisedObjective({"denoising": 1.0}),
        path,
        levels,
        Constant(train),
        Constant(held_out),
        NoisedSettings(1, groups=4, reference_batch=16),
    )
    assert float(problem.draw(model, stream).others.mean()) == 0.0
    assert float(problem.draw_held_out(model, stream).others.mean()) == 1.0
    assert problem.draw(model, stream).others.shape == (16, 1, 2)


def test_processes_share_the_groups_and_not_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, int]] = []
    problem, model = problem_of("denoising", 0.4, NoisedSettings(1, groups=4, group_size=2, reference_batch=8))
    losses = problem.losses

    def spy(model: NoisedEnergyModel, batch: NoisedBatch) -> Tensor:
        seen.append((len(batch.y), len(batch.others)))
        return losses(model, batch)

    monkeypatch.setattr(problem, "losses", spy)
    monkeypatch.setattr(parallel, "share", lambda tensor: tensor.chunk(2)[0])
    optimise(model, problem, NoisedSettings(1, groups=4, group_size=2, reference_batch=8))
    assert seen
    assert set(seen) == {(4, 8)}
