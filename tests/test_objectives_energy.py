"""Objectives of an energy without time: each is stationary at the exact density, and blind where it must be."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from boltzgen_diffclf.losses import (
    ReplayBuffer,
    contrastive_divergence_loss,
    noise_contrastive_loss,
    reduced_variance_score_matching_loss,
    run_negatives,
    score_matching_loss,
    sliced_score_matching_loss,
)
from boltzgen_diffclf.samplers import Mala
from boltzgen_diffclf.streams import named_generator
from tests.noised_mixture import (
    COMMON,
    DTYPE,
    SCALE,
    SHIFT,
    SLOPE,
    WEIGHT,
    Noised,
    NoisedMixture,
    Preserving,
    assert_least,
    assert_stationary,
    gradients,
    normal,
    z_score,
)

LEVEL = 0.2
SHAPE = [SCALE, SHIFT, WEIGHT, COMMON]


def _energy(model: NoisedMixture) -> Callable[[Tensor], Tensor]:
    """Return the model's energy at one level as a function of the configuration alone."""
    return lambda x: model.energy(x, torch.full((len(x),), LEVEL, dtype=DTYPE))


def _data(model: NoisedMixture, n: int, seed: int) -> Noised:
    """Return samples at the level, with fresh standard normals in ``z``."""
    batch = model.sample(torch.full((n,), LEVEL, dtype=DTYPE), seed)
    return batch._replace(z=normal(n, 2, generator=named_generator(seed, "companions")))


def _mala(step_size: float) -> Mala:
    return Mala(torch.tensor([step_size], dtype=DTYPE), torch.ones(2, dtype=DTYPE))


def _contrastive(n_steps: int, seed: int) -> Callable[[NoisedMixture, Noised], Tensor]:
    generator = named_generator(seed, "chains")

    def objective(model: NoisedMixture, batch: Noised) -> Tensor:
        negatives, _ = run_negatives(_energy(model), _mala(0.3), batch.y, n_steps, generator)
        return contrastive_divergence_loss(_energy(model), batch.y, negatives)

    return objective


@pytest.mark.parametrize("n_steps", [1, 5])
def test_contrastive_divergence_is_stationary_at_the_exact_energy(n_steps: int) -> None:
    model = NoisedMixture(Preserving())
    assert_stationary(_contrastive(n_steps, 1), model, _data(model, 20_000, 1), SHAPE)


@pytest.mark.parametrize(("knob", "value"), [(SCALE, 0.4), (SHIFT, 0.4), (WEIGHT, 1.5), (COMMON, 0.6)])
def test_descent_on_contrastive_divergence_leads_back(knob: int, value: float) -> None:
    model = NoisedMixture(Preserving())
    batch = _data(model, 20_000, 2)
    for turned in (value, -value):
        slopes = gradients(_contrastive(2, 3), model.spoiled(knob, turned), batch)[:, knob]
        assert z_score(slopes * math.copysign(1, turned)) > 4


def test_contrastive_divergence_cannot_see_the_weights_of_modes_that_chains_do_not_cross() -> None:
    model = NoisedMixture(Preserving(), separation=9.0)
    wrong, batch = model.spoiled(WEIGHT, 2.0), _data(model, 2_000, 4)
    slope = gradients(_contrastive(5, 4), wrong, batch)[:, WEIGHT].mean()
    exact_negatives = model.spoiled(WEIGHT, 2.0)
    exact_negatives.log_weights = torch.log_softmax(model.log_weights + torch.tensor([-1.0, 1.0]).double(), 0)
    negatives = exact_negatives.sample(batch.t, 5).y
    likelihood = contrastive_divergence_loss(_energy(wrong), batch.y, negatives).mean()
    (true_slope,) = torch.autograd.grad(likelihood, wrong.knobs)
    assert slope.abs() < 1e-12
    assert true_slope[WEIGHT] > 0.1


def _harmonic(stiffness: Tensor) -> Callable[[Tensor], Tensor]:
    return lambda x: 0.5 * stiffness * x.square().sum(-1)


