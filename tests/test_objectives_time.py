"""Objectives of time-dependent energies: each has its minimum, or its known set of minima, at the exact answer."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from boltzgen_diffclf.estimators import bar, mbar
from boltzgen_diffclf.losses import (
    binary_classification_loss,
    conditional_noise_contrastive_loss,
    denoising_score_matching_loss,
    exact_end_classification_loss,
    fokker_planck_loss,
    fokker_planck_residual,
    forward_step,
    jensen_shannon_ratio_loss,
    kernel_ratio_loss,
    kullback_leibler_ratio_loss,
    level_classification_loss,
    probed_fokker_planck_loss,
    time_score,
    time_score_matching_loss,
)
from boltzgen_diffclf.paths import StochasticInterpolant
from boltzgen_diffclf.streams import named_generator
from tests.noised_mixture import (
    COMMON,
    DTYPE,
    SCALE,
    SHIFT,
    SLOPE,
    TURN,
    WEIGHT,
    Exploding,
    Noised,
    NoisedMixture,
    Objective,
    Path,
    Preserving,
    assert_least,
    assert_stationary,
    gradients,
    normal,
    uniform_times,
    z_score,
)

PATHS = [Preserving(), Exploding()]
RATIO_KNOBS = [SCALE, SHIFT, WEIGHT, SLOPE]
LEVELS = torch.tensor([0.1, 0.3, 0.6, 1.0], dtype=DTYPE)


def _log_density(model: NoisedMixture, batch: Noised, level: float) -> Tensor:
    t = torch.full_like(batch.t, level)
    return model.free_energy(t) - model.energy(batch.y, t)


def _by_level(model: NoisedMixture, n: int, seed: int, levels: Tensor = LEVELS) -> Noised:
    """Return n samples of each level, level by level within every group."""
    return model.sample(levels.repeat(n), seed)


def _classify(model: NoisedMixture, batch: Noised) -> Tensor:
    energies = torch.stack([-_log_density(model, batch, level) for level in LEVELS.tolist()], -1).unflatten(0, (-1, 4))
    return level_classification_loss(energies, torch.zeros(len(energies), 4, dtype=DTYPE)).mean(-1)


def _ratios(model: NoisedMixture, batch: Noised) -> tuple[Tensor, Tensor]:
    """Return the log ratio of levels 0.3 and 0.1 on the samples of 0.1 and on those of 0.3, which alternate."""
    ratio = _log_density(model, batch, 0.3) - _log_density(model, batch, 0.1)
    return ratio[0::2], ratio[1::2]


def _jensen_shannon(model: NoisedMixture, batch: Noised) -> Tensor:
    return jensen_shannon_ratio_loss(*_ratios(model, batch))


def _kullback_leibler(model: NoisedMixture, batch: Noised) -> Tensor:
    return kullback_leibler_ratio_loss(*_ratios(model, batch))


def test_many_levels_are_told_apart_best_by_the_exact_energies() -> None:
    model = NoisedMixture(Preserving())
    batch = _by_level(model, 10_000, 1)
    assert_stationary(_classify, model, batch, RATIO_KNOBS)
    assert_least(_classify, model, batch, RATIO_KNOBS)


@pytest.mark.parametrize("objective", [_jensen_shannon, _kullback_leibler])
def test_bregman_losses_are_least_at_the_exact_ratio(objective: Objective) -> None:
    model = NoisedMixture(Preserving())
    batch = _by_level(model, 40_000, 2, torch.tensor([0.1, 0.3], dtype=DTYPE))
    assert_stationary(objective, model, batch, RATIO_KNOBS)
    assert_least(objective, model, batch, RATIO_KNOBS)


def test_bregman_losses_measure_their_divergences() -> None:
    grid = torch.linspace(-30, 30, 20_001, dtype=DTYPE)
    cell, model = grid[1] - grid[0], NoisedMixture(Preserving(), dim=1)
    log_s, log_t = (model.log_density(grid[:, None], torch.full_like(grid, t)).detach() for t in (0.1, 0.6))
    p_s, p_t, ratio = log_s.exp() * cell, log_t.exp() * cell, log_t - log_s
    zero = torch.zeros_like(ratio)
    expected = p_s @ jensen_shannon_ratio_loss(ratio, zero) + p_t @ jensen_shannon_ratio_loss(zero, ratio)
    log_middle = torch.logaddexp(log_s, log_t) - math.log(2)
    divergence = (p_s @ (log_s - log_middle) + p_t @ (log_t - log_middle)) / 2
    # Each call adds the constant softplus(0) of the side it does not look at.
    torch.testing.assert_close(expected - 2 * math.log(2), 2 * math.log(2) - 2 * divergence)
    # Where p_s has vanished the ratio passes the ceiling: nothing of its mass is there, nor of p_t at this width.
    start = p_s @ (kullback_leibler_ratio_loss(ratio, zero, ceiling=60.0))
    end = p_t @ kullback_leibler_ratio_loss(zero, ratio, ceiling=60.0) - 1
    torch.testing.assert_close(start + end, 1 - p_t @ ratio)


def test_jensen_shannon_is_twice_the_binary_loss() -> None:
    energies = torch.randn(9, 2, 2, generator=torch.Generator().manual_seed(0), dtype=DTYPE)
    at_start, at_end = energies[:, 0, 0] - energies[:, 0, 1], energies[:, 1, 0] - energies[:, 1, 1]
    binary = binary_classification_loss(energies, torch.zeros(9, 2, dtype=DTYPE)).mean(-1)
    torch.testing.assert_close(jensen_shannon_ratio_loss(at_start, at_end), 2 * binary)


def test_exponential_goes_on_along_its_tangent() -> None:
    ratio = torch.tensor([2.0, 19.0, 25.0, 800.0], dtype=DTYPE, requires_grad=True)
    (slope,) = torch.autograd.grad(kullback_leibler_ratio_loss(ratio, ratio).sum(), ratio)
    expected = ratio.detach().clamp(max=20).exp() - 1
    # A ratio above the ceiling for equal densities is pulled down; a constant cap would push it up without end.
    torch.testing.assert_close(slope, expected)


def test_a_common_factor_of_all_levels_is_not_seen() -> None:
    model = NoisedMixture(Preserving())
    batch, pairs = _by_level(model, 500, 3), _by_level(model, 500, 3, LEVELS[:2])
    for objective, samples in ((_classify, batch), (_jensen_shannon, pairs), (_kullback_leibler, pairs)):
        assert gradients(objective, model, samples, 5)[:, COMMON].abs().max() < 1e-12
    assert gradients(_match_time_score, model, batch, 5)[:, COMMON].abs().max() < 1e-12


def _with_exact_ends(model: NoisedMixture, batch: Noised, levels: Tensor, counts: Tensor) -> Tensor:
    """The model learns the inner levels and all F; the energies of the first and the last level stay exact."""
    exact = NoisedMixture(model.path)
    energies = [
        (model if 0 < k < len(levels) - 1 else exact).energy(batch.y, level.expand(len(batch.y)))
        for k, level in enumerate(levels)
    ]
    ends, inner = torch.stack([energies[0], energies[-1]], 1), torch.stack(energies[1:-1], 1)
    origin = torch.searchsorted(levels, batch.t)
    return exact_end_classification_loss(ends, inner, model.free_energy(levels), origin, counts)


def test_exact_ends_fix_what_ratios_leave_free_and_keep_the_minimum_for_unequal_counts() -> None:
    model, levels, counts = NoisedMixture(Preserving()), LEVELS[[0, 1, 3]], torch.tensor([1, 3, 2])

    def objective(candidate: NoisedMixture, batch: Noised) -> Tensor:
        return _with_exact_ends(candidate, batch, levels, counts)

    batch = _by_level(model, 8_000, 4, levels.repeat_interleave(counts))
    assert_stationary(objective, model, batch, [SCALE, SHIFT, WEIGHT, SLOPE, COMMON])
    assert_least(objective, model, batch, [SCALE, SHIFT, WEIGHT, SLOPE, COMMON])


@pytest.mark.parametrize("n_k", [[300, 900], [400, 100, 700]])
def test_fixed_energies_give_the_acceptance_ratios(n_k: list[int]) -> None:
    model, n_levels = NoisedMixture(Preserving()), len(n_k)
    levels = torch.tensor([0.1, 0.4, 0.7], dtype=DTYPE)[:n_levels]
    batch = model.sample(levels.repeat_interleave(torch.tensor(n_k)), 5)
    u_kn = torch.stack([model.energy(batch.y, level.expand(len(batch.y))) for level in levels]).detach()
    origin, free = torch.searchsorted(levels, batch.t), torch.zeros(n_levels, dtype=DTYPE, requires_grad=True)
    optimiser = torch.optim.LBFGS(
        [free], max_iter=200, tolerance_grad=1e-12, tolerance_change=1e-15, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        optimiser.zero_grad()
        ends = u_kn[[0, -1]].T
        loss = exact_end_classification_loss(ends, u_kn[1:-1].T, free, origin, torch.tensor(n_k)).mean()
        loss.backward()
        return loss

    optimiser.step(closure)
    difference = (free - free[0]).detach().numpy()
    np.testing.assert_allclose(difference, mbar(u_kn.numpy(), np.array(n_k)).free_energies, atol=1e-6)
    if n_levels == 2:
        work, a = (u_kn[1] - u_kn[0]).numpy(), n_k[0]
        assert difference[1] == pytest.approx(bar(work[:a], -work[a:]).value, abs=1e-6)


def _conditional_time_score(path: Path, batch: Noised, sign: float = 1.0) -> Tensor:
    sigma, rate, dim = path.sigma(batch.t), path.drift_rate(batch.t), batch.x.shape[1]
    log_sigma_rate = path.diffusion_squared(batch.t) / (2 * sigma**2) + rate
    drift = rate * path.log_alpha(batch.t).exp() * (batch.x * batch.z).sum(-1) / sigma
    return log_sigma_rate * (batch.z.square().sum(-1) - dim) + sign * drift


def _match_time_score(model: NoisedMixture, batch: Noised, sign: float = 1.0) -> Tensor:
    target = _conditional_time_score(model.path, batch, sign)
    return time_score_matching_loss(model, batch.y, batch.t, target, model.path.sigma(batch.t), 2)


@pytest.mark.parametrize("path", PATHS)
def test_time_score_matching_is_least_at_the_exact_time_score(path: Path) -> None:
    model = NoisedMixture(path)
    batch = model.sample(uniform_times(40_000, 6), 6)
    assert_stationary(_match_time_score, model, batch, RATIO_KNOBS)
    assert_least(_match_time_score, model, batch, RATIO_KNOBS)


def test_minus_before_the_drift_of_the_conditional_time_score_is_wrong() -> None:
    model = NoisedMixture(Preserving())
    batch = model.sample(uniform_times(40_000, 6), 6)
    wrong = gradients(lambda m, b: _match_time_score(m, b, sign=-1.0), model, batch)
    assert z_score(wrong)[SCALE].abs() > 20


class _GaussianInterpolant(NoisedMixture):
    """From N(0, I) to N(2, 0.5^2 I) with ``gamma^2 = 0.64 t (1 - t)``: one normal at every time."""

    def log_density(self, y: Tensor, t: Tensor) -> Tensor:
        variance = (1 - t) ** 2 + 0.25 * t**2 + 0.64 * t * (1 - t)
        squared = (y - 2 * t[:, None] - t[:, None] * self.knobs[SHIFT]).square().sum(-1)
        return -0.5 * squared / variance - (2 * math.pi * variance).log()


def test_time_score_matching_on_an_interpolant() -> None:
    path = StochasticInterpolant(torch.tensor(0.8, dtype=DTYPE), dimension=2)
    generator, t = named_generator(7, "ends"), uniform_times(40_000, 7, 0.02, 0.98)
    x_0, x_1, z = (normal(len(t), 2, generator=generator) for _ in range(3))
    move = 2 + 0.5 * x_1 - x_0
    batch = Noised(move, z, path.sample(x_0, move, t, z), t)

    def objective(model: NoisedMixture, samples: Noised) -> Tensor:
        target = path.conditional_time_score(samples.x, samples.t, samples.z)
        return time_score_matching_loss(model, samples.y, samples.t, target, path.gamma(samples.t), 2)

    assert_stationary(objective, _GaussianInterpolant(Preserving()), batch, [SCALE, SHIFT, SLOPE])
    spoiled = _GaussianInterpolant(Preserving())
    for knob in (SCALE, SHIFT, SLOPE):
        for value in (-TURN[knob], TURN[knob]):
            with torch.no_grad():
                spoiled.knobs.zero_()
                exact = objective(spoiled, batch)
                spoiled.knobs[knob] = value
                assert z_score(objective(spoiled, batch) - exact) > 3


def test_time_score_is_that_of_the_log_density_and_ends_without_noise_match_nothing() -> None:
    model = NoisedMixture(Preserving())
    batch = model.sample(uniform_times(50, 8), 8)
    time = batch.t.clone().requires_grad_()
    (derivative,) = torch.autograd.grad(model.log_density(batch.y, time).sum(), time)
    torch.testing.assert_close(time_score(model, batch.y, batch.t), derivative)
    infinite, none = torch.full_like(batch.t, math.inf), torch.zeros_like(batch.t)
    loss = time_score_matching_loss(model, batch.y, batch.t, infinite, none, 2)
    assert torch.equal(loss, none)
    assert torch.autograd.grad(loss.sum(), model.knobs)[0].isfinite().all()


@pytest.mark.parametrize("path", PATHS)
def test_noised_levels_of_any_density_have_no_fokker_planck_residual(path: Path) -> None:
    model = NoisedMixture(path)
    batch = model.sample(uniform_times(300, 9), 9)
    # Moving the data, or its weights between modes, is a change that this objective cannot see.
    for knob in (WEIGHT, SHIFT):
        residual = fokker_planck_residual(model.spoiled(knob, 0.6), path, batch.y, batch.t, 2)
        assert residual.abs().max() < 1e-9
    for knob in (SCALE, SLOPE, COMMON):
        assert fokker_planck_loss(model.spoiled(knob, 0.1), path, batch.y, batch.t, 2).mean() > 1e-4


@pytest.mark.parametrize("path", PATHS)
def test_two_probes_estimate_the_squared_residual_without_bias(path: Path) -> None:
    generator, n = torch.Generator().manual_seed(10), 20_000
    model = NoisedMixture(path).spoiled(SCALE, 0.3)
    y = torch.tensor([[0.3, -0.4]], dtype=DTYPE).repeat(n, 1)
    t = torch.full((n,), 0.4, dtype=DTYPE)
    probes = torch.randint(0, 2, (2, n, 2), generator=generator).to(DTYPE) * 2 - 1
    with torch.no_grad():
        exact = fokker_planck_loss(model, path, y[:1], t[:1], 2)
        estimate = probed_fokker_planck_loss(model, path, y, t, 2, probes)
        squared = probed_fokker_planck_loss(model, path, y, t, 2, probes[:1].expand(2, -1, -1))
    assert z_score(estimate - exact).abs() < 4
    assert z_score(squared - exact) > 10


def test_probed_fokker_planck_loss_is_stationary_at_the_exact_levels() -> None:
    generator, model = torch.Generator().manual_seed(11), NoisedMixture(Preserving())

    def objective(candidate: NoisedMixture, batch: Noised) -> Tensor:
        probes = normal(2, *batch.y.shape, generator=generator)
        return probed_fokker_planck_loss(candidate, candidate.path, batch.y, batch.t, 2, probes)

    batch = model.sample(uniform_times(20_000, 11), 11)
    assert_stationary(objective, model, batch, [SCALE, SLOPE, COMMON])


@pytest.mark.parametrize("path", PATHS)
def test_kernel_ratios_with_the_exact_score_find_the_density(path: Path) -> None:
    exact, step = NoisedMixture(path), 1e-4

    def objective(model: NoisedMixture, batch: Noised) -> Tensor:
        t = batch.t + step
        y_t = forward_step(path, batch.y, batch.t, t, batch.x)
        score = -exact.gradient(y_t, t)
        return kernel_ratio_loss(model, path, batch.y, y_t, batch.t, t, score, 2)

    batch = exact.sample(uniform_times(40_000, 12, 0.1, 0.9), 12)
    batch = batch._replace(x=normal(40_000, 2, generator=named_generator(12, "kernel")))
    assert_stationary(objective, exact, batch, [SCALE, SHIFT, WEIGHT, SLOPE, COMMON])
    assert_least(objective, exact, batch, [SCALE, SHIFT, WEIGHT, SLOPE, COMMON])


class _StandardNormal(NoisedMixture):
    """``U = (1 + knob) |y|^2 / 2`` at all times: exact for normal data under variance-preserving noise."""

    def energy(self, y: Tensor, t: Tensor) -> Tensor:
        return (1 + self.knobs[SCALE]) * 0.5 * y.square().sum(-1)

    def free_energy(self, t: Tensor) -> Tensor:
        return torch.zeros_like(t)


@pytest.mark.parametrize("excess", [0.0, -0.5, 0.4])
def test_kernel_ratios_at_a_finite_step(excess: float) -> None:
    """By quadrature: the true score leaves an error of step / 8, the own score one that no step makes smaller."""
    nodes, weights = (torch.from_numpy(a) for a in np.polynomial.hermite_e.hermegauss(30))
    y, z = (a.reshape(-1, 1) for a in torch.meshgrid(nodes, nodes, indexing="ij"))
    mass = (weights[:, None] * weights / weights.sum() ** 2).flatten()
    path, model = Preserving(1.0, 1.0), _StandardNormal(Preserving(1.0, 1.0))
    with torch.no_grad():
        model.knobs[SCALE] = excess

    def slope(step: float, stiffness: float) -> float:
        s = torch.full((len(y),), 0.5, dtype=DTYPE)
        y_t = forward_step(path, y, s, s + step, z)
        loss = mass @ kernel_ratio_loss(model, path, y, y_t, s, s + step, -stiffness * y_t, 1)
        return float(torch.autograd.grad(loss, model.knobs)[0][SCALE])

    for step in (1e-2, 1e-3):
        assert slope(step, 1.0) / step == pytest.approx(2 * excess + step / 4, abs=step)
        assert slope(step, 1 + excess) / step**2 == pytest.approx((excess + 0.5) ** 2, abs=5 * step)


def _autoregressive(batch: Noised) -> tuple[Tensor, Tensor]:
    """Return ``0.8 y + 0.6 z'`` and the log ratio of its kernel with the reverse one."""
    perturbed = 0.8 * batch.y + 0.6 * batch.x
    return perturbed, 0.5 * (batch.y.square() - perturbed.square()).sum(-1)


