"""The energy of an interpolant beside its Gaussian: without a network it is the exact density of Gaussian ends."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from boltzgen_diffclf.data_gaussian import data_resolution
from boltzgen_diffclf.energy import Ends
from boltzgen_diffclf.errors import InputError
from boltzgen_diffclf.gaussian_path_energy import EndMoments, GaussianPathEnergyModel, end_moments
from boltzgen_diffclf.nets import MlpEnergyNet
from boltzgen_diffclf.paths import StochasticInterpolant, arcsine_levels
from boltzgen_diffclf.streams import named_generator

DIM = 3
PATH = StochasticInterpolant(torch.tensor([0.5, 1.0, 2.0]).double(), DIM)


def stream() -> torch.Generator:
    return named_generator(0, "interpolant")


def mixing(seed: int) -> Tensor:
    return torch.randn(DIM, DIM, generator=named_generator(seed, "mixing"), dtype=torch.float64)


def end(seed: int) -> tuple[Tensor, Tensor]:
    return 3 * mixing(seed)[0], mixing(seed + 10)


def model_of(ends: tuple[EndMoments, EndMoments]) -> GaussianPathEnergyModel:
    net = MlpEnergyNet(DIM, stream(), hidden=8, layers=1)
    return GaussianPathEnergyModel(net, arcsine_levels(9), PATH, ends).double()


def exact_ends(resolution: float = 0.1) -> tuple[EndMoments, EndMoments]:
    return tuple(EndMoments(mean, root @ root.T, resolution) for mean, root in (end(1), end(2)))  # type: ignore[return-value]


def no_ends(y: Tensor) -> Ends:
    return Ends(y.new_zeros(len(y), 2), y.new_zeros(len(y), 2, DIM))


@pytest.mark.parametrize("time", [0.0, 0.3, 0.5, 1.0])
def test_without_a_network_it_is_the_normalised_gaussian_of_the_path(time: float) -> None:
    (mean_0, root_0), (mean_1, root_1) = end(1), end(2)
    t = torch.full((40,), time, dtype=torch.float64)
    # A sum of normals: the path's own samples say what covariance it has.
    maps = torch.cat([(1 - time) * root_0, time * root_1, (time * (1 - time)) ** 0.5 * PATH.noise_scale.diag()], dim=1)
    exact = torch.distributions.MultivariateNormal((1 - time) * mean_0 + time * mean_1, maps @ maps.T)
    y = exact.mean + 2 * torch.randn(40, DIM, generator=stream(), dtype=torch.float64)
    model = model_of(exact_ends())
    energy, gradient = model.energy_and_gradient(y, t, no_ends(y))
    torch.testing.assert_close(energy, -exact.log_prob(y))
    torch.testing.assert_close(gradient, (y - exact.mean) @ exact.precision_matrix)


def test_the_factor_of_the_network_is_the_spread_of_what_it_has_to_learn() -> None:
    # Of the slope in h that a conditional score asks for beside that of the Gaussian, in the mean over coordinates.
    path = StochasticInterpolant(torch.ones(DIM).double(), DIM)
    ends = tuple(EndMoments(mean, (2.0 * torch.eye(DIM)).double(), 0.0) for mean, _ in (end(1), end(2)))
    model = GaussianPathEnergyModel(nn.Identity(), arcsine_levels(9), path, ends).double()  # type: ignore[arg-type]
    n, time = 200_000, 0.3
    normals = torch.randn(3, n, DIM, generator=stream(), dtype=torch.float64)
    x_0, x_1 = (one.mean + 2.0**0.5 * normal for one, normal in zip(ends, normals, strict=False))
    t = torch.full((n,), time, dtype=torch.float64)
    y = path.sample(x_0, x_1 - x_0, t, normals[2])
    gamma_squared = time * (1 - time)
    variance = 2.0 * ((1 - time) ** 2 + time**2) + gamma_squared
    mean = (1 - time) * ends[0].mean + time * ends[1].mean
    left = (normals[2] / gamma_squared**0.5 - (y - mean) / variance) * variance**0.5
    torch.testing.assert_close(left.square().mean().sqrt(), model.net_weight(t)[0], rtol=0.01, atol=0)


def test_the_factor_stays_finite_at_the_ends_and_falls_with_their_resolution() -> None:
    fine, coarse = (model_of(exact_ends(rho)).net_weight(torch.tensor([0.0, 0.5, 1.0]).double()) for rho in (0.1, 0.5))
    assert bool((fine.isfinite() & (coarse < fine)).all())


def test_the_time_of_the_network_goes_on_steadily_where_its_factor_grows_by_decades() -> None:
    model, levels = model_of(exact_ends(1e-3)), arcsine_levels(65).double()
    assert float(model.net_weight(levels).log().diff().abs().max()) > 3
    time = model.net_time(levels)
    assert bool((time.diff() > 0).all())
    assert float(time.diff().max()) < 0.2
    torch.testing.assert_close(time[[0, -1]], torch.tensor([0.0, 1.0]).double())


def test_gradients_and_time_derivatives_are_those_of_the_energy() -> None:
    model = model_of(exact_ends())
    nn.init.normal_(model.net.get_parameter("readout.weight"), generator=stream())
    y = torch.randn(6, DIM, generator=stream(), dtype=torch.float64, requires_grad=True)
    t = torch.linspace(0.1, 0.9, 6, dtype=torch.float64, requires_grad=True)
    ends = no_ends(y)
    energy = model.energy(y, t, ends.energy)
    slope, rate = torch.autograd.grad(energy.sum(), (y, t))
    torch.testing.assert_close(model.gradient(y.detach(), t.detach(), ends), slope)
    torch.testing.assert_close(model.time_derivative(y.detach(), t.detach(), ends.energy), rate)


def test_moments_are_those_of_the_samples() -> None:
    x = torch.randn(400, DIM, generator=stream(), dtype=torch.float64) @ mixing(3) + 1.0
    moments = end_moments(x, named_generator(0, "probes"))
    torch.testing.assert_close(moments.mean, x.mean(0))
    torch.testing.assert_close(moments.covariance, torch.cov(x.T))
    assert moments.resolution == data_resolution(x, named_generator(0, "probes"))
    with pytest.raises(InputError, match="more than 3 samples"):
        end_moments(x[:3], stream())
