"""Classification diffusion against the closed form: exact with the exact posterior, and what each loss alone misses."""

from __future__ import annotations

import functools
import math

import pytest
import torch
from torch import Tensor, nn

from boltzgen_diffclf.losses import (
    classification_diffusion_loss,
    noise_level_cross_entropy_loss,
    noise_prediction_loss,
)
from boltzgen_diffclf.nets import ClassificationDiffusion, LevelClassifierNet, cosine_alpha_bar
from systems.analytic import GaussianMixture

STEPS = 8
ALPHA_BAR = cosine_alpha_bar(STEPS)
PRIOR = torch.linspace(1.0, 3.0, STEPS + 2, dtype=torch.float64)
MEANS, WIDTHS, WEIGHTS = ([[-1.2], [0.6]], [0.3, 0.2], [0.3, 0.7])


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def mixture(t: int, dtype: torch.dtype = torch.float64) -> GaussianMixture:
    """Return the density of level ``t``."""
    alpha_bar = float(ALPHA_BAR[t])
    means, widths, weights = (torch.tensor(values, dtype=dtype) for values in (MEANS, WIDTHS, WEIGHTS))
    return GaussianMixture(weights, math.sqrt(alpha_bar) * means, (alpha_bar * widths**2 + 1 - alpha_bar).sqrt())


class ExactPosterior(nn.Module):
    """Logits of the true posterior, moved by an arbitrary function of ``y``, which no class can see."""

    def __init__(self, prior: Tensor) -> None:
        super().__init__()
        self.log_prior = prior.log()

    def forward(self, y: Tensor) -> Tensor:
        densities = torch.stack([mixture(t).log_density(y) for t in range(STEPS + 2)], dim=1)
        return densities + self.log_prior + 3 * torch.sin(y)


@pytest.fixture(params=[None, PRIOR], ids=["equal classes", "unequal classes"])
def exact(request: pytest.FixtureRequest) -> ClassificationDiffusion:
    prior = torch.ones_like(PRIOR) if request.param is None else request.param
    return ClassificationDiffusion(ExactPosterior(prior), ALPHA_BAR, request.param)


def batch(t: int, n: int = 50) -> tuple[Tensor, Tensor]:
    """Return samples of level ``t`` and their labels."""
    return mixture(t).sample(n, generator(t)), torch.full((n,), t)


def test_exact_posterior_gives_exact_densities_that_integrate_to_one(exact: ClassificationDiffusion) -> None:
    grid = torch.linspace(-9, 9, 6001, dtype=torch.float64)[:, None]
    densities = exact.log_densities(grid)
    for t in range(STEPS + 2):
        torch.testing.assert_close(densities[:, t], mixture(t).log_density(grid))
        torch.testing.assert_close(exact.log_density(grid, torch.full((6001,), t)), densities[:, t])
    integral = torch.trapezoid(densities.exp(), grid[:, 0], dim=0)
    torch.testing.assert_close(integral, torch.ones_like(integral), rtol=1e-8, atol=0)


@pytest.mark.parametrize("t", range(STEPS + 2))
def test_exact_posterior_gives_the_exact_score_and_denoiser(t: int, exact: ClassificationDiffusion) -> None:
    y, label = batch(t)
    torch.testing.assert_close(exact.score(y, label), mixture(t).score(y))
    # E[eps | y] by the mixture's own algebra: the mean noise of each component, weighted by its responsibility.
    alpha_bar, level = float(ALPHA_BAR[t]), mixture(t)
    noise = math.sqrt(1 - alpha_bar) * (y[:, None] - level.means) / level.sigmas[:, None].square()
    mean = (level.responsibilities(y)[..., None] * noise).sum(1)
    torch.testing.assert_close(exact.denoiser(y, label), mean)
    logits, denoised = exact.logits_and_denoised(y, label)
    torch.testing.assert_close(logits, exact.logits(y))
    torch.testing.assert_close(denoised, mean)


