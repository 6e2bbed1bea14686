"""The contract of every target and every ladder: a new one is one line in the lists below."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from boltzgen_diffclf.composition import ComposedLadder, ComposedTarget, Mixture, Negation, Product
from boltzgen_diffclf.free_energy.guarded import GuardedTarget
from boltzgen_diffclf.grounded import GroundedLadder
from boltzgen_diffclf.streams import named_generator
from boltzgen_diffclf.target import (
    CountingTarget,
    GaussianTarget,
    InBatches,
    Ladder,
    LinearLadder,
    SingleLevel,
    Target,
    TemperatureLadder,
)
from systems.analytic import DoubleWell, GaussianMixture, TiltedHarmonic


def mixture(dtype: torch.dtype = torch.float64) -> GaussianMixture:
    return GaussianMixture(
        weights=torch.tensor([0.2, 0.8], dtype=dtype),
        means=torch.tensor([[-1.0, 0.5, 0.0], [1.0, 0.0, 1.0]], dtype=dtype),
        sigmas=torch.tensor([0.6, 1.1], dtype=dtype),
        log_normaliser=1.5,
    )


def numbers(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def members() -> list[Target]:
    return [mixture(), DoubleWell(dimension=3)]


TARGETS: dict[str, Callable[[], Target]] = {
    "gaussian": lambda: GaussianTarget(3, sigma=0.7, mean=0.3),
    "counted": lambda: CountingTarget(GaussianTarget(3)),
    "in batches": lambda: InBatches(mixture(), 4),
    "guarded": lambda: GuardedTarget(mixture(), floor=3.0),
    "mixture": mixture,
    "double well": lambda: DoubleWell(dimension=3),
    "tilted harmonic": lambda: TiltedHarmonic(2.0, [0.5, 0.0, -1.0]),
    "product": lambda: ComposedTarget(members(), Product(numbers(0.4, 1.3))),
    "mixture of targets": lambda: ComposedTarget(members(), Mixture(numbers(1.0, 2.0), numbers(0.3, -0.7)[None])),
    "negation": lambda: ComposedTarget(members(), Negation(0.6, ceiling=1.0)),
}

LADDERS: dict[str, Callable[[], Ladder]] = {
    "single": lambda: SingleLevel(mixture()),
    "temperature": lambda: TemperatureLadder(DoubleWell(dimension=3), [300.0, 450.0, 700.0]),
    "grounded": lambda: GroundedLadder(mixture(), TemperatureLadder(DoubleWell(dimension=3), [300.0, 450.0])),
    "linear": lambda: LinearLadder(GaussianTarget(3, sigma=2.0), mixture(), [0.0, 0.3, 1.0]),
    "mixture of ladders": lambda: ComposedLadder(
        [
            LinearLadder(GaussianTarget(3, sigma=2.0), mixture(), [0.0, 0.3, 1.0]),
            TemperatureLadder(DoubleWell(dimension=3), [300.0, 450.0, 700.0]),
        ],
        Mixture(numbers(1.0, 2.0), numbers(0.3, -0.7, 2.0, 0.0, 1.0, 1.0).view(3, 2)),
    ),
}


def positions(event_shape: tuple[int, ...], dtype: torch.dtype, n: int = 6) -> torch.Tensor:
    return torch.randn(n, *event_shape, generator=named_generator(1, "positions"), dtype=torch.float64).to(dtype)


def numerical_force(energy: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor, h: float = 1e-5) -> torch.Tensor:
    """Return minus the central differences of ``energy`` at ``x``."""
    offsets = h * torch.eye(x[0].numel(), dtype=x.dtype).view(-1, *x.shape[1:])
    slopes = [(energy(x - offset) - energy(x + offset)) / (2 * h) for offset in offsets]
    return torch.stack(slopes, dim=-1).view_as(x)


@pytest.fixture(params=TARGETS.values(), ids=TARGETS.keys())
def target(request: pytest.FixtureRequest) -> Target:
    return request.param()


@pytest.fixture(params=LADDERS.values(), ids=LADDERS.keys())
def ladder(request: pytest.FixtureRequest) -> Ladder:
    return request.param()


def test_force_is_minus_the_gradient_of_the_energy(target: Target) -> None:
    x = positions(target.event_shape, target.dtype)
    energy, force = target.energy_and_force(x)
    torch.testing.assert_close(energy, target.energy(x))
    torch.testing.assert_close(force, numerical_force(target.energy, x), rtol=1e-6, atol=1e-6)


def test_energy_is_differentiable_and_agrees_with_the_force(target: Target) -> None:
    x = positions(target.event_shape, target.dtype).requires_grad_(True)
    (gradient,) = torch.autograd.grad(target.energy(x).sum(), x)
    torch.testing.assert_close(-gradient, target.energy_and_force(x)[1])


def test_results_are_detached_and_leave_the_positions_alone(target: Target) -> None:
    x = positions(target.event_shape, target.dtype).requires_grad_(True)
    before = x.detach().clone()
    energy, force = target.energy_and_force(x)
    assert not energy.requires_grad
    assert not force.requires_grad
    assert x.grad is None
    assert torch.equal(x, before)


def test_one_configuration_does_not_depend_on_the_others(target: Target) -> None:
    x = positions(target.event_shape, target.dtype)
    energy, force = target.energy_and_force(x)
    for i in range(len(x)):
        alone_energy, alone_force = target.energy_and_force(x[i : i + 1])
        torch.testing.assert_close(alone_energy, energy[i : i + 1])
        torch.testing.assert_close(alone_force, force[i : i + 1])


def test_target_says_what_it_takes(target: Target) -> None:
    x = positions(target.event_shape, target.dtype)
    energy, force = target.energy_and_force(x)
    assert energy.shape == (len(x),)
    assert force.shape == x.shape
    assert energy.dtype == force.dtype == target.dtype
    assert 1 <= target.dimension <= x[0].numel()


def test_ladder_energies_are_the_energy_at_each_level(ladder: Ladder) -> None:
    x = positions(ladder.event_shape, ladder.dtype)
    matrix = ladder.energies(x)
    assert matrix.shape == (len(x), ladder.n_levels)
    for k in range(ladder.n_levels):
        torch.testing.assert_close(matrix[:, k], ladder.energy(x, torch.full((len(x),), k)))


def test_ladder_serves_each_walker_at_its_own_level(ladder: Ladder) -> None:
    x = positions(ladder.event_shape, ladder.dtype)
    level = torch.arange(len(x)) % ladder.n_levels
    energy, force = ladder.energy_and_force(x, level)
    torch.testing.assert_close(energy, ladder.energies(x).gather(1, level[:, None]).squeeze(1))
    numerical = numerical_force(lambda y: ladder.energy(y, level), x)
    torch.testing.assert_close(force, numerical, rtol=1e-6, atol=1e-6)


def test_relevel_is_an_evaluation_at_the_new_level(ladder: Ladder) -> None:
    x = positions(ladder.event_shape, ladder.dtype)
    level = torch.arange(len(x)) % ladder.n_levels
    new_level = (level + 1) % ladder.n_levels
    energy, force = ladder.relevel(x, level, new_level, *ladder.energy_and_force(x, level))
    expected_energy, expected_force = ladder.energy_and_force(x, new_level)
    torch.testing.assert_close(energy, expected_energy)
    torch.testing.assert_close(force, expected_force)


def test_linear_ladder_ends_at_its_targets() -> None:
    a, b = GaussianTarget(3, sigma=2.0), mixture()
    x = positions((3,), torch.float64)
    matrix = LinearLadder(a, b, [0.0, 0.5, 1.0]).energies(x)
    torch.testing.assert_close(matrix[:, 0], a.energy(x))
    torch.testing.assert_close(matrix[:, 2], b.energy(x))
    torch.testing.assert_close(matrix[:, 1], 0.5 * (a.energy(x) + b.energy(x)))


class Walled(GaussianTarget):
    """Impossible where the first coordinate is positive."""

    def energy(self, x: torch.Tensor) -> torch.Tensor:
        return torch.where(x[:, 0] > 0, torch.inf, super().energy(x))


@pytest.mark.parametrize("walled", ["a", "b", "both"])
def test_what_one_end_excludes_counts_nothing_at_the_other(walled: str) -> None:
    a, b = (Walled(3) if walled in (end, "both") else GaussianTarget(3) for end in "ab")
    ladder = LinearLadder(a, b, [0.0, 0.5, 1.0])
    x = positions((3,), torch.float64)
    expected = torch.stack([a.energy(x), 0.5 * (a.energy(x) + b.energy(x)), b.energy(x)], dim=1)
    torch.testing.assert_close(ladder.energies(x), expected)
    for level in range(3):
        torch.testing.assert_close(ladder.energy(x, torch.full((len(x),), level)), expected[:, level])


def test_temperature_ladder_scales_by_the_inverse_temperature() -> None:
    target = DoubleWell(dimension=3)
    x = positions((3,), torch.float64)
    matrix = TemperatureLadder(target, [300.0, 600.0]).energies(x)
    torch.testing.assert_close(matrix[:, 0], target.energy(x))
    torch.testing.assert_close(matrix[:, 1], 0.5 * target.energy(x))


def test_temperature_ladder_relevels_and_lists_all_energies_at_no_or_one_evaluation() -> None:
    counted = CountingTarget(DoubleWell(dimension=3))
    ladder = TemperatureLadder(counted, [300.0, 400.0, 500.0])
    x = positions((3,), torch.float64)
    level = torch.zeros(len(x), dtype=torch.long)
    energy, force = ladder.energy_and_force(x, level)
    ladder.relevel(x, level, level + 1, energy, force)
    ladder.energies(x)
    assert counted.evaluations == 2 * len(x)


def test_linear_ladder_refuses_targets_of_different_shapes() -> None:
    with pytest.raises(ValueError, match="differ in shape"):
        LinearLadder(GaussianTarget(2), GaussianTarget(3), [0.0, 1.0])


def test_each_part_of_a_grounded_ladder_sees_the_configurations_that_need_it_alone() -> None:
    ground, above = CountingTarget(GaussianTarget(3)), CountingTarget(mixture())
    ladder = GroundedLadder(ground, SingleLevel(above))
    x, level = positions((3,), torch.float64, 5), torch.tensor([0, 1, 1, 0, 1])
    energy, force = ladder.energy_and_force(x, level)
    assert (ground.evaluations, above.evaluations) == (2, 3)
    torch.testing.assert_close(energy, ladder.energies(x).gather(1, level[:, None])[:, 0])
    torch.testing.assert_close(force[level == 0], -x[level == 0])


def test_a_ladder_is_grounded_in_a_target_of_its_own_space() -> None:
    with pytest.raises(ValueError, match="differ"):
        GroundedLadder(GaussianTarget(2), SingleLevel(mixture()))
