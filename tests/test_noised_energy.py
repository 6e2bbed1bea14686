"""Contract of the one-sided energy model: exact Gaussian prior, consistent derivatives, units of the network."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

from boltzgen_diffclf.coordinates import CentredCoordinates, log_normal_centred, remove_mean
from boltzgen_diffclf.data_gaussian import DataGaussian, data_resolution
from boltzgen_diffclf.nets import MlpEnergyNet, MultiLevelNet, SquashedMlpTrunk, WellEnergyNet
from boltzgen_diffclf.noised_energy import NoisedEnergyModel

DIM = 3
MEAN = torch.tensor([1.5, -0.7, 4.0], dtype=torch.float64)
FACTOR = torch.tensor([[1.3, 0.0, 0.0], [0.9, 0.4, 0.0], [-0.5, 0.2, 0.1]], dtype=torch.float64)
COVARIANCES = {
    "scalar": torch.tensor(0.6, dtype=torch.float64),
    "diagonal": torch.tensor([0.04, 1.0, 2.5], dtype=torch.float64),
    "full": FACTOR @ FACTOR.T,
}


@dataclass(frozen=True)
class Preserving:
    """A variance-preserving path with linear rate."""

    def log_alpha(self, t: Tensor) -> Tensor:
        return -0.05 * t - 4.975 * t**2

    def alpha(self, t: Tensor) -> Tensor:
        return self.log_alpha(t).exp()

    def sigma(self, t: Tensor) -> Tensor:
        return (-torch.expm1(2 * self.log_alpha(t))).sqrt()

    def log_snr(self, t: Tensor) -> Tensor:
        return 2 * (self.log_alpha(t) - self.sigma(t).log())


@dataclass(frozen=True)
class Exploding:
    """A geometric path from 0.02 to 20 without contraction of the data."""

    def alpha(self, t: Tensor) -> Tensor:
        return torch.ones_like(t)

    def sigma(self, t: Tensor) -> Tensor:
        return 0.02 * 1000**t

    def log_snr(self, t: Tensor) -> Tensor:
        return -2 * self.sigma(t).log()


class Linear(nn.Module):
    """The energy ``slope . h``, which keeps what it was given."""

    def __init__(self, slope: Tensor) -> None:
        super().__init__()
        self.slope = slope

    def forward(self, h: Tensor, c: Tensor) -> Tensor:
        self.seen = h, c
        return h @ self.slope


LEVELS = torch.linspace(0.02, 1.0, 9, dtype=torch.float64)
PATHS = {"preserving": Preserving(), "exploding": Exploding()}
Path = Preserving | Exploding


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, generator=generator(seed), dtype=torch.float64)


def conditional(dim: int = DIM) -> nn.Module:
    return MlpEnergyNet(dim, generator(), hidden=16, layers=2)


def multi_level(dim: int = DIM) -> nn.Module:
    return MultiLevelNet(SquashedMlpTrunk(dim, generator(), hidden=16, layers=2), 32, generator(1))


def wells(dim: int = DIM) -> nn.Module:
    return WellEnergyNet(dim, generator(), (5.0, 0.01), hidden=16, layers=2)


NETS = {"conditional": conditional, "multi-level": multi_level, "wells": wells}


def randomised(model: NoisedEnergyModel) -> NoisedEnergyModel:
    """Return the model in double precision with every weight moved, as if it had been trained."""
    model = model.double()
    with torch.no_grad():
        for k, weight in enumerate(model.parameters()):
            weight += 0.3 * normal(*weight.shape, seed=100 + k)
    return model


@pytest.fixture(params=list(PATHS))
def path(request: pytest.FixtureRequest) -> Path:
    return PATHS[request.param]


@pytest.fixture(params=list(COVARIANCES))
def data(request: pytest.FixtureRequest) -> DataGaussian:
    return DataGaussian(MEAN, COVARIANCES[request.param])


@pytest.fixture(params=[(net, resolution) for net in NETS for resolution in (0.0, 0.3)])
def trained(request: pytest.FixtureRequest, path: Path, data: DataGaussian) -> NoisedEnergyModel:
    net, resolution = request.param
    return randomised(NoisedEnergyModel(NETS[net](), path, data, LEVELS, resolution))


def points(model: NoisedEnergyModel, n: int = 6) -> tuple[Tensor, Tensor]:
    """Return configurations of a realistic spread and their times."""
    t = 0.05 + 0.9 * torch.rand(n, generator=generator(2), dtype=torch.float64)
    spread = (model.path.alpha(t) + model.path.sigma(t))[:, None]
    return model.path.alpha(t)[:, None] * MEAN + spread * normal(n, DIM), t


def covariance_matrix(covariance: Tensor) -> Tensor:
    return covariance if covariance.ndim == 2 else covariance.expand(DIM).diag()


@pytest.mark.parametrize("net", list(NETS))
@pytest.mark.parametrize("kind", list(COVARIANCES))
def test_zero_network_is_the_noised_gaussian_and_its_wiener_denoiser(kind: str, net: str, path: Path) -> None:
    model = NoisedEnergyModel(NETS[net](), path, DataGaussian(MEAN, COVARIANCES[kind]), LEVELS).double()
    y, t = points(model)
    sigma_0, eye = covariance_matrix(COVARIANCES[kind]), torch.eye(DIM, dtype=torch.float64)
    for k in range(len(t)):
        alpha, sigma = path.alpha(t[k : k + 1]), path.sigma(t[k : k + 1])
        noised = alpha**2 * sigma_0 + sigma**2 * eye
        marginal = torch.distributions.MultivariateNormal(alpha * MEAN, noised)
        exact = marginal.log_prob(y[k])
        torch.testing.assert_close(model.log_density(y, t)[k], exact, rtol=1e-10, atol=1e-10)
        wiener = MEAN + alpha * sigma_0 @ torch.linalg.solve(noised, y[k] - alpha * MEAN)
        torch.testing.assert_close(model.denoiser(y, t)[k], wiener, rtol=1e-9, atol=1e-9)


def test_score_is_minus_the_finite_difference_of_the_energy(trained: NoisedEnergyModel) -> None:
    y, t = points(trained)
    score, weight = trained.score(y, t), trained.net_weight(t)
    for column in range(DIM):
        step = torch.zeros(DIM, dtype=torch.float64)
        step[column] = 1e-5
        difference = (trained.energy(y + step, t) - trained.energy(y - step, t)) / 2e-5
        torch.testing.assert_close(-score[:, column] / weight, difference / weight, rtol=1e-5, atol=1e-5)


def test_one_pass_gives_the_energy_and_a_gradient_that_trains(trained: NoisedEnergyModel) -> None:
    y, t = points(trained)
    energy, gradient = trained.energy_and_gradient(y, t)
    torch.testing.assert_close(energy, trained.energy(y, t))
    torch.testing.assert_close(gradient, trained.gradient(y, t))
    gradient.square().sum().backward()
    sizes = [float(p.grad.abs().sum()) for p in trained.net.parameters() if p.grad is not None]
    assert len(sizes) >= len(list(trained.net.parameters())) - 1  # all but the readout's bias, a constant energy
    assert max(sizes) > 0


def test_denoiser_and_score_are_tied_by_tweedie(trained: NoisedEnergyModel) -> None:
    y, t = points(trained)
    alpha, sigma = trained.path.alpha(t)[:, None], trained.path.sigma(t)[:, None]
    tweedie = (y + sigma**2 * trained.score(y, t)) / alpha
    torch.testing.assert_close(trained.denoiser(y, t), tweedie, rtol=1e-8, atol=1e-8)


def test_time_derivative_is_the_finite_difference(trained: NoisedEnergyModel) -> None:
    y, t = points(trained)
    difference = (trained.energy(y, t + 1e-6) - trained.energy(y, t - 1e-6)) / 2e-6
    torch.testing.assert_close(trained.time_derivative(y, t), difference, rtol=1e-5, atol=1e-5)


def test_members_of_a_batch_do_not_see_each_other(trained: NoisedEnergyModel) -> None:
    y, t = points(trained)
    alone = [trained.energy_and_gradient(y[k : k + 1], t[k : k + 1]) for k in range(len(y))]
    energy, gradient = trained.energy_and_gradient(y, t)
    torch.testing.assert_close(energy, torch.cat([one[0] for one in alone]))
    torch.testing.assert_close(gradient, torch.cat([one[1] for one in alone]))


def test_single_precision_stays_single_and_close(trained: NoisedEnergyModel) -> None:
    y, t = points(trained)
    energy, denoised = trained.energy(y, t), trained.denoiser(y, t)
    model = trained.float()
    assert model.energy(y.float(), t.float()).dtype == torch.float32
    torch.testing.assert_close(model.energy(y.float(), t.float()).double(), energy, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(model.denoiser(y.float(), t.float()).double(), denoised, rtol=1e-3, atol=1e-3)


def test_energies_at_all_levels_are_the_energies_one_by_one(trained: NoisedEnergyModel) -> None:
    y, _ = points(trained)
    one_by_one = [trained.energy(y, level.expand(len(y))) for level in LEVELS]
    torch.testing.assert_close(trained.level_energies(y, LEVELS), torch.stack(one_by_one, dim=1), rtol=1e-9, atol=1e-9)


def test_multi_level_net_runs_its_trunk_once(path: Path) -> None:
    net = multi_level()
    calls: list[int] = []
    net.trunk.register_forward_hook(lambda _module, _args, output: calls.append(len(output)))  # type: ignore[union-attr]
    model = NoisedEnergyModel(net, path, DataGaussian(MEAN, COVARIANCES["full"]), LEVELS).double()
    model.level_energies(points(model)[0], LEVELS)
    assert calls == [6]


@pytest.mark.parametrize("kind", list(COVARIANCES))
@pytest.mark.parametrize("level", [0.02, 0.4, 1.0])
def test_input_and_target_of_the_network_have_unit_scale(kind: str, level: float, path: Path) -> None:
    n, slope = 40_000, torch.tensor([0.3, -1.0, 2.0], dtype=torch.float64)
    net = Linear(slope)
    gaussian = DataGaussian(MEAN, COVARIANCES[kind])
    model = NoisedEnergyModel(net, path, gaussian, LEVELS).double()
    t = torch.full((n,), level, dtype=torch.float64)
    x = MEAN + normal(n, DIM) @ torch.linalg.cholesky(covariance_matrix(COVARIANCES[kind])).T
    alpha, sigma = path.alpha(t)[:, None], path.sigma(t)[:, None]
    y = alpha * x + sigma * normal(n, DIM, seed=3)
    shifted = model.denoiser(y, t)
    h, c = net.seen
    assert h.mean(0).abs().max() < 4 / math.sqrt(n)
    assert (h.T @ h / n - torch.eye(DIM, dtype=torch.float64)).abs().max() < 4 * math.sqrt(2 / n)
    assert -1e-9 <= float(c[0]) <= 1 + 1e-9
    net.slope = torch.zeros_like(slope)
    prior = model.denoiser(y, t)
    # What one unit of the network's slope moves the denoiser by is the unit of its regression target.
    unit = (gaussian.along(shifted - prior) / -gaussian.along(slope))[0]
    target = (gaussian.along(x - prior) / unit).square().mean(-1)
    assert abs(float(target.mean()) - 1) < 4 * float(target.std()) / math.sqrt(n)
    weighted = (model.denoising_weight(t) * gaussian.along(x - prior).square()).mean(0)
    assert (weighted - 1).abs().max() < 4 * math.sqrt(2 / n)


def test_level_free_energies_shift_the_density_and_vanish_at_the_noise(trained: NoisedEnergyModel) -> None:
    y, t = points(trained)
    curve = trained.free_energy(t)
    assert trained.free_energy(LEVELS[-1:]).detach().tolist() == [0]
    assert curve.abs().min() > 0
    torch.testing.assert_close(trained.log_density(y, t), curve - trained.energy(y, t))


def test_zero_network_of_centred_positions_is_normalised_without_the_centroid(path: Path) -> None:
    x = remove_mean(normal(5, 4, 3))
    data = DataGaussian(torch.zeros(12, dtype=torch.float64), torch.tensor(0.3, dtype=torch.float64), centred=True)
    model = NoisedEnergyModel(conditional(12), path, data, LEVELS).double()
    t = torch.full((5,), 0.3, dtype=torch.float64)
    spread = (0.3 * path.alpha(t) ** 2 + path.sigma(t) ** 2).sqrt()
    torch.testing.assert_close(model.log_density(x.flatten(1), t), log_normal_centred(x, spread))


def test_centred_positions_with_full_covariance_are_a_gaussian_of_their_space(path: Path) -> None:
    factor = normal(9, 9, seed=4)
    mean, matrix = normal(9, seed=5), factor @ factor.T
    model = NoisedEnergyModel(conditional(9), path, DataGaussian(mean, matrix, centred=True), LEVELS)
    model = randomised(model)
    t = torch.full((4,), 0.3, dtype=torch.float64)
    y = remove_mean(normal(4, 3, 3, seed=6)).flatten(1)
    # Oracle in Jacobi coordinates of the three atoms: orthonormal, and written down independently.
    jacobi = torch.tensor([[1, -1, 0], [1, 1, -2]], dtype=torch.float64) / torch.tensor([[2.0], [6.0]]).sqrt()
    basis = torch.kron(jacobi, torch.eye(3, dtype=torch.float64))
    alpha, sigma = float(path.alpha(t)[0]), float(path.sigma(t)[0])
    noised = alpha**2 * basis @ matrix @ basis.T + sigma**2 * torch.eye(6, dtype=torch.float64)
    exact = torch.distributions.MultivariateNormal(alpha * basis @ mean, noised).log_prob(y @ basis.T)
    place = model._place(y, t)
    torch.testing.assert_close(-model._gaussian(place), exact)
    for vectors in (model.gradient(y, t), model.denoiser(y, t)):
        assert vectors.unflatten(1, (3, 3)).mean(1).abs().max() < 1e-12
    torch.testing.assert_close(model.energy(y + torch.ones(9, dtype=torch.float64), t), model.energy(y, t))


def two_modes(times: Tensor, draw: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Return ``y`` at these times, the ``x`` it came from and ``E[x | y]``, for two narrow modes at -1.5 and 1.5."""
    path, x = Preserving(), 3.0 * torch.randint(2, (len(times), 1), generator=draw) - 1.5
    x = x + 0.3 * torch.randn(len(times), 1, generator=draw)
    alpha, sigma = path.alpha(times)[:, None], path.sigma(times)[:, None]
    y, variance = alpha * x + sigma * torch.randn(len(times), 1, generator=draw), 0.09 * alpha**2 + sigma**2
    centre = 1.5 * torch.tanh(1.5 * alpha * y / variance)
    return y, x, centre + 0.09 * alpha / variance * (y - alpha * centre)


