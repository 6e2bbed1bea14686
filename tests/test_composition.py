"""Compositions of densities against closed forms, and sampled by annealing along the noise levels."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from boltzgen_diffclf.composition import (
    ComposedLadder,
    ComposedTarget,
    Mixture,
    Negation,
    NormalisedLadder,
    Product,
    Rule,
    TimeEnergyLadder,
    tied_free_energies,
)
from boltzgen_diffclf.samplers import Annealing, Mala, anneal
from boltzgen_diffclf.streams import named_generator
from boltzgen_diffclf.target import GaussianTarget, Ladder, SingleLevel, Target
from systems.analytic import GaussianMixture

DIM = 2


def tensor(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def ones(n: int) -> Tensor:
    return torch.ones(n, dtype=torch.float64)


LEFT = GaussianMixture(tensor(0.3, 0.7), torch.tensor([[-1.5, 0.0], [1.0, 1.0]]).double(), tensor(0.4, 0.6), 3.0)
RIGHT = GaussianMixture(tensor(0.6, 0.4), torch.tensor([[-1.0, 0.5], [1.5, -0.5]]).double(), tensor(0.5, 0.7), -2.0)
PAIR = [LEFT, RIGHT]


def product_of_mixtures(one: GaussianMixture, other: GaussianMixture) -> GaussianMixture:
    """Return the normalised product of two mixtures as a mixture, with the log of its integral."""
    precisions = one.sigmas[:, None] ** -2 + other.sigmas[None] ** -2
    pull = (one.means / one.sigmas[:, None] ** 2)[:, None] + (other.means / other.sigmas[:, None] ** 2)[None]
    spread = one.sigmas[:, None] ** 2 + other.sigmas[None] ** 2
    squares = (one.means[:, None] - other.means[None]).square().sum(-1)
    dim = one.dimension
    overlap = torch.exp(-squares / (2 * spread)) / (2 * math.pi * spread) ** (dim / 2)
    weights = (one.weights[:, None] * other.weights[None] * overlap).flatten()
    return GaussianMixture(
        weights,
        (pull / precisions[..., None]).flatten(0, 1),
        precisions.flatten() ** -0.5,
        float(weights.sum().log()) + one.log_normaliser + other.log_normaliser,
    )


def joint(weights: Tensor, members: list[GaussianMixture]) -> GaussianMixture:
    """Return the mixture of mixtures as one."""
    return GaussianMixture(
        torch.cat([w * member.weights for w, member in zip(weights, members, strict=True)]),
        torch.cat([member.means for member in members]),
        torch.cat([member.sigmas for member in members]),
    )


@dataclass(frozen=True)
class NoisedMixture:
    """The exact energies of a noised mixture, ``alpha = cos``, ``sigma = sin``, each level with its own zero."""

    data: GaussianMixture
    offset: float

    def at(self, t: float) -> GaussianMixture:
        alpha, sigma = math.cos(math.pi * t / 2), math.sin(math.pi * t / 2)
        sigmas = (alpha**2 * self.data.sigmas**2 + sigma**2).sqrt()
        return GaussianMixture(self.data.weights, alpha * self.data.means, sigmas, self.log_normaliser(t))

    def log_normaliser(self, t: float) -> float:
        return self.offset * (1 + 2 * t)

    def energy(self, y: Tensor, t: Tensor) -> Tensor:
        return torch.cat([self.at(float(time)).energy(row[None]) for row, time in zip(y, t, strict=True)])

    def gradient(self, y: Tensor, t: Tensor) -> Tensor:
        return -torch.cat([self.at(float(time)).score(row[None]) for row, time in zip(y, t, strict=True)])

    def time_derivative(self, y: Tensor, t: Tensor) -> Tensor:
        return torch.func.jvp(lambda time: self.energy(y, time), (t,), (torch.ones_like(t),))[1]

    def free_energy(self, t: Tensor) -> Tensor:
        """``-log Z`` up to a constant that differs between models."""
        return -torch.tensor([self.log_normaliser(float(time)) for time in t.flatten()]).to(t).view_as(t) + self.offset


class OneLevelAtATime(NoisedMixture):
    """The same for batches that sit at one level, which annealing's do."""

    def energy(self, y: Tensor, t: Tensor) -> Tensor:
        return self.at(float(t[0])).energy(y)

    def gradient(self, y: Tensor, t: Tensor) -> Tensor:
        return -self.at(float(t[0])).score(y)


