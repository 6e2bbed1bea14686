"""The reverse process: exact denoisers lead from noise to the data, with and without fresh noise."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from boltzgen_diffclf.paths import VarianceExploding, VariancePreserving, forward_kernel, log_snr_levels
from boltzgen_diffclf.samplers import EulerMaruyama, Heun, MarginalStep, ReverseSolver, reverse_step, sample_reverse
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


@pytest.mark.parametrize("name", list(PATHS))
def test_heun_is_of_second_order_and_ddim_of_first(name: str) -> None:
    path, generator = PATHS[name], named_generator(2, "order")
    marginals = MixtureMarginals(MIXTURE, path)
    start = marginals.at(path.t_max).sample(50, generator)

    def end(n_steps: int, solver: ReverseSolver) -> Tensor:
        times = log_snr_levels(path, n_steps + 1)
        return sample_reverse(exact_denoiser(marginals), path, times, start, generator, solver=solver)

    exact = end(1000, Heun())
    for solver, order in ((Heun(), 2), (MarginalStep(0.0), 1)):
        coarse, fine = (float((end(n, solver) - exact).abs().mean()) for n in (40, 80))
        assert math.log2(coarse / fine) == pytest.approx(order, abs=0.35)


SOLVERS = [MarginalStep(), MarginalStep(0.0), EulerMaruyama(), Heun(), Heun(0.7)]


@pytest.mark.parametrize("solver", SOLVERS, ids=str)
def test_a_way_back_in_two_parts_is_the_same_and_keeps_the_dtype(solver: ReverseSolver) -> None:
    path = PATHS["preserving"]
    marginals, times = MixtureMarginals(MIXTURE.to(dtype=torch.float32), path), log_snr_levels(path, 9).float()
    start = marginals.at(1.0).sample(20, named_generator(3, "start"))
    ways = []
    for parts in ([times], [times[4:], times[:5]]):
        stream, y = named_generator(3, "moves"), start
        for part in parts:
            y = sample_reverse(exact_denoiser(marginals), path, part, y, stream, solver=solver)
        ways.append(y)
    assert ways[0].dtype == torch.float32
    assert torch.equal(ways[0], ways[1])


def test_churn_never_raises_the_noise_beyond_that_of_the_path() -> None:
    path, asked = PATHS["exploding"], []

    def denoiser(y: Tensor, t: Tensor) -> Tensor:
        asked.append(float(t[0]))
        return torch.zeros_like(y)

    times = torch.tensor([0.2, 0.6, 1.0], dtype=torch.float64)
    sample_reverse(denoiser, path, times, torch.ones(1, 1).double(), named_generator(4, "r"), solver=Heun(2.0))
    assert asked == pytest.approx([1.0, 0.6, 1.0, 0.2])


def test_one_short_euler_step_is_the_exact_reverse_kernel() -> None:
    """Of a normal, whose reversal is known; mean and variance are right to first order in the step."""
    path, y = PATHS["preserving"], torch.tensor([[1.3]], dtype=torch.float64)
    t, s = torch.tensor([0.5], dtype=torch.float64), torch.tensor([0.4999], dtype=torch.float64)
    mean, variance = EulerMaruyama().normal(path, y, y, t, s)
    scale, spread = forward_kernel(path, s, t)
    # Data of unit variance keep it under this path, and the kernel is symmetric in time.
    torch.testing.assert_close(mean - y, scale * y - y, rtol=1e-3, atol=0)
    torch.testing.assert_close(variance, spread.square(), rtol=2e-3, atol=0)


def test_bad_times_and_churn_are_refused() -> None:
    path, y = PATHS["preserving"], torch.zeros(1, 1)
    with pytest.raises(ValueError, match="growing times"):
        sample_reverse(lambda y, t: y, path, torch.tensor([0.5, 0.2]), y, named_generator(0, "r"))
    for build in (lambda: MarginalStep(1.5), lambda: Heun(-0.1)):
        with pytest.raises(ValueError, match="churn"):
            build()


@pytest.mark.parametrize("churn", [0.0, 1.0])
def test_heuns_rule_takes_a_last_step_to_no_noise_at_all(churn: float) -> None:
    path = VariancePreserving()
    times = torch.cat([torch.zeros(1, dtype=torch.float64), log_snr_levels(PATHS["preserving"], 60)])
    start = torch.randn(4000, 1, generator=named_generator(6, "start"), dtype=torch.float64)
    denoiser = exact_denoiser(MixtureMarginals(MIXTURE, path))

    def known(y: Tensor, t: Tensor) -> Tensor:
        return denoiser(y, t.clamp(min=1e-3))

    y = sample_reverse(known, path, times, start, named_generator(6, "r"), solver=Heun(churn))
    exact = MIXTURE.sample(100_000, named_generator(6, "exact"))
    assert float(y.mean()) == pytest.approx(float(exact.mean()), abs=0.1)
    assert float(y.std()) == pytest.approx(float(exact.std()), rel=0.05)
