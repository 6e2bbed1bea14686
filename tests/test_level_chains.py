"""Chains of a noised energy's own: they stay where the data is, find a hole that a way leads to, and come back."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from boltzgen_diffclf.data_gaussian import DataGaussian
from boltzgen_diffclf.noised_energy import NoisedEnergyModel
from boltzgen_diffclf.paths import VariancePreserving, uniform_levels
from boltzgen_diffclf.streams import named_generator
from boltzgen_diffclf.training.clean_data import CleanSamples, FixedPool
from boltzgen_diffclf.training.level_chains import Contrast, LevelChains
from boltzgen_diffclf.training.noised_case import Case, Setting, noised_batch
from boltzgen_diffclf.training.noised_losses import NOISED_LOSSES
from boltzgen_diffclf.training.noised_problem import NoisedProblem, NoisedSettings
from boltzgen_diffclf.training.objectives import NOISED_OBJECTIVES

DIM, MOVED = 2, 1024
SETTING = Setting(VariancePreserving(), uniform_levels(9, 1e-2, 0.99).float())
DATA = FixedPool(CleanSamples(*[torch.randn(50_000, DIM, generator=named_generator(0, "data"))] * 2))

pytestmark = pytest.mark.usefixtures("eager_mode")


class Hole(torch.nn.Module):
    """A learned depth five widths from the data, with a way down that begins at two and a half."""

    def __init__(self, depth: float) -> None:
        super().__init__()
        self.depth = torch.nn.Parameter(torch.tensor(depth))

    def forward(self, h: Tensor, t: Tensor) -> Tensor:
        return -self.depth * torch.exp(-0.5 * ((h[:, 0] - 5) / 1.2).square())


def model_with(depth: float) -> NoisedEnergyModel:
    data = DataGaussian(torch.zeros(DIM), torch.ones(()))
    return NoisedEnergyModel(Hole(depth), SETTING.path, data, SETTING.levels, resolution=1.0)


def moved(model: NoisedEnergyModel, steps: int) -> tuple[LevelChains, list[Contrast]]:
    chains, stream, seen = LevelChains(SETTING.path, SETTING.levels, MOVED), named_generator(1, "chains"), []
    state = chains.init(model, DATA, stream)
    for _ in range(steps):
        state, contrast = chains.step(model, state, DATA, stream)
        seen.append(contrast)
    return chains, seen


def test_chains_of_the_right_energy_stay_where_the_data_is_at_every_level() -> None:
    chains, seen = moved(model_with(0.0), 12)
    t, data, chain = (torch.cat(parts) for parts in zip(*seen[4:], strict=True))
    assert float((t == SETTING.levels[0]).float().mean()) == pytest.approx(0.5 + 0.5 / 9, abs=0.03)
    assert set(t.tolist()) == set(SETTING.levels.tolist())
    # Data of unit variance has it at every level.
    for level in SETTING.levels:
        there = chain[t == level]
        assert float(there.var()) == pytest.approx(1.0, abs=0.3)
        assert float(there.mean()) == pytest.approx(0.0, abs=0.3)
    assert float((data == chain).all(1).float().mean()) < 0.01
    assert len(chains.level) == 4 * MOVED


@pytest.mark.parametrize("factor", [0.1, 10.0])
def test_steps_follow_the_acceptance(factor: float) -> None:
    chains, model, stream = LevelChains(SETTING.path, SETTING.levels, MOVED), model_with(0.0), named_generator(4, "s")
    state = chains.init(model, DATA, stream)
    state.step_size.mul_(factor)
    begun = state.step_size.clone()
    for _ in range(3):
        state, _ = chains.step(model, state, DATA, stream)
    assert bool(((state.step_size < begun) == (factor > 1)).all())


class Edge(torch.nn.Module):
    """No energy beyond a distance that data seldom has."""

    def forward(self, h: Tensor, t: Tensor) -> Tensor:
        return torch.where(h.square().sum(1) < 16, 0.0, torch.nan) * h[:, 0]


def test_a_proposal_without_an_energy_is_refused_and_shortens_the_steps() -> None:
    chains, stream = LevelChains(SETTING.path, SETTING.levels, MOVED), named_generator(7, "edge")
    data = DataGaussian(torch.zeros(DIM), torch.ones(()))
    model = NoisedEnergyModel(Edge(), SETTING.path, data, SETTING.levels, resolution=1.0)
    state = chains.init(model, DATA, stream)
    state.step_size.mul_(20)
    after, contrast = chains.step(model, state, DATA, stream)
    assert float((contrast.chain == contrast.data).all(1).float().mean()) < 0.02
    still = (after.position == state.position).all(1).float().mean()
    assert float(still) > 0.9
    assert bool((after.step_size < state.step_size).all())


def test_chains_of_many_degrees_of_freedom_are_not_lost_for_their_energy_alone() -> None:
    dim, stream = 400, named_generator(5, "wide")
    data = FixedPool(CleanSamples(*[torch.randn(4000, dim, generator=stream)] * 2))
    zero = model_with(0.0).get_submodule("net")
    model = NoisedEnergyModel(zero, SETTING.path, DataGaussian(torch.zeros(dim), torch.ones(())), SETTING.levels)
    chains = LevelChains(SETTING.path, SETTING.levels, MOVED)
    _, contrast = chains.step(model, chains.init(model, data, stream), data, stream)
    again = (contrast.chain == contrast.data).all(1).float().mean()
    assert float(again) < 0.02
    energy = [model.energy(y, contrast.t).detach() for y in (contrast.data, contrast.chain)]
    assert abs(float((energy[0] - energy[1]).mean())) < 4 * (dim / MOVED) ** 0.5


def test_chains_find_a_hole_that_noise_does_not_and_raise_it() -> None:
    def slope(depth: float) -> float:
        model = model_with(depth)
        contrast = moved(model, 16)[1][-1]
        x = DATA.samples.x[:MOVED]
        batch = noised_batch(
            CleanSamples(x, x), torch.zeros(MOVED, 1, dtype=torch.long), SETTING, named_generator(2, "batch")
        )
        case = Case(model, batch.beside(*contrast), SETTING)
        loss = NOISED_LOSSES["contrastive_divergence"].mean(case)
        return float(torch.autograd.grad(loss, model.get_submodule("net").depth)[0])

    # Noise never leads there.
    chains = LevelChains(SETTING.path, SETTING.levels, MOVED)
    noised = chains.noised(DATA, torch.zeros(20_000, dtype=torch.long), named_generator(6, "noised"))
    assert float(noised[:, 0].max()) < 4.6
    # The loss falls where the hole becomes shallower, and asks for nothing where there is none.
    assert slope(25.0) > 0.1
    assert abs(slope(0.0)) < 0.01


def test_a_chain_that_is_high_above_the_data_begins_again_beside_it() -> None:
    chains, stream = LevelChains(SETTING.path, SETTING.levels, MOVED), named_generator(3, "chains")
    model = model_with(0.0)
    state = chains.init(model, DATA, stream)
    state.position[::2] += 40.0
    _, contrast = chains.step(model, state, DATA, stream)
    assert float(contrast.chain.abs().max()) < 10
    at_least_noise = contrast.t == SETTING.levels[0]
    assert float((contrast.chain == contrast.data).all(1)[at_least_noise].float().mean()) > 0.8
    assert not bool((contrast.chain == contrast.data).all(1)[~at_least_noise].any())


def test_held_out_data_leaves_the_chains_where_they_are_and_a_checkpoint_keeps_them() -> None:
    objective, settings = NOISED_OBJECTIVES["dsm_diffclf_cnce_cd"], NoisedSettings(2, groups=16)
    first, second = (NoisedProblem(objective, SETTING.path, SETTING.levels, DATA, DATA, settings) for _ in range(2))
    model, away = model_with(1.0), FixedPool(CleanSamples(*[DATA.samples.x + 100] * 2))
    first.held_out = away
    assert float(first.draw_held_out(model, named_generator(0, "unseen")).contrast_data.mean()) > 50
    assert first.state == {}
    first.draw(model, named_generator(0, "a"))
    before = first.state["position"].clone()
    second.restore({name: tensor.clone() for name, tensor in first.state.items()})
    first.draw_held_out(model, named_generator(0, "b"))
    assert torch.equal(first.state["position"], before)
    batches = [problem.draw(model, named_generator(0, "c")) for problem in (first, second)]
    assert all(torch.equal(*pair) for pair in zip(*batches, strict=True))
    assert not torch.equal(first.state["position"], before)
    # Denoising and classification of 16 groups of 4, perturbations, and 10 leapfrog steps of 16 chains.
    assert first.evaluations(model) == 16 * (4 * 5 + 2 * 4) + 16 * (2 * 11 + 1 + 2)
    assert objective.balanced(10).weights["contrastive_divergence"] == pytest.approx(0.01)
