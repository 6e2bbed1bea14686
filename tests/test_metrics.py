"""Every metric of a generative model against a closed form."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from scipy.stats import binom, norm

from boltzgen_diffclf.errors import InputError
from boltzgen_diffclf.estimators.estimate import Measurement
from boltzgen_diffclf.observables import (
    assigned_modes,
    energy_mode_weights,
    fisher_divergence,
    kullback_leibler,
    level_effective_fractions,
    mode_error_floor,
    mode_errors,
    root_discrepancy,
    root_wasserstein_1,
    sampled_mode_weights,
    sliced_kolmogorov_smirnov,
    sliced_wasserstein_2,
    squared_mmd,
    wasserstein_1,
    wasserstein_2,
)
from boltzgen_diffclf.observables.discrepancy import median_distance, random_directions
from boltzgen_diffclf.streams import named_generator
from systems.analytic import GaussianMixture


def normals(n: int, dim: int, seed: int, mean: float = 0.0) -> np.ndarray:
    return mean + np.random.default_rng(seed).normal(size=(n, dim))


# Scores and densities


def test_fisher_divergence_of_normals_that_differ_in_width() -> None:
    """``s = -y``, ``s_theta = -y / v``: ``(1 - 1/v)^2`` per dimension, whatever the dimension."""
    y, widths = normals(5 * 4000, 3, 0).reshape(5, 4000, 3), np.array([0.5, 0.8, 1.0, 1.5, 3.0])
    found = fisher_divergence(-y / widths[:, None, None], -y)
    exact = (1 - 1 / widths) ** 2
    assert (np.abs(found.value - exact) <= 4 * found.stderr).all()
    # Of the mean over 3 squares of a normal, the relative variance is 2/3.
    np.testing.assert_allclose(found.stderr, exact * math.sqrt(2 / 3 / 4000), rtol=0.1)
    halved = fisher_divergence(-y / widths[:, None, None], -y, dimension=6)
    np.testing.assert_allclose(halved.value, found.value / 2)
    with pytest.raises(InputError, match="1 NaN"):
        fisher_divergence(np.array([[[np.nan], [0.0]]]), np.zeros((1, 2, 1)))


def test_kullback_leibler_and_effective_fraction_of_shifted_normals() -> None:
    """N(0, 1) against N(m, 1): ``m^2 / 2`` and, as ``E w^2 = exp(m^2)``, ``exp(-m^2)``."""
    n, shifts = 100_000, np.array([0.0, 0.3, 0.8])
    y = normals(n, 3, 1).T
    log_density, model = norm.logpdf(y), norm.logpdf(y, loc=shifts[:, None])
    for k, shift in enumerate(shifts):
        found = kullback_leibler(log_density[k], model[k])
        assert abs(found.value - shift**2 / 2) <= 4 * found.stderr
        assert found.stderr == pytest.approx(shift / math.sqrt(n), rel=0.02)
    fractions = level_effective_fractions(log_density, model + np.array([[5.0], [-900.0], [900.0]]))
    np.testing.assert_allclose(fractions, np.exp(-(shifts**2)), rtol=0.02)


# Distances of samples


def test_mmd_of_shifted_normals_is_the_closed_form_within_its_error() -> None:
    """``E k(x, y) = (b^2 / (b^2 + 2))^(d/2) exp(-|m|^2 / (2 (b^2 + 2)))`` for x - y of variance 2."""
    dim, shift, bandwidths = 4, 0.5, np.array([0.7, 2.0])
    widened = bandwidths**2 + 2
    peak = (bandwidths**2 / widened) ** (dim / 2)
    exact = float((2 * peak * (1 - np.exp(-dim * shift**2 / (2 * widened)))).sum())
    found = squared_mmd(normals(1000, dim, 2, shift), normals(800, dim, 3), bandwidths)
    assert abs(found.value - exact) < 4 * found.stderr < 0.4 * exact


def test_mmd_is_the_brute_force_over_pairs() -> None:
    x, y, bandwidth = normals(5, 2, 4), normals(4, 2, 5), 0.9

    def kernel(a: np.ndarray, b: np.ndarray) -> float:
        return math.exp(-float(np.square(a - b).sum()) / (2 * bandwidth**2))

    within = np.mean([kernel(x[i], x[j]) for i in range(5) for j in range(5) if i != j])
    among = np.mean([kernel(y[i], y[j]) for i in range(4) for j in range(4) if i != j])
    across = np.mean([kernel(a, b) for a in x for b in y])
    assert squared_mmd(x, y, np.array([bandwidth])).value == pytest.approx(within + among - 2 * across)


@pytest.mark.parametrize(("shift", "n", "tolerance"), [(0.0, 60, 0.2), (0.3, 60, 0.15), (1.5, 40, 0.15)])
def test_mmd_is_unbiased_and_its_error_is_the_scatter(shift: float, n: int, tolerance: float) -> None:
    """Also at equal distributions, where the first order of the variance vanishes."""
    bandwidth, dim = 1.2, 3
    found = [
        squared_mmd(normals(n, dim, 2 * s, shift), normals(80, dim, 2 * s + 1), np.array([bandwidth]))
        for s in range(225)
    ]
    values = np.array([one.value for one in found])
    widened = bandwidth**2 + 2
    exact = 2 * (bandwidth**2 / widened) ** (dim / 2) * -math.expm1(-dim * shift**2 / (2 * widened))
    assert abs(values.mean() - exact) < 4 * values.std() / 15
    assert np.mean([one.stderr for one in found]) == pytest.approx(values.std(), rel=tolerance)


def test_default_bandwidths_are_those_of_the_reference_alone() -> None:
    reference, near, far = normals(50, 2, 6), normals(50, 2, 7), 100 + normals(50, 2, 7)
    bandwidths = median_distance(reference) * np.array([0.25, 0.5, 1.0, 2.0, 4.0])
    for sample in (near, far):
        assert squared_mmd(sample, reference) == squared_mmd(sample, reference, bandwidths)
    distances = [math.dist(reference[i], reference[j]) for i in range(50) for j in range(i)]
    assert median_distance(reference) == pytest.approx(np.median(distances))
    with pytest.raises(InputError, match="one point"):
        squared_mmd(near, np.zeros((50, 2)))


def test_wasserstein_distances_of_a_translation() -> None:
    x, v = normals(100, 3, 8), np.array([1.0, -2.0, 0.5])
    length = float(np.linalg.norm(v))
    order = np.random.default_rng(9).permutation(100)
    assert wasserstein_1(x, x[order] + v) == pytest.approx(length)
    assert wasserstein_2(x, x[order] + v) == pytest.approx(length)
    assert root_wasserstein_1(x, x[order] + v) == pytest.approx(math.sqrt(length))
    assert wasserstein_2(x, x[order]) == pytest.approx(0.0, abs=1e-6)


def test_wasserstein_distances_have_their_own_costs() -> None:
    """Half the mass moves by 4: ``W_1 = 2``, ``W_2 = sqrt(8)``, and the published "W2" ``sqrt(2)``."""
    zeros, half = np.zeros((2, 1)), np.array([[0.0], [4.0]])
    assert wasserstein_1(zeros, half) == pytest.approx(2.0)
    assert wasserstein_2(zeros, half) == pytest.approx(math.sqrt(8.0))
    assert root_wasserstein_1(zeros, half) == pytest.approx(math.sqrt(2.0))
    # On the line the sorted coupling is best, also for samples of different sizes.
    x, y = normals(60, 1, 10), normals(30, 1, 11, 0.4)
    sorted_gap = np.sort(x[:, 0]) - np.repeat(np.sort(y[:, 0]), 2)
    assert wasserstein_2(x, y) == pytest.approx(math.sqrt(np.mean(sorted_gap**2)))
    assert wasserstein_1(x, y) == pytest.approx(np.mean(np.abs(sorted_gap)))


def test_sliced_wasserstein_of_a_translation() -> None:
    x, v = normals(100, 5, 12), np.array([1.0, 0.0, 2.0, -1.0, 0.5])
    directions = random_directions(5, 200, np.random.default_rng(13))
    found = sliced_wasserstein_2(x, x[::-1] + v, np.random.default_rng(13), n_directions=200)
    squares = (v @ directions) ** 2
    assert found == pytest.approx(math.sqrt(squares.mean()))
    assert abs(found**2 - v @ v / 5) < 4 * squares.std() / math.sqrt(200)


def test_sliced_kolmogorov_smirnov_of_a_translation() -> None:
    """Along a direction the normals are ``m`` apart and differ by at most ``2 Phi(m / 2) - 1``."""
    n, v = 20_000, np.array([0.6, 0.0, -0.8])
    directions = random_directions(3, 32, np.random.default_rng(14))
    exact = (2 * norm.cdf(np.abs(v @ directions) / 2) - 1).mean()
    found = sliced_kolmogorov_smirnov(
        normals(n, 3, 15) + v, normals(n, 3, 16), np.random.default_rng(14), n_directions=32
    )
    # A maximum of fluctuations: biased upwards by no more than the fluctuation of the process, sqrt(1 / 2n).
    assert abs(found - exact) < 2 / math.sqrt(2 * n) < 0.1 * exact


# Modes


MIXTURE = GaussianMixture(
    torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64),
    torch.tensor([[0.0, 0.0], [1.5, 0.0], [0.0, 30.0]], dtype=torch.float64),
    torch.tensor([1.0, 1.0, 1.0], dtype=torch.float64),
)


def other_weights(weights: list[float], log_normaliser: float = 0.0) -> GaussianMixture:
    return GaussianMixture(torch.tensor(weights, dtype=torch.float64), MIXTURE.means, MIXTURE.sigmas, log_normaliser)


def test_weights_of_overlapping_modes_are_unbiased() -> None:
    x = MIXTURE.sample(40_000, named_generator(0, "modes"))
    responsibilities = MIXTURE.responsibilities(x).numpy()
    found = sampled_mode_weights(responsibilities)
    weights, exact = np.exp(found.log_weights), MIXTURE.weights.numpy()
    assert (np.abs(weights - exact) < 4 * found.stderr).all()
    # Counting the likeliest mode would not pass: it is off by many errors.
    counted = np.exp(sampled_mode_weights(assigned_modes(responsibilities)).log_weights)
    assert np.abs(counted - exact).max() > 8 * found.stderr.max()


@pytest.mark.parametrize("offset", [0.0, 700.0])
def test_mode_weights_of_an_unnormalised_energy(offset: float) -> None:
    """``exp(-U)`` with other weights of the same components, whose mean responsibility is an integral."""
    model = other_weights([0.2, 0.2, 0.6], log_normaliser=offset)
    x = MIXTURE.sample(20_000, named_generator(1, "modes"))
    found, diagnostics = energy_mode_weights(
        model.energy(x).numpy(), MIXTURE.log_density(x).numpy(), MIXTURE.responsibilities(x).numpy()
    )

    def near(values: np.ndarray, a: float) -> float:
        """Return the density of the first two modes along the first axis."""
        return float(values @ norm.pdf(a, loc=[0.0, 1.5]))

    p, q = np.array([0.5, 0.3]), np.array([0.2, 0.2])
    first = quad(lambda a: near(q, a) * 0.5 * norm.pdf(a) / near(p, a), -12, 14)[0]
    exact = np.array([first, 0.4 - first, 0.6])
    assert (np.abs(np.exp(found.log_weights) - exact) < 4 * found.stderr).all()
    squared_weight = quad(lambda a: near(q, a) ** 2 / near(p, a), -12, 14)[0] + 0.2 * 3**2
    assert diagnostics.n_effective == pytest.approx(len(x) / squared_weight, rel=0.03)


def test_mode_weights_of_an_energy_have_the_errors_they_state() -> None:
    model = other_weights([0.3, 0.3, 0.4])
    values, errors = [], []
    for seed in range(300):
        x = MIXTURE.sample(300, named_generator(seed, "repeat"))
        found, _ = energy_mode_weights(
            model.energy(x).numpy(), MIXTURE.log_density(x).numpy(), MIXTURE.responsibilities(x).numpy()
        )
        values.append(np.exp(found.log_weights))
        errors.append(found.stderr)
    np.testing.assert_allclose(np.mean(errors, axis=0), np.std(values, axis=0), rtol=0.2)


def test_a_mode_wrong_by_thousands_of_kt_keeps_its_logarithm() -> None:
    """A term of 2000 kT on the third, far mode alone leaves it ``exp(-2000)`` of its weight."""
    x = MIXTURE.sample(5000, named_generator(2, "modes"))
    energy = (MIXTURE.energy(x) + torch.where(x[:, 1] > 15, 2000.0, 0.0)).numpy()
    responsibilities, log_density = MIXTURE.responsibilities(x).numpy(), MIXTURE.log_density(x).numpy()
    found, _ = energy_mode_weights(energy, log_density, assigned_modes(responsibilities))
    share = float((x[:, 1] > 15).double().mean())
    assert found.log_weights[2] == pytest.approx(math.log(share / (1 - share)) - 2000, abs=1e-9)
    errors = mode_errors(found.log_weights, MIXTURE.weights.numpy())
    assert errors.forgotten == 1
    assert errors.kullback_leibler == pytest.approx(0.2 * 2000, rel=0.01)
    # With responsibilities it is hidden behind the tails of the other modes, 30 sigma away.
    hidden, _ = energy_mode_weights(energy, log_density, responsibilities)
    assert -450 < hidden.log_weights[2] < -300


def test_errors_of_mode_weights() -> None:
    with np.errstate(divide="ignore"):
        log_weights = np.log(np.array([0.72, 0.27, 0.01, 0.0]))
    true_weights = np.array([5.0, 2.0, 2.0, 1.0])
    errors = mode_errors(log_weights, true_weights)
    assert errors.total_variation == pytest.approx(0.5 * (0.22 + 0.07 + 0.19 + 0.1))
    assert errors.kullback_leibler == math.inf
    assert errors.forgotten == 1  # 0.01 is more than 5 % of 0.1
    shares = np.array([0.7, 0.1, 0.1, 0.1])
    expected = 0.5 * math.log(0.5 / 0.7) + 0.4 * math.log(0.2 / 0.1)
    assert mode_errors(np.log(shares), true_weights).kullback_leibler == pytest.approx(expected)
    with pytest.raises(InputError, match="positive"):
        mode_errors(log_weights, np.array([1.0, 0.0, 0.0, 0.0]))
    with pytest.raises(InputError, match="sum to one"):
        sampled_mode_weights(np.ones((3, 2)))


def test_floor_of_mode_errors_is_what_exact_samples_score() -> None:
    weights, n = np.array([0.55, 0.3, 0.15]), 500
    counts = np.random.default_rng(17).multinomial(n, weights, size=3000)
    scores = np.array([mode_errors(np.log(count / n), weights) for count in counts])
    floor, stderr = mode_error_floor(weights, n), scores.std(0) / math.sqrt(3000)
    assert abs(scores[:, 0].mean() - floor.total_variation) < 4 * stderr[0]
    assert abs(scores[:, 1].mean() - floor.kullback_leibler) < 4 * stderr[1] + 0.02 * floor.kullback_leibler
    # Forty equal modes and 4096 samples: the 0.039 of the multinomial law's normal limit.
    assert mode_error_floor(np.full(40, 1.0), 4096).total_variation == pytest.approx(
        20 * math.sqrt(2 / math.pi * (1 / 40) * (39 / 40) / 4096), rel=1e-3
    )
    # Threshold 0.05 * 0.1 * 40 = 0.2: forgotten means never seen.
    few = mode_error_floor(np.array([0.9, 0.1]), 40)
    assert few.forgotten == pytest.approx(binom.pmf(0, 40, 0.1) + binom.pmf(0, 40, 0.9))


def test_root_of_a_square_near_zero_has_the_error_that_reaches_it() -> None:
    far, none = root_discrepancy(Measurement(0.25, 0.01)), root_discrepancy(Measurement(-1e-4, 4e-4))
    assert far.value == 0.5
    assert far.stderr == pytest.approx(0.01 / (2 * 0.5), rel=2e-2)
    assert none.value == 0.0
    assert none.stderr == pytest.approx(math.sqrt(4e-4))
