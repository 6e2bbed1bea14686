"""Every loss of a noised energy, as training runs it: at the exact densities nothing pulls, away from them it does."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from boltzgen_diffclf.data_gaussian import DataGaussian
from boltzgen_diffclf.errors import InputError
from boltzgen_diffclf.noised_energy import NoisedEnergyModel
from boltzgen_diffclf.paths import VariancePreserving, uniform_levels
from boltzgen_diffclf.streams import named_generator
from boltzgen_diffclf.training.clean_data import FreshSamples
from boltzgen_diffclf.training.noised_losses import NOISED_LOSSES
from boltzgen_diffclf.training.noised_problem import NoisedObjective, NoisedProblem, NoisedSettings
from boltzgen_diffclf.training.objectives import NOISED_OBJECTIVES
from systems.analytic import MixtureMarginals, mixture_2d, standardised

PATH = VariancePreserving(t_min=5e-3, t_max=1 - 1e-3)
TARGET = standardised(mixture_2d())
LEVELS = uniform_levels(24, 5e-3, 0.95)
DATA = FreshSamples(TARGET)
KNOBS = ("scale", "weight", "shift", "common")
SCALE, WEIGHT, SHIFT, COMMON = range(4)
TURN = {SCALE: 0.3, WEIGHT: 1.0, SHIFT: 0.3, COMMON: 0.5}
"""How far a knob is turned to see that the loss pulls it back."""

RATIOS = (SCALE, WEIGHT, SHIFT)
"""What losses that compare levels see: not a factor that all levels share."""

SEEN = {
    "denoising": (SCALE, SHIFT, COMMON),
    "denoising_by_force": (SCALE, SHIFT, COMMON),
    "target_score": (SCALE, SHIFT, COMMON),
    "classification": RATIOS,
    "classification_chained": RATIOS,
    "classification_named": RATIOS,
    "classification_jensen_shannon": RATIOS,
    "classification_kullback_leibler": RATIOS,
    "classification_among_all": RATIOS,
    "time_score": (SCALE, SHIFT),
    "fokker_planck": (SCALE, COMMON),
    "conditional_noise": (SCALE, SHIFT),
}
"""Losses with a minimum at the exact densities, and what each pulls back when it is turned either way."""

BIASED = {"kernel_ratio", "score_beyond"}
ELSEWHERE = {"contrastive_divergence"}
"""Its chains take long, and have tests of their own in test_level_chains.py and test_objectives_energy.py."""

RUNS = sorted({(loss, one.level_sampler or "") for one in NOISED_OBJECTIVES.values() for loss in one.weights})
"""Every loss with every way in which an objective draws its levels."""

pytestmark = pytest.mark.usefixtures("eager_mode")


class ExactNet(nn.Module):
    """A network that makes :class:`NoisedEnergyModel` the exact noised density, with knobs that spoil it."""

    def __init__(self) -> None:
        super().__init__()
        self.knobs = nn.Parameter(torch.zeros(len(KNOBS), dtype=torch.float64))

    def forward(self, h: Tensor, c: Tensor) -> Tensor:
        first, last = PATH.log_snr(LEVELS[[0, -1]])
        t = PATH.time_at_log_snr(first + c * (last - first))
        alpha, sigma = PATH.alpha(t)[:, None], PATH.sigma(t)[:, None]
        spread = (alpha.square() * TARGET.variance + sigma.square()).sqrt()
        gaussian = (0.5 * h.square() + spread.log() + 0.5 * math.log(2 * math.pi)).sum(-1)
        factor = PATH.alpha(t) / PATH.sigma(t) * TARGET.variance.mean().sqrt()
        return (self.energy(alpha * TARGET.mean + spread * h, alpha, sigma) - gaussian) / factor

    def energy(self, y: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        means = alpha[:, None] * (TARGET.means + self.knobs[SHIFT])
        variances = alpha[:, None].square() * TARGET.variances + sigma[:, None].square()
        odds = torch.cat([self.knobs[WEIGHT : WEIGHT + 1], self.knobs.new_zeros(len(TARGET.weights) - 1)])
        weights = torch.log_softmax(TARGET.weights.log() + odds, 0)
        logs = -0.5 * ((y[:, None] - means).square() / variances + (2 * math.pi * variances).log()).sum(-1)
        exact = -(weights + logs).logsumexp(-1)
        return (1 + self.knobs[SCALE]) * exact + self.knobs[COMMON] * y[:, 0].cos()


def exact_model(knob: int | None = None, turn: float = 0.0) -> NoisedEnergyModel:
    net = ExactNet()
    if knob is not None:
        with torch.no_grad():
            net.knobs[knob] = turn
    return NoisedEnergyModel(net, PATH, DataGaussian(TARGET.mean, TARGET.variance), LEVELS).double()


def sampler_of(loss: str) -> str:
    return next(sampler for one, sampler in RUNS if one == loss)


def pulls(loss: str, sampler: str, model: NoisedEnergyModel, *, averaged: bool, steps: int = 40) -> Tensor:
    """Return the gradient of a loss in the knobs, step by step of a training that stands still."""
    return pulls_of(NoisedObjective({loss: 1.0}, level_sampler=sampler or None), model, averaged=averaged, steps=steps)


def pulls_of(objective: NoisedObjective, model: NoisedEnergyModel, *, averaged: bool, steps: int) -> Tensor:
    """Return the gradient of an objective in the knobs, step by step of a training that stands still."""
    settings = NoisedSettings(1, groups=100, group_size=3, reference_batch=300 if averaged else 0)
    problem = NoisedProblem(objective, PATH, LEVELS, DATA, DATA, settings)
    stream = named_generator(1, "+".join(objective.weights))

    def slopes() -> Iterator[Tensor]:
        for _ in range(steps):
            total = (problem.weights * problem.losses(model, problem.draw(model, stream))).sum()
            yield torch.autograd.grad(total, model.get_submodule("net").knobs)[0]

    return torch.stack(list(slopes()))


def in_errors(values: Tensor) -> Tensor:
    """Return the mean in its standard errors; zero where there is nothing but rounding."""
    error = values.std(0) / math.sqrt(len(values))
    return torch.where(values.abs().amax(0) < 1e-12, 0.0, values.mean(0) / error)


def test_no_loss_is_left_out() -> None:
    assert {*SEEN, *BIASED, *ELSEWHERE} == set(NOISED_LOSSES) == {loss for loss, _ in RUNS}


def test_the_exact_network_gives_the_exact_energy() -> None:
    stream = named_generator(0, "anywhere")
    y, t = torch.randn(50, 2, generator=stream).double(), 0.01 + 0.9 * torch.rand(50, generator=stream).double()
    torch.testing.assert_close(exact_model().energy(y, t).detach(), MixtureMarginals(TARGET, PATH).energy(y, t))


@pytest.mark.parametrize("averaged", [False, True])
@pytest.mark.parametrize(("loss", "sampler"), [run for run in RUNS if run[0] in SEEN])
def test_at_the_exact_densities_nothing_pulls(loss: str, sampler: str, averaged: bool) -> None:
    found = pulls(loss, sampler, exact_model(), averaged=averaged)
    assert bool((in_errors(found).abs() < 4).all()), dict(zip(KNOBS, in_errors(found).tolist(), strict=True))
    assert bool((found[:, SEEN[loss]].std(0) > 0).all())


@pytest.mark.parametrize("loss", list(SEEN))
def test_away_from_them_the_loss_pulls_back(loss: str) -> None:
    for knob in SEEN[loss]:
        for turn in (-TURN[knob], TURN[knob]):
            found = pulls(loss, sampler_of(loss), exact_model(knob, turn), averaged=False, steps=25)[:, knob]
            assert math.copysign(1, turn) * float(in_errors(found)) > 3, (KNOBS[knob], turn, in_errors(found))


def test_kernel_ratios_of_the_own_score_pull_away_from_the_exact_densities() -> None:
    # The Euler step of the reverse kernel flattens the model, as the loss says: it comes with score matching alone.
    (sampler,) = {sampler for loss, sampler in RUNS if loss == "kernel_ratio"}
    found = in_errors(pulls("kernel_ratio", sampler, exact_model(), averaged=False, steps=120))
    assert float(found[SCALE]) > 4
    assert bool((found[[WEIGHT, SHIFT]].abs() < 4).all())
    beside = [one.weights.keys() for one in NOISED_OBJECTIVES.values() if "kernel_ratio" in one.weights]
    assert all("denoising" in names for names in beside)


@pytest.mark.parametrize("name", [name for name, one in NOISED_OBJECTIVES.items() if "kernel_ratio" in one.weights])
def test_beside_score_matching_kernel_ratios_leave_the_minimum_at_the_exact_densities(name: str) -> None:
    for knob in (SCALE, SHIFT):
        assert abs(displacement(NOISED_OBJECTIVES[name], knob)) < 0.01, KNOBS[knob]


def displacement(objective: NoisedObjective, knob: int, steps: int = 40) -> float:
    """Return how far from the exact densities the minimum of an objective is, in one knob."""
    # The same draws on all three sides, so that the slope between them is not noise.
    below, here, above = (
        float(pulls_of(objective, exact_model(knob, turn), averaged=True, steps=steps)[:, knob].mean())
        for turn in (-0.1, 0.0, 0.1)
    )
    assert above - below > 0
    return -here * 0.2 / (above - below)


@pytest.mark.parametrize("knob", [SCALE, SHIFT, COMMON])
def test_scores_beyond_the_data_have_their_minimum_next_to_the_exact_densities(knob: int) -> None:
    assert abs(displacement(NoisedObjective({"score_beyond": 1.0}), knob)) < 0.02


@pytest.mark.parametrize("sampler", ["spaced", "neighbours", "gap_aware"])
def test_classes_among_all_levels_refuse_levels_that_are_not_drawn_evenly(sampler: str) -> None:
    objective = NoisedObjective({"classification_among_all": 1.0}, level_sampler=sampler)
    with pytest.raises(InputError, match=f"level sampler {sampler} favours some of them; take scattered"):
        NoisedProblem(objective, PATH, LEVELS, DATA, DATA, NoisedSettings(1))
