"""Every objective has its minimum where the analytic answer is."""

from __future__ import annotations

import math

import torch

from boltzgen_diffclf.losses import (
    binary_classification_loss,
    denoising_score_matching_loss,
    endpoint_target_score_matching_loss,
    level_classification_loss,
)
from boltzgen_diffclf.paths import StochasticInterpolant

N = 100_000


def _gaussian_path(t: torch.Tensor, seed: int = 0) -> tuple[torch.Tensor, ...]:
    """Return ``y, z, x_0, x_1`` on the path from N(0, 1) to N(2, 0.5^2), and the exact mean and variance."""
    generator = torch.Generator().manual_seed(seed)
    x_0, x_1, z = (torch.randn(len(t), 1, generator=generator, dtype=torch.float64) for _ in range(3))
    x_1 = 2 + 0.5 * x_1
    y = PATH.sample(x_0, x_1 - x_0, t, z)
    variance = (1 - t) ** 2 + 0.25 * t**2 + PATH.gamma(t) ** 2
    return y, z, x_0, x_1, 2 * t, variance


PATH = StochasticInterpolant(torch.tensor(0.8, dtype=torch.float64), dimension=1)


def _energies(y: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    """Return ``U(y_i, t_j)`` of the exact marginals, unnormalised."""
    variance = (1 - t) ** 2 + 0.25 * t**2 + 0.64 * t * (1 - t)
    return 0.5 * (y[..., :, None] - 2 * t[..., None, :]).square() / variance[..., None, :]


def test_denoising_score_matching_is_least_at_the_marginal_score() -> None:
    t = torch.rand(N, generator=torch.Generator().manual_seed(3), dtype=torch.float64) * 0.8 + 0.1
    y, z, _, _, mean, variance = _gaussian_path(t)
    exact = (y - mean[:, None]) / variance[:, None]
    gamma = PATH.gamma(t)[:, None]

    def loss(gradient: torch.Tensor) -> torch.Tensor:
        return denoising_score_matching_loss(gradient, z, gamma, 1)

    for change in (1.3 * exact, 0.7 * exact, exact + 0.2, exact - 0.2):
        margin = loss(change) - loss(exact)
        assert margin.mean() > 3 * margin.std() / math.sqrt(N)


def test_exact_ends_have_nothing_to_match() -> None:
    value = denoising_score_matching_loss(torch.ones(2, 3), torch.ones(2, 3), torch.zeros(2, 3), 3)
    assert torch.equal(value, torch.zeros(2))


def test_endpoint_target_scores_average_to_the_marginal_score() -> None:
    for time in (0.2, 0.7):
        t = torch.full((N,), time, dtype=torch.float64)
        y, _, x_0, x_1, mean, variance = _gaussian_path(t, seed=5)
        exact = (y - mean[:, None]) / variance[:, None]
        force_0, force_1, scale = -x_0, -(x_1 - 2) / 0.25, PATH.gamma(t)[:, None]

        def loss(gradient: torch.Tensor) -> torch.Tensor:
            return endpoint_target_score_matching_loss(gradient, force_0, force_1, t, scale, 1)  # noqa: B023

        for change in (1.15 * exact, 0.85 * exact, exact + 0.2, exact - 0.2):
            margin = loss(change) - loss(exact)
            assert margin.mean() > 3 * margin.std() / math.sqrt(N)


def test_classification_finds_energies_and_free_energies() -> None:
    levels = torch.tensor([0.0, 0.3, 0.6, 1.0], dtype=torch.float64)
    y, _, _, _, _, variance = _gaussian_path(levels.repeat(N // 4))
    y = y.reshape(-1, 4)
    energies = _energies(y, levels.expand_as(y))
    exact = (-0.5 * (2 * math.pi * variance[:4]).log()).expand_as(y)

    def loss(free: torch.Tensor, scale: float = 1.0) -> torch.Tensor:
        return level_classification_loss(scale * energies, free).mean(-1)

    others = [loss(exact + 0.2 * torch.eye(4, dtype=torch.float64)[k]) for k in range(4)] + [loss(exact, 1.1)]
    for other in others:
        margin = other - loss(exact)
        assert margin.mean() > 2 * margin.std() / math.sqrt(len(y))
    torch.testing.assert_close(loss(exact + 3.0), loss(exact))


def test_two_levels_are_the_binary_loss() -> None:
    generator = torch.Generator().manual_seed(0)
    energies, free = torch.randn(7, 2, 2, generator=generator), torch.randn(7, 2, generator=generator)
    torch.testing.assert_close(binary_classification_loss(energies, free), level_classification_loss(energies, free))


def test_identical_levels_cannot_be_told_apart() -> None:
    value = level_classification_loss(torch.zeros(5, 6, 6), torch.zeros(5, 6))
    torch.testing.assert_close(value, torch.full((5, 6), math.log(6)))
