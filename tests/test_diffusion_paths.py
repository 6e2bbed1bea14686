"""Contract of every noising path from data to noise."""

from __future__ import annotations

import math

import pytest
import torch

from boltzgen_diffclf.paths import (
    DiffusionPath,
    Edm,
    VarianceExploding,
    VariancePreserving,
    forward_kernel,
    unknown_share,
)

PATHS: dict[str, DiffusionPath] = {
    "variance preserving": VariancePreserving(),
    "constant beta": VariancePreserving(beta_min=3.0, beta_max=3.0),
    "variance exploding": VarianceExploding(sigma_min=0.01, sigma_max=50.0),
    "edm": Edm(),
    "edm of another rho": Edm(sigma_min=1e-3, sigma_max=10.0, rho=3.0),
}


@pytest.fixture(params=list(PATHS))
def path(request: pytest.FixtureRequest) -> DiffusionPath:
    return PATHS[request.param]


def _times(path: DiffusionPath, n: int = 64, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.linspace(path.t_min, path.t_max, n, dtype=dtype)


def _draw(path: DiffusionPath) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    x, z = (torch.randn(64, 3, generator=generator, dtype=torch.float64) for _ in range(2))
    return x, _times(path), z


def _slope(function: object, t: torch.Tensor) -> torch.Tensor:
    return torch.func.jvp(function, (t,), (torch.ones_like(t),))[1]  # type: ignore[arg-type]


def test_conditional_score_is_the_gradient_of_the_log_density(path: DiffusionPath) -> None:
    x, t, z = _draw(path)
    y = path.sample(x, t, z).requires_grad_()
    (gradient,) = torch.autograd.grad(path.conditional_log_density(y, x, t).sum(), y)
    torch.testing.assert_close(path.conditional_score(y, x, t), gradient)
    torch.testing.assert_close(gradient * path.sigma(t)[:, None], -z)


def test_time_score_is_the_time_derivative_of_the_log_density_at_fixed_y(path: DiffusionPath) -> None:
    x, t, z = _draw(path)
    y = path.sample(x, t, z)
    derivative = _slope(lambda time: path.conditional_log_density(y, x, time), t)
    torch.testing.assert_close(path.conditional_time_score(x, t, z), derivative)


def test_conditional_density_integrates_to_one(path: DiffusionPath) -> None:
    time = torch.tensor([0.37], dtype=torch.float64)
    x, spread = torch.full((4001, 1), 0.8, dtype=torch.float64), float(path.sigma(time))
    y = path.alpha(time) * x + spread * torch.linspace(-9, 9, 4001, dtype=torch.float64)[:, None]
    density = path.conditional_log_density(y, x, time.expand(4001)).exp()
    assert torch.trapezoid(density, y[:, 0]).item() == pytest.approx(1.0, abs=1e-12)


def test_derivatives_are_exact(path: DiffusionPath) -> None:
    t = _times(path)
    torch.testing.assert_close(path.d_log_alpha(t), _slope(path.log_alpha, t))
    torch.testing.assert_close(path.d_log_sigma(t), _slope(path.log_sigma, t))
    torch.testing.assert_close(path.alpha(t).log(), path.log_alpha(t))
    torch.testing.assert_close(path.sigma(t).log(), path.log_sigma(t))


def test_signal_to_noise_falls_and_tells_the_time(path: DiffusionPath) -> None:
    t = _times(path)
    log_snr = path.log_snr(t)
    assert (log_snr.diff() < 0).all()
    torch.testing.assert_close(log_snr, 2 * (path.alpha(t) / path.sigma(t)).log())
    torch.testing.assert_close(path.time_at_log_snr(log_snr), t, rtol=1e-10, atol=1e-12)


def test_what_a_step_leaves_open_is_the_variance_that_the_marginals_ask_for(path: DiffusionPath) -> None:
    t = _times(path)
    s, later = t[1:-1], t[2:]
    kept = (path.alpha(later) / path.alpha(s)).square() * path.sigma(s).square()
    variance = path.sigma(later).square() * unknown_share(path, s, later)
    torch.testing.assert_close(variance, path.sigma(later).square() - kept)
    # A short step, where a difference of variances would be all cancellation.
    short = unknown_share(path, s, s + 1e-9) / 1e-9
    torch.testing.assert_close(short, -_slope(path.log_snr, s), rtol=1e-4, atol=0)


def test_the_kernel_between_two_times_joins_their_marginals(path: DiffusionPath) -> None:
    t = _times(path)
    s, later = t[1:-1], t[2:]
    scale, spread = forward_kernel(path, s, later)
    torch.testing.assert_close(scale * path.alpha(s), path.alpha(later))
    torch.testing.assert_close((scale * path.sigma(s)).square() + spread.square(), path.sigma(later).square())


def test_forward_process_has_these_moments(path: DiffusionPath) -> None:
    # dm/dt = f m for the mean alpha x, dv/dt = 2 f v + g^2 for the variance sigma^2.
    t = _times(path)
    f, g_squared = path.drift_rate(t), path.diffusion_squared(t)
    assert (g_squared > 0).all()
    torch.testing.assert_close(_slope(path.alpha, t), f * path.alpha(t))
    torch.testing.assert_close(
        _slope(lambda time: path.sigma(time).square(), t), 2 * f * path.sigma(t).square() + g_squared
    )


def test_simulated_forward_process_ends_in_the_marginal() -> None:
    # Euler-Maruyama with f and g alone: a wrong factor of two in g^2 shows as a variance off by tens of per cent.
    path, n, steps = VariancePreserving(0.5, 6.0), 20_000, 400
    generator = torch.Generator().manual_seed(2)
    y = torch.full((n,), 1.5, dtype=torch.float64)
    for step in range(steps):
        t = torch.tensor([(step + 0.5) / steps], dtype=torch.float64)
        noise = torch.randn(n, generator=generator, dtype=torch.float64)
        y = y + path.drift_rate(t) * y / steps + (path.diffusion_squared(t) / steps).sqrt() * noise
    end = torch.ones(1, dtype=torch.float64)
    mean, sigma = 1.5 * float(path.alpha(end)), float(path.sigma(end))
    assert float(y.mean()) == pytest.approx(mean, abs=4 * sigma / math.sqrt(n) + 1e-3)
    assert float(y.std()) == pytest.approx(sigma, abs=4 * sigma / math.sqrt(2 * n) + 4e-3)


def _everything_at_the_extremes(path: DiffusionPath, dtype: torch.dtype) -> list[torch.Tensor]:
    t = torch.tensor([max(path.t_min, 1e-6), 1e-3, 1 - 1e-4, path.t_max], dtype=dtype)
    x, z = torch.full((4, 2), 0.7, dtype=dtype), torch.full((4, 2), -1.3, dtype=dtype)
    functions = (
        path.alpha, path.sigma, path.log_snr, path.d_log_alpha, path.d_log_sigma, path.diffusion_squared,
        lambda time: path.time_at_log_snr(path.log_snr(time)), lambda time: path.conditional_time_score(x, time, z),
    )  # fmt: skip
    return [function(t) for function in functions]


def test_single_precision_holds_at_both_extremes(path: DiffusionPath) -> None:
    single, double = (_everything_at_the_extremes(path, dtype) for dtype in (torch.float32, torch.float64))
    assert {value.dtype for value in single} == {torch.float32}
    torch.testing.assert_close([value.double() for value in single], double, rtol=2e-5, atol=2e-6)


def test_variance_is_preserved_and_data_is_clean_at_the_start() -> None:
    path = VariancePreserving()
    t = _times(path)
    torch.testing.assert_close(path.alpha(t).square() + path.sigma(t).square(), torch.ones_like(t))
    start = torch.zeros(1, dtype=torch.float64)
    assert path.sigma(start).item() == 0
    assert path.diffusion_squared(start).item() == pytest.approx(path.beta_min)


def test_noise_ends_where_it_was_asked_to() -> None:
    t = torch.tensor([0.0, 1.0], dtype=torch.float64)
    expected = torch.tensor([0.02, 30.0], dtype=torch.float64)
    for path in (VarianceExploding(0.02, 30.0), Edm(0.02, 30.0, 5.0)):
        torch.testing.assert_close(path.sigma(t), expected)
    # Halfway the fifth root is halfway.
    middle = Edm(0.02, 30.0, 5.0).sigma(torch.tensor([0.5], dtype=torch.float64))
    assert middle.item() == pytest.approx((0.5 * 0.02**0.2 + 0.5 * 30.0**0.2) ** 5)


@pytest.mark.parametrize(
    "build",
    [
        lambda: VariancePreserving(beta_min=0.0),
        lambda: VariancePreserving(beta_min=2.0, beta_max=1.0),
        lambda: VariancePreserving(t_min=1.0),
        lambda: VarianceExploding(1.0, 0.5),
        lambda: Edm(sigma_min=0.0),
        lambda: Edm(rho=0.0),
    ],
)
def test_impossible_parameters_are_refused(build: object) -> None:
    with pytest.raises(ValueError, match=r"need|positive"):
        build()  # type: ignore[operator]