@pytest.mark.parametrize("t", range(1, STEPS + 1))
def test_mean_of_a_step_is_the_mean_of_the_level_before(t: int, exact: ClassificationDiffusion) -> None:
    y, label = batch(t, 20)
    ratio, before = float(ALPHA_BAR[t] / ALPHA_BAR[t - 1]), mixture(t - 1)
    grid = torch.linspace(-9, 9, 20001, dtype=torch.float64)[:, None]
    log_joint = before.log_density(grid) - 0.5 * (y - math.sqrt(ratio) * grid.T).square() / (1 - ratio)
    mean = log_joint.softmax(-1) @ grid
    torch.testing.assert_close(exact.step(y, label, torch.zeros_like(y)), mean, rtol=1e-6, atol=1e-6)
    # With x known, y_{t-1} has two independent observations, x itself and y_t: precisions add.
    noise = exact.step(y, label, torch.ones_like(y)) - mean
    if t == 1:
        torch.testing.assert_close(noise, torch.zeros_like(noise), rtol=0, atol=1e-6)
    else:
        precision = 1 / (1 - float(ALPHA_BAR[t - 1])) + ratio / (1 - ratio)
        torch.testing.assert_close(noise, torch.full_like(noise, precision**-0.5), rtol=1e-5, atol=1e-6)


def test_many_steps_sample_the_data() -> None:
    # Data N(1, 0.4^2). The noise of a step is too narrow by O(1 / steps), so the width is a few percent small.
    n, steps = 4000, 60
    alpha_bar = cosine_alpha_bar(steps)

    class Posterior(nn.Module):
        def forward(self, y: Tensor) -> Tensor:
            variance = 0.16 * alpha_bar + 1 - alpha_bar
            return -0.5 * (y - alpha_bar.sqrt()).square() / variance - 0.5 * variance.log()

    model = ClassificationDiffusion(Posterior(), alpha_bar)
    draw = generator(3)
    y = torch.randn(n, 1, generator=draw, dtype=torch.float64)
    for t in range(steps, 0, -1):
        y = model.step(y, torch.full((n,), t), torch.randn(n, 1, generator=draw, dtype=torch.float64))
    assert abs(float(y.mean()) - 1) < 4 * 0.4 / math.sqrt(n) + 0.01
    assert abs(float(y.var()) / 0.16 - 1) < 4 * math.sqrt(2 / n) + 0.05


def test_noised_data_have_the_density_of_their_level() -> None:
    model, n = ClassificationDiffusion(ExactPosterior(torch.ones_like(PRIOR)), ALPHA_BAR), 40_000
    x, noise = mixture(0).sample(n, generator(5)), torch.randn(n, 1, generator=generator(6), dtype=torch.float64)
    for t in (0, 4, STEPS + 1):
        y, fresh = model.noised(x, torch.full((n,), t), noise), mixture(t).sample(n, generator(7))
        for moment in (1, 2, 3):
            ours, theirs = y**moment, fresh**moment
            assert abs(float(ours.mean() - theirs.mean())) < 4 * math.sqrt(float(ours.var() + theirs.var()) / n)


def test_losses_are_least_at_the_exact_posterior(exact: ClassificationDiffusion) -> None:
    n, draw = 40_000, generator(8)
    label = torch.multinomial(exact.log_prior.exp(), n, replacement=True, generator=draw)
    noise = torch.randn(n, 1, generator=draw, dtype=torch.float64)
    y = exact.noised(mixture(0).sample(n, draw), label, noise)
    logits, denoised = exact.logits_and_denoised(y, label)
    cross_entropy, squared = noise_level_cross_entropy_loss(logits, label), noise_prediction_loss(denoised, noise)
    bend = torch.linspace(-0.3, 0.3, STEPS + 2, dtype=torch.float64)
    for other in (logits + bend, logits - bend, logits + bend * y, 1.1 * logits):
        margin = noise_level_cross_entropy_loss(other, label) - cross_entropy
        assert margin.mean() > 2 * margin.std() / math.sqrt(n)
    for guess in (1.1 * denoised, 0.9 * denoised, denoised + 0.1, denoised - 0.1):
        margin = noise_prediction_loss(guess, noise) - squared
        assert margin.mean() > 2 * margin.std() / math.sqrt(n)
    both = classification_diffusion_loss(logits, denoised, label, noise, cross_entropy_weight=0.2)
    torch.testing.assert_close(both, squared + 0.2 * cross_entropy)
    assert squared[label == STEPS + 1].max() < 1e-20
    torch.testing.assert_close(squared[label == 0], noise[label == 0][:, 0].square())


