"""The reverse process: exact denoisers lead from noise to the data, with and without fresh noise."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from boltzgen_diffclf.paths import VarianceExploding, VariancePreserving, log_snr_levels
from boltzgen_diffclf.samplers import Heun, MarginalStep, reverse_step, sample_reverse
from boltzgen_diffclf.streams import named_generator
from systems.analytic import GaussianMixture, MixtureMarginals

PATHS = {"preserving": VariancePreserving(t_min=1e-3), "exploding": VarianceExploding(0.02, 30.0)}
MIXTURE = GaussianMixture(
    torch.tensor([0.3, 0.7], dtype=torch.float64),
    torch.tensor([[-2.0], [1.0]], dtype=torch.float64),
    torch.tensor([0.3, 0.5], dtype=torch.float64),
)


def exact_denoiser(marginals: MixtureMarginals):
    def denoiser(y: Tensor, t: Tensor) -> Tensor:
        sigma, alpha = marginals.path.sigma(t)[:, None], marginals.path.alpha(t)[:, None]
        return (y - sigma.square() * marginals.gradient(y, t)) / alpha

    return denoiser


@pytest.mark.parametrize("churn", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("name", list(PATHS))
def test_an_exact_denoiser_gives_the_mixture_back(name: str, churn: float) -> None:
    path, n = PATHS[name], 4000
    marginals, times = MixtureMarginals(MIXTURE, path), log_snr_levels(path, 200)
    generator = named_generator(0, "reverse")
    start = marginals.at(float(times[-1])).sample(n, generator)
    y = sample_reverse(exact_denoiser(marginals), path, times, start, generator, solver=MarginalStep(churn))
    left = float((y < -0.7).double().mean())
    truth = float(MIXTURE.responsibilities(MIXTURE.sample(200_000, generator))[:, 0].mean())
    assert left == pytest.approx(truth, abs=4 * math.sqrt(0.21 / n) + 0.005)
    for side, sigma in ((y[y < -0.9], 0.3), (y[y > -0.4], 0.5)):
        assert float(side.std()) == pytest.approx(sigma, rel=0.08)


def test_one_step_keeps_the_marginal_given_the_clean_sample() -> None:
    path, n = PATHS["preserving"], 40_000
    t, s = torch.full((n,), 0.6, dtype=torch.float64), torch.full((n,), 0.3, dtype=torch.float64)
    x = torch.full((n, 1), 1.7, dtype=torch.float64)
    z, noise = torch.randn(2, n, 1, generator=named_generator(1, "z"), dtype=torch.float64)
    for churn in (0.0, 0.6, 1.0):
        y = reverse_step(path, path.sample(x, t, z), x, t, s, noise, churn)
        white = (y - path.alpha(s)[:, None] * x) / path.sigma(s)[:, None]
        assert abs(float(white.mean())) < 4 / math.sqrt(n)
        assert abs(float(white.square().mean()) - 1) < 4 * math.sqrt(2 / n)
    # With full churn the step is a draw of the posterior, whose correlation with y_t is known.
    z_s = (y - path.alpha(s)[:, None] * x) / path.sigma(s)[:, None]
    expected = float((0.5 * (path.log_snr(t[:1]) - path.log_snr(s[:1]))).exp())
    assert float((z_s * z).mean()) == pytest.approx(expected, abs=4 / math.sqrt(n))


def test_bad_times_and_churn_are_refused() -> None:
    path, y = PATHS["preserving"], torch.zeros(1, 1)
    with pytest.raises(ValueError, match="growing times"):
        sample_reverse(lambda y, t: y, path, torch.tensor([0.5, 0.2]), y, named_generator(0, "r"))
    for build in (lambda: MarginalStep(1.5), lambda: Heun(-0.1)):
        with pytest.raises(ValueError, match="churn"):
            build()
