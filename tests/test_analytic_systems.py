"""The named analytic systems: one contract for all, and what each is published to be."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from boltzgen_diffclf.estimators import bar
from boltzgen_diffclf.streams import named_generator
from boltzgen_diffclf.target import GaussianTarget
from systems.analytic import (
    PAIRS,
    TARGETS,
    AnalyticTarget,
    GaussianMixture,
    ManyWell,
    MuellerBrown,
    crossed_mixtures,
    feat_mixtures,
    gaussian,
    mixture_1d,
    mixture_2d,
    mog40,
    ring_of_clusters,
    standardised,
    two_modes,
)

DOUBLE = torch.float64
EXTRA = {
    "many_well of one": lambda: ManyWell(1),
    "standardised": lambda: standardised(ring_of_clusters(3, weights=[1.0, 2.0, 3.0])),
    "cold mueller_brown": lambda: MuellerBrown(5.0),
}
BUILDERS = {**TARGETS, **EXTRA}


@pytest.fixture(params=list(BUILDERS))
def target(request: pytest.FixtureRequest) -> AnalyticTarget:
    return BUILDERS[request.param]()


def _grid(target: AnalyticTarget) -> tuple[torch.Tensor, float]:
    """Return a grid well beyond the samples, and the area of its cells."""
    x = target.sample(2000, named_generator(0, "extent"))
    axes = [
        torch.linspace(float(low) - margin, float(high) + margin, 301 if x.shape[1] == 2 else 20_001, dtype=DOUBLE)
        for low, high, margin in zip(x.amin(0), x.amax(0), 0.5 + 0.2 * (x.amax(0) - x.amin(0)), strict=True)
    ]
    return torch.cartesian_prod(*axes).reshape(-1, len(axes)), math.prod(float(axis[1] - axis[0]) for axis in axes)


def test_log_normaliser_is_the_integral(target: AnalyticTarget) -> None:
    if target.dimension > 2:
        pytest.skip("no grid in many dimensions; its factors are tested on their own")
    points, cell = _grid(target)
    log_z = float((-target.energy(points)).logsumexp(0)) + math.log(cell)
    assert log_z == pytest.approx(target.log_normaliser, abs=1e-6)
    torch.testing.assert_close(target.log_density(points), -target.energy(points) - target.log_normaliser)


def test_score_is_the_gradient_of_the_log_density(target: AnalyticTarget) -> None:
    x = target.sample(50, named_generator(1, "score")).requires_grad_()
    (gradient,) = torch.autograd.grad(-target.energy(x).sum(), x)
    torch.testing.assert_close(target.score(x), gradient)


def test_samples_obey_the_score(target: AnalyticTarget) -> None:
    # Stein: E[score h + dh/dx] = 0 for any h; here h = x and h = sin x, coordinate by coordinate.
    n = 20_000
    x = target.sample(n, named_generator(2, "stein"))
    score = target.score(x)
    for values in (score, score * (x - x.mean(0)) + 1, score * x.sin() + x.cos()):
        error = values.std(0) / math.sqrt(n)
        # Over many coordinates the largest of them strays further.
        assert ((values.mean(0) / error).abs() < 4 + 0.05 * target.dimension).all()


def test_samples_hold_the_shares_of_the_density(target: AnalyticTarget) -> None:
    if target.dimension > 2:
        pytest.skip("no grid in many dimensions")
    points, _ = _grid(target)
    probability = torch.softmax(-target.energy(points), 0)
    n = 40_000
    x = target.sample(n, named_generator(3, "shares"))
    for function in (lambda y: y[:, 0].sigmoid(), lambda y: (2 * y[:, -1]).tanh(), target.energy):
        values, exact = function(x), float(probability @ function(points))
        assert float(values.mean()) == pytest.approx(exact, abs=4 * float(values.std()) / math.sqrt(n))


def test_names_build_without_arguments() -> None:
    assert all(isinstance(build(), AnalyticTarget) for build in TARGETS.values())
    assert {name: build().delta_f for name, build in PAIRS.items()} == {"crossed_mixtures": 10.0, "feat_mixtures": 0.0}


def test_many_well_has_the_published_normaliser() -> None:
    # The 32-dimensional benchmark; its double-well integral is 11784.50927.
    assert ManyWell().log_normaliser == pytest.approx(164.695675, abs=1e-5)
    well, n = ManyWell(4), 20_000
    right = (well.sample(n, named_generator(4, "wells"))[:, ::2] > 0).double()
    assert ((right.mean(0) - well.right_share).abs() < 4 * right.std(0) / math.sqrt(n)).all()
    assert well.right_share > 0.8


def test_mueller_brown_has_its_published_stationary_points() -> None:
    surface = MuellerBrown(10.0)
    points = torch.tensor([[-0.558, 1.442], [0.623, 0.028], [-0.050, 0.467], [-0.822, 0.624]], dtype=DOUBLE)
    expected = torch.tensor([-146.700, -108.167, -80.768, -40.665], dtype=DOUBLE)
    torch.testing.assert_close(10 * surface.energy(points), expected, atol=2e-2, rtol=0)
    assert (10 * surface.score(points)).abs().max() < 3


def test_mog40_is_the_published_set() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        means = (torch.rand(40, 2) - 0.5) * 2 * 40
    mixture = mog40()
    torch.testing.assert_close(mixture.means.float(), means)
    torch.testing.assert_close(mixture.sigmas, torch.full((40,), 1.3132616875, dtype=DOUBLE))
    torch.testing.assert_close(mixture.weights, torch.full((40,), 1 / 40, dtype=DOUBLE))
    assert not torch.equal(mog40(seed=1).means, mixture.means)


def test_two_modes_and_rings_have_the_weights_they_state() -> None:
    n = 20_000
    x = two_modes(3, 1.0).sample(n, named_generator(5, "modes"))
    low = (x.mean(1) < 0).double()
    assert float(low.mean()) == pytest.approx(2 / 3, abs=4 * float(low.std()) / math.sqrt(n))
    torch.testing.assert_close(x[low.bool()].mean(0), torch.full((3,), -1.0, dtype=DOUBLE), atol=0.01, rtol=0)
    assert float(x[low.bool()].var(0).mean()) == pytest.approx(0.05, rel=0.04)
    ring = ring_of_clusters(5, radius=3.0, weights=[1.0, 2.0, 3.0, 4.0, 5.0])
    torch.testing.assert_close(ring.means.norm(dim=1), torch.full((5,), 3.0, dtype=DOUBLE))
    share = ring.responsibilities(ring.sample(n, named_generator(6, "ring"))).mean(0)
    torch.testing.assert_close(share, torch.arange(1, 6, dtype=DOUBLE) / 15, atol=0.015, rtol=0)


def test_standardised_mixture_is_the_same_density_in_other_coordinates() -> None:
    mixture = GaussianMixture(
        torch.tensor([1.0, 4.0], dtype=DOUBLE),
        torch.tensor([[-20.0, 1.0, 0.0], [10.0, 3.0, 0.5]], dtype=DOUBLE),
        torch.tensor([2.0, 0.5], dtype=DOUBLE),
        log_normaliser=1.7,
    )
    standard = standardised(mixture)
    torch.testing.assert_close(standard.mean, torch.zeros(3, dtype=DOUBLE))
    torch.testing.assert_close(standard.variance, torch.ones(3, dtype=DOUBLE))
    x = mixture.sample(20_000, named_generator(7, "standard"))
    scale = mixture.variance.sqrt()
    y = (x - mixture.mean) / scale
    torch.testing.assert_close(standard.log_density(y), mixture.log_density(x) + scale.log().sum())
    torch.testing.assert_close(standard.energy(y), mixture.energy(x) - scale.log().sum())
    torch.testing.assert_close(standard.score(y), mixture.score(x) * scale)
    assert standard.log_normaliser == 1.7
    # The moments that were divided out are those of the samples.
    values = torch.cat([y, y.square() - 1], dim=1)
    assert (values.mean(0).abs() < 4 * values.std(0) / math.sqrt(len(y))).all()


def test_feat_mixtures_are_the_published_sets() -> None:
    pair = feat_mixtures(40)
    shapes = [tuple(state.means.shape) for state in (pair.state_a, pair.state_b)]
    assert shapes == [(40, 40), (16, 40)]
    assert pair.state_a.sigmas.unique().tolist() == pytest.approx([0.126928])
    assert pair.state_b.sigmas.unique().tolist() == pytest.approx([0.048587], rel=1e-5)
    assert max(float(state.means.abs().max()) for state in (pair.state_a, pair.state_b)) < 2
    assert float(pair.state_a.means.std()) == pytest.approx(4 / math.sqrt(12), rel=0.05)


def test_crossed_mixtures_deceive_estimators_from_the_ends_but_differ_by_ten() -> None:
    pair, n = crossed_mixtures(), 10_000
    generator = named_generator(8, "crossed")
    x_a, x_b = pair.state_a.sample(n, generator), pair.state_b.sample(n, generator)
    work_forward = (pair.state_b.energy(x_a) - pair.state_a.energy(x_a)).numpy()
    work_reverse = (pair.state_a.energy(x_b) - pair.state_b.energy(x_b)).numpy()
    assert np.median(work_forward) == pytest.approx(30, abs=1e-4)
    assert np.median(work_reverse) == pytest.approx(2, abs=1e-4)
    deceived = bar(work_forward, work_reverse)
    assert deceived.value == pytest.approx(14, abs=0.1)
    assert deceived.overlap < 1e-5
    # Samples of both places, with weights against a density written here independently of the mixtures.
    place = torch.cat([torch.full((n, 1), -6.0), torch.full((n, 1), 6.0)]).double()
    x = torch.randn(2 * n, 20, generator=generator, dtype=DOUBLE)
    x[:, :1] += place
    left, right = ((x[:, 0] + 6).square(), (x[:, 0] - 6).square())
    rest = x[:, 1:].square().sum(1) + 20 * math.log(2 * math.pi)
    log_q = torch.stack([-0.5 * (left + rest), -0.5 * (right + rest)]).logsumexp(0) - math.log(2)
    log_z = [float((-state.energy(x) - log_q).logsumexp(0)) - math.log(2 * n) for state in (pair.state_a, pair.state_b)]
    assert log_z[0] - log_z[1] == pytest.approx(10, abs=0.05)
    assert log_z[1] == pytest.approx(0, abs=0.05)


def test_mixtures_move_between_precisions() -> None:
    mixture = crossed_mixtures(3).state_a.to(dtype=torch.float32)
    x = mixture.sample(4, named_generator(9, "precision"))
    assert x.dtype == mixture.energy(x).dtype == mixture.score(x).dtype == torch.float32
    assert mixture.log_normaliser == 10.0


@pytest.mark.parametrize(
    "build",
    [
        lambda: mixture_1d((1.0,), (0.0, 1.0), (1.0, 1.0)),
        lambda: mixture_2d((), (), ()),
        lambda: mixture_1d((1.0, -1.0)),
        lambda: ring_of_clusters(3, weights=[1.0]),
        lambda: ManyWell(0),
        lambda: MuellerBrown(0.0),
    ],
)
def test_impossible_parameters_are_refused(build: object) -> None:
    with pytest.raises(ValueError, match=r"need|positive"):
        build()  # type: ignore[operator]


def test_the_gaussian_is_the_simplest_oracle_with_more_to_ask() -> None:
    simple, full = GaussianTarget(3, sigma=0.7, mean=0.3), gaussian(3, sigma=0.7, mean=0.3)
    x = simple.sample(20_000, named_generator(0, "x"))
    torch.testing.assert_close(full.energy(x), simple.energy(x))
    torch.testing.assert_close(full.score(x), (0.3 - x) / 0.7**2)
    assert full.log_normaliser == pytest.approx(simple.log_normaliser)
    assert float((x - 0.3).square().mean()) == pytest.approx(0.49, rel=0.03)
    with pytest.raises(ValueError, match="sigma > 0"):
        gaussian(2, sigma=0.0)
