"""From frames to free energies on the real molecule, where the answer is known without sampling."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from jaxtyping import Float
from torch import Tensor

import systems
from boltzgen_diffclf.coordinates import InternalCoordinates
from boltzgen_diffclf.energy import AnchoredEnergyModel, EnergyModel
from boltzgen_diffclf.estimators import free_energy_from_weights
from boltzgen_diffclf.estimators.family import mbar_family
from boltzgen_diffclf.free_energy.classical import (
    SampledState,
    all_states_mbar,
    energies_in,
    one_sided,
    subsample,
    two_state_bar,
)
from boltzgen_diffclf.free_energy.internal_space import InternalSpace
from boltzgen_diffclf.free_energy.learned import (
    LearningSettings,
    build_pools,
    exact_end_classes,
    integrate,
    untrained_model,
)
from boltzgen_diffclf.nets import TorsionConfig, TorsionEnergyNet
from boltzgen_diffclf.samplers import Langevin
from boltzgen_diffclf.target import SingleLevel, Target
from boltzgen_diffclf.units import thermal_energy_kj_per_mol

SHIFT = 3.0


class Shifted(Target):
    """A target and a constant: the free energies differ by exactly that."""

    def __init__(self, target: Target, shift: float) -> None:
        self.target, self.shift = target, shift
        self.event_shape, self.dimension = target.event_shape, target.dimension

    def energy(self, x: Float[Tensor, "batch *event"]) -> Float[Tensor, " batch"]:
        return self.target.energy(x) + self.shift


@pytest.fixture(scope="module")
def aldp() -> systems.molecular.MolecularSystem:
    return systems.load("aldp")


@pytest.fixture(scope="module")
def vacuum(aldp: systems.molecular.MolecularSystem) -> Target:
    with pytest.MonkeyPatch.context() as patch:
        from boltzgen_diffclf.compilation import can_fuse

        patch.setenv("BOLTZGEN_EAGER", "1")
        can_fuse.cache_clear()
        yield aldp.target("vacuum")
    can_fuse.cache_clear()


@pytest.fixture(scope="module")
def frames(aldp: systems.molecular.MolecularSystem, vacuum: Target) -> Tensor:
    """Return frames of a short run at 300 K."""
    ladder, generator = SingleLevel(vacuum), torch.Generator().manual_seed(0)
    kernel = Langevin(1e-3, 5.0, thermal_energy_kj_per_mol(300.0) / aldp.masses[:, None])
    level = torch.zeros(40, dtype=torch.long)
    state = kernel.init(ladder, aldp.positions.repeat(40, 1, 1), level, generator)
    kept = []
    for _ in range(6):
        state, _ = kernel.run(ladder, state, level, 50, generator)
        kept.append(state.position)
    return torch.cat(kept)


@pytest.fixture(scope="module")
def space(aldp: systems.molecular.MolecularSystem, vacuum: Target, frames: Tensor) -> InternalSpace:
    internal = InternalCoordinates.from_bonds(aldp.n_atoms, aldp.bonds, aldp.elements, tuple(aldp.torsions.values()))
    return InternalSpace(internal, vacuum, Shifted(vacuum, SHIFT), frames, frames)


@pytest.fixture(scope="module")
def pools(space: InternalSpace, frames: Tensor) -> object:
    settings = LearningSettings(levels=9, pool=100, evaluation_pool=120)
    return build_pools(space, (frames[:120], frames[:120]), (frames[120:], frames[120:]), settings, seed=1)


def make_model(levels: Tensor, generator: torch.Generator) -> EnergyModel:
    mask = torch.zeros(60, dtype=torch.bool)
    mask[-7:] = True
    config = TorsionConfig(hidden=8, layers=2, projections=2)
    return AnchoredEnergyModel(TorsionEnergyNet(mask, torch.ones(60, dtype=torch.long), generator, config), levels)


def test_ends_of_the_path_are_frames(space: InternalSpace, pools: object, frames: Tensor) -> None:
    def pair_distances(x: Tensor) -> Tensor:
        heavy = torch.tensor([4, 6, 8, 14, 16])  # the other end is relabelled in its methyl hydrogens
        return torch.cdist(x[:, heavy], x[:, heavy]).flatten(1)

    known = pair_distances(frames[:120])
    for level in (0, -1):
        x, _ = space.scaled.to_cartesian(pools.training.y[level])
        assert (pair_distances(x)[:, None] - known).abs().amax(-1).amin(1).max() < 1e-9
        energy = pools.training.end_energy[level]
        torch.testing.assert_close(energy[:, 1] - energy[:, 0], torch.full((100,), SHIFT, dtype=torch.float64))


def test_energies_on_the_path_are_those_of_the_molecule_with_the_jacobian(
    space: InternalSpace, pools: object, vacuum: Target
) -> None:
    y = pools.training.y[4][:5]
    x, log_jacobian = space.scaled.to_cartesian(y)
    torch.testing.assert_close(pools.training.end_energy[4][:5, 0], vacuum.energy(x) - log_jacobian)
    step = 1e-5 * torch.eye(60, dtype=torch.float64)[7]
    up, down = (space.end_values(y + sign * step).energy for sign in (1, -1))
    torch.testing.assert_close(pools.training.end_gradient[4][:5, :, 7], (up - down) / 2e-5, rtol=1e-5, atol=1e-5)


def test_torsions_of_one_basin_and_methyls_are_not_transported(space: InternalSpace, aldp: object) -> None:
    phi_psi = [space.internal.torsion_column(quadruple) for quadruple in aldp.torsions.values()]
    transported = torch.nonzero(space.transported)[:, 0].tolist()
    assert set(transported) <= set(phi_psi)


def test_a_constant_shift_is_the_free_energy_difference(pools: object) -> None:
    model = untrained_model(make_model, pools.training, seed=0)
    integral = integrate(model, pools.evaluation)
    assert integral.estimate.value == pytest.approx(SHIFT, abs=1e-4)
    assert model.free_energy(torch.ones(1, dtype=torch.float64)).item() == pytest.approx(SHIFT, abs=1e-4)
    estimate, overlap = exact_end_classes(model, pools.evaluation, stride=4)
    assert estimate.value == pytest.approx(SHIFT, abs=1e-5)
    assert overlap.shape == (3, 3)
    assert model.curve.values[0].item() == 0.0


def test_pools_of_a_replicate_share_no_frame_and_repeat(space: InternalSpace, pools: object, frames: Tensor) -> None:
    settings = LearningSettings(levels=9, pool=100, evaluation_pool=120)
    told: list[float] = []
    again = build_pools(
        space, (frames[:120], frames[:120]), (frames[120:], frames[120:]), settings, seed=1, advance=told.append
    )
    assert sum(told) == pytest.approx(1.0)
    assert len(told) > 1
    assert torch.equal(again.training.y, pools.training.y)
    assert torch.cdist(pools.training.y[0], pools.evaluation.y[0]).min() > 1e-6


def test_classical_estimators_on_a_shifted_state(vacuum: Target, frames: Tensor) -> None:
    u = energies_in(vacuum, frames)
    rng, groups = np.random.default_rng(0), np.repeat(np.arange(24), 10)
    energies = np.stack([u, u + SHIFT, u + 2 * SHIFT])
    a, b = (SampledState(name, energies, groups) for name in ("a", "b"))
    assert two_state_bar(a, b, 0, 1, rng).value == pytest.approx(SHIFT, abs=1e-6)
    assert one_sided(a, 0, 2).value == pytest.approx(2 * SHIFT, abs=1e-6)
    family = all_states_mbar(["a", "b", "c"], [a, b], rng)
    assert family.between(0, 2).value == pytest.approx(2 * SHIFT, abs=1e-6)
    assert family.between(0, 2).overlap == pytest.approx(0.5, abs=1e-6)


def test_unsampled_states_have_errors_that_cover() -> None:
    rng = np.random.default_rng(0)
    sigma, counts = np.array([1.0, 0.8, 0.6]), np.array([600, 0, 600])
    scores = []
    for _ in range(100):
        x = np.concatenate([rng.normal(size=600), 0.6 * rng.normal(size=600)])
        family = mbar_family(0.5 * (x / sigma[:, None]) ** 2, counts, np.repeat(np.arange(60), 20), rng, 60)
        estimates = [family.between(a, b) for a, b in ((0, 1), (1, 2))]
        exact = [-math.log(0.8), -math.log(0.75)]
        scores.append([(e.value - x) / e.stderr for e, x in zip(estimates, exact, strict=True)])
    spread = np.std(scores, axis=0)
    assert np.all(np.abs(np.mean(scores, axis=0)) < 4 / math.sqrt(100))
    assert np.all(np.abs(spread - 1) < 4 / math.sqrt(2 * 100) + 0.05)


def test_a_family_that_nothing_joins_has_no_error_bar() -> None:
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.normal(size=400), 100 + rng.normal(size=400)])
    u = np.stack([0.5 * x**2, 0.5 * (x - 100) ** 2])
    estimate = mbar_family(u, np.array([400, 400]), np.repeat(np.arange(40), 20), rng).between(0, 1)
    assert (estimate.stderr, estimate.n_effective) == (math.inf, 0.0)


def test_frames_that_are_all_alike_in_a_walker_are_worth_their_walkers() -> None:
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.normal(size=60), 1 + rng.normal(size=60)]).repeat(50)
    u, labels = np.stack([0.5 * x**2, 0.5 * (x - 1) ** 2]), np.repeat(np.arange(120), 50)
    family = mbar_family(u, np.array([3000, 3000]), labels, rng).between(0, 1)
    averaging = free_energy_from_weights(u[0, :3000] - u[1, :3000], labels[:3000])
    assert 30 < family.n_effective < 300
    assert 10 < averaging.n_effective < 120


def test_one_sampled_state_is_exponential_averaging() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=2000)
    u = np.stack([0.5 * x**2, 0.5 * (x / 0.8) ** 2])
    family = mbar_family(u, np.array([2000, 0]), np.repeat(np.arange(100), 20), rng)
    expected = -math.log(np.exp(-(u[1] - u[0])).mean())
    assert family.between(0, 1).value == pytest.approx(expected, abs=1e-9)


def test_fewer_frames_are_of_all_walkers_and_all_times() -> None:
    group = np.tile(np.arange(8), 100)
    state = SampledState("vacuum", np.arange(800.0)[None], group)
    assert subsample(state, 800) is state
    fewer = subsample(state, 200)
    assert np.bincount(fewer.group).tolist() == [25] * 8
    assert fewer.energies.shape == (1, 200)
    times = fewer.energies[0, fewer.group == 3] // 8
    assert np.diff(np.sort(times)).tolist() == [4.0] * 24


@pytest.mark.parametrize("other", [None, 0.0, 1.0])
def test_independent_samples_of_a_family_count_in_full(other: float | None) -> None:
    """Two states that hardly overlap, and a third between them, sampled or not."""
    generator, n = np.random.default_rng(4), 1500
    centres = np.array([-2.0, 2.0] + ([] if other is None else [other]))
    sampled = centres[: 2 if other != 1.0 else 3]
    x = np.concatenate([generator.normal(centre, 1.0, n) for centre in sampled])
    counts = np.array([n] * len(sampled) + [0] * (len(centres) - len(sampled)))
    family = mbar_family(0.5 * (x - centres[:, None]) ** 2, counts, np.arange(len(x)), generator)
    for a, b in ((0, 1), (0, len(centres) - 1)):
        kish = float(1 / np.square(family.weights[[a, b]]).sum(1).max())
        assert 0.75 * kish < family.between(a, b).n_effective <= kish
    walkers = mbar_family(0.5 * (x - centres[:, None]) ** 2, counts, np.arange(len(x)) // 2, generator)
    assert walkers.between(0, 1).n_effective > 0.7 * float(1 / np.square(family.weights[[0, 1]]).sum(1).max())
    repeated = mbar_family(
        np.repeat(0.5 * (x - centres[:, None]) ** 2, 4, axis=1), 4 * counts, np.repeat(np.arange(len(x)), 4), generator
    )
    assert repeated.between(0, 1).n_effective == pytest.approx(family.between(0, 1).n_effective, rel=0.3)
