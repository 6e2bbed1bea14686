"""Every estimator against harmonic oscillators of known free energy, and each one's own unhappy paths."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass, replace

import numpy as np
import pytest

from boltzgen_diffclf.errors import InputError, NotTrustworthyError
from boltzgen_diffclf.estimators import (
    Estimate,
    agree,
    bar,
    combine_replicates,
    exponential_averaging,
    free_energy_from_weights,
    mbar,
    thermodynamic_integration,
)
from boltzgen_diffclf.estimators.frames import dhdl_frame, generated_u_kn, u_nk_frame, write_u_kn
from boltzgen_diffclf.estimators.groups import block_labels, group_index
from boltzgen_diffclf.estimators.replicates import combined_errors_apart, student_factor
from boltzgen_diffclf.estimators.reweighting import (
    clipped_weights,
    diagnose_weights,
    normalised_weights,
    pareto_smoothed,
    reweighted_mean,
)
from boltzgen_diffclf.estimators.thermodynamic_integration import gauss_legendre_nodes, integration_matrix
from boltzgen_diffclf.estimators.time_series import (
    decorrelated_indices,
    effective_frames,
    rank_normalised_split_r_hat,
    relaxation_time,
    split_r_hat,
    statistical_inefficiency,
    walker_scatter,
)

NODES = gauss_legendre_nodes(5)[0]


@dataclass(frozen=True)
class Oscillator:
    """``u(x) = k (x - m)^2 / 2``, drawn by walkers whose frames are correlated by ``correlation``."""

    k: float
    m: float
    correlation: float = 0.0

    @property
    def free_energy(self) -> float:
        return 0.5 * math.log(self.k)

    def energy(self, x):
        return 0.5 * self.k * (x - self.m) ** 2

    def sample(self, walkers, frames, rng):
        noise = rng.standard_normal((frames, walkers))
        x = np.empty_like(noise)
        x[0] = noise[0]
        for i in range(1, frames):
            x[i] = self.correlation * x[i - 1] + math.sqrt(1 - self.correlation**2) * noise[i]
        return (self.m + x.T / math.sqrt(self.k)).ravel()

    def mixed(self, other, t):
        k = (1 - t) * self.k + t * other.k
        return replace(self, k=k, m=((1 - t) * self.k * self.m + t * other.k * other.m) / k)


A, B = Oscillator(1.0, 0.0), Oscillator(1.2, 0.3)
TRUE = B.free_energy - A.free_energy


def walkers_of(x, walkers):
    return block_labels(len(x), walkers)


def by_bar(a, b, walkers, frames, rng, grouped):
    xa, xb = a.sample(walkers, frames, rng), b.sample(walkers, frames, rng)
    options = {"generator": rng, "n_bootstrap": 60} if grouped else {}
    if grouped:
        options |= {"groups_forward": walkers_of(xa, walkers), "groups_reverse": walkers_of(xb, walkers) + walkers}
    return bar(b.energy(xa) - a.energy(xa), a.energy(xb) - b.energy(xb), **options)


def by_mbar(a, b, walkers, frames, rng, grouped):
    states = [a, a.mixed(b, 0.5), b]
    x = np.concatenate([state.sample(walkers, frames, rng) for state in states])
    u_kn = np.stack([state.energy(x) for state in states])
    options = {"groups": walkers_of(x, 3 * walkers), "generator": rng, "n_bootstrap": 60} if grouped else {}
    return mbar(u_kn, np.full(3, walkers * frames), **options).estimate


def by_fep_forward(a, b, walkers, frames, rng, grouped):
    x = a.sample(walkers, frames, rng)
    return exponential_averaging(b.energy(x) - a.energy(x), groups=walkers_of(x, walkers) if grouped else None)


def by_fep_reverse(a, b, walkers, frames, rng, grouped):
    x = b.sample(walkers, frames, rng)
    work = a.energy(x) - b.energy(x)
    return exponential_averaging(work, direction="reverse", groups=walkers_of(x, walkers) if grouped else None)


def by_weights(a, b, walkers, frames, rng, grouped):
    x = a.sample(walkers, frames, rng)
    return free_energy_from_weights(a.energy(x) - b.energy(x), walkers_of(x, walkers) if grouped else None)


def by_ti(a, b, walkers, frames, rng, grouped):
    xs = [a.mixed(b, t).sample(walkers, frames, rng) for t in NODES]
    groups = [walkers_of(x, walkers) + walkers * i for i, x in enumerate(xs)] if grouped else None
    return thermodynamic_integration(
        NODES, [b.energy(x) - a.energy(x) for x in xs], groups=groups, rule="gauss-legendre"
    ).estimate


ESTIMATORS = {
    "bar": by_bar,
    "mbar": by_mbar,
    "fep_forward": by_fep_forward,
    "fep_reverse": by_fep_reverse,
    "weights": by_weights,
    "ti": by_ti,
}
every_estimator = pytest.mark.parametrize("estimate", ESTIMATORS.values(), ids=ESTIMATORS.keys())


def z_scores(estimate, a, b, repeats, walkers, frames, grouped, seed=0):
    rng = np.random.default_rng(seed)
    results = [estimate(a, b, walkers, frames, rng, grouped) for _ in range(repeats)]
    return np.array([(result.value - TRUE) / result.stderr for result in results])


def coverage_off(z, half_width, expected):
    """Distance of the coverage from the expected one, in binomial standard errors."""
    return (np.mean(np.abs(z) < half_width) - expected) / math.sqrt(expected * (1 - expected) / len(z))


@every_estimator
def test_recovers_the_known_free_energy(estimate):
    result = estimate(A, B, 50, 400, np.random.default_rng(1), False)
    assert 0 < result.stderr < 0.02
    assert abs(result.value - TRUE) < 4 * result.stderr


@every_estimator
def test_swapping_the_states_negates(estimate):
    result = estimate(B, A, 50, 400, np.random.default_rng(2), False)
    assert abs(result.value + TRUE) < 4 * result.stderr < abs(TRUE)


@every_estimator
def test_error_bars_cover(estimate):
    z = z_scores(estimate, A, B, repeats=200, walkers=20, frames=40, grouped=False)
    assert abs(coverage_off(z, 1.0, 0.6827)) < 4
    assert abs(coverage_off(z, 1.96, 0.95)) < 4
    assert abs(z.var() - 1) < 4 * math.sqrt(2 / len(z))


@every_estimator
def test_correlated_walkers_need_groups(estimate):
    a, b = replace(A, correlation=0.8), replace(B, correlation=0.8)
    grouped = z_scores(estimate, a, b, repeats=100, walkers=24, frames=80, grouped=True)
    naive = z_scores(estimate, a, b, repeats=100, walkers=24, frames=80, grouped=False)
    assert abs(coverage_off(grouped, 1.0, 0.6827)) < 4
    assert abs(coverage_off(grouped, 1.96, 0.95)) < 4
    assert coverage_off(naive, 1.96, 0.95) < -8


@every_estimator
def test_groups_lower_the_effective_size_of_correlated_works(estimate):
    a, b = replace(A, correlation=0.95), replace(B, correlation=0.95)
    grouped = estimate(a, b, 30, 100, np.random.default_rng(3), True)
    naive = estimate(a, b, 30, 100, np.random.default_rng(3), False)
    assert grouped.stderr > 2 * naive.stderr
    if estimate in (by_bar, by_mbar, by_ti):
        assert grouped.n_effective < 0.25 * naive.n_effective


@pytest.mark.parametrize("mean_work", [0.5, 4.0])
def test_gaussian_work_has_its_known_answer(mean_work):
    rng = np.random.default_rng(4)
    forward = 5 + mean_work + math.sqrt(2 * mean_work) * rng.standard_normal(20000)
    reverse = -5 + mean_work + math.sqrt(2 * mean_work) * rng.standard_normal(20000)
    for result in (
        bar(forward, reverse),
        bar(forward[:2000], reverse),
        exponential_averaging(forward),
        exponential_averaging(reverse, direction="reverse"),
    ):
        assert abs(result.value - 5) < 4 * result.stderr


def two_states(rng, n_a=700, n_b=300, shift=0.0):
    b = replace(B, m=B.m + shift)
    x = np.concatenate([A.sample(n_a, 1, rng), b.sample(n_b, 1, rng)])
    return np.stack([A.energy(x), b.energy(x)]), np.array([n_a, n_b])


def test_bar_is_mbar_with_two_states():
    u_kn, n_k = two_states(np.random.default_rng(5))
    difference = u_kn[1] - u_kn[0]
    two = mbar(u_kn, n_k)
    one = bar(difference[:700], -difference[700:])
    assert one.value == pytest.approx(two.estimate.value, abs=1e-8)
    assert one.stderr == pytest.approx(two.estimate.stderr, rel=1e-6)
    assert one.overlap == pytest.approx(two.estimate.overlap, rel=1e-6)
    np.testing.assert_allclose(two.overlap_matrix.sum(axis=1), 1.0, atol=1e-8)
    swapped = bar(-difference[700:], difference[:700])
    assert swapped.value == pytest.approx(-one.value, abs=1e-9)


def test_overlap_is_half_where_states_are_the_same_whatever_their_numbers_of_samples():
    assert bar(np.zeros(1000), np.zeros(20)).overlap == pytest.approx(0.5)
    assert mbar(np.zeros((3, 120)), np.array([10, 90, 20])).estimate.overlap == pytest.approx(0.5)
    found = []
    for n_a, n_b in ((4000, 4000), (8000, 800), (800, 8000)):
        u_kn, n_k = two_states(np.random.default_rng(7), n_a, n_b)
        found.append(mbar(u_kn, n_k).estimate.overlap)
    assert 0.05 < min(found) < max(found) < 1.15 * min(found)


def test_grouped_bar_and_mbar_give_the_same_error():
    u_kn, n_k = two_states(np.random.default_rng(6), 1000, 1000)
    labels = block_labels(2000, 40)
    difference = u_kn[1] - u_kn[0]
    options = {"generator": np.random.default_rng(0), "n_bootstrap": 1000}
    one = bar(
        difference[:1000],
        -difference[1000:],
        groups_forward=labels[:1000],
        groups_reverse=labels[1000:],
        **options,
    )
    two = mbar(u_kn, n_k, groups=labels, **options)
    assert one.stderr == pytest.approx(two.estimate.stderr, rel=0.1)


def test_walkers_that_stand_for_both_states_are_resampled_once():
    """Two states of the same walkers, weighted otherwise: one that is low in B is so from either side."""
    values, together, apart = [], [], []
    for repeat in range(200):
        rng = np.random.default_rng(repeat)
        labels = np.repeat(np.arange(30), 20)
        offset = rng.normal(size=30)[labels]
        forward, reverse = (sign * offset + 0.2 * rng.normal(size=600) for sign in (1, -1))
        values.append(bar(forward, reverse).value)
        for found, other in ((together, labels), (apart, labels + 30)):
            generator = np.random.default_rng(repeat)
            answer = bar(forward, reverse, groups_forward=labels, groups_reverse=other, generator=generator)
            found.append(answer.stderr)
    assert np.std(values) / np.mean(together) == pytest.approx(1.0, abs=0.15)
    assert np.std(values) / np.mean(apart) > 1.25


def test_mbar_matches_the_reference_solver(caplog):
    states = [A, A.mixed(B, 0.5), replace(B, m=2.0)]
    rng = np.random.default_rng(7)
    x = np.concatenate([state.sample(n, 1, rng) for state, n in zip(states, (300, 500, 200), strict=True)])
    u_kn, n_k = np.stack([state.energy(x) for state in states]), np.array([300, 500, 200])
    with caplog.at_level(logging.WARNING):
        result = mbar(u_kn, n_k)
    assert not caplog.records
    import pymbar

    solver = pymbar.MBAR(u_kn, n_k)
    reference = solver.compute_free_energy_differences()
    np.testing.assert_allclose(result.free_energies, reference["Delta_f"][0], atol=1e-6)
    np.testing.assert_allclose(result.stderr, reference["dDelta_f"][0], rtol=1e-4)
    np.testing.assert_allclose(result.overlap_matrix, solver.compute_overlap()["matrix"], atol=1e-6)


def test_replica_exchange_walkers_may_visit_every_state():
    rng = np.random.default_rng(8)
    offset = np.repeat(0.5 * rng.standard_normal(30), 20)
    x = np.concatenate([A.sample(600, 1, rng) + offset, B.sample(600, 1, rng) + offset])
    u_kn = np.stack([A.energy(x), B.energy(x)])
    labels = np.tile(block_labels(600, 30), 2)
    grouped = mbar(u_kn, np.array([600, 600]), groups=labels, generator=rng).estimate
    assert 0 < grouped.stderr < 1
    assert grouped.stderr != mbar(u_kn, np.array([600, 600])).estimate.stderr


@pytest.mark.parametrize("shift", [14.0, 60.0, 1000.0])
def test_zero_overlap_is_reported(shift):
    u_kn, n_k = two_states(np.random.default_rng(9), shift=shift)
    difference = u_kn[1] - u_kn[0]
    labels = block_labels(1000, 100)
    grouped = {
        "groups_forward": labels[:700],
        "groups_reverse": labels[700:],
        "generator": np.random.default_rng(0),
    }
    for result in (
        bar(difference[:700], -difference[700:]),
        bar(difference[:700], -difference[700:], **grouped),
        mbar(u_kn, n_k).estimate,
        mbar(u_kn, n_k, groups=labels, generator=np.random.default_rng(0)).estimate,
    ):
        assert result.overlap < 1e-6
        assert math.isfinite(result.value)
        assert result.stderr > 0.5
    assert mbar(u_kn, n_k).estimate.stderr > 100
    assert exponential_averaging(difference[:700]).n_effective < 5


def test_infinite_work_is_a_weight_of_zero():
    """A hard wall that cuts the half x < 0 out of B: F_B - F_A = ln 2."""
    x = np.random.default_rng(10).standard_normal(4000)
    forward = np.where(x > 0, 0.0, np.inf)
    reverse = np.zeros(2000)
    result = bar(forward, reverse)
    assert abs(result.value - math.log(2)) < 4 * result.stderr
    grouped = bar(
        forward,
        reverse,
        groups_forward=block_labels(4000, 100),
        groups_reverse=block_labels(2000, 100) + 100,
        generator=np.random.default_rng(0),
    )
    assert grouped.stderr == pytest.approx(result.stderr, rel=0.4)
    one_sided = exponential_averaging(forward)
    assert abs(one_sided.value - math.log(2)) < 4 * one_sided.stderr
    u_kn = np.stack([np.zeros(6000), np.concatenate([forward, reverse])])
    assert mbar(u_kn, np.array([4000, 2000])).estimate.value == pytest.approx(result.value, abs=1e-6)
    with pytest.raises(NotTrustworthyError, match="every one of the 4000"):
        bar(np.full(4000, np.inf), reverse)


def test_nan_is_refused_with_its_count():
    good = np.linspace(0, 1, 50)
    bad = good.copy()
    bad[:3] = np.nan
    for call in (
        lambda: bar(bad, good),
        lambda: bar(good, bad),
        lambda: exponential_averaging(bad),
        lambda: free_energy_from_weights(bad),
        lambda: mbar(np.stack([bad, good]), np.array([25, 25])),
        lambda: thermodynamic_integration(np.array([0.0, 1.0]), [good, bad]),
        lambda: reweighted_mean(bad, good),
        lambda: statistical_inefficiency(bad[None]),
    ):
        with pytest.raises(InputError, match="3 NaN"):
            call()


def test_misuse_is_refused():
    good = np.linspace(0, 1, 50)
    with pytest.raises(InputError, match="49 labels for 50"):
        group_index(np.zeros(49), 50)
    with pytest.raises(InputError, match="at least two"):
        free_energy_from_weights(good, np.zeros(50))
    with pytest.raises(InputError, match="-inf"):
        bar(np.append(good, -np.inf), good)
    with pytest.raises(ValueError, match="generator"):
        bar(good, good, groups_forward=block_labels(50, 5))
    with pytest.raises(InputError, match="order the columns"):
        mbar(np.stack([np.full(50, np.inf), good]), np.array([25, 25]))
    with pytest.raises(InputError, match="not the 2 Gauss-Legendre"):
        thermodynamic_integration(np.array([0.0, 1.0]), [good, good], rule="gauss-legendre")
    with pytest.raises(InputError, match="must increase"):
        thermodynamic_integration(np.array([1.0, 0.0]), [good, good])
    with pytest.raises(NotTrustworthyError, match="zero"):
        free_energy_from_weights(np.full(5, -np.inf))


def test_arcsine_rule_takes_integrands_that_are_steep_near_both_ends() -> None:
    nodes = np.sin(np.linspace(0, np.pi / 2, 33)) ** 2
    rise = 4 * nodes * (1 - nodes)
    slope = 0.1 * 4 * (1 - 2 * nodes) / (rise + 0.1) ** 2  # of r / (r + 0.1), which half-way is 1 / 1.1
    samples = [np.full(2, value) for value in slope]
    middle = {
        rule: thermodynamic_integration(nodes, samples, rule=rule).cumulative[16] for rule in ("trapezoid", "arcsine")
    }
    assert middle["arcsine"] == pytest.approx(1 / 1.1, abs=5e-3)
    assert abs(middle["trapezoid"] - 1 / 1.1) > 0.02
    with pytest.raises(InputError, match="levels from 0 to 1"):
        thermodynamic_integration(nodes + 0.1, samples, rule="arcsine")


@pytest.mark.parametrize(("rule", "degree"), [("trapezoid", 1), ("simpson", 2), ("gauss-legendre", 9)])
def test_quadrature_is_exact_to_its_degree(rule, degree):
    nodes = NODES if rule == "gauss-legendre" else np.array([0.0, 0.2, 0.4, 0.7, 1.0])
    points, matrix = integration_matrix(nodes, rule)
    assert (points[0], points[-1]) == (0.0, 1.0)
    assert (matrix @ nodes**degree)[-1] == pytest.approx(1 / (degree + 1), abs=1e-12)
    linear = matrix @ (2 * nodes)
    np.testing.assert_allclose(linear, points**2, atol=1e-12)


def test_ti_curve_and_shared_walkers():
    rng = np.random.default_rng(12)
    nodes, frames, walkers = np.linspace(0, 1, 11), 10, 200
    offsets = rng.standard_normal(walkers)
    samples = [(t + offsets[:, None] + 0.1 * rng.standard_normal((walkers, frames))).ravel() for t in nodes]
    labels = block_labels(walkers * frames, walkers)
    shared = thermodynamic_integration(nodes, samples, groups=[labels] * 11)
    apart = thermodynamic_integration(nodes, samples, groups=[labels + walkers * i for i in range(11)])
    assert shared.estimate.overlap is None
    assert shared.estimate.stderr == pytest.approx(offsets.std(ddof=1) / math.sqrt(walkers), rel=0.02)
    assert apart.estimate.stderr < 0.5 * shared.estimate.stderr
    assert abs(shared.estimate.value - 0.5) < 4 * shared.estimate.stderr
    assert shared.cumulative[-1] == shared.estimate.value
    assert shared.cumulative_stderr[0] == 0 < shared.cumulative_stderr[5] < shared.cumulative_stderr[-1]


@pytest.mark.parametrize("shape", [0.2, 0.5, 0.9])
def test_pareto_shape_is_recovered(shape):
    rng = np.random.default_rng(13)
    found = [diagnose_weights(shape * rng.exponential(size=10000)).pareto_k for _ in range(10)]
    assert abs(np.mean(found) - shape) < 0.08


@pytest.mark.parametrize("survivors", [1, 2, 4])
def test_weights_of_a_few_survivors_are_not_believed(survivors):
    log_w = np.full(10_000, -np.inf)
    log_w[:survivors] = np.linspace(0, 0.1, survivors)
    assert not diagnose_weights(log_w).reliable
    assert diagnose_weights(log_w).pareto_k == math.inf


def test_pareto_smoothing_tames_the_tail():
    log_w = 1.0 * np.random.default_rng(14).exponential(size=5000)
    smoothed, shape = pareto_smoothed(log_w)
    assert shape > 0.7
    assert np.exp(smoothed).sum() == pytest.approx(1)
    order = np.argsort(log_w)
    assert (np.diff(smoothed[order]) >= -1e-12).all()
    bulk = order[: -3 * 71 - 10]
    np.testing.assert_allclose(np.diff(smoothed[bulk]), np.diff(log_w[bulk]), atol=1e-9)
    assert diagnose_weights(np.zeros(100)).n_effective == pytest.approx(100)
    assert pareto_smoothed(np.zeros(10))[1] == math.inf
    assert diagnose_weights(np.array([0.0, -np.inf, -np.inf])).maximum_weight == 1.0


def test_a_heavy_tail_is_believed_the_less_the_fewer_samples_there_are():
    """``min(1 - 1 / log10(n), 0.7)`` by hand, and the same tail on either side of it."""
    limits = {n: diagnose_weights(np.arange(n) % 2 * 1e-3).largest_pareto_k for n in (100, 1000, 10_000)}
    assert limits == pytest.approx({100: 0.5, 1000: 2 / 3, 10_000: 0.7})
    few, many = (diagnose_weights(-0.62 * np.log((np.arange(n) + 0.5) / n)) for n in (100, 20_000))
    assert few.pareto_k == pytest.approx(many.pareto_k, abs=0.07)
    assert 0.5 < few.pareto_k < 0.7
    assert not few.reliable
    assert many.reliable
    assert not diagnose_weights(np.zeros(10)).reliable
    assert diagnose_weights(np.zeros(100)).reliable


def test_weights_that_are_none_or_extreme_are_counted():
    weights = np.array([1.0] * 98 + [0.0, 30.0])
    with np.errstate(divide="ignore"):
        log_w = np.log(weights) - 500.0
    found = diagnose_weights(log_w)
    assert (found.n_samples, found.n_zero, found.n_clipped) == (100, 1, 1)
    assert found.effective_fraction == pytest.approx(128**2 / (98 + 900) / 100)
    clipped = np.exp(clipped_weights(log_w))
    # The mean is 1.28, so a weight counts at most ten times that.
    assert clipped[-1] == pytest.approx(12.8 / (98 + 12.8))
    assert clipped[-2] == 0
    np.testing.assert_allclose(clipped[:98], 1 / (98 + 12.8))


def test_reweighted_mean_of_an_oscillator():
    x = A.sample(5000, 1, np.random.default_rng(15))
    result = reweighted_mean(x, A.energy(x) - B.energy(x))
    assert abs(result.value - B.m) < 4 * result.stderr < 0.1
    assert 1 < result.n_effective < 5000


def test_replicate_error_covers_also_for_three():
    rng = np.random.default_rng(16)
    draws = rng.standard_normal((2000, 3))
    results = [combine_replicates([Estimate(v, 1.0, 0.2, 5.0, "x") for v in row], "y") for row in draws]
    z = np.array([result.value / result.stderr for result in results])
    assert abs(coverage_off(z, 1.0, 0.6827)) < 4
    assert results[0].n_effective == 15
    assert student_factor(2) == pytest.approx(1.837, abs=2e-3)
    overlaps = [Estimate(1.0, 0.1, overlap, 1.0, "x") for overlap in (0.3, 0.1)]
    assert combine_replicates(overlaps, "y").overlap == 0.1
    with pytest.raises(InputError, match="1 replicate"):
        combine_replicates(overlaps[:1], "y")
    with pytest.raises(InputError, match="nan"):
        combine_replicates([overlaps[0], replace(overlaps[1], value=math.nan)], "y")


def test_agreement_counts_combined_errors():
    a, b = Estimate(0.0, 3.0, None, 1.0, "a"), Estimate(10.0, 4.0, None, 1.0, "b")
    assert combined_errors_apart(a, b) == 2.0
    assert agree(a, b)
    assert not agree(a, b, n_errors=1.9)
    assert not agree(a, replace(b, stderr=math.inf))


def test_statistical_inefficiency_of_an_autoregression():
    rng = np.random.default_rng(17)
    x = Oscillator(1.0, 0.0, 0.8).sample(64, 2000, rng).reshape(64, 2000)
    assert statistical_inefficiency(x) == pytest.approx(9.0, rel=0.1)
    assert effective_frames(x) == pytest.approx(x.size / 9, rel=0.1)
    assert np.diff(decorrelated_indices(x)).tolist()[0] in (9, 10)
    assert statistical_inefficiency(rng.standard_normal((8, 1000))) == pytest.approx(1.0, abs=0.1)
    assert statistical_inefficiency(np.ones((4, 50))) == 50


def test_the_relaxation_time_is_that_of_a_chain_of_two_states_wherever_it_begins():
    rng = np.random.default_rng(19)
    enter, leave = 0.002, 0.03
    inside = np.zeros((500, 800), dtype=bool)
    for frame in range(1, 800):
        drawn, before = rng.random(500), inside[:, frame - 1]
        inside[:, frame] = np.where(before, drawn > leave, drawn < enter)
    expected = -1 / math.log1p(-enter - leave)
    assert relaxation_time(inside) == pytest.approx(expected, rel=0.15)
    # Short returns across the edge, of which every frame may be one, are not relaxation.
    flicker = inside ^ (rng.random(inside.shape) < 0.02)
    assert relaxation_time(flicker) > 0.6 * expected
    assert relaxation_time(inside & False) == math.inf
    assert relaxation_time(rng.random((2000, 40)) < 0.5) < 1
    # A few crossings tell nothing, and where the walkers end, what was found before stays.
    few = np.zeros((64, 400), dtype=bool)
    few[:9, 100:150] = True
    assert relaxation_time(few) == math.inf
    edge = rng.random((400, 60)) < np.where(np.arange(400) < 40, 0.5, np.arange(400) % 2)[:, None]
    assert relaxation_time(edge) > 600  # a tenth of the walkers goes to and fro, the others stay where they are
    short = relaxation_time(inside[:, 300:350])
    assert 0.3 * expected < short < 3 * expected


def test_stuck_walkers_are_seen():
    rng = np.random.default_rng(18)
    mixed = rng.standard_normal((16, 400))
    stuck = mixed + 5.0 * (np.arange(16) % 2)[:, None]
    assert split_r_hat(mixed) < 1.01
    assert rank_normalised_split_r_hat(mixed) < 1.01
    assert min(split_r_hat(stuck), rank_normalised_split_r_hat(stuck)) > 1.5
    unequal = mixed * np.where(np.arange(16) % 2, 5.0, 1.0)[:, None]
    assert split_r_hat(unequal) < 1.01 < 1.1 < rank_normalised_split_r_hat(unequal)
    assert statistical_inefficiency(stuck) == 400
    # A tenth of the variance is what walkers never forget, behind noise that they forget at once.
    hidden = rng.standard_normal((64, 440)) + rng.standard_normal((64, 1)) / 3
    assert 20 < statistical_inefficiency(hidden) < 60
    scatter = walker_scatter(stuck > 2.5)
    assert scatter.scatter == pytest.approx(0.516, abs=0.02)
    assert scatter.stderr == pytest.approx(scatter.scatter / 4)
    assert scatter.smallest < 0.05 < 0.95 < scatter.largest


def test_frames_are_read_by_alchemlyb():
    from alchemlyb.estimators import MBAR, TI

    rng = np.random.default_rng(19)
    lambdas = np.array([0.0, 0.5, 1.0])
    states = [A.mixed(B, t) for t in lambdas]
    xs = [state.sample(n, 1, rng) for state, n in zip(states, (300, 400, 200), strict=True)]
    n_k = np.array([300, 400, 200])
    u_kn = np.stack([state.energy(np.concatenate(xs)) for state in states])
    frame = u_nk_frame(u_kn, n_k, lambdas, 300.0)
    assert frame.attrs == {"temperature": 300.0, "energy_unit": "kT"}
    theirs = MBAR().fit(frame)
    ours = mbar(u_kn, n_k)
    np.testing.assert_allclose(theirs.delta_f_.loc[0.0].to_numpy(), ours.free_energies, atol=1e-6)
    np.testing.assert_allclose(theirs.d_delta_f_.loc[0.0].to_numpy(), ours.stderr, rtol=1e-4)
    slopes = [B.energy(x) - A.energy(x) for x in xs]
    fitted = TI().fit(dhdl_frame(slopes, lambdas, 300.0))
    integral = thermodynamic_integration(lambdas, slopes).estimate
    assert fitted.delta_f_.loc[0.0, 1.0] == pytest.approx(integral.value, abs=1e-10)
    assert fitted.d_delta_f_.loc[0.0, 1.0] == pytest.approx(integral.stderr, rel=1e-8)
    with pytest.raises(InputError, match="different lambdas"):
        u_nk_frame(u_kn, n_k, np.array([0.0, 0.0, 1.0]), 300.0)


def test_weighted_samples_are_read_by_pymbar_and_alchemlyb(tmp_path):
    """Samples of A with the weights of B: both programs find ``-ln mean(w)``, and pymbar the weights themselves."""
    import pymbar
    from alchemlyb.estimators import MBAR

    x = A.sample(2000, 1, np.random.default_rng(21))
    log_w = A.energy(x) - B.energy(x) + 7.0
    u_kn, n_k = generated_u_kn(log_w, B.energy(x))
    write_u_kn(tmp_path / "u.npz", u_kn, n_k, ["generator", "target"], 300.0)
    with np.load(tmp_path / "u.npz") as file:
        theirs = pymbar.MBAR(file["u_kn"], file["N_k"])
        assert file["states"].tolist() == ["generator", "target"]
        assert (str(file["unit"]), float(file["temperature_kelvin"])) == ("kT", 300.0)
    ours = free_energy_from_weights(log_w)
    assert theirs.compute_free_energy_differences()["Delta_f"][0, 1] == pytest.approx(ours.value, abs=1e-7)
    np.testing.assert_allclose(theirs.W_nk[:, 1], normalised_weights(log_w), rtol=1e-6)
    fitted = MBAR().fit(u_nk_frame(u_kn, n_k, np.array([0.0, 1.0]), 300.0))
    assert fitted.delta_f_.loc[0.0, 1.0] == pytest.approx(ours.value, abs=1e-6)
    with pytest.raises(InputError, match="1 NaN"):
        generated_u_kn(np.where(np.arange(2000) == 5, np.nan, log_w), B.energy(x))
    with pytest.raises(InputError, match="give one a state"):
        write_u_kn(tmp_path / "u.npz", u_kn, n_k, ["generator"], 300.0)
