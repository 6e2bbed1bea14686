"""Levels by thermodynamic length: closed forms of a noised Gaussian, and what a classifier makes of the levels."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch

from boltzgen_diffclf.paths import (
    DiffusionPath,
    Edm,
    VarianceExploding,
    VariancePreserving,
    accumulated_length,
    close_levels,
    fisher_information,
    gap_aware_pairs,
    gap_probabilities,
    length_at,
    log_snr_levels,
    neighbour_groups,
    scattered_groups,
    spaced_groups,
    thermodynamic_length,
    thermodynamic_levels,
    uniform_levels,
)

PATH = VariancePreserving()
DATA_VARIANCE = 0.05
SHIFT = 3.0
"""The data is N(SHIFT e_1, DATA_VARIANCE I)."""


def _moments(t: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Return mean, variance and their time derivatives of the noised Gaussian."""
    alpha, f = PATH.alpha(t), PATH.drift_rate(t)
    variance = alpha.square() * DATA_VARIANCE + PATH.sigma(t).square()
    return SHIFT * alpha, variance, SHIFT * f * alpha, 2 * f * variance + PATH.diffusion_squared(t)


def _information(t: torch.Tensor, dimension: int) -> torch.Tensor:
    _, variance, d_mean, d_variance = _moments(t)
    return d_mean.square() / variance + 0.5 * dimension * (d_variance / variance).square()