def test_noise_below_the_resolution_changes_neither_factor_nor_time_of_the_network() -> None:
    path, data = Preserving(), DataGaussian(MEAN, COVARIANCES["scalar"])
    times = torch.tensor([1e-4, 1e-3, 0.1, 0.9], dtype=torch.float64)
    blind, resolved = (NoisedEnergyModel(conditional(), path, data, times, rho) for rho in (0.0, 0.5))
    widest = float(data.variance.mean().sqrt()) / 0.5
    assert float(blind.net_weight(times)[0]) > 2 * widest
    torch.testing.assert_close(resolved.net_weight(times)[:2], torch.full_like(times[:2], widest), rtol=1e-2, atol=0)
    assert float(resolved.net_time(times)[1]) < 0.01 < float(blind.net_time(times)[1])
    torch.testing.assert_close(resolved.net_time(times)[[0, -1]], times.new_tensor([0.0, 1.0]))
    # Where the noise is wide the two are the same.
    torch.testing.assert_close(resolved.net_weight(times)[-1], blind.net_weight(times)[-1], rtol=0.05, atol=0)


def test_information_is_that_of_gaussian_data_and_ends_at_the_resolution() -> None:
    path, data = Preserving(), DataGaussian(MEAN, COVARIANCES["scalar"])
    times = torch.tensor([1e-4, 1e-3, 0.1, 0.9], dtype=torch.float64)
    blind, resolved = (NoisedEnergyModel(conditional(), path, data, times, rho) for rho in (0.0, 0.5))
    # The entropy of y less that of its noise, for one coordinate.
    noisy = path.alpha(times).square() * data.variance.mean() + path.sigma(times).square()
    exact = (noisy / path.sigma(times).square()).log() / 2
    torch.testing.assert_close(blind.information(times), exact)
    below = resolved.information(times)[:2]
    torch.testing.assert_close(below, (1 + data.variance.mean() / 0.25).log().expand(2) / 2, rtol=0.01, atol=0)


