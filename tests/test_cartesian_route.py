"""The path in positions: centred, superposed, whole molecules half-way, and answers that survive wrong learned ends."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

import systems
from boltzgen_diffclf.coordinates import InternalCoordinates, ScaledInternal, chirality, remove_mean
from boltzgen_diffclf.energy import AnchoredEnergyModel, EnergyModel, UnanchoredEnergyModel
from boltzgen_diffclf.errors import InputError
from boltzgen_diffclf.free_energy.cartesian import answers
from boltzgen_diffclf.free_energy.cartesian_space import AnchoredCartesianSpace, CartesianSpace, FlatTarget
from boltzgen_diffclf.free_energy.learned import LearningSettings, Pools, build_pools, train_replicate
from boltzgen_diffclf.free_energy.path_pool import build_path_data
from boltzgen_diffclf.nets import DenseEnergyNet, EquivariantConfig, TorsionConfig, TorsionEnergyNet
from boltzgen_diffclf.nets.atom_types import atom_types
from boltzgen_diffclf.nets.flat_molecule import FlatMoleculeNet, PreconditionedMoleculeNet
from boltzgen_diffclf.paths import StochasticInterpolant, arcsine_levels
from boltzgen_diffclf.paths.curved import CurvedInterpolant
from boltzgen_diffclf.streams import named_generator
from boltzgen_diffclf.target import Target
from boltzgen_diffclf.training import ObjectiveWeights, TrainingSettings
from systems.ensemble import Provenance, ReferenceEnsemble
from systems.molecular import MolecularSystem
from workflows import solvation_cartesian
from workflows.run_start import open_run_folder
from workflows.solvation import SolvationConfig
from workflows.solvation_stages import SolvationStages

BONDS = [(0, 1), (1, 2), (2, 3), (0, 4), (0, 5), (0, 6)]
ELEMENTS = ["C", "C", "O", "N", "H", "H", "H"]
ATOMS = len(ELEMENTS)
DIMENSION = 3 * (ATOMS - 1)
SIGMA_A, SIGMA_B, GAMMA = 0.004, 0.005, 0.004
EXACT = -DIMENSION * np.log(SIGMA_B / SIGMA_A)
"""F_B - F_A [kT] of two harmonic clusters with one centre."""


class HarmonicCluster(Target):
    """``u = |x - x_0|^2 / (2 sigma^2)`` about fixed places, after the centroid is removed."""

    def __init__(self, places: torch.Tensor, sigma: float) -> None:
        self.places, self.sigma = remove_mean(places), sigma
        self.event_shape, self.dimension = tuple(places.shape), DIMENSION

    def energy(self, x: torch.Tensor) -> torch.Tensor:
        return 0.5 * ((remove_mean(x) - self.places) / self.sigma).square().sum((-2, -1))

    def sample(self, n: int, generator: torch.Generator) -> torch.Tensor:
        noise = torch.randn(n, *self.event_shape, generator=generator, dtype=torch.float64)
        return self.places + self.sigma * remove_mean(noise)


class SpringTarget(Target):
    """Springs between all atoms: an energy that no rotation changes."""

    def __init__(self, places: torch.Tensor, strength: float) -> None:
        self.lengths, self.strength = torch.cdist(places, places), strength
        self.event_shape, self.dimension = tuple(places.shape), DIMENSION

    def energy(self, x: torch.Tensor) -> torch.Tensor:
        difference = x[:, :, None] - x[:, None, :]
        squared = difference.square().sum(-1)
        return 0.25 * self.strength * (squared - self.lengths.square()).square().sum((-2, -1))


@pytest.fixture(autouse=True)
def _eager(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    from boltzgen_diffclf.compilation import can_fuse

    monkeypatch.setenv("BOLTZGEN_EAGER", "1")
    can_fuse.cache_clear()
    yield
    can_fuse.cache_clear()


@pytest.fixture(scope="module")
def internal() -> InternalCoordinates:
    return InternalCoordinates.from_bonds(ATOMS, BONDS, ELEMENTS)


@pytest.fixture(scope="module")
def conformers(internal: InternalCoordinates) -> torch.Tensor:
    """Return molecules with thermal bonds and angles and any torsion, turned in space."""
    generator = torch.Generator().manual_seed(3)
    n = 60
    q = torch.zeros(n, internal.dimension, dtype=torch.float64)
    draw = torch.randn(q.shape, generator=generator, dtype=torch.float64)
    q[:, internal.is_bond] = 0.13 + 0.003 * draw[:, internal.is_bond]
    q[:, internal.is_angle] = 1.91 + 0.05 * draw[:, internal.is_angle]
    stiff = internal.is_torsion & ~internal.is_soft
    signs = torch.tensor([1.0, -1.0]).double() * 2.09
    q[:, stiff] = signs[: int(stiff.sum())] + 0.05 * draw[:, stiff]
    turns = torch.rand(n, int(internal.is_soft.sum()), generator=generator, dtype=torch.float64)
    q[:, internal.is_soft] = (2 * turns - 1) * torch.pi
    return rotated(internal.to_cartesian(q)[0], generator)


def rotated(x: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    draw = torch.randn(len(x), 3, 3, generator=generator, dtype=torch.float64)
    rotation, _ = torch.linalg.qr(draw)
    return x @ (rotation * torch.linalg.det(rotation).sign()[:, None, None])


def straight(scale: float = GAMMA) -> StochasticInterpolant:
    return StochasticInterpolant(torch.full((3 * ATOMS,), scale, dtype=torch.float64), DIMENSION)


def curved(internal: InternalCoordinates, scale: float = GAMMA) -> CurvedInterpolant:
    return CurvedInterpolant(torch.full((3 * ATOMS,), scale, dtype=torch.float64), DIMENSION, internal)


def spring_space(internal: InternalCoordinates, x: torch.Tensor) -> CartesianSpace:
    return CartesianSpace(internal, SpringTarget(x[0], 1e4), SpringTarget(x[1], 2e4), straight())


def test_path_stays_in_the_centred_subspace(internal: InternalCoordinates, conformers: torch.Tensor) -> None:
    space = CartesianSpace(internal, SpringTarget(conformers[0], 1.0), SpringTarget(conformers[1], 1.0), straight())
    data = build_path_data(space, conformers, conformers.flip(0), arcsine_levels(5), 40, named_generator(0, "path"))
    assert data.dimension == DIMENSION
    assert data.y.unflatten(-1, (-1, 3)).mean(-2).abs().max() < 1e-12
    square = space.noise(4000, named_generator(0, "noise")).square().sum(-1).mean()
    assert abs(float(square) - DIMENSION) < 4 * (2 * DIMENSION / 4000) ** 0.5
    assert data.end_energy.untyped_storage().nbytes() <= 8 * data.end_energy[..., 0].numel() * 2


def test_pairs_are_superposed_relabelled_and_never_mirrored(
    internal: InternalCoordinates, conformers: torch.Tensor
) -> None:
    space = spring_space(internal, conformers)
    x_0 = conformers[:30]
    generator = torch.Generator().manual_seed(8)
    shuffled = rotated(x_0[torch.randperm(30, generator=generator)], generator) + 1.0
    turned = shuffled[:, [0, 1, 2, 3, 5, 6, 4]]
    torch.testing.assert_close(space.pair(x_0, turned)[0], x_0, atol=1e-9, rtol=0)
    # A pair far apart: the goal keeps its handedness, and no further rotation brings it closer.
    x_1, _ = space.pair(x_0, conformers[30:])
    quadruple = torch.tensor([[1, 4, 5, 6]])
    assert torch.equal(chirality(x_1, quadruple).sign(), chirality(x_0, quadruple).sign())
    torque = torch.linalg.cross(remove_mean(x_0), remove_mean(x_1)).sum(1)
    assert torque.abs().max() < 1e-9


def test_forces_turn_with_their_pair(internal: InternalCoordinates, conformers: torch.Tensor) -> None:
    space = spring_space(internal, conformers)
    x_0, x_1 = conformers[:10], conformers[10:20]
    rotation = rotated(torch.eye(3).double()[None], torch.Generator().manual_seed(4))[0]
    forces = space.pair_forces(x_0, x_1).unflatten(-1, (-1, 3))
    turned = space.pair_forces(x_0 @ rotation, x_1 @ rotation).unflatten(-1, (-1, 3))
    torch.testing.assert_close(turned, forces @ rotation)
    own = space.target_b.energy_and_force(x_1)[1]
    torch.testing.assert_close(forces[:, 1], own)


def test_target_score_of_a_pool_is_that_of_the_relabelled_pair(
    internal: InternalCoordinates, conformers: torch.Tensor
) -> None:
    space = spring_space(internal, conformers)
    data = build_path_data(space, conformers, conformers.flip(0), arcsine_levels(3), 20, named_generator(1, "path"))
    # The exact ends are the pair's own members: their forces must be those at the configuration itself.
    for level, side, target in ((0, 0, space.target_a), (-1, 1, space.target_b)):
        force = FlatTarget(target).energy_and_force(data.y[level])[1]
        torch.testing.assert_close(data.end_force[level, :, side], force)


def test_curved_path_keeps_bonds_where_the_straight_one_breaks_them(
    internal: InternalCoordinates, conformers: torch.Tensor
) -> None:
    path = curved(internal)
    x_0, x_1 = remove_mean(conformers[:30]), remove_mean(conformers[30:])
    y_0, way = x_0.flatten(1), (x_1 - x_0).flatten(1)
    half = torch.full((30,), 0.5, dtype=torch.float64)
    for t, goal in ((0 * half, x_0), (2 * half, x_1)):
        torch.testing.assert_close(path.middle(y_0, way, t), goal.flatten(1), atol=1e-9, rtol=0)

    def shortest_bond(y: torch.Tensor) -> float:
        return float(internal.from_cartesian(y.unflatten(1, (-1, 3)))[:, internal.is_bond].min())

    assert shortest_bond(y_0 + 0.5 * way) < 0.10
    middle = path.middle(y_0, way, half)
    assert shortest_bond(middle) > 0.118
    assert middle.unflatten(1, (-1, 3)).mean(1).abs().max() < 1e-12


def test_curved_scores_are_gradients_of_its_density(internal: InternalCoordinates, conformers: torch.Tensor) -> None:
    path = curved(internal)
    x_0, x_1 = remove_mean(conformers[:5]).flatten(1), remove_mean(conformers[5:10]).flatten(1)
    z = remove_mean(torch.randn(5, ATOMS, 3, generator=torch.Generator().manual_seed(1)).double()).flatten(1)
    t = torch.full((5,), 0.3, dtype=torch.float64)
    y = path.sample(x_0, x_1 - x_0, t, z).requires_grad_()
    density = path.conditional_log_density(y, x_0, x_1 - x_0, t)
    (gradient,) = torch.autograd.grad(density.sum(), y)
    torch.testing.assert_close(gradient, path.conditional_score(y, x_0, x_1 - x_0, t))
    torch.testing.assert_close(gradient, -z / path.gamma(t)[:, :1], atol=1e-6, rtol=1e-6)
    with pytest.raises(ValueError, match="no time score"):
        path.conditional_time_score(x_1 - x_0, t, z)


def test_soft_cap_changes_nothing_below_and_bounds_what_is_above(conformers: torch.Tensor) -> None:
    target = SpringTarget(conformers[0], 1e5)
    plain, soft = FlatTarget(target), FlatTarget(target, cap=30.0)
    y = torch.cat([conformers[:1] * scale for scale in (1.0, 1.02, 0.4, 5.0)]).flatten(1)
    (energy, force), (softened, soft_force) = plain.energy_and_force(y), soft.energy_and_force(y)
    below = energy < 30
    assert below.any()
    assert energy.max() > 1e4
    torch.testing.assert_close(softened[below], energy[below])
    torch.testing.assert_close(soft_force[below], force[below])
    assert softened.max() < 30 + 20 * np.log1p(float(energy.max()) / 20)
    impossible = torch.tensor([torch.inf, 1.0], dtype=torch.float64)
    assert plain._soften(impossible).tolist() == soft._soften(impossible).tolist() == [math.inf, 1.0]
    torch.testing.assert_close(soft_force, Target.energy_and_force(soft, y)[1])


def test_atom_types_see_the_surroundings() -> None:
    types = atom_types(ELEMENTS, BONDS)
    assert types[4] == types[5] == types[6]
    assert len(set(types)) == 5
    assert sorted(set(types)) == list(range(5))


class ExactPath(torch.nn.Module):
    """The path's own energy between two concentric harmonic clusters, spoiled at the ends by ``error``."""

    def __init__(self, places: torch.Tensor, error: float) -> None:
        super().__init__()
        self.places, self.error = remove_mean(places).flatten(), error

    def forward(self, y: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        square = (y - self.places).square().sum(-1)
        # Independent pairs of one centre: variances add.
        variance = ((1 - t) * SIGMA_A) ** 2 + (t * SIGMA_B) ** 2 + t * (1 - t) * GAMMA**2
        wrong = self.error * ((t < 1e-6) | (t > 1 - 1e-6)) * torch.sin(300 * y[:, 0])
        return 0.5 * square / variance + wrong


class IndependentPairs(CartesianSpace):
    """Pairs as they come: no transport, so that the path's density is known."""

    def pair(self, x_0: torch.Tensor, x_1: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return x_1, torch.arange(len(x_1))


def cluster_data(internal: InternalCoordinates, places: torch.Tensor) -> tuple[IndependentPairs, Pools]:
    a, b = HarmonicCluster(places, SIGMA_A), HarmonicCluster(places, SIGMA_B)
    space = IndependentPairs(internal, a, b, straight())
    frames = [target.sample(3000, named_generator(5, name)) for name, target in (("a", a), ("b", b))]
    settings = LearningSettings(levels=17, pool=1500, evaluation_pool=1500)
    half = slice(0, 1500), slice(1500, 3000)
    pools = build_pools(
        space, (frames[0][half[0]], frames[1][half[0]]), (frames[0][half[1]], frames[1][half[1]]), settings, seed=2
    )
    return space, pools


def test_estimates_are_exact_for_an_exact_path(internal: InternalCoordinates, conformers: torch.Tensor) -> None:
    space, pools = cluster_data(internal, conformers[0])
    model: EnergyModel = UnanchoredEnergyModel(ExactPath(conformers[0], 0.0), pools.evaluation.levels)
    found = answers(model, pools.evaluation, space, stride=1)
    for estimate in (found.integral, found.exact_ends):
        assert abs(estimate.value - EXACT) < 4 * estimate.stderr + 0.02
    assert max(correction.spread for correction in found.corrections) < 1e-9
    assert found.cost.energy_evaluations == 2 * 17 * 1500


def test_wrong_learned_ends_do_not_reach_the_answer(internal: InternalCoordinates, conformers: torch.Tensor) -> None:
    space, pools = cluster_data(internal, conformers[0])
    right = UnanchoredEnergyModel(ExactPath(conformers[0], 0.0), pools.evaluation.levels)
    wrong = UnanchoredEnergyModel(ExactPath(conformers[0], 3.0), pools.evaluation.levels)
    reference, found = (answers(model, pools.evaluation, space, stride=1) for model in (right, wrong))
    assert found.exact_ends.value == pytest.approx(reference.exact_ends.value, abs=1e-9)
    for correction in found.corrections:
        assert correction.spread > 1.0
        assert correction.n_effective < 0.7 * pools.evaluation.y.shape[1]
        assert abs(correction.shift) > 4 * correction.stderr


def test_stride_must_reach_the_last_level(internal: InternalCoordinates, conformers: torch.Tensor) -> None:
    space, pools = cluster_data(internal, conformers[0])
    model = UnanchoredEnergyModel(ExactPath(conformers[0], 0.0), pools.evaluation.levels)
    with pytest.raises(ValueError, match="do not reach"):
        answers(model, pools.evaluation, space, stride=3)


def molecule_model(
    internal: InternalCoordinates, x: torch.Tensor, kind: type[EnergyModel], levels: torch.Tensor, seed: torch.Generator
) -> EnergyModel:
    scaled = ScaledInternal.fit(internal, internal.from_cartesian(x))
    graph = DenseEnergyNet(atom_types(ELEMENTS, BONDS), BONDS, seed, EquivariantConfig(hidden=8, layers=2))
    bonded = TorsionEnergyNet(internal.is_soft, internal.symmetry, seed, TorsionConfig(hidden=8, layers=1))
    return kind(PreconditionedMoleculeNet(graph, bonded, scaled), levels)


def test_networks_do_not_see_rigid_motions(internal: InternalCoordinates, conformers: torch.Tensor) -> None:
    generator = torch.Generator().manual_seed(9)
    model = molecule_model(internal, conformers, UnanchoredEnergyModel, arcsine_levels(5), generator).double()
    flat = FlatMoleculeNet(model.net.molecule).double()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3, generator=generator)
    t = torch.full((10,), 0.4, dtype=torch.float64)
    x = conformers[:10]
    moved = rotated(x, generator) + 0.5
    for net in (model.net, flat):
        before = net(x.flatten(1), t)
        assert before.std() > 1e-3
        torch.testing.assert_close(net(moved.flatten(1), t), before)


def test_anchored_route_is_exact_at_the_ends_and_resumes(
    internal: InternalCoordinates, conformers: torch.Tensor, tmp_path: Path
) -> None:
    a, b = SpringTarget(conformers[0], 2e4), SpringTarget(conformers[0], 3e4)
    # The springs know one hydrogen of a methyl from another, so relabelling may raise an energy.
    caps = tuple(2 * float(target.energy(conformers).max()) for target in (a, b))
    space = AnchoredCartesianSpace(internal, a, b, curved(internal), caps)
    training = TrainingSettings(steps=6, groups=4, group_size=3, log_every=2, checkpoint_every=3, seed=1)
    settings = LearningSettings(levels=5, pool=30, evaluation_pool=30, training=training)
    pools = build_pools(space, (conformers, conformers), (conformers, conformers), settings, seed=0)

    def make(levels: torch.Tensor, generator: torch.Generator) -> EnergyModel:
        return molecule_model(internal, conformers, AnchoredEnergyModel, levels, generator)

    whole, _ = train_replicate(make, pools, settings, seed=1)
    found = answers(whole.model, pools.evaluation, space, stride=1)
    assert max(correction.spread for correction in found.corrections) < 1e-6

    class StoppedError(Exception):
        pass

    def stop(step: int, steps: int, record: object) -> None:
        if step == 5:
            raise StoppedError

    checkpoint = tmp_path / "cartesian.safetensors"
    with pytest.raises(StoppedError):
        train_replicate(make, pools, settings, seed=1, checkpoint=checkpoint, identity={"leg": "x"}, progress=stop)
    resumed, _ = train_replicate(make, pools, settings, seed=1, checkpoint=checkpoint, identity={"leg": "x"})
    for name, value in whole.model.state_dict().items():
        torch.testing.assert_close(resumed.model.state_dict()[name], value, rtol=0, atol=0)
    with pytest.raises(InputError, match="another training"):
        train_replicate(make, pools, settings, seed=1, checkpoint=checkpoint, identity={"leg": "y"})


def test_unanchored_training_uses_true_forces(internal: InternalCoordinates, conformers: torch.Tensor) -> None:
    space = spring_space(internal, conformers)
    training = TrainingSettings(
        steps=8, groups=4, group_size=3, log_every=8, weights=ObjectiveWeights(1.0, 1.0, 0.5), seed=1
    )
    settings = LearningSettings(levels=5, pool=30, evaluation_pool=30, training=training)
    pools = build_pools(space, (conformers, conformers), (conformers, conformers), settings, seed=0)

    def make(levels: torch.Tensor, generator: torch.Generator) -> EnergyModel:
        return molecule_model(internal, conformers, UnanchoredEnergyModel, levels, generator)

    result, cost = train_replicate(make, pools, settings, seed=1)
    assert result.history[-1]["gradient_norm.target_score"] > 0
    assert cost.network_evaluations == result.network_evaluations > 0


def thermal_ensemble(system: MolecularSystem, state: str, seed: int) -> ReferenceEnsemble:
    """Return frames in the harmonic neighbourhood of one structure: enough for the plumbing."""
    generator = torch.Generator().manual_seed(seed)
    noise = 0.001 * torch.randn(24, system.n_atoms, 3, generator=generator)
    positions = remove_mean(system.positions.float() + noise)
    energies = system.target(state, 300.0).energy(positions.double())
    provenance = Provenance(system.name, state, 300.0, system.system_hash(state))
    return ReferenceEnsemble(provenance, positions, energies, torch.arange(24) // 6, torch.arange(24) % 6)


def test_stage_leaves_a_row_that_a_second_call_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"LEVELS": 5, "POOL": 12, "GROUPS": 2, "GROUP_SIZE": 2, "MBAR_STRIDE": 1}.items():
        monkeypatch.setattr(solvation_cartesian, name, value)
    config = SolvationConfig(out=tmp_path / "run", cartesian_steps=3, training_seeds=2, device="cpu")
    system = systems.load("aldp")
    leg, other = system.require_leg("polar"), system.require_leg("nonpolar")
    assert solvation_cartesian.wants_cartesian(config, leg)
    assert not solvation_cartesian.wants_cartesian(config, other)
    assert not solvation_cartesian.wants_cartesian(SolvationConfig(), leg)
    with open_run_folder(config.folder, config) as folder:
        folder.progress.plan({"cartesian-polar-0": 1.0})
        stages = SolvationStages(config, folder, system, "cpu")
        for seed, state in enumerate((leg.state_a, leg.state_b)):
            stages._ensembles[state] = thermal_ensemble(system, state, seed)
        first = solvation_cartesian.cartesian(stages, leg, 0)
        monkeypatch.delattr(solvation_cartesian, "train_replicate")
        second = solvation_cartesian.cartesian(stages, leg, 0)
    fact = first.facts["cartesian"]
    assert second.facts["cartesian"] == fact
    assert np.isfinite(fact["value"])
    assert max(fact["end_spread"]) < 1e-3
    assert fact["energy_evaluations"] == 2 * 5 * (12 + 12) + 2 * 5 * 12
    assert first.arrays["cartesian.overlap"].shape == (5, 5)
    assert (folder.path / "models" / "polar-cartesian-0.safetensors").exists()
