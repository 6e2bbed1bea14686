"""The exact marginals of mixtures along a path, against brute force and against conditional averages."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from boltzgen_diffclf.energy import TimeEnergy
from boltzgen_diffclf.paths import DiffusionPath, Edm, StochasticInterpolant, VarianceExploding, VariancePreserving
from boltzgen_diffclf.streams import named_generator
from systems.analytic import (
    InterpolatedMarginals,
    MixtureMarginals,
    interpolated,
    mixture_1d,
    mixture_2d,
    mog40,
    noised,
    standardised,
    two_modes,
)
from systems.analytic.marginals import MovingMixture

DOUBLE = torch.float64
DIFFUSIONS: dict[str, DiffusionPath] = {
    "vp": VariancePreserving(),
    "ve": VarianceExploding(0.05, 8.0),
    "edm": Edm(sigma_min=0.02, sigma_max=10.0),
}


def _bridge(noise: list[float] | float, dimension: int) -> StochasticInterpolant:
    return StochasticInterpolant(torch.tensor(noise, dtype=DOUBLE), dimension)


MODELS: dict[str, Callable[[], MovingMixture]] = {
    **{name: (lambda path=path: MixtureMarginals(mixture_2d(), path)) for name, path in DIFFUSIONS.items()},
    "vp, standardised": lambda: MixtureMarginals(standardised(mixture_2d()), VariancePreserving()),
    "bridge": lambda: InterpolatedMarginals(mixture_2d(), two_modes(2, 1.0), _bridge(0.8, 2)),
    "bridge, noise by coordinate": lambda: InterpolatedMarginals(
        standardised(mixture_2d()), two_modes(2, 1.0), _bridge([0.3, 1.5], 2)
    ),
    "bridge without noise": lambda: InterpolatedMarginals(mixture_2d(), two_modes(2, 1.0), _bridge(0.0, 2)),
}


@pytest.fixture(params=list(MODELS))
def model(request: pytest.FixtureRequest) -> MovingMixture:
    return MODELS[request.param]()


def _points(n: int = 200) -> tuple[torch.Tensor, torch.Tensor]:
    generator = named_generator(0, "points")
    y = 3 * torch.randn(n, 2, generator=generator, dtype=DOUBLE)
    return y, 0.01 + 0.98 * torch.rand(n, generator=generator, dtype=DOUBLE)


def test_gradient_and_time_derivative_are_those_of_the_energy(model: MovingMixture) -> None:
    y, t = _points()
    y.requires_grad_(), t.requires_grad_()
    by_position, by_time = torch.autograd.grad(model.energy(y, t).sum(), (y, t))
    torch.testing.assert_close(model.gradient(y, t), by_position)
    torch.testing.assert_close(model.time_derivative(y, t), by_time)


def test_marginal_is_normalised_and_is_the_target_of_that_time(model: MovingMixture) -> None:
    axis = torch.linspace(-40, 40, 501, dtype=DOUBLE)
    points, cell = torch.cartesian_prod(axis, axis), float(axis[1] - axis[0]) ** 2
    target = model.at(0.6)
    log_z = float(target.log_density(points).logsumexp(0)) + math.log(cell)
    assert log_z == pytest.approx(0, abs=1e-6)
    y, _ = _points()
    t = torch.full((len(y),), 0.6, dtype=DOUBLE)
    torch.testing.assert_close(model.energy(y, t), -target.log_density(y))
    torch.testing.assert_close(model.gradient(y, t), -target.score(y))
    assert (model.free_energy(t) == 0).all()


def test_energy_is_continuous_up_to_both_ends(model: MovingMixture) -> None:
    # The integral of dU/dt over the whole path, ends included, is the difference of the ends' energies.
    angles = torch.linspace(0, math.pi, 4001, dtype=DOUBLE)
    t = 0.5 * (1 - angles.cos())
    y = torch.tensor([[0.4, 0.9]], dtype=DOUBLE).expand(len(t), 2)
    energy, slope = model.energy(y, t), model.time_derivative(y, t)
    assert torch.isfinite(energy).all()
    change = torch.cumulative_trapezoid(slope, t)
    torch.testing.assert_close(change, energy[1:] - energy[0], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", DIFFUSIONS)
def test_one_sided_marginal_is_the_integral_over_the_data(name: str) -> None:
    path, data = DIFFUSIONS[name], mixture_1d()
    x = torch.linspace(-8, 8, 4001, dtype=DOUBLE)[:, None]
    log_weight = data.log_density(x) + math.log(float(x[1] - x[0]))
    for time in (0.05, 0.4, 1.0):
        for place in (-2.5, 0.1, 3.0):
            y, t = torch.full_like(x, place), torch.full((len(x),), time, dtype=DOUBLE)
            brute = (log_weight + path.conditional_log_density(y, x, t)).logsumexp(0)
            marginal = noised(data, path, time)
            assert float(marginal.log_density(y[:1])) == pytest.approx(float(brute), abs=1e-8)


def test_two_sided_marginal_is_the_integral_over_both_ends() -> None:
    path, ends = _bridge(0.9, 1), (mixture_1d(), mixture_1d((2.0, 1.0), (-1.0, 1.0), (0.3, 0.4)))
    axis = torch.linspace(-7, 7, 501, dtype=DOUBLE)
    start, finish = torch.cartesian_prod(axis, axis).split(1, dim=1)
    log_weight = ends[0].log_density(start) + ends[1].log_density(finish) + 2 * math.log(float(axis[1] - axis[0]))
    for time in (0.2, 0.7):
        for place in (-2.5, 0.1, 2.0):
            y, t = torch.full_like(start, place), torch.full((len(start),), time, dtype=DOUBLE)
            brute = (log_weight + path.conditional_log_density(y, start, finish - start, t)).logsumexp(0)
            marginal = interpolated(*ends, path, time)
            assert float(marginal.log_density(y[:1])) == pytest.approx(float(brute), abs=1e-8)


def _require_zero_mean(values: torch.Tensor) -> None:
    error = values.std(0) / math.sqrt(len(values))
    assert (values.mean(0).abs() < 4 * error).all()


def _require_conditional_averages(
    model: MovingMixture, y: torch.Tensor, t: torch.Tensor, score: torch.Tensor, time_score: torch.Tensor
) -> None:
    """Check ``E[conditional | y] = marginal`` by its moments with functions of y."""
    score_error, time_error = score + model.gradient(y, t), time_score + model.time_derivative(y, t)
    for weight in (torch.ones_like(t), y[:, 0].tanh(), (y[:, 1] > 0.5).double(), (y.sum(1) + 3 * t).sin()):
        _require_zero_mean(weight[:, None] * score_error)
        _require_zero_mean(weight * time_error)


@pytest.mark.parametrize("name", DIFFUSIONS)
def test_one_sided_conditional_scores_average_to_the_marginal(name: str) -> None:
    path, data, n = DIFFUSIONS[name], standardised(mixture_2d()), 40_000
    generator = named_generator(1, "one-sided")
    x = data.sample(n, generator)
    z, t = torch.randn(n, 2, generator=generator, dtype=DOUBLE), torch.rand(n, generator=generator, dtype=DOUBLE)
    t = 0.3 + 0.7 * t
    y = path.sample(x, t, z)
    scores = path.conditional_score(y, x, t), path.conditional_time_score(x, t, z)
    _require_conditional_averages(MixtureMarginals(data, path), y, t, *scores)


def test_two_sided_conditional_scores_average_to_the_marginal() -> None:
    path, ends, n = _bridge([0.7, 1.2], 2), (mixture_2d(), two_modes(2, 1.0)), 40_000
    generator = named_generator(2, "two-sided")
    x_0, x_1 = (end.sample(n, generator) for end in ends)
    z, t = torch.randn(n, 2, generator=generator, dtype=DOUBLE), torch.rand(n, generator=generator, dtype=DOUBLE)
    t = 0.1 + 0.8 * t
    y = path.sample(x_0, x_1 - x_0, t, z)
    scores = path.conditional_score(y, x_0, x_1 - x_0, t), path.conditional_time_score(x_1 - x_0, t, z)
    _require_conditional_averages(InterpolatedMarginals(*ends, path), y, t, *scores)


def test_ends_are_the_mixtures_themselves() -> None:
    y, _ = _points()
    start, finish = mixture_2d(), two_modes(2, 1.0)
    bridge = InterpolatedMarginals(start, finish, _bridge(0.8, 2))
    torch.testing.assert_close(bridge.at(0.0).log_density(y), start.log_density(y))
    torch.testing.assert_close(bridge.at(1.0).log_density(y), finish.log_density(y))
    clean = MixtureMarginals(start, VariancePreserving())
    zero = torch.zeros(len(y), dtype=DOUBLE)
    torch.testing.assert_close(clean.energy(y, zero), -start.log_density(y))
    assert torch.isfinite(clean.time_derivative(y, zero)).all()


class _LargestTensor(TorchDispatchMode):
    """Record the most elements that any operation puts out."""

    numel = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        result = func(*args, **(kwargs or {}))
        # An expanded view holds no memory of its own.
        if isinstance(result, torch.Tensor) and result.untyped_storage().nbytes() >= result.nbytes:
            self.numel = max(self.numel, result.numel())
        return result


@pytest.mark.parametrize("two_sided", [False, True], ids=["one-sided", "two-sided"])
def test_large_batches_are_taken_in_parts(two_sided: bool) -> None:
    data, n = standardised(mog40(128)), 4096
    model: TimeEnergy = (
        InterpolatedMarginals(data, two_modes(128, 1.0), _bridge(0.5, 128))
        if two_sided
        else MixtureMarginals(data, VariancePreserving())
    )
    generator = named_generator(3, "large")
    y, t = torch.randn(n, 128, generator=generator, dtype=DOUBLE), torch.rand(n, generator=generator, dtype=DOUBLE)
    with _LargestTensor() as largest:
        gradient = model.gradient(y, t)
    # The whole batch at once would be 4096 * 40 * 128 = 2.1e7 elements.
    assert largest.numel < 1.2e6
    rows = [0, 101, 204, 205, 4095]
    torch.testing.assert_close(gradient[rows], torch.cat([model.gradient(y[[k]], t[[k]]) for k in rows]))
    derivative, energy = model.time_derivative(y[:300], t[:300]), model.energy(y[:300], t[:300])
    torch.testing.assert_close(derivative[[299]], model.time_derivative(y[[299]], t[[299]]))
    torch.testing.assert_close(energy[[299]], model.energy(y[[299]], t[[299]]))


def test_ends_of_different_dimension_are_refused() -> None:
    with pytest.raises(ValueError, match="one dimension"):
        InterpolatedMarginals(mixture_1d(), mixture_2d(), _bridge(1.0, 2))
    with pytest.raises(ValueError, match="one dimension"):
        interpolated(mixture_2d(), mixture_2d(), _bridge(1.0, 3), 0.5)
