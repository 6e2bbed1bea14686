"""Centred positions: samplers work in 3(N-1) coordinates, and every normaliser is that of the subspace."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from boltzgen_diffclf.coordinates import CentredCoordinates, log_normal_centred, sample_centred_noise
from boltzgen_diffclf.data_gaussian import DataGaussian
from boltzgen_diffclf.noised_energy import NoisedEnergyModel
from boltzgen_diffclf.paths import VarianceExploding, log_snr_levels
from boltzgen_diffclf.samplers import (
    Annealing,
    Heun,
    Mala,
    ProbabilityFlow,
    ReverseSmc,
    anneal,
    sample_reverse,
    sample_reverse_weighted,
)
from boltzgen_diffclf.streams import named_generator
from boltzgen_diffclf.target import GaussianTarget, LinearLadder, Target, TransformedTarget

ATOMS, SIGMA = 4, 0.3
SPACE = CentredCoordinates(ATOMS, 1.0).double()
PATH = VarianceExploding(0.05, 10.0)
TIMES = log_snr_levels(PATH, 40)
LOG_NORMALISER = 0.5 * SPACE.dimension * math.log(2 * math.pi * SIGMA**2)


class CentredGaussian(Target):
    """Positions of width SIGMA about their centroid; the energy does not change with the centroid."""

    event_shape, dimension = (ATOMS, 3), 3 * (ATOMS - 1)

    def energy(self, x: Tensor) -> Tensor:
        return 0.5 * ((x - x.mean(1, keepdim=True)) / SIGMA).square().sum((1, 2))


class Silent(torch.nn.Module):
    """A network that gives zero."""

    def forward(self, h: Tensor, c: Tensor) -> Tensor:
        return 0.0 * h.sum(-1)


@pytest.fixture
def target(eager_mode: None) -> TransformedTarget:
    """The target in the coordinates; a map that is compiled would meet the run-time type checks."""
    return TransformedTarget(CentredGaussian(), SPACE, SPACE.dimension)


def model(width: float = SIGMA) -> NoisedEnergyModel:
    """Return the exact energy of the noised Gaussian of this width, in the coordinates."""
    data = DataGaussian(torch.zeros(SPACE.dimension).double(), torch.tensor(width**2).double())
    return NoisedEnergyModel(Silent(), PATH, data, TIMES)


def noise(n: int, seed: int) -> Tensor:
    """Return samples of the last time, in the coordinates."""
    stream = named_generator(seed, "noise")
    spread = math.hypot(SIGMA, PATH.sigma_max)
    return SPACE.from_cartesian(spread * sample_centred_noise((n, ATOMS, 3), stream))


def test_noise_of_the_coordinates_is_centred_noise_of_positions_with_the_same_density() -> None:
    y = torch.randn(4000, SPACE.dimension, generator=named_generator(0, "y"), dtype=torch.float64)
    x = SPACE.positions(y)
    log_density = -0.5 * y.square().sum(1) - 0.5 * SPACE.dimension * math.log(2 * math.pi)
    torch.testing.assert_close(log_normal_centred(x), log_density, atol=1e-4, rtol=0)
    variance, expected = x.square().mean(0), 1 - 1 / ATOMS
    assert float((variance - expected).abs().max()) < 4 * expected * math.sqrt(2 / 4000)


def test_the_reverse_process_with_weights_has_the_normaliser_of_the_subspace(target: Target) -> None:
    """From a model of another width; the target at the end makes it exact."""
    start = noise(800, 1) * math.hypot(0.4, PATH.sigma_max) / math.hypot(SIGMA, PATH.sigma_max)
    energy = model(0.4).energy_and_gradient
    stream = named_generator(1, "moves")
    result = sample_reverse_weighted(energy, PATH, TIMES, start, stream, target=target, resolution=0.4)
    assert float(result.log_normaliser.detach()) == pytest.approx(LOG_NORMALISER, abs=0.15)
    squared = result.log_weights.softmax(0) @ (result.position / SIGMA).square().mean(1)
    assert float(squared) == pytest.approx(1.0, abs=0.05)


def test_all_centred_levels_of_one_gaussian_have_one_normaliser() -> None:
    smc = ReverseSmc(PATH, TIMES, proposal=exact_reversal, resample_below=None)
    energy = model().energy_and_gradient
    state, stream = smc.init(energy, noise(50, 2)), named_generator(2, "moves")
    for _ in TIMES[1:]:
        state, _ = smc.step(energy, state, stream)
    assert float(state.log_weights.abs().max()) < 1e-6


def exact_reversal(path: VarianceExploding, y: Tensor, gradient: Tensor, t: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
    """Return the reverse kernel of the centred Gaussian."""
    variance_t, variance_s = (SIGMA**2 + path.sigma(time).square() for time in (t, s))
    return variance_s / variance_t * y, variance_s * (1 - variance_s / variance_t)


def test_samples_and_densities_of_the_flow_are_those_of_the_subspace() -> None:
    stream = named_generator(3, "moves")
    y = sample_reverse(model().denoiser, PATH, TIMES, noise(3000, 3), stream, solver=Heun())
    expected = math.hypot(SIGMA, PATH.sigma_min)
    assert float(y.square().mean().sqrt()) == pytest.approx(expected, rel=4 / math.sqrt(2 * 3000 * SPACE.dimension))
    spread = math.hypot(SIGMA, PATH.sigma_max)
    found = ProbabilityFlow(PATH).log_likelihood(
        model().score, y[:10], lambda z: log_normal_centred(SPACE.positions(z), spread), stream
    )
    exact = log_normal_centred(SPACE.positions(y[:10]), expected)
    torch.testing.assert_close(found.log_density.detach(), exact, atol=1e-3, rtol=0)


def test_a_model_of_flat_centred_positions_is_the_same_in_the_coordinates() -> None:
    data = DataGaussian(torch.zeros(3 * ATOMS).double(), torch.tensor(SIGMA**2).double(), centred=True)
    flat = NoisedEnergyModel(Silent(), PATH, data, TIMES)
    y, t = noise(20, 5), TIMES[20].expand(20)
    energy, gradient = flat.energy_and_gradient(SPACE.positions(y).flatten(1), t)
    expected, slope = model().energy_and_gradient(y, t)
    torch.testing.assert_close(energy, expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(SPACE.from_cartesian(gradient.unflatten(1, (-1, 3))), slope, rtol=1e-5, atol=1e-5)


def test_annealing_of_molecules_has_the_ratio_of_the_subspace(target: Target) -> None:
    """Kernels of positions would let the centroid wander; in the coordinates there is none."""
    broad = GaussianTarget(SPACE.dimension)
    ladder, stream = LinearLadder(broad, target, torch.linspace(0, 1, 12).tolist()), named_generator(4, "moves")
    start = torch.randn(1000, SPACE.dimension, generator=stream, dtype=torch.float64)
    kernel = Mala(0.5 / (1 + ladder.lambdas * (SIGMA**-2 - 1)), torch.ones(()))
    result = anneal(Annealing(kernel, range(12), 2, resample_below=0.5), ladder, start, stream)
    assert result.delta_f == pytest.approx(broad.log_normaliser - LOG_NORMALISER, abs=0.2)
