"""Annealed works: the right ratio of normalisers along any ladder, exact books of costs, groups and seeds."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from boltzgen_diffclf.coordinates import InternalCoordinates
from boltzgen_diffclf.energy import AnchoredEnergyModel, Ends, FreeEnergyCurve, LearnedLadder, end_values
from boltzgen_diffclf.errors import InputError
from boltzgen_diffclf.estimators import Estimate, exponential_averaging
from boltzgen_diffclf.estimators.replicates import student_factor
from boltzgen_diffclf.free_energy.annealed import (
    AnnealedWorks,
    AnnealingSettings,
    annealed_estimate,
    annealed_works,
    spread_over_groups,
)
from boltzgen_diffclf.free_energy.annealed_ladders import learned_works, linear_ladder_works
from boltzgen_diffclf.free_energy.internal_space import InternalSpace
from boltzgen_diffclf.free_energy.path_pool import build_path_data
from boltzgen_diffclf.free_energy.relaxed import RelaxationSettings, relaxed_mbar
from boltzgen_diffclf.free_energy.step_sizes import (
    KernelFamily,
    hmc_family,
    mala_family,
    march_from_both_ends,
)
from boltzgen_diffclf.losses.score_matching import denoising_score_matching_loss
from boltzgen_diffclf.nets import MlpEnergyNet, TorsionConfig, TorsionEnergyNet
from boltzgen_diffclf.paths import arcsine_levels
from boltzgen_diffclf.streams import named_generator
from boltzgen_diffclf.target import CountingTarget, Ladder, LinearLadder, Target
from systems.analytic import GaussianMixture, TiltedHarmonic

A = TiltedHarmonic(1.0, [0.0, 0.0])
B = TiltedHarmonic(4.0, [6.0, -4.0])
MIXTURE = GaussianMixture(
    torch.tensor([0.3, 0.7]).double(),
    torch.tensor([[-1.5, 0.0], [1.5, 0.5]]).double(),
    torch.tensor([0.6, 0.8]).double(),
    log_normaliser=2.0,
)
SETTINGS = AnnealingSettings(levels=9, particles=400)
MALA = mala_family(torch.ones(()))
FRAMES, WALKERS = 2000, 40


@pytest.fixture(autouse=True)
def _eager(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    from boltzgen_diffclf.compilation import can_fuse

    monkeypatch.setenv("BOLTZGEN_EAGER", "1")
    can_fuse.cache_clear()
    yield
    can_fuse.cache_clear()


def test_free_energies_rise_at_a_level_as_they_do_on_both_sides() -> None:
    """Slopes of a parabola are fitted at the levels, where alone training looks."""
    levels = torch.tensor([0.0, 0.2, 0.5, 0.7, 1.0], dtype=torch.float64)
    curve = FreeEnergyCurve(levels)
    curve.values.data = levels**2
    rate = torch.func.jvp(curve, (levels,), (torch.ones_like(levels),))[1]
    torch.testing.assert_close(rate[1:-1], 2 * levels[1:-1])
    torch.testing.assert_close(curve(levels), levels**2)
    between = torch.tensor([0.1, 0.6], dtype=torch.float64)
    torch.testing.assert_close(curve(between), torch.tensor([0.02, 0.37], dtype=torch.float64))


def test_an_end_that_counts_nothing_may_be_infinite() -> None:
    model = AnchoredEnergyModel(nn.Identity(), arcsine_levels(5), ceilings=(2.0, 2.0))
    energy = torch.tensor([[1.0, math.inf], [math.inf, 1.0]]).double()
    gradient = torch.tensor([[[3.0], [math.inf]], [[0.5], [2.0]]]).double()
    t = torch.tensor([0.0, 0.5]).double()
    found = model.double().prior_gradient(t, Ends(energy, gradient))
    assert found[0].item() == 3.0
    assert not bool(found.isnan().any())
    overlapping = torch.tensor([[1e22, 5.0], [3e38, 1e25], [math.inf, 2.0]])
    for time in (0.0, 0.1, 1.0):
        energies = model.float().prior_energy(torch.full((3,), time), overlapping)
        assert bool(energies.isfinite().all())
    loss = denoising_score_matching_loss(found[:1] * math.inf, torch.ones(1, 1).double(), torch.zeros(1, 1).double(), 1)
    assert loss.item() == 0.0


def network(seed: int = 0, size: float = 0.5) -> AnchoredEnergyModel:
    """Return an anchored model whose network says random things of a few kT."""
    net = MlpEnergyNet(2, torch.Generator().manual_seed(seed), hidden=8, layers=1, n_frequencies=2)
    torch.nn.init.normal_(net.readout.weight, std=size, generator=torch.Generator().manual_seed(seed + 1))
    return AnchoredEnergyModel(net, arcsine_levels(5)).double()


def sampled(target: Any, name: str, n: int = FRAMES) -> tuple[torch.Tensor, torch.Tensor]:
    return target.sample(n, named_generator(0, name)), torch.arange(n) % WALKERS


def works_of(
    ladder: Ladder,
    a: Any,
    b: Any,
    settings: AnnealingSettings = SETTINGS,
    family: KernelFamily = MALA,
    seed: int = 0,
) -> AnnealedWorks:
    generator = named_generator(seed, "anneal")
    (x_a, walker_a), (x_b, walker_b) = sampled(a, "a"), sampled(b, "b")
    return annealed_works(ladder, x_a, walker_a, x_b, walker_b + WALKERS, family, settings, generator)


def linear(a: Target, b: Target, levels: int = SETTINGS.levels) -> LinearLadder:
    return LinearLadder(a, b, torch.linspace(0, 1, levels).tolist())


def learned(a: Target, b: Target, levels: int = SETTINGS.levels, seed: int = 0, size: float = 0.5) -> LearnedLadder:
    return LearnedLadder(network(seed, size), arcsine_levels(levels), a, b)


def estimate_of(works: AnnealedWorks) -> Estimate:
    return annealed_estimate(works, np.random.default_rng(0))[0]


def assert_right(works: AnnealedWorks, exact: float) -> None:
    estimate = estimate_of(works)
    assert abs(estimate.value - exact) < 4 * estimate.stderr
    assert estimate.stderr < 0.2


@pytest.mark.parametrize("family", [MALA, hmc_family(torch.ones(()), 3, 0.1)], ids=["mala", "hmc"])
@pytest.mark.parametrize("ladder", [linear, learned])
@pytest.mark.parametrize("state_b", [B, MIXTURE], ids=["gaussians", "mixture"])
def test_the_ratio_of_normalisers_is_right(family: KernelFamily, ladder: Any, state_b: Any) -> None:
    exact = A.log_normaliser - state_b.log_normaliser
    assert_right(works_of(ladder(A, state_b), A, state_b, family=family), exact)


@pytest.mark.parametrize("seed", [3, 5, 7])
def test_any_network_gives_the_right_answer(seed: int) -> None:
    ladder = learned(A, B, seed=seed, size=0.7)
    x = A.sample(100, named_generator(0, "x"))
    middle = torch.full((100,), 4)
    straight = torch.lerp(A.energy(x), B.energy(x), ladder.times[middle])
    assert float((ladder.energy(x, middle) - straight).abs().max()) > 1.0
    assert_right(works_of(ladder, A, B), A.log_normaliser - B.log_normaliser)


@pytest.mark.parametrize("ladder", [linear, learned])
def test_sequential_monte_carlo_is_right_too(ladder: Any) -> None:
    settings = replace(SETTINGS, resample_below=0.9, populations=10, particles=1000)
    works = works_of(ladder(A, B), A, B, settings)
    assert works.resampled
    assert np.unique(works.groups_forward, return_counts=True)[1].tolist() == [100] * 10
    assert_right(works, A.log_normaliser - B.log_normaliser)
    assert estimate_of(works).overlap is None
    ends = (works.forward, "forward", works.groups_forward), (works.reverse, "reverse", works.groups_reverse)
    one_sided = [exponential_averaging(work, direction=way, groups=groups).stderr for work, way, groups in ends]
    assert estimate_of(works).stderr == pytest.approx(student_factor(10) * 0.5 * math.hypot(*one_sided))


def test_populations_share_no_walker_and_need_enough_of_them() -> None:
    settings = replace(SETTINGS, resample_below=0.5, populations=41)
    with pytest.raises(InputError, match="40 walkers cannot fill 41 populations"):
        works_of(linear(A, B), A, B, settings)


@pytest.mark.parametrize("ladder", [linear, learned])
def test_without_moves_works_are_the_difference_of_the_ends(ladder: Any) -> None:
    works = works_of(ladder(A, B), A, B, replace(SETTINGS, steps_per_level=0))
    for state, name, work, sign in ((A, "a", works.forward, 1), (B, "b", works.reverse, -1)):
        x, group = sampled(state, name)
        x = x[spread_over_groups(group, SETTINGS.particles)]
        np.testing.assert_allclose(work, sign * (B.energy(x) - A.energy(x)).numpy(), atol=1e-9)


def test_slow_annealing_is_reversible() -> None:
    """The dissipation of both directions goes to zero, so that reverse works become minus the forward ones."""
    dissipation = []
    for levels in (5, 17, 65):
        works = works_of(linear(A, B, levels), A, B, replace(SETTINGS, levels=levels))
        exact = A.log_normaliser - B.log_normaliser
        dissipation.append((works.forward.mean() - exact, works.reverse.mean() + exact))
    assert all(min(both) > 0 for both in dissipation)
    assert dissipation[0][0] > 2 * dissipation[1][0] > 4 * dissipation[2][0]
    assert dissipation[0][1] > 2 * dissipation[1][1] > 4 * dissipation[2][1]
    assert max(dissipation[2]) < 0.2


@pytest.mark.parametrize("target_acceptance", [0.4, 0.574, 0.8])
def test_step_sizes_reach_the_wanted_acceptance_from_a_bad_start(target_acceptance: float) -> None:
    settings = replace(SETTINGS, target_acceptance=target_acceptance, pilot_steps=40)
    for first in (0.01, 30.0):
        works = works_of(linear(A, B), A, B, settings, replace(MALA, first_step_size=first))
        for acceptance in (works.acceptance_forward, works.acceptance_reverse):
            assert acceptance.shape == (7,)
            assert np.abs(acceptance - target_acceptance).max() < 0.15
    # The stiffer end takes the smaller steps.
    assert works.step_sizes[1] > 1.5 * works.step_sizes[-2]


def test_the_pilot_starts_at_the_nearer_end_and_stays_half_of_its_time() -> None:
    visits = march_from_both_ends(7, 2, 10)
    assert visits.shape == (10, 14)
    assert torch.equal(visits[4:], torch.arange(7).repeat_interleave(2).expand(6, -1))
    assert visits[0].tolist() == [0, 0, 0, 0, 0, 0, 1, 1, 6, 6, 6, 6, 6, 6]


def test_frames_are_spread_and_groups_kept() -> None:
    works = works_of(linear(A, B), A, B)
    for labels in (works.groups_forward, works.groups_reverse):
        assert np.unique(labels, return_counts=True)[1].tolist() == [SETTINGS.particles // WALKERS] * WALKERS
    group = torch.tensor([0] * 6 + [5] * 3)
    assert spread_over_groups(group, 3).tolist() == [1, 4, 7]
    assert spread_over_groups(group, 9).tolist() == list(range(9))
    assert torch.bincount(spread_over_groups(group, 18)).tolist() == [2] * 9
    # One walker whose frames are all alike: whole walkers must be resampled.
    correlated = replace(works, forward=np.repeat(works.forward[:40], 10), groups_forward=np.repeat(np.arange(40), 10))
    alone = replace(correlated, groups_forward=np.arange(400))
    assert estimate_of(correlated).stderr > 1.3 * estimate_of(alone).stderr


def test_cost_of_the_linear_ladder_is_counted_exactly() -> None:
    settings = replace(SETTINGS, levels=6, particles=30, steps_per_level=2, pilot_particles=4, pilot_steps=8)
    works = linear_ladder_works(A, B, *sampled(A, "a"), *sampled(B, "b"), MALA, settings, named_generator(0, "anneal"))
    visits = march_from_both_ends(6, 4, 8)
    changes = sum(not torch.equal(one, other) for one, other in zip(visits[1:], visits[:-1], strict=True))
    pilot = 24 * (1 + 8 + changes)
    each_way = 30 * (1 + 4 * (1 + 2) + 1)
    assert works.cost.energy_evaluations == 2 * (pilot + 2 * each_way)
    assert works.cost.network_evaluations == 0
    assert annealed_estimate(works, np.random.default_rng(0))[1] is works.cost


def test_learned_ladder_counts_the_network_and_its_force_is_a_gradient() -> None:
    counted = CountingTarget(A)
    ladder = learned(counted, B, levels=5)
    x, level = A.sample(5, named_generator(1, "x")), torch.arange(5)
    energy, force = ladder.energy_and_force(x, level)
    assert (counted.evaluations, ladder.network_evaluations) == (5, 10)
    torch.testing.assert_close(energy, ladder.energy(x, level))
    torch.testing.assert_close(energy, ladder.energies(x).diagonal())
    assert (counted.evaluations, ladder.network_evaluations) == (15, 10 + 5 + 25)
    for axis in range(2):
        step = torch.zeros(2).double()
        step[axis] = 1e-5
        slope = (ladder.energy(x + step, level) - ladder.energy(x - step, level)) / 2e-5
        torch.testing.assert_close(force[:, axis], -slope, rtol=1e-6, atol=1e-6)


def test_the_seed_alone_decides_and_streams_are_apart() -> None:
    first, again, other = (works_of(linear(A, B), A, B, seed=seed) for seed in (1, 1, 2))
    assert np.array_equal(first.forward, again.forward)
    assert np.array_equal(first.reverse, again.reverse)
    assert not np.array_equal(first.forward, other.forward)
    # A pilot that draws more must not move the streams of the passes: with the same step sizes, the same works.
    frozen = KernelFamily(lambda step_size: MALA.build(torch.full_like(step_size, 0.05)), 0.05)
    short, long = (works_of(linear(A, B), A, B, replace(SETTINGS, pilot_steps=steps), frozen) for steps in (2, 9))
    assert np.array_equal(short.forward, long.forward)


def test_effective_fractions_and_acceptance_are_in_the_order_of_levels() -> None:
    works = works_of(linear(A, B), A, B)
    assert works.effective_fraction_forward.shape == works.effective_fraction_reverse.shape == (8,)
    # Weights degrade along the way: forwards towards B, in reverse towards A.
    assert works.effective_fraction_forward[0] > works.effective_fraction_forward[-1] > 0.05
    assert works.effective_fraction_reverse[-1] > works.effective_fraction_reverse[0] > 0.05


class Wall(Target):
    """A normal that is impossible beyond one and a half, told as NaN as an overflow would be."""

    event_shape, dimension = (2,), 2

    def energy(self, x: torch.Tensor) -> torch.Tensor:
        return torch.where(x[:, 0] < 1.5, 0.5 * x.square().sum(-1), torch.nan)

    def sample(self, n: int, generator: torch.Generator) -> torch.Tensor:
        x = torch.randn(3 * n, 2, generator=generator, dtype=torch.float64)
        return x[x[:, 0] < 1.5][:n]


def test_impossible_arrivals_count_as_weight_zero_and_are_reported(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        works = works_of(linear(A, Wall()), A, Wall())
    assert works.nonfinite == np.isposinf(works.forward).sum() > 0
    assert f"{works.nonfinite} of 800 works" in caplog.text
    inside = 0.5 * (1 + math.erf(1.5 / math.sqrt(2)))
    assert_right(works, -math.log(inside))


@pytest.mark.parametrize(
    "broken",
    [
        {"levels": 2},
        {"steps_per_level": -1},
        {"particles": 1},
        {"pilot_steps": 0},
        {"resample_below": 0.5, "particles": 15},
    ],
)
def test_settings_that_are_no_annealing_are_refused(broken: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="annealing needs"):
        AnnealingSettings(**broken)


def test_a_ladder_of_other_levels_is_refused() -> None:
    with pytest.raises(ValueError, match="5 levels and the settings say 9"):
        works_of(linear(A, B, 5), A, B)


CHAIN = InternalCoordinates.from_bonds(4, [(0, 1), (1, 2), (2, 3)], ["C", "C", "C", "C"])


class Chain(Target):
    """Four atoms with harmonic bonds and angles and a torsion; its normaliser is a product of integrals."""

    event_shape, dimension = (4, 3), 6

    def __init__(self, bond: float, stiffness: float, barrier: float) -> None:
        self.bond, self.stiffness, self.barrier = bond, stiffness, barrier

    def energy(self, x: torch.Tensor) -> torch.Tensor:
        q = CHAIN.from_cartesian(x)
        return self._bond(q[:, :3]).sum(-1) + self._angle(q[:, 3:5]).sum(-1) + self.barrier * q[:, 5].cos()

    def sample(self, n: int, generator: torch.Generator) -> torch.Tensor:
        """Return samples to the width of a grid; each coordinate is independent of the others."""
        r, angle, torsion = self._grids()
        columns = []
        for grid, weight in [(r, self._bond_weight(r))] * 3 + [(angle, self._angle_weight(angle))] * 2:
            columns.append(grid[torch.multinomial(weight, n, True, generator=generator)])
        twist = torch.multinomial((-self.barrier * torsion.cos()).exp(), n, True, generator=generator)
        return CHAIN.to_cartesian(torch.stack([*columns, torsion[twist]], dim=1))[0]

    @property
    def log_normaliser(self) -> float:
        """Up to what all such chains share."""
        r, _, torsion = self._grids()
        bonds = 3 * math.log(float(torch.trapezoid(self._bond_weight(r), r)))
        return bonds + math.log(float((-self.barrier * torsion.cos()).exp().mean()))

    def _grids(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        r = torch.linspace(0.6, 1.4, 4001, dtype=torch.float64) * self.bond
        angle = torch.linspace(0.5, 3.1, 4001, dtype=torch.float64)
        return r, angle, torch.linspace(-math.pi, math.pi, 4001, dtype=torch.float64)[1:]

    def _bond(self, r: torch.Tensor) -> torch.Tensor:
        return 0.5 * self.stiffness * (r - self.bond).square()

    def _angle(self, angle: torch.Tensor) -> torch.Tensor:
        return 0.5 * 100.0 * (angle - 1.9).square()

    def _bond_weight(self, r: torch.Tensor) -> torch.Tensor:
        return r.square() * (-self._bond(r)).exp()

    def _angle_weight(self, angle: torch.Tensor) -> torch.Tensor:
        return angle.sin() * (-self._angle(angle)).exp()


def molecule() -> SimpleNamespace:
    a, b = Chain(0.15, 2e4, 1.0), Chain(0.153, 4e4, -1.0)
    frames_a, frames_b = (state.sample(3000, named_generator(0, name)) for state, name in ((a, "a"), (b, "b")))
    space = InternalSpace(CHAIN, a, b, frames_a, frames_b)
    config = TorsionConfig(hidden=8, layers=1, projections=2)
    net = TorsionEnergyNet(CHAIN.is_soft, CHAIN.symmetry, torch.Generator().manual_seed(4), config)
    torch.nn.init.normal_(net.readout.weight, std=0.3, generator=torch.Generator().manual_seed(5))
    model = AnchoredEnergyModel(net, arcsine_levels(9)).double()
    exact = a.log_normaliser - b.log_normaliser
    return SimpleNamespace(space=space, model=model, frames_a=frames_a, frames_b=frames_b, exact=exact, a=a, b=b)


def test_both_routes_agree_for_a_molecule() -> None:
    case, group = molecule(), torch.arange(3000) % WALKERS
    frames = case.frames_a.float(), group, case.frames_b.float(), group + WALKERS
    settings = replace(SETTINGS, particles=600)
    along_path = learned_works(case.model, case.space, *frames, settings, named_generator(0, "anneal"))
    family = hmc_family(1 / torch.full((4, 1), 12.0).double(), 3)
    straight = linear_ladder_works(case.a, case.b, *frames, family, settings, named_generator(0, "anneal"))
    assert_right(along_path, case.exact)
    assert_right(straight, case.exact)
    assert along_path.cost.network_evaluations > 0
    # The arrival at the last level takes energies alone, every other evaluation a gradient too.
    assert along_path.cost.network_evaluations == along_path.cost.energy_evaluations - 2 * settings.particles


def test_relaxed_levels_give_the_right_answer_for_any_network() -> None:
    case = molecule()
    generator = named_generator(0, "pool")
    data = build_path_data(case.space, case.frames_a, case.frames_b, arcsine_levels(9), 400, generator)
    settings = RelaxationSettings(levels=5, configurations=300, steps=60)
    result = relaxed_mbar(case.model, case.space, data, settings, named_generator(0, "relax"))
    assert abs(result.estimate.value - case.exact) < 4 * result.estimate.stderr < 0.5
    assert result.overlap_matrix.shape == (5, 5)
    assert np.abs(result.acceptance - 0.574).max() < 0.15
    walkers, moved = 3 * 32 * (1 + 24), 900 * (1 + 60)
    assert result.cost.energy_evaluations == 2 * (walkers + moved + 1500)
    assert result.cost.network_evaluations == 2 * (walkers + moved) + 5 * 300 * 5
    again = relaxed_mbar(case.model, case.space, data, settings, named_generator(0, "relax"))
    assert again.estimate == result.estimate


def test_a_pool_too_small_to_relax_is_refused() -> None:
    case = molecule()
    data = build_path_data(case.space, case.frames_a, case.frames_b, arcsine_levels(5), 20, named_generator(0, "p"))
    with pytest.raises(InputError, match="5 levels of 20 configurations, and 11 of 500 are wanted"):
        relaxed_mbar(case.model, case.space, data, RelaxationSettings(), named_generator(0, "relax"))


def test_energy_and_gradient_are_those_of_the_model() -> None:
    model, x, t = network(), A.sample(6, named_generator(2, "x")), arcsine_levels(6)
    ends = end_values(A, B, x)
    energy, gradient = model.energy_and_gradient(x, t, ends)
    torch.testing.assert_close(energy, model.energy(x, t, ends.energy))
    torch.testing.assert_close(gradient, model.gradient(x, t, ends))