def _conditional_nce(model: NoisedMixture, batch: Noised) -> Tensor:
    symmetric = torch.zeros_like(batch.t)
    return conditional_noise_contrastive_loss(model, batch.y, batch.y + 0.7 * batch.x, batch.t, symmetric)


def _asymmetric_nce(model: NoisedMixture, batch: Noised) -> Tensor:
    perturbed, ratio = _autoregressive(batch)
    return conditional_noise_contrastive_loss(model, batch.y, perturbed, batch.t, ratio)


def _perturbed_batch(model: NoisedMixture, n: int, seed: int) -> Noised:
    batch = model.sample(uniform_times(n, seed), seed)
    return batch._replace(x=normal(n, 2, generator=named_generator(seed, "perturbation")))


@pytest.mark.parametrize("objective", [_conditional_nce, _asymmetric_nce])
def test_conditional_noise_contrast_is_least_at_the_exact_energy(objective: Objective) -> None:
    model = NoisedMixture(Preserving())
    batch = _perturbed_batch(model, 40_000, 14)
    assert_stationary(objective, model, batch, [SCALE, SHIFT, WEIGHT, COMMON])
    assert_least(objective, model, batch, [SCALE, SHIFT, WEIGHT, COMMON])


def test_conditional_noise_contrast_needs_the_kernels_and_never_sees_the_normaliser() -> None:
    model = NoisedMixture(Preserving())
    batch = _perturbed_batch(model, 20_000, 15)

    def forgetful(candidate: NoisedMixture, samples: Noised) -> Tensor:
        perturbed, ratio = _autoregressive(samples)
        return conditional_noise_contrastive_loss(candidate, samples.y, perturbed, samples.t, torch.zeros_like(ratio))

    assert z_score(gradients(forgetful, model, batch))[SCALE].abs() > 10
    grad = torch.autograd.grad(_conditional_nce(model, batch).mean(), model.knobs)[0]
    assert grad[SLOPE] == 0