def test_loss_of_two_coordinates_is_their_mean() -> None:
    value = noise_prediction_loss(torch.tensor([[1.0, 3.0]]), torch.tensor([[0.0, 1.0]]))
    assert value.tolist() == [2.5]


@functools.cache
def trained(noise_weight: float, cross_entropy_weight: float) -> ClassificationDiffusion:
    """Return the average over the second half of a short training; averaging is what settles the constants."""
    net = LevelClassifierNet(1, STEPS + 2, generator(), hidden=32, layers=2)
    model, draw, n, steps = ClassificationDiffusion(net, ALPHA_BAR.float()), generator(1), 600, 700
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-2)
    average = torch.optim.swa_utils.AveragedModel(model)
    label = torch.arange(n) % (STEPS + 2)
    for step in range(steps):
        noise = torch.randn(n, 1, generator=draw)
        y = model.noised(mixture(0, torch.float32).sample(n, draw), label, noise)
        logits, denoised = model.logits_and_denoised(y, label)
        loss = noise_weight * noise_prediction_loss(denoised, noise)
        loss = loss + cross_entropy_weight * noise_level_cross_entropy_loss(logits, label)
        optimiser.zero_grad()
        loss.mean().backward()
        optimiser.step()
        if step == steps // 2:
            optimiser.param_groups[0]["lr"] = 3e-3
        if step > steps // 2:
            average.update_parameters(model)
    return average.module.double()


def integrals(model: ClassificationDiffusion) -> Tensor:
    """Return the integral of every level's density."""
    grid = torch.linspace(-6, 6, 4001, dtype=torch.float64)[:, None]
    return torch.trapezoid(model.log_densities(grid).detach().exp(), grid[:, 0], dim=0)


def log_density_error(model: ClassificationDiffusion, t: int) -> float:
    """Return the root mean square error of ``log p_t`` [nats] over samples of the level."""
    y, label = batch(t, 4000)
    return float((model.log_density(y, label) - mixture(t).log_density(y)).detach().square().mean().sqrt())


def denoiser_error(model: ClassificationDiffusion) -> float:
    """Return the mean squared error of ``E[eps | y_t]`` over the noised levels."""
    errors = []
    for t in range(1, STEPS + 1):
        y, label = batch(t, 2000)
        exact = -math.sqrt(1 - float(ALPHA_BAR[t])) * mixture(t).score(y)
        errors.append(float((model.denoiser(y, label) - exact).detach().square().mean()))
    return sum(errors) / len(errors)


def test_trained_on_both_losses_it_knows_the_density_of_the_data() -> None:
    model = trained(1.0, 0.1)
    assert float((integrals(model) - 1).abs()[0]) < 0.02
    assert (integrals(model) - 1).abs().max() < 0.03
    assert log_density_error(model, 0) < 0.2
    assert log_density_error(model, 4) < 0.1


def test_cross_entropy_alone_leaves_the_denoiser_bad() -> None:
    alone, both = trained(0.0, 1.0), trained(1.0, 0.1)
    assert abs(float(integrals(alone)[0]) - 1) < 0.05
    assert denoiser_error(alone) > 2.5 * denoiser_error(both)


def test_noise_prediction_alone_leaves_the_likelihood_bad() -> None:
    alone, both = trained(1.0, 0.0), trained(1.0, 0.1)
    assert denoiser_error(alone) < 1.5 * denoiser_error(both)
    assert abs(float(integrals(alone)[0]) - 1) > 0.5
    assert log_density_error(alone, 0) > 5 * log_density_error(both, 0)