def test_resolution_is_the_width_of_separated_modes_and_vanishes_where_samples_crowd() -> None:
    def width(n: int, dim: int) -> float:
        draw = generator(3)
        centres = 10 * torch.randn(4, dim, generator=draw)
        x = centres[torch.arange(n) % 4] + 0.2 * torch.randn(n, dim, generator=draw)
        return data_resolution(x, generator(4))

    assert 0.15 < width(4000, 64) < 0.2
    assert width(4000, 1) < 0.01


@pytest.mark.parametrize("net", list(NETS))
def test_denoising_finds_the_denoiser_of_two_modes(net: str) -> None:
    data = DataGaussian(torch.zeros(1), torch.tensor(1.5**2 + 0.09))
    model = NoisedEnergyModel(NETS[net](1), Preserving(), data, LEVELS.float())
    optimiser, draw = torch.optim.Adam(model.parameters(), lr=1e-2), generator(7)

    def errors() -> list[float]:
        batches = [(t, two_modes(t, generator(8))) for t in (torch.full((4096,), level) for level in (0.1, 0.2, 0.3))]
        return [float((model.denoiser(y, t) - exact).detach().square().mean()) for t, (y, _, exact) in batches]

    before = errors()
    for _ in range(400):
        t = 0.02 + 0.48 * torch.rand(256, generator=draw)
        y, x, _ = two_modes(t, draw)
        optimiser.zero_grad()
        (model.denoising_weight(t) * (model.denoiser(y, t) - x).square()).mean().backward()
        optimiser.step()
    assert all(after < 0.2 * start for after, start in zip(errors(), before, strict=True))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: DataGaussian(MEAN, torch.tensor([1.0, 0.0, 2.0], dtype=torch.float64)), "ridge"),
        (lambda: DataGaussian(MEAN, torch.ones(3, 3, dtype=torch.float64)), "ridge"),
        (lambda: DataGaussian(MEAN, FACTOR), "symmetric"),
        (lambda: DataGaussian(MEAN, torch.tensor(1.0, dtype=torch.float64), centred=True), "two atoms"),
        (lambda: _with_levels(torch.linspace(0, 1, 5, dtype=torch.float64)), "finite"),
        (lambda: _with_levels(LEVELS.flip(0)), "grow"),
    ],
)
def test_impossible_inputs_are_refused(build: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()  # type: ignore[operator]


def _with_levels(levels: Tensor) -> NoisedEnergyModel:
    return NoisedEnergyModel(conditional(), Preserving(), DataGaussian(MEAN, COVARIANCES["scalar"]), levels)


def test_other_levels_leave_the_free_energies_as_they_are() -> None:
    levels = torch.tensor([0.01, 0.3, 0.99], dtype=torch.float64)
    model = NoisedEnergyModel(Linear(MEAN), Preserving(), DataGaussian(MEAN, COVARIANCES["scalar"]), levels)
    with torch.no_grad():
        model.curve.values.copy_(torch.tensor([5.0, -1.0, 2.0], dtype=torch.float64))
    t = torch.linspace(0.01, 0.99, 50, dtype=torch.float64)
    before = model.free_energy(t).detach()
    model.set_levels(torch.tensor([0.01, 0.1, 0.3, 0.4, 0.99], dtype=torch.float64))
    torch.testing.assert_close(model.free_energy(t).detach(), before)
    assert model.curve.values.shape == (5,)
    assert model.curve.values.requires_grad


def test_noise_of_some_sites_moves_their_columns_or_their_atoms_without_the_centroid() -> None:
    stream = torch.Generator().manual_seed(4)
    chosen = torch.tensor([[True, False, False, True]])
    columns = DataGaussian(torch.zeros(4), torch.ones(()))
    assert columns.n_sites == 4
    assert columns.at_sites(torch.ones(1, 4), chosen).tolist() == [[1.0, 0.0, 0.0, 1.0]]
    noise = remove_mean(torch.randn(1, 4, 3, generator=stream, dtype=torch.float64))
    expected = remove_mean(noise * chosen[:, :, None])
    coordinates = CentredCoordinates(4, 1.0).double()
    of_axes = DataGaussian(torch.zeros(9), torch.ones(()), sites=coordinates.basis)
    moved = of_axes.at_sites(coordinates.from_cartesian(noise), chosen)
    torch.testing.assert_close(coordinates.positions(moved), expected)
    of_positions = DataGaussian(torch.zeros(12).double(), torch.ones(()).double(), centred=True)
    assert of_axes.n_sites == of_positions.n_sites == 4
    torch.testing.assert_close(of_positions.at_sites(noise.flatten(1), chosen).unflatten(1, (4, 3)), expected)