def test_mode_weights_that_score_matching_cannot_see_are_plain_to_the_classifier() -> None:
    """Well separated modes, their weights wrong by a factor e at the first level and right at all others."""
    model = NoisedMixture(Preserving(), separation=9.0)
    levels = torch.tensor([0.02, 0.05, 0.1, 1.0], dtype=DTYPE)
    wrong, batch = model.spoiled(WEIGHT, 1.0), _by_level(model, 4_000, 16, levels)
    first = Noised(*(tensor[::4] for tensor in batch))
    gamma = model.path.sigma(first.t)[:, None].expand(-1, 2)
    moved = first._replace(x=normal(4_000, 2, generator=named_generator(16, "perturbation")))

    def classify(candidate: NoisedMixture) -> Tensor:
        models = [candidate, model, model, model]
        densities = [_log_density(m, batch, float(t)) for m, t in zip(models, levels, strict=True)]
        energies = -torch.stack(densities, -1).unflatten(0, (-1, 4))
        return level_classification_loss(energies, torch.zeros(len(energies), 4, dtype=DTYPE)).mean(-1)

    def denoise(candidate: NoisedMixture) -> Tensor:
        return denoising_score_matching_loss(candidate.gradient(first.y, first.t), first.z, gamma, 2)

    with torch.no_grad():
        for blind in (denoise, lambda candidate: _conditional_nce(candidate, moved)):
            assert (blind(wrong) - blind(model)).mean().abs() < 1e-8
        margin = classify(wrong) - classify(model)
    assert margin.mean() > 0.01
    assert z_score(margin) > 10