def plane(half_width: float = 7.0, n: int = 401) -> tuple[Tensor, float]:
    axis = torch.linspace(-half_width, half_width, n, dtype=torch.float64)
    return torch.cartesian_prod(axis, axis), float(axis[1] - axis[0]) ** 2


RULES: dict[str, Rule] = {
    "product": Product(ones(2)),
    "tempered product": Product(tensor(0.3, 1.7)),
    "mixture": Mixture(tensor(1.0, 3.0), tensor(-3.0, 2.0)[None]),
    "negation": Negation(0.8, ceiling=1.0),
}


@pytest.fixture(params=RULES.values(), ids=RULES.keys())
def rule(request: pytest.FixtureRequest) -> Rule:
    return request.param


def test_slopes_are_the_derivatives_of_the_rule(rule: Rule) -> None:
    energies = torch.randn(6, 2, generator=named_generator(0, "energies"), dtype=torch.float64, requires_grad=True)
    level = torch.zeros(6, dtype=torch.long)
    (gradient,) = torch.autograd.grad(rule.combine(energies, level).sum(), energies)
    torch.testing.assert_close(rule.slopes(energies.detach(), level), gradient)


def test_product_of_mixtures_is_a_mixture_with_known_weights_and_normaliser() -> None:
    composed, exact = ComposedTarget(PAIR, Product(ones(2))), product_of_mixtures(LEFT, RIGHT)
    x = 2 * torch.randn(50, DIM, generator=named_generator(1, "points"), dtype=torch.float64)
    torch.testing.assert_close(composed.energy(x), exact.energy(x))
    torch.testing.assert_close(composed.energy_and_force(x)[1], exact.score(x))


def test_tempered_product_of_normals_is_the_normal_of_the_weighted_precisions() -> None:
    one, other = GaussianTarget(DIM, sigma=0.5, mean=1.0), GaussianTarget(DIM, sigma=2.0, mean=-1.0)
    composed = ComposedTarget([one, other], Product(tensor(0.5, 2.0)))
    precision = 0.5 / 0.25 + 2.0 / 4.0
    exact = GaussianTarget(DIM, sigma=precision**-0.5, mean=(0.5 / 0.25 - 2.0 / 4.0) / precision)
    x = torch.randn(20, DIM, generator=named_generator(2, "points"), dtype=torch.float64)
    difference = composed.energy(x) - exact.energy(x)
    torch.testing.assert_close(difference, difference[:1].expand(20))


def test_mixture_of_unnormalised_densities_has_the_weights_asked_for() -> None:
    free_energies = -tensor(LEFT.log_normaliser, RIGHT.log_normaliser)
    composed = ComposedTarget(PAIR, Mixture(tensor(1.0, 3.0), free_energies[None]))
    exact = joint(tensor(0.25, 0.75), PAIR)
    x = 2 * torch.randn(50, DIM, generator=named_generator(3, "points"), dtype=torch.float64)
    torch.testing.assert_close(composed.energy(x), -exact.log_density(x))
    torch.testing.assert_close(composed.energy_and_force(x)[1], exact.score(x))


