"""Free energies profiled out of frozen energies, against exact ones, another solver, and optimal transport."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.optimize import linear_sum_assignment, minimize
from scipy.stats import norm

from boltzgen_diffclf.errors import InputError
from boltzgen_diffclf.estimators import chained_free_energies, classification_loss, mbar, profile_free_energies

SIGMAS = np.array([0.5, 1.0, 2.0, 3.5])


def gaussian_pool(sigmas: np.ndarray, pool: int, dim: int = 1, seed: int = 0) -> np.ndarray:
    """Return ``|y|^2 / (2 sigma_j^2)``, unnormalised, of draws ``[i, n]`` of N(0, sigma_i^2)."""
    y = sigmas[:, None, None] * np.random.default_rng(seed).normal(size=(len(sigmas), pool, dim))
    return np.square(y).sum(-1)[..., None] / (2 * np.square(sigmas))


def exact_loss(free_energies: np.ndarray) -> float:
    """Return the loss of the exact energies of ``SIGMAS`` in one dimension with these ``F``, by quadrature."""

    def integrand(y: float) -> float:
        log_posterior = free_energies - y**2 / (2 * SIGMAS**2)
        log_posterior = log_posterior - np.logaddexp.reduce(log_posterior)
        return -float(norm.pdf(y, scale=SIGMAS) @ log_posterior) / len(SIGMAS)

    return quad(integrand, -40, 40, limit=400, points=[0.0])[0]


@pytest.mark.parametrize("error", [0.0, 0.8])
def test_loss_agrees_with_quadrature(error: float) -> None:
    free_energies = -np.log(SIGMAS) + error * np.array([0.0, 1.0, 0.0, -1.0])
    loss = classification_loss(gaussian_pool(SIGMAS, 40_000), free_energies)
    assert abs(loss.value - exact_loss(free_energies)) < 4 * loss.stderr < 0.02


def test_standard_error_is_the_scatter_of_repetitions() -> None:
    free_energies = -np.log(SIGMAS)
    losses = [classification_loss(gaussian_pool(SIGMAS, 50, seed=s), free_energies) for s in range(400)]
    scatter = np.std([loss.value for loss in losses])
    assert np.mean([loss.stderr for loss in losses]) == pytest.approx(scatter, rel=0.15)


def test_profile_is_exact_within_the_errors_of_mbar_and_solves_its_equations() -> None:
    sigmas = np.geomspace(0.3, 3.0, 12)
    energies = gaussian_pool(sigmas, 200, dim=10)
    found = profile_free_energies(energies).free_energies
    reference = mbar(energies.reshape(-1, 12).T, np.full(12, 200))
    np.testing.assert_allclose(found, reference.free_energies, atol=1e-6)
    exact = -10 * np.log(sigmas / sigmas[0])
    assert (np.abs(found - exact)[1:] < 4 * reference.stderr[1:]).all()
    assert (reference.stderr[1:] < 0.5).all()


def test_chain_of_neighbours_finds_the_same_and_the_constants_of_the_energies() -> None:
    sigmas, constants = np.geomspace(0.3, 3.0, 12), 50 * np.sin(np.arange(12.0))
    energies = gaussian_pool(sigmas, 2000, dim=10) + constants
    own, above, below = (np.diagonal(energies, k, axis1=0, axis2=2).T for k in (0, 1, -1))
    exact = -10 * np.log(sigmas / sigmas[0]) + constants - constants[0]
    np.testing.assert_allclose(chained_free_energies(own, above, below), exact, atol=0.15)
    np.testing.assert_allclose(profile_free_energies(energies[:, :200]).free_energies, exact, atol=0.5)


def test_profile_is_the_least_loss_that_another_optimiser_finds() -> None:
    rng = np.random.default_rng(2)
    energies = gaussian_pool(SIGMAS, 30) + rng.normal(size=(4, 30, 4))
    found = profile_free_energies(energies)

    def loss(rest: np.ndarray) -> float:
        return classification_loss(energies, np.concatenate([[0.0], rest])).value

    other = minimize(loss, np.zeros(3), method="Nelder-Mead", options={"xatol": 1e-9, "fatol": 1e-13})
    np.testing.assert_allclose(found.free_energies[1:], other.x, atol=1e-6)
    assert found.loss.value == pytest.approx(other.fun, abs=1e-12)
    assert found.free_energies[0] == 0.0


def test_constants_of_levels_are_absorbed_and_constants_of_samples_do_nothing() -> None:
    rng = np.random.default_rng(3)
    energies = gaussian_pool(np.geomspace(0.2, 2.0, 20), 50, dim=30)
    constants = 5000 * rng.normal(size=20)
    plain = profile_free_energies(energies)
    shifted = profile_free_energies(energies + constants + 1e4 * rng.normal(size=(20, 50, 1)))
    np.testing.assert_allclose(shifted.free_energies - (constants - constants[0]), plain.free_energies, atol=1e-6)
    assert shifted.loss.value == pytest.approx(plain.loss.value, abs=1e-8)


@pytest.mark.parametrize("noise", [30.0, 3000.0, 1e6])
def test_energies_wrong_by_thousands_of_kt_reach_the_bound_of_optimal_transport(noise: float) -> None:
    levels, pool = 24, 20
    energies = gaussian_pool(np.geomspace(0.1, 3.0, levels), pool, dim=40)
    energies = energies + noise * np.random.default_rng(4).normal(size=energies.shape)
    found = profile_free_energies(energies)
    logits = (found.free_energies - energies).reshape(-1, levels)
    posterior = np.exp(logits - np.logaddexp.reduce(logits, axis=1, keepdims=True))
    np.testing.assert_allclose(posterior.sum(axis=0), pool, atol=1e-6)
    # Linear programming duality: with max for logsumexp, which is at most log(levels) less, the least loss is the
    # cost of the samples in their own levels minus that of the cheapest assignment of equally many to each level.
    cost = np.repeat(energies.reshape(-1, levels), pool, axis=1)
    rows, columns = linear_sum_assignment(cost)
    own = np.diagonal(energies, axis1=0, axis2=2).mean()
    bound = own - cost[rows, columns].mean()
    assert bound - 1e-9 * noise <= found.loss.value <= bound + math.log(levels)
    assert bound > 10 * math.log(levels)


def test_fitted_loss_is_as_much_too_low_as_another_pool_is_too_high() -> None:
    """Both by ``tr(H^-1 V) / 2n`` for exact energies, H the information, V the variance within the levels."""
    exact, levels, pool = -np.log(SIGMAS), len(SIGMAS), 50
    logits = exact - gaussian_pool(SIGMAS, 50_000)
    posterior = np.exp(logits - np.logaddexp.reduce(logits, axis=-1)[..., None])[..., 1:]
    second_moment = np.einsum("inj,ink->jk", posterior, posterior) / posterior[..., 0].size
    information = np.diag(posterior.mean((0, 1))) - second_moment
    within = np.mean([np.cov(level.T) for level in posterior], axis=0)
    expected = np.trace(np.linalg.solve(information, within)) / (2 * levels * pool)
    fitted_gap, fresh_gap = [], []
    for seed in range(400):
        energies, fresh = (gaussian_pool(SIGMAS, pool, seed=2 * seed + half) for half in (0, 1))
        fit = profile_free_energies(energies)
        fitted_gap.append(classification_loss(energies, exact).value - fit.loss.value)
        fresh_gap.append(classification_loss(fresh, fit.free_energies).value - classification_loss(fresh, exact).value)
    for gap in (fitted_gap, fresh_gap):
        stderr = np.std(gap) / math.sqrt(len(gap))
        assert abs(np.mean(gap) - expected) < 4 * stderr < 0.5 * expected
    assert 0 < expected < 1 / (2 * pool)


def test_what_cannot_be_profiled_is_refused() -> None:
    with pytest.raises(InputError, match="1 not finite"):
        profile_free_energies(np.where(np.arange(8).reshape(2, 2, 2) == 1, np.inf, 0.0))
    with pytest.raises(InputError, match="two levels"):
        profile_free_energies(np.zeros((1, 5, 1)))
    with pytest.raises(InputError, match="larger pool"):
        classification_loss(np.zeros((2, 1, 2)), np.zeros(2))