def test_persistent_chains_give_the_gradient_of_the_likelihood() -> None:
    stiffness, generator = torch.tensor(2.0, dtype=DTYPE, requires_grad=True), named_generator(6, "chains")
    data = normal(20_000, 2, generator=generator)
    buffer = ReplayBuffer(_mala(0.15), n_steps=4, reinitialise=0.0)
    state = buffer.init(data)
    for _ in range(8):
        state, info = buffer.step(_harmonic(stiffness), state, data, generator)
    slopes = 0.5 * (data.square().sum(-1) - info.negatives.square().sum(-1))
    (slope,) = torch.autograd.grad(
        contrastive_divergence_loss(_harmonic(stiffness), data, info.negatives).mean(), stiffness
    )
    torch.testing.assert_close(slope, slopes.mean())
    # Minus the mean log likelihood rises by (dim / 2) (data variance - 1 / stiffness): too stiff, so it must fall.
    assert z_score(slopes - 0.5).abs() < 4


def test_persistent_chains_learn_a_stiffness() -> None:
    generator, log_stiffness = named_generator(7, "chains"), torch.zeros((), dtype=DTYPE, requires_grad=True)
    data = 0.5 * normal(2_000, 2, generator=generator)
    buffer, optimiser = ReplayBuffer(_mala(0.1), n_steps=5), torch.optim.SGD([log_stiffness], lr=0.3)
    state, path = buffer.init(normal(2_000, 2, generator=generator)), []
    for _ in range(120):
        fresh = data[torch.randperm(2_000, generator=generator)[:1_000]]
        state, info = buffer.step(_harmonic(log_stiffness.exp()), state, fresh, generator)
        loss = contrastive_divergence_loss(_harmonic(log_stiffness.exp()), fresh, info.negatives).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        path.append(float(log_stiffness.detach()))
    likeliest = math.log(2 / float(data.square().sum(-1).mean()))
    assert sum(path[60:]) / 60 == pytest.approx(likeliest, abs=0.04)


def test_replay_moves_only_the_chosen_chains_and_restarts_the_share_asked_for() -> None:
    generator, start = named_generator(8, "chains"), torch.full((1_000, 2), 30.0, dtype=DTYPE)
    energy = _harmonic(torch.tensor(1.0, dtype=DTYPE))
    fresh = normal(400, 2, generator=generator)
    buffer = ReplayBuffer(_mala(1e-4), n_steps=1, reinitialise=0.25)
    state = buffer.init(start)
    later, info = buffer.step(energy, state, fresh, generator)
    moved = (later.position != start).any(-1)
    assert 350 < int(moved.sum()) <= 400  # a refused proposal leaves a chain where it was
    restarted = int((info.negatives.norm(dim=-1) < 10).sum())
    assert restarted == pytest.approx(100, abs=4 * math.sqrt(400 * 0.25 * 0.75))
    assert int((later.position.norm(dim=-1) < 10).sum()) == restarted
    assert torch.equal(state.position, start)


def test_regulariser_pulls_energies_to_zero_and_nothing_flows_through_negatives() -> None:
    x = torch.ones(3, 2, dtype=DTYPE, requires_grad=True)
    offset = torch.tensor(2.0, dtype=DTYPE, requires_grad=True)
    loss = contrastive_divergence_loss(lambda y: offset + 0 * y.sum(-1), x.detach(), x, regulariser=0.1)
    slope, through = torch.autograd.grad(loss.mean(), (offset, x), allow_unused=True)
    assert float(slope) == pytest.approx(0.1 * 2 * 2 * 2.0)
    assert through is None


def test_impossible_buffers_are_refused() -> None:
    for change in ({"n_steps": 0}, {"reinitialise": 1.5}):
        with pytest.raises(ValueError, match="n_steps >= 1"):
            ReplayBuffer(_mala(0.1), **({"n_steps": 1} | change))
    buffer = ReplayBuffer(_mala(0.1), n_steps=1)
    few = torch.zeros(2, 2, dtype=DTYPE)
    with pytest.raises(ValueError, match="make the buffer larger"):
        buffer.step(
            _harmonic(few.new_ones(())), buffer.init(few), torch.zeros(3, 2, dtype=DTYPE), named_generator(0, "")
        )


def _noise_log_density(x: Tensor) -> Tensor:
    return -0.5 * (x / 2).square().sum(-1) - math.log(2 * math.pi * 4)