def test_untrained_it_is_the_standard_normal_at_every_level() -> None:
    model = ClassificationDiffusion(LevelClassifierNet(3, STEPS + 2, generator()), ALPHA_BAR).double()
    y = torch.randn(4, 3, generator=generator(2), dtype=torch.float64)
    normal = -0.5 * (y.square() + math.log(2 * math.pi)).sum(-1)
    torch.testing.assert_close(model.log_densities(y), normal[:, None].expand(4, STEPS + 2))
    torch.testing.assert_close(model.score(y, torch.arange(4)), -y)


def test_classifier_holds_isotropic_gaussians_exactly() -> None:
    # N(0, 0.25) data: each logit is a constant plus a multiple of |y|^2 / 2, and so is each step between two.
    net = LevelClassifierNet(2, STEPS + 2, generator(), hidden=8, layers=1).double()
    variance = 0.25 * ALPHA_BAR + 1 - ALPHA_BAR
    with torch.no_grad():
        net.readout.weight[:, -1] = torch.diff(-1 / variance, prepend=torch.zeros(1, dtype=torch.float64))
        net.readout.bias[:] = torch.diff(-variance.log(), prepend=torch.zeros(1, dtype=torch.float64))
    y = torch.randn(5, 2, generator=generator(4), dtype=torch.float64)
    exact = -0.5 * y.square().sum(-1, keepdim=True) / variance - (2 * math.pi * variance).log()
    torch.testing.assert_close(ClassificationDiffusion(net, ALPHA_BAR).log_densities(y), exact)


def test_members_of_a_batch_do_not_see_each_other_and_gradients_reach_every_weight() -> None:
    model = ClassificationDiffusion(LevelClassifierNet(2, STEPS + 2, generator(), hidden=8, layers=2), ALPHA_BAR)
    model = model.double()
    with torch.no_grad():
        model.net.readout.weight.normal_(generator=generator(1))
    y, label = torch.randn(4, 2, generator=generator(2), dtype=torch.float64), torch.tensor([1, 3, 4, 8])
    alone = torch.cat([model.denoiser(y[k : k + 1], label[k : k + 1]) for k in range(4)])
    torch.testing.assert_close(model.denoiser(y, label), alone)
    logits, denoised = model.logits_and_denoised(y, label)
    classification_diffusion_loss(logits, denoised, label, torch.ones_like(y)).sum().backward()
    assert all(bool(weight.grad.abs().sum() > 0) for weight in model.parameters())


def test_schedule_falls_from_one_to_zero() -> None:
    assert ALPHA_BAR[0] == 1
    assert ALPHA_BAR[-1] == 0
    angle = ALPHA_BAR.sqrt().acos()
    torch.testing.assert_close(angle.diff(), torch.full_like(angle[1:], math.pi / (2 * (STEPS + 1))))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: cosine_alpha_bar(0), "n_steps"),
        (lambda: ClassificationDiffusion(nn.Identity(), torch.tensor([1.0, 0.5, 0.1])), "from 1 to 0"),
        (lambda: ClassificationDiffusion(nn.Identity(), torch.tensor([1.0, 0.5, 0.5, 0.0])), "strictly"),
        (lambda: ClassificationDiffusion(nn.Identity(), torch.tensor([1.0, 0.0]), torch.tensor([1.0])), "2 positive"),
        (lambda: LevelClassifierNet(1, 3, generator(), layers=0), "layers"),
        (lambda: _step_from(STEPS + 1), "between 1 and 8"),
        (lambda: _step_from(0), "between 1 and 8"),
    ],
)
def test_impossible_inputs_are_refused(build: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()  # type: ignore[operator]


def _step_from(t: int) -> Tensor:
    model = ClassificationDiffusion(LevelClassifierNet(1, STEPS + 2, generator()), ALPHA_BAR)
    return model.step(torch.zeros(1, 1), torch.tensor([t]), torch.zeros(1, 1))
