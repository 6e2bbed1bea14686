"""Error bars of what is estimated on a path: configurations that share a frame or a walker are not independent."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from boltzgen_diffclf.energy import UnanchoredEnergyModel
from boltzgen_diffclf.estimators import Estimate, bar, mbar, thermodynamic_integration
from boltzgen_diffclf.estimators.bar import bar_influence
from boltzgen_diffclf.estimators.groups import clustered_stderr, crossed_stderr, group_index
from boltzgen_diffclf.free_energy.cartesian import corrected_integral, end_correction
from boltzgen_diffclf.free_energy.chained_classes import chained_end_classes
from boltzgen_diffclf.free_energy.learned import exact_end_classes, integrate
from boltzgen_diffclf.free_energy.path_pool import build_path_data
from boltzgen_diffclf.free_energy.vector_space import VectorSpace
from boltzgen_diffclf.nets import WellPairsEnergyNet
from boltzgen_diffclf.paths import StochasticInterpolant, arcsine_levels
from boltzgen_diffclf.streams import named_generator
from boltzgen_diffclf.training import PathData
from systems.analytic import GaussianMixture

DIM, LEVELS, POOL, WALKERS, FRAMES, REPEATS = 3, 9, 100, 40, 5, 24

Estimator = Callable[[UnanchoredEnergyModel, PathData], Estimate]


def normal(place: float) -> GaussianMixture:
    one = torch.ones(1, dtype=torch.float64)
    return GaussianMixture(one, torch.full((1, DIM), place, dtype=torch.float64), one)


STATE_A, STATE_B = normal(0.0), normal(2.0)


def walkers_of(state: GaussianMixture, stream: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return frames that follow the state and are much alike within a walker, and the walker of each."""
    centre, own = (state.sample(n, stream) - state.means for n in (WALKERS, WALKERS * FRAMES))
    walker = torch.arange(WALKERS).repeat_interleave(FRAMES)
    return state.means + 0.8**0.5 * centre[walker] + 0.2**0.5 * own, walker


def _corrected(model: UnanchoredEnergyModel, data: PathData) -> Estimate:
    ends = ((0, STATE_A), (-1, STATE_B))
    start, end = (end_correction(model, data, level, state.energy(data.y[level])) for level, state in ends)
    return corrected_integral(model, data, (start, end))


ESTIMATORS: dict[str, Estimator] = {
    "TI": lambda model, data: integrate(model, data).estimate,
    "TI with ends": _corrected,
    "exact ends": lambda model, data: exact_end_classes(model, data, 2)[0],
    "chained": lambda model, data: chained_end_classes(model, data, STATE_A, STATE_B),
}


@pytest.fixture(scope="module")
def found() -> dict[str, tuple[list[Estimate], list[Estimate]]]:
    """Return every estimate of the exact energies on fresh frames, and some as if nothing were shared."""
    found: dict[str, tuple[list[Estimate], list[Estimate]]] = {name: ([], []) for name in ESTIMATORS}
    for repeat in range(REPEATS):
        stream = named_generator(repeat, "frames")
        (frames_a, walker_a), (frames_b, walker_b) = (walkers_of(state, stream) for state in (STATE_A, STATE_B))
        space = VectorSpace(STATE_A, STATE_B, frames_a, frames_b, noise=1.0, anchored=False)
        levels = arcsine_levels(LEVELS)
        net = WellPairsEnergyNet(STATE_A.means, STATE_B.means, (1.0, 1.0), float(space.path.noise_scale[0]) ** 2)
        model = UnanchoredEnergyModel(net, levels).double().requires_grad_(False)
        pool = named_generator(repeat, "pool")
        data = build_path_data(space, frames_a, frames_b, levels, POOL, pool, (walker_a, walker_b + len(walker_b)))
        apart = torch.arange(data.origin.numel()).reshape(data.origin.shape)
        for name, estimator in ESTIMATORS.items():
            found[name][0].append(estimator(model, data))
            if repeat < 3:
                found[name][1].append(estimator(model, replace(data, origin=apart)))
    return found


@pytest.mark.parametrize("name", ESTIMATORS)
def test_errors_hold_where_levels_share_frames_and_frames_walkers(
    name: str, found: dict[str, tuple[list[Estimate], list[Estimate]]]
) -> None:
    together, apart = found[name]
    scatter = np.std([one.value for one in together], ddof=1)
    stated, naive = (float(np.mean([one.stderr for one in estimates])) for estimates in (together, apart))
    assert 0.7 < scatter / stated < 1.4
    assert scatter / naive > 1.8
    assert max(one.n_effective for one in together) < min(one.n_effective for one in apart)