def _reduced_samples(t: torch.Tensor, dimension: int, n: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the first coordinate and the squared length of the others: all that the density depends on."""
    mean, variance, _, _ = _moments(t)
    generator = np.random.default_rng(seed)
    along = torch.from_numpy(generator.standard_normal((len(t), n)))
    chi_squared = torch.from_numpy(generator.chisquare(dimension - 1, (len(t), n)))
    return mean[:, None] + variance.sqrt()[:, None] * along, variance[:, None] * chi_squared


def _log_density(along: torch.Tensor, rest: torch.Tensor, t: torch.Tensor, dimension: int) -> torch.Tensor:
    mean, variance = (value[:, None] for value in _moments(t)[:2])
    return -0.5 * ((along - mean).square() + rest) / variance - 0.5 * dimension * variance.log()


def _neighbour_losses(levels: torch.Tensor, dimension: int, n: int = 40_000) -> torch.Tensor:
    """Return the binary classification loss of exact densities between every two neighbouring levels."""
    along, rest = _reduced_samples(levels, dimension, n, seed=7)
    own = _log_density(along, rest, levels, dimension)
    down = own[1:] - _log_density(along[1:], rest[1:], levels[:-1], dimension)
    up = own[:-1] - _log_density(along[:-1], rest[:-1], levels[1:], dimension)
    return 0.5 * (torch.nn.functional.softplus(-down) + torch.nn.functional.softplus(-up)).mean(1)


@pytest.mark.parametrize("dimension", [2, 32, 512])
def test_equal_lengths_are_equally_hard_to_tell_apart(dimension: int) -> None:
    nodes = log_snr_levels(PATH, 4000)
    information = _information(nodes, dimension)
    total, gap = float(accumulated_length(nodes, information)[-1]), 1.0
    levels = thermodynamic_levels(nodes, information, round(total / gap) + 1)
    losses = _neighbour_losses(levels, dimension)
    assert losses.max() / losses.min() < 1.03
    # What the classifier learns, log 2 - loss, is the stricter measure, and the same in every dimension.
    learned = math.log(2) - losses
    assert learned.max() / learned.min() < 1.15
    assert float(learned.mean()) == pytest.approx(gap**2 / 8, rel=0.12)
    blind = _neighbour_losses(log_snr_levels(PATH, len(levels)), dimension)
    assert blind.max() / blind.min() > 3


@pytest.mark.parametrize("dimension", [2, 32])
def test_information_of_exact_time_scores_is_the_closed_form(dimension: int) -> None:
    t, n = torch.tensor([0.05, 0.2, 0.5, 0.9], dtype=torch.float64), 20_000
    along, rest = _reduced_samples(t, dimension, n, seed=1)
    scores = torch.func.jvp(lambda time: _log_density(along, rest, time, dimension), (t,), (torch.ones_like(t),))[1]
    squares = (scores - scores.mean(1, keepdim=True)).square()
    error = squares.std(1) / math.sqrt(n)
    assert ((fisher_information(scores) - _information(t, dimension)).abs() < 4 * error).all()
    # The exact score has mean zero, and a free energy's share is not seen.
    torch.testing.assert_close(fisher_information(scores + t[:, None]), fisher_information(scores))


def test_conditional_time_scores_overestimate_by_their_posterior_variance() -> None:
    t, n = torch.tensor([0.01, 0.1, 0.6], dtype=torch.float64), 40_000
    generator = torch.Generator().manual_seed(3)
    scores = []
    for time in t:
        x, z = (torch.randn(n, 2, generator=generator, dtype=torch.float64) for _ in range(2))
        x = math.sqrt(DATA_VARIANCE) * x + torch.tensor([SHIFT, 0.0], dtype=torch.float64)
        scores.append(PATH.conditional_time_score(x, time.expand(n), z))
    found = fisher_information(torch.stack(scores))
    # Var[a (|z|^2 - d) + b x z] for x ~ N(m, v I): 2 d a^2 + b^2 (|m|^2 + d v).
    a, b = PATH.d_log_sigma(t), PATH.drift_rate(t) * PATH.alpha(t) / PATH.sigma(t)
    conditional = 4 * a.square() + b.square() * (SHIFT**2 + 2 * DATA_VARIANCE)
    torch.testing.assert_close(found, conditional, rtol=0.1, atol=0)
    ratio = found / _information(t, 2)
    assert ratio[0] > 10
    assert (ratio > 1).all()
    assert ratio[2] < 1.2


def test_length_between_nodes_is_exact_for_a_scaled_gaussian() -> None:
    # Pure variance exploding noise on a point: I = (d / 2) (d log v / dt)^2, so L = sqrt(d / 2) log(v_1 / v_0).
    path, dimension = VarianceExploding(0.1, 10.0), 8
    nodes = uniform_levels(50)
    information = 0.5 * dimension * (2 * path.d_log_sigma(nodes)).square()
    length = accumulated_length(nodes, information)
    assert length[-1].item() == pytest.approx(2 * 2 * math.log(100.0))
    torch.testing.assert_close(thermodynamic_levels(nodes, information, 7), uniform_levels(7))
    between = torch.tensor([0.123, 0.5], dtype=torch.float64)
    torch.testing.assert_close(length_at(between, nodes, length), between * length[-1])


def test_length_from_samples_is_close_to_the_closed_form() -> None:
    nodes, dimension = log_snr_levels(PATH, 200), 4
    along, rest = _reduced_samples(nodes, dimension, 2000, seed=4)
    ones = torch.ones_like(nodes)
    scores = torch.func.jvp(lambda time: _log_density(along, rest, time, dimension), (nodes,), (ones,))[1]
    fine = log_snr_levels(PATH, 20_000)
    exact = accumulated_length(fine, _information(fine, dimension))[-1].item()
    assert thermodynamic_length(nodes, scores)[-1].item() == pytest.approx(exact, rel=0.01)


@pytest.mark.parametrize("path", [PATH, Edm(), VarianceExploding(0.01, 20.0)], ids=["vp", "edm", "ve"])
def test_log_snr_levels_are_even_in_log_snr(path: DiffusionPath) -> None:
    levels = log_snr_levels(path, 33)
    assert (levels[0].item(), levels[-1].item()) == (path.t_min, path.t_max)
    steps = path.log_snr(levels).diff()
    torch.testing.assert_close(steps, steps.mean().expand_as(steps), rtol=1e-9, atol=0)
    inner = log_snr_levels(path, 5, 0.2, 0.6)
    assert (inner[0].item(), inner[-1].item()) == (0.2, 0.6)


def _uneven_lengths() -> torch.Tensor:
    # Dense levels, then a hole five target gaps wide, then levels as far apart as the target.
    return torch.cat([torch.linspace(0, 4, 81), torch.linspace(9, 15, 7)]).double()


def test_drawn_pairs_follow_the_stated_probabilities() -> None:
    length = _uneven_lengths()
    probability = gap_probabilities(length, 1.0)
    assert probability.sum().item() == pytest.approx(1.0)
    above = torch.ones_like(probability).triu(1).bool()
    assert (probability[above] > 0).all()
    assert (probability[~above] == 0).all()
    n = 200_000
    pairs = gap_aware_pairs(length, 1.0, n, torch.Generator().manual_seed(0))
    assert (pairs[:, 0] < pairs[:, 1]).all()
    counts = torch.bincount(pairs[:, 0] * len(length) + pairs[:, 1], minlength=len(length) ** 2)
    often = probability.flatten() * n > 20
    expected = probability.flatten()[often] * n
    chi_squared = ((counts[often] - expected).square() / expected).sum()
    degrees = int(often.sum())
    assert abs(chi_squared.item() - degrees) < 4 * math.sqrt(2 * degrees)


def test_weighted_pairs_estimate_another_law() -> None:
    length = torch.linspace(0, 6, 25).double()
    probability = gap_probabilities(length, 1.0)
    pairs = gap_aware_pairs(length, 1.0, 50_000, torch.Generator().manual_seed(1))
    i, j = pairs.T
    uniform = 2 / (25 * 24)
    values = torch.exp(-(length[j] - length[i])) * uniform / probability[i, j]
    exact = torch.exp(-(length[:, None] - length).abs()).triu(1).sum() * uniform
    assert values.mean().item() == pytest.approx(exact.item(), abs=4 * values.std().item() / math.sqrt(50_000))


@pytest.mark.parametrize("crowding", [1.0, 1.5], ids=["even levels", "levels crowded at one end"])
def test_gaps_are_around_the_target_however_dense_the_levels(crowding: float) -> None:
    for n_levels, target in ((800, 0.5), (800, 2.0), (200, 2.0)):
        length = 80 * torch.linspace(0, 1, n_levels).double() ** crowding
        # Away from the ends, where the other level has both sides to be on.
        probability = gap_probabilities(length, target)[n_levels // 4 : -n_levels // 4]
        gap = (length - length[n_levels // 4 : -n_levels // 4, None]).clamp(min=1e-12).log()
        mean = float((probability * gap).sum() / probability.sum())
        spread = float((probability * (gap - mean).square()).sum() / probability.sum()) ** 0.5
        # Density exp(-log(r/g)^2 / (2 s^2)) per length: log r is normal about log g + s^2.
        assert mean == pytest.approx(math.log(target) + 0.25, abs=0.01)
        assert spread == pytest.approx(0.5, abs=0.01)


def test_spaced_groups_keep_their_gap_where_levels_are_dense_and_step_over_holes() -> None:
    length = torch.cat([torch.tensor([0.0, 5.0]), torch.linspace(5.1, 25.0, 400)]).double()
    groups = spaced_groups(length, 2.0, 4, 5000, torch.Generator().manual_seed(0))
    assert bool((groups.diff(dim=1) > 0).all())
    assert (int(groups.min()), int(groups.max())) == (0, len(length) - 1)
    dense = groups[groups[:, 0] > 1]
    gaps = length[dense].diff(dim=1)
    assert bool((gaps > 2.0 / 1.3 - 0.06).all() & (gaps < 2.0 * 1.3 + 0.06).all())
    # The first level alone stands for a fifth of the length, and half of the groups are drawn by it.
    assert float((groups[:, 0] == 0).double().mean()) > 0.05


def test_spaced_groups_reach_every_level_of_a_path_that_is_too_short_for_their_gap() -> None:
    groups = spaced_groups(torch.linspace(0.0, 1.0, 21).double(), 2.0, 3, 1000, torch.Generator().manual_seed(0))
    assert groups.diff(dim=1).unique().tolist() == [5]
    assert groups.unique().tolist() == list(range(21))
    assert spaced_groups(torch.arange(3.0), 2.0, 3, 10, torch.Generator()).tolist() == [[0, 1, 2]] * 10
    assert spaced_groups(torch.arange(3.0), 2.0, 1, 10, torch.Generator()).shape == (10, 1)
    with pytest.raises(ValueError, match="ascend"):
        spaced_groups(torch.arange(3.0).flip(0), 2.0, 2, 5, torch.Generator())


@pytest.mark.parametrize(
    "draw",
    [neighbour_groups, scattered_groups, lambda n, *others: spaced_groups(torch.arange(float(n)), 1.0, *others)],
)
def test_groups_of_more_levels_than_there_are_are_refused(draw: Callable[..., torch.Tensor]) -> None:
    assert draw(4, 4, 3, torch.Generator()).tolist() == [[0, 1, 2, 3]] * 3
    with pytest.raises(ValueError, match="groups of 5 levels need as many, and there are 4"):
        draw(4, 5, 3, torch.Generator())


def test_pair_probabilities_of_three_levels_by_hand() -> None:
    # Lengths 0, 1, 3 stand for 1/2, 3/2 and 1 of length; distances 1, 2 and 3 have these densities.
    near, middle, far = (math.exp(-2 * math.log(r) ** 2) for r in (1, 2, 3))
    of_first = 1.5 * near / (1.5 * near + far)
    of_second = 0.5 * near / (0.5 * near + middle)
    of_third = 0.5 * far / (0.5 * far + 1.5 * middle)
    found = gap_probabilities(torch.tensor([0.0, 1.0, 3.0], dtype=torch.float64), 1.0)
    assert found[0, 1].item() == pytest.approx((of_first + of_second) / 3)
    assert found[0, 2].item() == pytest.approx((1 - of_first + of_third) / 3)
    assert found[1, 2].item() == pytest.approx((2 - of_second - of_third) / 3)


def test_every_level_is_seen_and_holes_are_bridged() -> None:
    probability = gap_probabilities(_uneven_lengths(), 1.0)
    seen = probability.sum(0) + probability.sum(1)
    # Each level is the uniform member of a pair once in `levels` draws.
    assert (seen >= 1 / len(seen)).all()
    assert probability[:81, 81:].sum() > 1e-4


@pytest.mark.parametrize(
    "act",
    [
        lambda: uniform_levels(1),
        lambda: uniform_levels(5, 0.5, 0.5),
        lambda: log_snr_levels(PATH, 5, t_min=0.0),
        lambda: accumulated_length(uniform_levels(3).flip(0), torch.ones(3)),
        lambda: accumulated_length(uniform_levels(3), torch.tensor([1.0, math.nan, 1.0])),
        lambda: thermodynamic_levels(uniform_levels(3), torch.zeros(3), 4),
        lambda: gap_probabilities(torch.zeros(3), 1.0),
        lambda: gap_probabilities(torch.arange(3.0), 0.0),
    ],
)
def test_impossible_layouts_are_refused(act: object) -> None:
    with pytest.raises(ValueError, match=r"need|noise|ascend|finite|change|positive"):
        act()  # type: ignore[operator]


def test_far_levels_are_joined_by_others_evenly_and_close_ones_are_not() -> None:
    levels = torch.tensor([0.0, 0.1, 1.0, 1.2], dtype=torch.float64)
    closer = close_levels(levels, lambda t: 10 * t.square(), largest_gap=2.0)
    assert set(levels.tolist()) <= set(closer.tolist())
    gaps = (10 * closer.square()).diff()
    # 9.9 of length between the second and the third in five parts, 4.4 between the last two in three.
    assert gaps.tolist() == pytest.approx([0.1, *[9.9 / 5] * 5, *[4.4 / 3] * 3], rel=1e-2)
