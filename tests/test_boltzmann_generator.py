"""A generator with wrong weights of modes is put right by the true energy, and says what that has cost."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from boltzgen_diffclf.errors import InputError
from boltzgen_diffclf.estimators.reweighting import reweighted_mean
from boltzgen_diffclf.free_energy import boltzmann_generator
from boltzgen_diffclf.free_energy.boltzmann_generator import (
    Crossing,
    Descent,
    WeightedParticles,
    in_batches,
)
from boltzgen_diffclf.free_energy.guarded import GuardedTarget, energy_floors, guarded, mirrored
from boltzgen_diffclf.paths import VariancePreserving, log_snr_levels
from boltzgen_diffclf.samplers import Bridge, ReverseSmcState
from boltzgen_diffclf.samplers.diffusion_smc import EnergyAndGradient
from boltzgen_diffclf.streams import named_generator
from boltzgen_diffclf.target import InBatches, Target
from systems.analytic import GaussianMixture, MixtureMarginals
from workflows import resumable, trust, trust_generators
from workflows.resumable import carry_on

DTYPE = torch.float64
PATH = VariancePreserving(t_min=1e-3, t_max=1 - 1e-4)
TIMES = log_snr_levels(PATH, 60)
WIDTH = 0.25


def modes(left: float, width: float = WIDTH) -> GaussianMixture:
    means = torch.tensor([[-1.0, 0.3], [1.0, -0.3]], dtype=DTYPE)
    weights, widths = torch.tensor([left, 1 - left], dtype=DTYPE), torch.full((2,), width, dtype=DTYPE)
    return GaussianMixture(weights, means, widths)


LEARNED, TRUE = modes(10 / 11), modes(0.5, 0.2)
"""Ten to one where the truth is one to one, and too wide."""
MARGINALS = MixtureMarginals(LEARNED, PATH)


def learned(y: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    return MARGINALS.energy(y, t), MARGINALS.gradient(y, t)


def generate(energy_and_gradient: EnergyAndGradient, origin: Target, n: int = 2000) -> tuple[WeightedParticles, ...]:
    """Return the particles of the learned energy, those weighed at one stroke, and those at the end of the bridge."""
    descent = Descent(energy_and_gradient, PATH, TIMES, WIDTH)
    stream = named_generator(0, "generator")
    state = descent.init(n, 2, stream)
    while not descent.arrived(state):
        state, _ = descent.step(state, stream)
    start = descent.particles(state, origin)
    crossing = Crossing(Bridge(origin, TRUE, first_step_size=0.1), start)
    arriving = crossing.init(stream)
    while not crossing.arrived(arriving):
        arriving, _ = crossing.step(arriving, stream)
    return start, crossing.without_bridge(), crossing.particles(arriving)


def left_share(particles: WeightedParticles) -> tuple[float, float]:
    inside = (particles.position[:, 0] < 0).double().numpy()
    found = reweighted_mean(inside, particles.log_weights.numpy(), particles.root.numpy())
    return found.value, found.stderr


def test_wrong_weights_of_modes_are_put_right_and_believed() -> None:
    start, alone, end = generate(learned, MARGINALS.at(float(TIMES[0])))
    assert left_share(start)[0] == pytest.approx(10 / 11, abs=0.03)
    for particles in (alone, end):
        share, stderr = left_share(particles)
        assert stderr < 0.05
        assert abs(share - 0.5) < 4 * stderr
    assert trust.failures([trust_generators.check_weights("generator", end.diagnostics)]) == ()
    # Ten to one weights of modes leave three tenths of the samples, whatever heals within them.
    assert 0.1 < end.diagnostics.effective_fraction < 0.45
    assert end.n_roots == 2000


def test_copies_of_a_few_particles_are_not_believed() -> None:
    few = WeightedParticles(torch.zeros(2000, 2), torch.zeros(2000), torch.arange(2000) % 20, 2000)
    (sentence,) = trust.failures([trust_generators.check_weights("generator", few.diagnostics)])
    assert "worth 20 samples" in sentence


HOLE = torch.tensor([0.0, 1.5], dtype=DTYPE)
"""Where no data is, and a network has learned nothing."""


def with_a_hole(y: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    energy, gradient = learned(y, t)
    depth = 1e4 * torch.exp(-0.5 * ((y - HOLE) / 0.2).square().sum(1))
    return energy - depth, gradient + depth[:, None] * (y - HOLE) / 0.04


class Holed(Target):
    """The same at the least noise."""

    event_shape, dimension = (2,), 2

    def energy(self, x: Tensor) -> Tensor:
        return with_a_hole(x, TIMES[:1].expand(len(x)))[0]


def test_one_sample_in_a_hole_does_not_sink_the_floor() -> None:
    clean = LEARNED.sample(256, named_generator(1, "clean"))
    found = []
    for first in (clean[0], HOLE):
        data = torch.cat([first[None], clean[1:]])
        found.append(energy_floors(with_a_hole, PATH, TIMES[:1], data, named_generator(1, "floors")))
    assert float(with_a_hole(HOLE[None], TIMES[:1])[0]) < -9e3
    torch.testing.assert_close(found[1], found[0], atol=0.5, rtol=0)


def test_holes_of_a_learned_energy_are_passed_by(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = named_generator(1, "floors")
    floors = energy_floors(learned, PATH, TIMES, LEARNED.sample(256, stream), stream)
    start, _, end = generate(guarded(with_a_hole, TIMES, floors), GuardedTarget(Holed(), float(floors[0])))
    assert float((start.position - HOLE).norm(dim=1).min()) > 0.1
    share, stderr = left_share(end)
    assert stderr < 0.06
    assert abs(share - 0.5) < 4 * stderr
    monkeypatch.setattr(boltzmann_generator, "LARGEST_GAIN", None)
    fallen = Descent(with_a_hole, PATH, TIMES, WIDTH)
    state = fallen.init(500, 2, stream)
    while not fallen.arrived(state):
        state, _ = fallen.step(state, stream)
    # One fell deepest, and all the others are its copies.
    assert len(state.root.unique()) < 5
    assert len(start.root.unique()) > 100


def test_what_has_no_number_is_a_hill_without_slope() -> None:
    energy = torch.tensor([1.0, float("nan"), -float("inf"), 5.0], dtype=DTYPE)
    gradient = torch.tensor([[1.0], [1.0], [1.0], [float("nan")]], dtype=DTYPE)
    bounded, slope = mirrored(energy, gradient, 0.0)
    assert bounded.tolist() == [1.0, 1e6, 1e6, 5.0]
    assert slope.flatten().tolist() == [1.0, 0.0, 0.0, 0.0]


class Cusp(Target):
    """A distance to the origin: an energy everywhere, and no slope there."""

    event_shape, dimension = (2,), 2

    def energy(self, x: Tensor) -> Tensor:
        return x.square().sum(1).sqrt()


@pytest.mark.parametrize("floor", [-1.0, 3.0, -2e6])
def test_the_energy_of_a_guarded_target_is_the_same_with_and_without_its_force(floor: float) -> None:
    x = torch.tensor([[0.0, 0.0], [3.0, 4.0], [float("nan"), 0.0]], dtype=DTYPE)
    assert not Cusp().energy_and_force(x)[1][0].isfinite().any()
    target = GuardedTarget(Cusp(), floor)
    energy, force = target.energy_and_force(x)
    assert torch.equal(target.energy(x), energy)
    assert bool(force.isfinite().all())
    assert force[0].tolist() == [0.0, 0.0]


def test_batches_change_nothing() -> None:
    y = LEARNED.sample(7, named_generator(2, "batches"))
    t = TIMES[:1].expand(7)
    for whole, parts in zip(learned(y, t), in_batches(learned, 3)(y, t), strict=True):
        torch.testing.assert_close(whole, parts)
    for whole, parts in zip(TRUE.energy_and_force(y), InBatches(TRUE, 3).energy_and_force(y), strict=True):
        torch.testing.assert_close(whole, parts)


def descend(file: Path, told: object = lambda state, info: None) -> ReverseSmcState:
    descent = Descent(learned, PATH, TIMES, WIDTH)
    return carry_on(
        descent,
        ReverseSmcState,
        lambda stream: descent.init(50, 2, stream),
        named_generator(3, "resumed"),
        file,
        {"model": "a"},
        told,  # type: ignore[arg-type]
    )


def test_a_killed_descent_ends_in_the_same_particles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resumable, "SECONDS", 0.0)

    def kill(state: ReverseSmcState, info: object) -> None:
        if int(state.stage) == 30:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        descend(tmp_path / "killed.safetensors", kill)
    steps: list[int] = []
    resumed = descend(tmp_path / "killed.safetensors", lambda state, info: steps.append(int(state.stage)))
    assert steps[0] == 30
    whole = descend(tmp_path / "whole.safetensors")
    for name, tensor in whole.tensors().items():
        assert torch.equal(tensor, resumed.tensors()[name]), name
    descent = Descent(learned, PATH, TIMES, WIDTH)
    with pytest.raises(InputError, match="its model is a, this one's is b"):
        carry_on(
            descent,
            ReverseSmcState,
            lambda stream: descent.init(50, 2, stream),
            named_generator(3, "resumed"),
            tmp_path / "killed.safetensors",
            {"model": "b"},
        )