def test_every_configuration_says_which_frames_made_it() -> None:
    stream = named_generator(0, "frames")
    frames_a, frames_b = STATE_A.sample(50, stream), STATE_B.sample(60, stream)
    space = VectorSpace(STATE_A, STATE_B, frames_a, frames_b, transport=True, anchored=False)
    data = build_path_data(space, frames_a, frames_b, arcsine_levels(9), 40, named_generator(1, "pool"))
    torch.testing.assert_close(data.y[0], frames_a[data.origin[0, :, 0]])
    torch.testing.assert_close(data.y[-1], frames_b[data.origin[-1, :, 1] - len(frames_a)])
    assert torch.equal(data.origin[0], data.origin[7])
    assert not torch.equal(data.origin[7], data.origin[8])


def test_one_noise_scale_of_the_path_serves_all_coordinates() -> None:
    frames = STATE_A.sample(20, named_generator(0, "frames"))
    space = VectorSpace(STATE_A, STATE_B, frames, frames + 2.0, anchored=False)
    pools = []
    for scale in (torch.tensor(0.7), torch.full((DIM,), 0.7)):
        space.path = StochasticInterpolant(scale.double(), DIM)
        pools.append(build_path_data(space, frames, frames + 2.0, arcsine_levels(DIM), 10, named_generator(1, "pool")))
    torch.testing.assert_close(pools[0].gamma, pools[1].gamma)


def crossed_samples(rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Return samples whose means both of two walkers move, and the walkers."""
    labels = rng.integers(60, size=(n, 2)) + np.array([0, 60])
    offsets = rng.normal(size=(2, 60))
    return offsets[0, labels[:, 0]] + offsets[1, labels[:, 1] - 60] + 0.3 * rng.normal(size=n), labels


def test_errors_follow_both_walkers_of_a_sample() -> None:
    rng, values, stated = np.random.default_rng(0), [], []
    for _ in range(200):
        x, labels = crossed_samples(rng, 400)
        values.append(x.mean())
        stated.append(crossed_stderr((x - x.mean()) / len(x), labels))
    assert np.std(values) / np.mean(stated) == pytest.approx(1.0, abs=0.15)


def test_errors_follow_walkers_that_are_at_both_ends() -> None:
    rng, values, stated, apart = np.random.default_rng(0), [], [], []
    for _ in range(200):
        offsets, labels = rng.normal(size=60), rng.integers(60, size=(400, 2))
        x = offsets[labels].sum(axis=1) + 0.3 * rng.normal(size=400)
        values.append(x.mean())
        stated.append(crossed_stderr((x - x.mean()) / len(x), labels))
        apart.append(crossed_stderr((x - x.mean()) / len(x), labels + np.array([0, 60])))
    assert np.std(values) / np.mean(stated) == pytest.approx(1.0, abs=0.15)
    assert np.std(values) / np.mean(apart) > 1.25


def test_two_walkers_that_are_at_both_ends_are_enough() -> None:
    rng = np.random.default_rng(4)
    assert crossed_stderr(rng.normal(size=100), rng.integers(2, size=(100, 2))) > 0


def test_samples_of_one_walker_alone_are_its_group() -> None:
    rng = np.random.default_rng(3)
    label, influence = np.repeat(np.arange(20), 5), rng.normal(size=100)
    pairs = np.repeat(label[:, None], 2, axis=1)
    assert crossed_stderr(influence, pairs) == pytest.approx(clustered_stderr(influence, *group_index(label, 100)))


def test_one_level_of_integration_has_the_error_of_its_mean() -> None:
    x, labels = crossed_samples(np.random.default_rng(1), 400)
    result = thermodynamic_integration(np.array([0.0, 1.0]), [x, x], groups=[labels, labels])
    assert result.estimate.stderr == pytest.approx(crossed_stderr((x - x.mean()) / len(x), labels), rel=1e-9)
    assert sum(part.sum() for part in result.influence) == pytest.approx(0.0, abs=1e-12)


def test_linearised_errors_are_the_asymptotic_ones_where_samples_are_independent() -> None:
    rng = np.random.default_rng(2)
    x = np.concatenate([rng.normal(size=4000), 1.5 + rng.normal(size=3000)])
    u_kn, n_k = np.stack([0.5 * x**2, 0.5 * (x - 1.5) ** 2]), np.array([4000, 3000])
    labels = np.repeat(np.arange(7000)[:, None], 2, axis=1)
    independent, labelled = mbar(u_kn, n_k).estimate, mbar(u_kn, n_k, groups=labels).estimate
    assert labelled.stderr == pytest.approx(independent.stderr, rel=0.03)
    forward, reverse = (u_kn[1] - u_kn[0])[:4000], (u_kn[0] - u_kn[1])[4000:]
    answer = bar(forward, reverse)
    influence = np.concatenate(bar_influence(forward, reverse, answer.value))
    assert np.sqrt(np.square(influence).sum()) == pytest.approx(answer.stderr, rel=0.03)
    # A sample that counts twice moves the answer by its influence, so far as the other samples are many.
    again = bar(np.append(forward, forward[:40]), reverse)
    assert again.value - answer.value == pytest.approx(influence[:40].sum(), abs=0.1 * abs(influence[:40]).sum())