def test_negation_is_a_quotient_with_a_bounded_normaliser() -> None:
    """A second density narrower than the first at ``a = 3``: the bare quotient has no integral, the guarded one has."""
    one, other, ceiling, scale = GaussianTarget(DIM, sigma=1.5), GaussianTarget(DIM, sigma=1.0), 4.0, 3.0
    composed = ComposedTarget([one, other], Negation(scale, ceiling))
    x, cell = plane(14.0)
    quotient = torch.exp(-one.energy(x)) / (torch.exp(-other.energy(x)) + math.exp(-ceiling)) ** scale
    torch.testing.assert_close(composed.energy(x), -quotient.log())
    assert float(quotient.sum()) * cell < math.exp(one.log_normaliser + scale * ceiling)
    deep = torch.zeros(1, DIM, dtype=torch.float64)
    bare = one.energy(deep) - scale * other.energy(deep)
    torch.testing.assert_close(composed.energy(deep), bare, atol=scale * math.exp(-ceiling), rtol=0)
    clash = torch.full((1, DIM), 1e4, dtype=torch.float64)
    torch.testing.assert_close(composed.energy(clash), one.energy(clash) - scale * ceiling)


class Wall(Target):
    """A clash at positive ``x``: infinite energy, and a force that is no number."""

    event_shape, dimension = (DIM,), DIM

    def energy(self, x: Tensor) -> Tensor:
        return torch.where(x[:, 0] > 0, torch.inf, 0.0).to(x.dtype)

    def energy_and_force(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.energy(x), torch.where(x > 0, torch.nan, 0.0)


def test_a_clash_in_one_member_of_a_mixture_leaves_the_other() -> None:
    composed = ComposedTarget([GaussianTarget(DIM), Wall()], Mixture(ones(2), torch.zeros(1, 2).double()))
    x = ones(DIM)[None]
    energy, force = composed.energy_and_force(x)
    torch.testing.assert_close(energy, tensor(1.0 + math.log(2)))
    torch.testing.assert_close(force, -x)


TIMES = tensor(1.0, 0.8, 0.62, 0.48, 0.36, 0.26, 0.18, 0.11, 0.05, 0.0)
MODELS = [NoisedMixture(LEFT, 3.0), NoisedMixture(RIGHT, -2.0)]


def test_ladder_of_a_time_energy_serves_every_level() -> None:
    ladder = TimeEnergyLadder(MODELS[0], TIMES, DIM)
    x = torch.randn(10, DIM, generator=named_generator(4, "points"), dtype=torch.float64)
    level = torch.arange(10)
    energy, force = ladder.energy_and_force(x, level)
    torch.testing.assert_close(energy, ladder.energies(x).diagonal())
    at_last = MODELS[0].at(0.0)
    torch.testing.assert_close(ladder.energies(x)[:, 9], at_last.energy(x))
    torch.testing.assert_close(force[9:], at_last.score(x[9:]))


def test_a_model_that_gives_both_is_passed_through_once() -> None:
    calls: list[int] = []

    class OnePass(NoisedMixture):
        def gradient(self, y: Tensor, t: Tensor) -> Tensor:
            raise AssertionError("a second pass")

        def energy_and_gradient(self, y: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
            calls.append(len(y))
            return self.energy(y, t), NoisedMixture.gradient(self, y, t)

    x = torch.randn(10, DIM, generator=named_generator(4, "points"), dtype=torch.float64)
    found, expected = (
        TimeEnergyLadder(model, TIMES, DIM).energy_and_force(x, torch.arange(10))
        for model in (OnePass(LEFT, 3.0), MODELS[0])
    )
    assert calls == [10]
    torch.testing.assert_close(found, expected)


def test_tied_free_energies_are_the_normalised_ones_of_every_level() -> None:
    """Each model's own curve is on another zero; the noise, where both are known, ties them."""
    noise = torch.randn(500, DIM, generator=named_generator(5, "noise"), dtype=torch.float64)
    log_density = -0.5 * noise.square().sum(-1) - 0.5 * DIM * math.log(2 * math.pi)
    found = tied_free_energies(MODELS, TIMES, noise, log_density)
    exact = -torch.tensor([[model.log_normaliser(float(t)) for model in MODELS] for t in TIMES]).double()
    torch.testing.assert_close(found, exact)


def test_normalised_ladder_has_the_log_densities_of_every_level() -> None:
    free_energies = -torch.tensor([MODELS[0].log_normaliser(float(t)) for t in TIMES]).double()
    ladder = NormalisedLadder(TimeEnergyLadder(MODELS[0], TIMES, DIM), free_energies)
    x = torch.randn(10, DIM, generator=named_generator(8, "points"), dtype=torch.float64)
    energy, force = ladder.energy_and_force(x, torch.arange(10))
    for k, t in enumerate(TIMES):
        level = MODELS[0].at(float(t))
        torch.testing.assert_close(ladder.energies(x)[:, k], -level.log_density(x))
        torch.testing.assert_close(force[k : k + 1], level.score(x[k : k + 1]))
    torch.testing.assert_close(energy, ladder.energies(x).diagonal())
    torch.testing.assert_close(energy, ladder.energy(x, torch.arange(10)))


def composed_ladder(kind: str) -> tuple[Ladder, GaussianMixture, GaussianMixture]:
    """Return a composition along the noise levels, its exact first level and its exact last."""
    models = [OneLevelAtATime(LEFT, 3.0), OneLevelAtATime(RIGHT, -2.0)]
    members = [TimeEnergyLadder(model, TIMES, DIM) for model in models]
    if kind == "product":
        rule: Rule = Product(ones(2))
        ends = [product_of_mixtures(models[0].at(t), models[1].at(t)) for t in (1.0, 0.0)]
    else:
        noise = torch.randn(20, DIM, generator=named_generator(6, "noise"), dtype=torch.float64)
        log_density = -0.5 * noise.square().sum(-1) - 0.5 * DIM * math.log(2 * math.pi)
        rule = Mixture(tensor(0.2, 0.8), tied_free_energies(models, TIMES, noise, log_density))
        ends = [joint(tensor(0.2, 0.8), [model.at(t) for model in models]) for t in (1.0, 0.0)]
    return ComposedLadder(members, rule), ends[0], ends[1]


@pytest.mark.parametrize("kind", ["product", "mixture"])
def test_annealing_finds_the_weights_and_the_normaliser_of_a_composition(kind: str) -> None:
    ladder, first, last = composed_ladder(kind)
    annealing = Annealing(Mala(torch.linspace(0.3, 0.03, 10).double(), ones(DIM)), range(10), 2, resample_below=0.5)
    shares, ratios = [], []
    for population in range(24):
        generator = named_generator(population, kind)
        result = anneal(annealing, ladder, first.sample(200, generator), generator)
        weights = torch.softmax(result.log_weights, 0)
        shares.append(weights @ last.responsibilities(result.particles.position))
        ratios.append((result.log_normaliser - last.log_normaliser + first.log_normaliser).exp())
    for values, exact in ((torch.stack(shares), last.weights), (torch.stack(ratios), tensor(1.0))):
        stderr = values.std(0) / math.sqrt(len(values))
        assert ((values.mean(0) - exact).abs() < 4 * stderr).all()
        assert (stderr < 0.02).all()


@pytest.mark.parametrize("kind", ["product", "mixture"])
def test_levels_of_a_composed_ladder_are_the_compositions_of_its_members(kind: str) -> None:
    ladder, _, last = composed_ladder(kind)
    x = torch.randn(8, DIM, generator=named_generator(7, "points"), dtype=torch.float64)
    matrix = ladder.energies(x)
    for k in range(ladder.n_levels):
        torch.testing.assert_close(matrix[:, k], ladder.energy(x, torch.full((8,), k)))
    torch.testing.assert_close(matrix[:, -1], last.energy(x))


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="must fit"):
        ComposedTarget([GaussianTarget(2), GaussianTarget(3)], Product(ones(2)))
    with pytest.raises(ValueError, match="1 members for a rule of 2"):
        ComposedTarget([GaussianTarget(2)], Negation(1.0, 0.0))
    with pytest.raises(ValueError, match="negate with"):
        Product(tensor(1.0, -1.0))
    with pytest.raises(ValueError, match="must be positive"):
        Mixture(tensor(1.0, 0.0), torch.zeros(1, 2).double())
    with pytest.raises(ValueError, match="negative"):
        Negation(-1.0, 0.0)
    with pytest.raises(ValueError, match="each level needs one"):
        NormalisedLadder(SingleLevel(GaussianTarget(2)), ones(2))