@pytest.mark.parametrize("noise_ratio", [0.5, 1.0, 4.0])
def test_noise_contrast_finds_the_density_and_its_normaliser(noise_ratio: float) -> None:
    model = NoisedMixture(Preserving())

    def objective(candidate: NoisedMixture, batch: Noised) -> Tensor:
        noise = 2 * torch.stack([batch.z, batch.x], 1)
        log_normaliser = -candidate.free_energy(torch.tensor(LEVEL, dtype=DTYPE))
        return noise_contrastive_loss(
            _energy(candidate), _noise_log_density, batch.y, noise, log_normaliser, noise_ratio
        )

    batch = _data(model, 20_000, 9)
    batch = batch._replace(x=normal(20_000, 2, generator=named_generator(9, "second draw")))
    assert_stationary(objective, model, batch, [*SHAPE, SLOPE])
    assert_least(objective, model, batch, [*SHAPE, SLOPE])


def test_noise_contrast_is_undecided_where_the_normalised_densities_cross() -> None:
    # exp(-x^2 / 2 - c) = N(x; 0, 4) with c = log Z, the classes equally common.
    crossing = torch.tensor([[math.sqrt(8 * math.log(2) / 3)]], dtype=DTYPE)
    loss = noise_contrastive_loss(
        lambda x: 0.5 * x.square().sum(-1),
        lambda x: -x.square().sum(-1) / 8 - 0.5 * math.log(2 * math.pi * 4),
        crossing,
        crossing[:, None],
        torch.tensor(0.5 * math.log(2 * math.pi), dtype=DTYPE),
    )
    assert float(loss) == pytest.approx(2 * math.log(2))


def test_noise_ratio_must_be_positive() -> None:
    x = torch.zeros(1, 2, dtype=DTYPE)
    with pytest.raises(ValueError, match="noise ratio must be positive"):
        noise_contrastive_loss(_noise_log_density, _noise_log_density, x, x[None], x[0, 0], 0.0)


def _probes(batch: Noised) -> Tensor:
    """Return random signs."""
    return batch.z.sign()[None]


SCORE_MATCHING = {
    "exact": lambda model, batch: score_matching_loss(_energy(model), batch.y),
    "sliced": lambda model, batch: sliced_score_matching_loss(_energy(model), batch.y, _probes(batch)),
    "reduced": lambda model, batch: reduced_variance_score_matching_loss(_energy(model), batch.y, _probes(batch)),
}


@pytest.mark.parametrize("objective", SCORE_MATCHING.values(), ids=list(SCORE_MATCHING))
def test_score_matching_is_least_at_the_exact_score(objective: Callable[[NoisedMixture, Noised], Tensor]) -> None:
    model = NoisedMixture(Preserving())
    batch = _data(model, 20_000, 10)
    assert_stationary(objective, model, batch, SHAPE)
    assert_least(objective, model, batch, SHAPE)


@pytest.mark.parametrize("objective", SCORE_MATCHING.values(), ids=list(SCORE_MATCHING))
def test_score_matching_measures_the_fisher_information(objective: Callable[[NoisedMixture, Noised], Tensor]) -> None:
    model = NoisedMixture(Preserving())
    batch = _data(model, 20_000, 11)
    with torch.no_grad():
        half_information = 0.5 * model.gradient(batch.y, batch.t).square().sum(-1)
        assert z_score(objective(model, batch) + half_information).abs() < 4


def test_reduced_variance_is_smaller_at_the_same_mean() -> None:
    model = NoisedMixture(Preserving()).spoiled(SHIFT, 0.3)
    batch = _data(model, 20_000, 12)
    with torch.no_grad():
        exact, sliced, reduced = (objective(model, batch) for objective in SCORE_MATCHING.values())
    assert z_score(sliced - exact).abs() < 4
    assert z_score(reduced - exact).abs() < 4
    assert (reduced - exact).var() < 0.5 * (sliced - exact).var()


def test_score_matching_cannot_see_the_weights_of_separate_modes() -> None:
    model = NoisedMixture(Preserving(), separation=9.0)
    batch = _data(model, 500, 13)
    wrong = model.spoiled(WEIGHT, 2.0)
    with torch.no_grad():
        assert (
            score_matching_loss(_energy(wrong), batch.y) - score_matching_loss(_energy(model), batch.y)
        ).abs().max() < 1e-9
