"""Contract of every path, and of how levels are drawn."""

from __future__ import annotations

import math

import pytest
import torch

from boltzgen_diffclf.paths import StochasticInterpolant, arcsine_levels, neighbour_groups, scattered_groups

PATHS = {
    "scalar noise": lambda: StochasticInterpolant(torch.tensor(0.7, dtype=torch.float64), dimension=3),
    "variance preserving": lambda: StochasticInterpolant(
        torch.full((3,), math.sqrt(2), dtype=torch.float64), dimension=3
    ),
    "noise by coordinate": lambda: StochasticInterpolant(
        torch.tensor([0.4, 1.4, 0.1], dtype=torch.float64), dimension=3
    ),
}


@pytest.fixture(params=list(PATHS))
def path(request: pytest.FixtureRequest) -> StochasticInterpolant:
    return PATHS[request.param]()


def _draw(n: int = 64) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    x_0, displacement, z = (torch.randn(n, 3, generator=generator, dtype=torch.float64) for _ in range(3))
    t = 0.05 + 0.9 * torch.rand(n, generator=generator, dtype=torch.float64)
    return x_0, displacement, z, t


def test_conditional_score_is_the_gradient_of_the_log_density(path: StochasticInterpolant) -> None:
    x_0, displacement, z, t = _draw()
    y = path.sample(x_0, displacement, t, z).requires_grad_()
    (gradient,) = torch.autograd.grad(path.conditional_log_density(y, x_0, displacement, t).sum(), y)
    torch.testing.assert_close(path.conditional_score(y, x_0, displacement, t), gradient)
    torch.testing.assert_close(gradient * path.gamma(t).reshape(len(t), -1), -z)


def test_time_score_is_the_time_derivative_of_the_log_density(path: StochasticInterpolant) -> None:
    x_0, displacement, z, t = _draw()
    y, time = path.sample(x_0, displacement, t, z), t.clone().requires_grad_()
    (derivative,) = torch.autograd.grad(path.conditional_log_density(y, x_0, displacement, time).sum(), time)
    torch.testing.assert_close(path.conditional_time_score(displacement, t, z), derivative)


def test_conditional_density_integrates_to_one() -> None:
    path = StochasticInterpolant(torch.tensor(0.7, dtype=torch.float64), dimension=1)
    y = torch.linspace(-6, 6, 4001, dtype=torch.float64)[:, None]
    start, move, t = (
        torch.full_like(y, 0.3),
        torch.full_like(y, 1.1),
        torch.full((4001,), 0.4, dtype=torch.float64),
    )
    density = path.conditional_log_density(y, start, move, t).exp()
    assert torch.trapezoid(density, y[:, 0]).item() == pytest.approx(1.0, abs=1e-9)


def test_centred_noise_is_normalised_in_its_subspace() -> None:
    # Two particles on a line, centred: one degree of freedom, along (1, -1) / sqrt 2.
    path = StochasticInterpolant(torch.tensor(0.7, dtype=torch.float64), dimension=1)
    along = torch.linspace(-5, 5, 4001, dtype=torch.float64)
    y = along[:, None] * torch.tensor([1.0, -1.0], dtype=torch.float64) / math.sqrt(2)
    zero, t = torch.zeros_like(y), torch.full((4001,), 0.5, dtype=torch.float64)
    density = path.conditional_log_density(y, zero, zero, t).exp()
    assert torch.trapezoid(density, along).item() == pytest.approx(1.0, abs=1e-9)


def test_ends_are_exact(path: StochasticInterpolant) -> None:
    x_0, displacement, z, t = _draw()
    assert torch.equal(path.sample(x_0, displacement, torch.zeros_like(t), z), x_0)
    torch.testing.assert_close(path.sample(x_0, displacement, torch.ones_like(t), z), x_0 + displacement)


def test_variance_is_preserved_for_independent_whitened_ends() -> None:
    generator = torch.Generator().manual_seed(0)
    path = PATHS["variance preserving"]()
    x_0, x_1, z = (torch.randn(40_000, 3, generator=generator, dtype=torch.float64) for _ in range(3))
    for t in (0.1, 0.5, 0.8):
        y = path.sample(x_0, x_1 - x_0, torch.full((40_000,), t, dtype=torch.float64), z)
        assert y.var().item() == pytest.approx(1.0, abs=4 * math.sqrt(2 / y.numel()))


def test_levels_hold_both_ends_and_grow() -> None:
    levels = arcsine_levels(9)
    assert levels[0] == 0
    assert levels[-1] == 1
    assert (levels.diff() > 0).all()
    torch.testing.assert_close(levels + levels.flip(0), torch.ones(9, dtype=torch.float64))


def test_groups_of_levels() -> None:
    generator = torch.Generator().manual_seed(0)
    near = neighbour_groups(33, 8, 500, generator)
    assert (near.diff(dim=1) == 1).all()
    assert near.min() == 0
    assert near.max() == 32
    count = torch.bincount(near.flatten(), minlength=33)
    assert count[0] > 0.5 * count.float().mean()
    assert count[-1] > 0.5 * count.float().mean()
    far = scattered_groups(33, 8, 500, generator)
    assert (far.diff(dim=1) > 0).all()
    assert (far.diff(dim=1) > 1).any()
