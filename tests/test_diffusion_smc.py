"""Sequential Monte Carlo along the reverse process: weights are right whatever the steps."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from boltzgen_diffclf.errors import RunFailedError
from boltzgen_diffclf.paths import VarianceExploding, VariancePreserving, log_snr_levels
from boltzgen_diffclf.samplers import WeightedSamples, sample_reverse_weighted
from boltzgen_diffclf.streams import named_generator
from systems.analytic import GaussianMixture, MixtureMarginals

PATHS = {"preserving": VariancePreserving(t_min=1e-3), "exploding": VarianceExploding(0.02, 30.0)}
MIXTURE = GaussianMixture(
    torch.tensor([0.2, 0.8], dtype=torch.float64),
    torch.tensor([[-2.0, 1.0], [2.0, -1.0]], dtype=torch.float64),
    torch.tensor([0.3, 0.3], dtype=torch.float64),
)


def run(name: str, n_levels: int, n: int = 2000, *, slope: float = 1.0, shift: float = 0.0, **rest) -> WeightedSamples:
    """Go down ``exp(-U)``, ``U`` the exact energy plus ``shift`` times log-SNR, with ``slope`` times its gradient."""
    path = PATHS[name]
    marginals, times = MixtureMarginals(MIXTURE, path), log_snr_levels(path, n_levels)
    generator = named_generator(0, "smc")

    def energy_and_gradient(y: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        return marginals.energy(y, t) + shift * path.log_snr(t), slope * marginals.gradient(y, t)

    start = marginals.at(float(times[-1])).sample(n, generator)
    return sample_reverse_weighted(energy_and_gradient, path, times, start, generator, **rest)


@pytest.mark.parametrize("slope", [1.0, 0.8])
@pytest.mark.parametrize("name", list(PATHS))
def test_modes_have_their_weights_though_the_score_that_moves_is_wrong(name: str, slope: float) -> None:
    result = run(name, 150, slope=slope)
    weights = result.log_weights.softmax(0)
    left = result.position[:, 0] < 0
    assert float(weights[left].sum()) == pytest.approx(0.2, abs=0.05)
    mean = (weights[left] @ result.position[left]) / weights[left].sum()
    torch.testing.assert_close(mean, MIXTURE.means[0], atol=0.06, rtol=0)


@pytest.mark.parametrize("resample_below", [0.0, 0.9])
def test_the_ratio_of_normalisers_is_that_of_the_energies(resample_below: float) -> None:
    path = PATHS["preserving"]
    result = run("preserving", 400, n=1000, shift=0.1, resample_below=resample_below)
    span = -float(path.log_snr(torch.tensor([path.t_min, path.t_max])).diff())
    assert float(result.log_normaliser) == pytest.approx(-0.1 * span, abs=0.12)


def test_steps_as_wide_as_the_modes_waste_fewer_samples() -> None:
    narrow, wide = (run("preserving", 60, resolution=rho, resample_below=0.0) for rho in (0.0, 0.3))
    assert float(wide.effective_sample_size[-1]) > 2 * float(narrow.effective_sample_size[-1])


def test_one_gaussian_of_that_width_is_followed_without_error() -> None:
    gaussian = GaussianMixture(
        torch.ones(1).double(), torch.tensor([[1.0, -2.0]]).double(), torch.tensor([0.3]).double()
    )
    path = PATHS["exploding"]
    marginals, times = MixtureMarginals(gaussian, path), log_snr_levels(path, 5)
    stream = named_generator(1, "one")
    start = marginals.at(float(times[-1])).sample(500, stream)
    result = sample_reverse_weighted(
        lambda y, t: (marginals.energy(y, t), marginals.gradient(y, t)), path, times, start, stream, resolution=0.3
    )
    assert float(result.log_weights.abs().max()) < 1e-6
    assert abs(float(result.log_normaliser)) < 1e-6


def test_times_that_do_not_grow_and_broken_energies_are_refused() -> None:
    path, stream = PATHS["preserving"], named_generator(2, "bad")
    start = torch.zeros(4, 2, dtype=torch.float64)
    with pytest.raises(ValueError, match="growing"):
        sample_reverse_weighted(lambda y, t: (y.sum(1), y), path, torch.tensor([0.5, 0.2]).double(), start, stream)
    with pytest.raises(RunFailedError, match="finite"):
        sample_reverse_weighted(
            lambda y, t: (math.nan * y.sum(1), y), path, torch.tensor([0.2, 0.5]).double(), start, stream
        )
