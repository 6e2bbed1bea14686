"""Noised energies of molecules: the space they live in, what they cannot tell apart, and the file they are kept in."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import h5py
import pytest
import torch
from torch import Tensor

from boltzgen_diffclf.coordinates import CentredCoordinates, log_normal_centred, remove_mean
from boltzgen_diffclf.errors import InputError
from boltzgen_diffclf.molecule_target import LearnedMoleculeTarget
from boltzgen_diffclf.nets.flat_molecule import CentredMoleculeNet
from boltzgen_diffclf.nets.invariants import (
    MODES,
    MOST_VOLUMES,
    NoisedInvariants,
    all_triples,
    invariant_moments,
    mode_volumes,
    principal_modes,
    signed_volumes,
    volume_quadruples,
)
from boltzgen_diffclf.noised_energy import NoisedEnergyModel
from boltzgen_diffclf.paths import PATHS
from boltzgen_diffclf.streams import named_generator
from boltzgen_diffclf.training.checkpoint import load_checkpoint, save_checkpoint
from boltzgen_diffclf.training.level_curves import gaussian_length
from boltzgen_diffclf.training.molecule_model import (
    FORMAT,
    KIND,
    NETWORKS,
    MoleculeModel,
    MoleculeSpec,
    build_molecule_model,
    coordinates_of,
    load_molecule_model,
    measure_molecule,
    molecule_pool,
)
from boltzgen_diffclf.training.noised_problem import NoisedObjective
from boltzgen_diffclf.training.noised_training import LARGEST_GAP, NoisedSizes, NoisedTraining, train_noised
from boltzgen_diffclf.training.objectives import NOISED_OBJECTIVES
from workflows.molecule_settings import OBJECTIVES

pytestmark = pytest.mark.usefixtures("eager_mode")

CHAIN = ((0, 1), (1, 2), (2, 3), (3, 4))
TYPES = (0, 1, 2, 3, 4)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=named_generator(seed, "test"), dtype=torch.float64)


def frames(n: int = 200) -> Tensor:
    """Return a bent chain [nm] with stiff bonds and one soft end, turned at random."""
    still = torch.tensor([[0, 0, 0], [1.3, 0, 0], [2, 1.2, 0], [3.4, 1.1, 0.6], [4, 2.2, 1.1]], dtype=torch.float64)
    moved = 0.1 * still + 0.003 * normal(n, 5, 3)
    moved[:, 4] += 0.03 * normal(n, 3, seed=1)
    turns = torch.linalg.qr(normal(n, 3, 3, seed=2))[0]
    turns *= torch.linalg.det(turns).sign()[:, None, None]
    return moved @ turns


def molecule(network: str = "invariants", path: str = "vp", *, trained: bool = True) -> NoisedEnergyModel:
    """Return a model of :func:`frames` in double precision, every weight moved as if it had been trained."""
    spec = MoleculeSpec(TYPES, CHAIN, path, 16, network, 16, 2, 8, 2)
    model = build_molecule_model(
        spec, measure_molecule(frames(), CHAIN, named_generator(0, "r")), named_generator(0, "w")
    )
    model = model.double()
    with torch.no_grad():
        for k, weight in enumerate(model.net.parameters() if trained else ()):
            weight += 0.2 * normal(*weight.shape, seed=100 + k)
    return model.eval().requires_grad_(False)


def times(model: NoisedEnergyModel, n: int) -> Tensor:
    levels = model.curve.levels
    return levels[torch.linspace(0, len(levels) - 1, n).long()]


def test_centred_coordinates_are_an_isometry_without_the_centroid() -> None:
    coordinates = CentredCoordinates(4, 0.25).double()
    x = remove_mean(normal(6, 4, 3))
    y = coordinates.from_cartesian(x + 3.0)
    position, log_jacobian = coordinates.to_cartesian(y)
    torch.testing.assert_close(position, x, rtol=0, atol=1e-6)
    torch.testing.assert_close(0.25 * y.norm(dim=1), x.flatten(1).norm(dim=1), rtol=1e-6, atol=0)
    columns = torch.distributions.Normal(0.0, 1.0).log_prob(y).sum(1)
    torch.testing.assert_close(columns - log_jacobian, log_normal_centred(x, 0.25), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("n_atoms", "length"), [(1, 1.0), (3, 0.0), (3, float("nan"))])
def test_centred_coordinates_need_two_atoms_and_a_length(n_atoms: int, length: float) -> None:
    with pytest.raises(ValueError, match="two atoms and a positive length"):
        CentredCoordinates(n_atoms, length)


@pytest.mark.parametrize("n_modes", [0, 4])
@pytest.mark.parametrize("t", [0.0, 0.4, 1.0])
def test_invariants_are_standardised_at_every_level(t: float, n_modes: int) -> None:
    x = frames(8000)
    x = remove_mean(x) / (remove_mean(x).square().sum((1, 2)).mean() / 12).sqrt()
    quadruples, ends = volume_quadruples(5, [*CHAIN, (2, 4)]), (6.0, -3.0)
    modes = torch.linalg.eigh(torch.einsum("fax,fbx->ab", x, x))[1].T.flip(0)[:n_modes]
    seen = NoisedInvariants(5, quadruples, modes, invariant_moments(x, quadruples, modes), ends).double()
    snr = torch.tensor((1 - t) * ends[0] + t * ends[1], dtype=torch.float64).exp()
    noised = snr.sqrt() * x + remove_mean(normal(8000, 5, 3, seed=3))
    features = seen(noised / (1 + snr).sqrt(), torch.full((8000,), t, dtype=torch.float64))
    assert seen.n_features == features.shape[1] == 10 + len(quadruples) + n_modes
    assert features.mean(0).abs().max() < 4 / 8000**0.5
    # The variance of a variance grows with the fourth moment, which for products of normals is large.
    assert (features.var(0) - 1).abs().max() < 0.2


def test_a_large_molecule_has_volumes_of_its_chains_its_centres_and_all_its_inner_atoms() -> None:
    """Ten atoms in a row, each with a leaf."""
    row, leaves = [(k, k + 1) for k in range(9)], [(k, k + 10) for k in range(10)]
    found = {frozenset(quadruple) for quadruple in volume_quadruples(20, [*row, *leaves]).tolist()}
    assert len(volume_quadruples(20, [*row, *leaves])) == len(found) <= MOST_VOLUMES
    chains = [{k, k + 1, k + 2, k + 3} for k in range(7)] + [{10, 0, 1, 2}, {10, 0, 1, 11}, {4, 5, 6, 16}]
    centres = [{3, 2, 4, 13}]
    inner = [{1, 3, 5, 8}, {1, 2, 7, 8}]
    assert all(frozenset(one) in found for one in (*chains, *centres, *inner))
    assert frozenset({10, 12, 14, 16}) not in found


def test_modes_of_a_large_molecule_say_what_hand_it_is_of_and_a_small_one_needs_none() -> None:
    assert measure_molecule(frames(), CHAIN, named_generator(0, "r")).modes == ()
    x = remove_mean(0.1 * normal(1, 12, 3) + 0.01 * normal(300, 12, 3, seed=1))
    modes = principal_modes(x)
    assert modes.shape == (MODES, 12)
    torch.testing.assert_close(modes @ modes.T, torch.eye(MODES, dtype=torch.float64))
    assert float(modes.sum(1).abs().max()) < 1e-10
    # Most of the form is in the first of them.
    assert float((modes[:3] @ x).square().sum()) > 0.9 * float(x.square().sum())
    volumes = mode_volumes(x, modes, all_triples(len(modes)))
    torch.testing.assert_close(mode_volumes(-x, modes, all_triples(len(modes))), -volumes)
    torch.testing.assert_close(volumes[:, 0], torch.linalg.det(modes[:3] @ x))
    chain = tuple((k, k + 1) for k in range(11))
    spec = MoleculeSpec(tuple(range(12)), chain, "vp", 16, "invariants", 16, 2)
    statistics = measure_molecule(x, chain, named_generator(0, "r"))
    net = build_molecule_model(spec, statistics, named_generator(0, "w")).get_submodule("net.invariants.invariants")
    few = replace(statistics, modes=(), mode_volumes=((),) * 4)
    without = build_molecule_model(spec, few, named_generator(0, "w")).get_submodule("net.invariants.invariants")
    assert net.n_features - without.n_features == MODES * (MODES - 1) * (MODES - 2) // 6


@pytest.mark.parametrize("kept", [0.2, 0.5, 0.9])
def test_noise_of_one_two_and_three_edges_adds_to_the_variance_of_a_volume(kept: float) -> None:
    x, lost, quadruple = 3 * normal(1, 4, 3), 1 - kept, torch.tensor([[0, 1, 2, 3]])
    moments = invariant_moments(x.expand(2, -1, -1), quadruple, torch.empty(0, 4).double())
    mean, _, one, two = moments.volumes[:, 0].tolist()
    volumes = signed_volumes(kept**0.5 * x + lost**0.5 * normal(100_000, 4, 3, seed=9), quadruple)
    expected = kept**2 * lost * one + kept * lost**2 * two + 24 * lost**3
    assert float(volumes.mean()) == pytest.approx(kept**1.5 * mean, abs=4 * (expected / 100_000) ** 0.5)
    # The moderate tails of a product of normals: a relative error of about 2 / sqrt(n).
    assert float(volumes.var()) == pytest.approx(expected, rel=0.03)


@pytest.mark.parametrize("network", list(NETWORKS))
def test_the_energy_ignores_motion_and_tells_mirror_images_apart(network: str) -> None:
    model = molecule(network)
    coordinates, t = coordinates_of(model), times(molecule(), 1).expand(8)
    x = frames(8) + 0.02 * normal(8, 5, 3, seed=4)
    turn = torch.linalg.qr(normal(3, 3, seed=5))[0]
    turn *= torch.linalg.det(turn).sign()
    energy = model.energy(coordinates.from_cartesian(x), t)
    turned = model.energy(coordinates.from_cartesian(x @ turn + 1.7), t)
    torch.testing.assert_close(turned, energy, rtol=1e-5, atol=1e-4)
    mirrored = model.energy(coordinates.from_cartesian(x * torch.tensor([-1.0, 1.0, 1.0])), t)
    assert (mirrored - energy).abs().max() > 1e-3


@pytest.mark.parametrize("path", ["vp", "edm"])
def test_a_fresh_model_is_the_normalised_gaussian_of_the_centred_space(path: str) -> None:
    model = molecule(path=path, trained=False)
    t, noising = times(model, 6), PATHS[path]
    target = LearnedMoleculeTarget(model, coordinates_of(model), float(t[2]))
    x = remove_mean(normal(6, 5, 3))
    sigma = torch.hypot(noising.alpha(t[2:3]), noising.sigma(t[2:3])) * coordinates_of(model).length_nm
    torch.testing.assert_close(-target.energy(x), log_normal_centred(x, float(sigma)), rtol=1e-6, atol=1e-4)
    assert target.dimension == 12


@pytest.mark.parametrize("network", ["invariants", "harmonic"])
def test_what_is_learned_of_invariants_is_in_kt_at_the_data_and_over_noise_in_noise(network: str) -> None:
    model, fresh = molecule(network), molecule(network, trained=False)
    coordinates, t = coordinates_of(model), times(model, 16)
    y = coordinates.from_cartesian(frames(1)).expand(16, -1)
    noising = PATHS["vp"]
    h = coordinates.positions(y / torch.hypot(noising.alpha(t), noising.sigma(t))[:, None]) / coordinates.length_nm
    net, time, s = model.net.get_submodule("invariants"), model.net_time(t), model.net_weight(t)
    learned = net.get_submodule("energy")(net.get_submodule("invariants")(h, time), time)
    torch.testing.assert_close(model.energy(y, t) - fresh.energy(y, t), s / (1 + s) * learned, rtol=1e-5, atol=1e-6)
    assert float(s[0]) > 10


def test_a_quadratic_form_weighs_an_invariant_by_kt_at_the_data_and_vanishes_in_noise() -> None:
    model = molecule("harmonic", trained=False)
    net = model.get_submodule("net.invariants")
    t, y = times(model, 6), coordinates_of(model).from_cartesian(frames(6))
    plain = model.energy(y, t)
    torch.nn.init.ones_(net.get_parameter("energy.own_stiffness.bias"))
    torch.nn.init.constant_(net.get_parameter("energy.mixed_stiffness.bias"), 2.0)
    place = model.data.back(y / torch.hypot(PATHS["vp"].alpha(t), PATHS["vp"].sigma(t))[:, None])
    z = net.get_submodule("invariants")(
        coordinates_of(model).positions(place) / coordinates_of(model).length_nm, model.net_time(t)
    )
    form = 0.5 * z.square().sum(1) + net.get_submodule("energy.mixed")(z).square().sum(1)
    s = model.net_weight(t)
    torch.testing.assert_close(model.energy(y, t) - plain, s / (1 + s) * form, rtol=1e-5, atol=1e-6)
    assert float(s[0] / (1 + s[0])) > 0.9
    assert float(s[-1]) < 0.02


@pytest.mark.parametrize("network", ["invariants", "both", "harmonic"])
def test_the_force_of_the_target_is_the_slope_of_its_energy(network: str) -> None:
    model = molecule(network)
    target = LearnedMoleculeTarget(model, coordinates_of(model), float(times(model, 3)[0]))
    x = frames(5).requires_grad_(True)
    (slope,) = torch.autograd.grad(target.energy(x).sum(), x)
    energy, force = target.energy_and_force(x)
    torch.testing.assert_close(energy, target.energy(x.detach()))
    torch.testing.assert_close(force, -slope, rtol=1e-6, atol=1e-6)
    assert not energy.requires_grad


def test_the_resolution_is_not_blind_to_stiff_bonds_nor_misled_by_orientation() -> None:
    statistics = measure_molecule(frames(400), CHAIN, named_generator(0, "r"))
    bond = (frames(400)[:, 0] - frames(400)[:, 1]).norm(dim=1).std()
    assert statistics.resolution * statistics.length_nm < 1.2 * float(bond)
    still = frames(400)[:1].expand(400, -1, -1) + 1e-4 * normal(400, 5, 3, seed=7)
    turns = torch.linalg.qr(normal(400, 3, 3, seed=8))[0]
    turns *= torch.linalg.det(turns).sign()[:, None, None]
    turned = measure_molecule(still @ turns, CHAIN, named_generator(0, "r"))
    assert turned.resolution * turned.length_nm < 2e-4


def test_frames_that_repeat_have_no_resolution_and_give_a_model_all_the_same() -> None:
    statistics = measure_molecule(frames(50).repeat(3, 1, 1), CHAIN, named_generator(0, "r"))
    assert statistics.resolution == 0
    model = build_molecule_model(MoleculeSpec(TYPES, CHAIN), statistics, named_generator(0, "w"))
    assert model.energy(normal(3, 12).float(), times(model, 3)).isfinite().all()


def test_every_offered_objective_is_one_of_a_noised_energy() -> None:
    assert set(OBJECTIVES) <= set(NOISED_OBJECTIVES)


@pytest.mark.parametrize(
    ("objective", "steps", "bound"), [("dsm", 40, 0.95), ("dsm_diffclf", 40, 0.95), ("fokker_planck", 4, 1.2)]
)
def test_training_finds_the_soft_end_of_a_chain(objective: str, steps: int, bound: float) -> None:
    x = frames(400)
    spec = MoleculeSpec(TYPES, CHAIN, "vp", 16, "invariants", 16, 2)
    statistics = measure_molecule(x, CHAIN, named_generator(0, "r"))
    model = build_molecule_model(spec, statistics, named_generator(0, "w"))
    pool = molecule_pool(x, coordinates_of(model))
    chosen: NoisedObjective = NOISED_OBJECTIVES[objective]
    sizes = NoisedSizes(steps, groups=16, learning_rate=5e-3, averaged_steps=10, profile_pool=32)
    training = NoisedTraining(chosen, PATHS["vp"], pool, pool, 12, 0, sizes)
    result, _ = train_noised(model, training)
    # A network of zeros has a denoising loss of one.
    assert result.history[-1]["held_out.denoising"] < bound
    assert result.model.curve.values.isfinite().all()


def test_the_later_steps_have_a_learning_rate_of_their_own(tmp_path: Path) -> None:
    x, spec = frames(100), MoleculeSpec(TYPES, CHAIN, "vp", 16, "invariants", 8, 1)
    statistics = measure_molecule(x, CHAIN, named_generator(0, "r"))
    moved = []
    for rate in (1e-9, 1.0):
        model, file = build_molecule_model(spec, statistics, named_generator(0, "w")), tmp_path / f"{rate}.safetensors"
        pool = molecule_pool(x, coordinates_of(model))
        sizes = NoisedSizes(8, groups=4, profile_pool=16, later_rate=rate)
        objective: NoisedObjective = replace(NOISED_OBJECTIVES["dsm_diffclf"], pretraining=0.5)
        training = NoisedTraining(objective, PATHS["vp"], pool, pool, 12, 0, sizes, checkpoint=file)
        after = train_noised(model, training)[0].model.net.state_dict()
        before = load_checkpoint(file, {})[0]
        moved.append(max(float((after[key] - before[f"averaged.module.net.{key}"]).abs().max()) for key in after))
    assert moved[0] < 1e-6 < 1e-4 < moved[1]


def test_training_joins_levels_that_are_far_apart_and_the_file_keeps_them(tmp_path: Path) -> None:
    x = frames(400)
    spec = MoleculeSpec(TYPES, CHAIN, "vp", 4, "invariants", 8, 1)
    statistics = measure_molecule(x, CHAIN, named_generator(0, "r"))
    model = build_molecule_model(spec, statistics, named_generator(0, "w"))
    levels, pool = model.curve.levels.tolist(), molecule_pool(x, coordinates_of(model))
    assert float(gaussian_length(model, model.curve.levels).diff().max()) > 4 * LARGEST_GAP
    sizes = NoisedSizes(2, groups=4, group_size=2, profile_pool=16)
    training = NoisedTraining(NOISED_OBJECTIVES["dsm_diffclf"], PATHS["vp"], pool, pool, 12, 0, sizes)
    trained = train_noised(model, training)[0].model
    closer = trained.curve.levels
    # Lengths between the places where they are asked for are straight lines.
    assert float(gaussian_length(trained, closer).diff().max()) < 1.001 * LARGEST_GAP
    assert set(levels) <= set(closer.tolist())
    assert 4 * 4 < len(closer) < 40
    MoleculeModel(trained, spec, statistics, {}).save(tmp_path / "model.safetensors")
    read = load_molecule_model(tmp_path / "model.safetensors").model
    assert torch.equal(read.curve.levels, closer)
    assert torch.equal(read.free_energy(closer), trained.free_energy(closer))


def saved(path: Path, network: str = "both") -> MoleculeModel:
    spec = MoleculeSpec(TYPES, CHAIN, "vp", 16, network, 16, 2, 8, 2)
    statistics = measure_molecule(frames(), CHAIN, named_generator(0, "r"))
    model = molecule(network)
    made = MoleculeModel(model, spec, statistics, {"system": "aldp", "beads": "backbone", "state": "implicit"})
    made.save(path)
    return made


@pytest.mark.parametrize("network", list(NETWORKS))
def test_a_saved_model_is_read_back_without_its_training(network: str, tmp_path: Path) -> None:
    made = saved(tmp_path / "model.safetensors", network)
    read = load_molecule_model(tmp_path / "model.safetensors")
    y, t = normal(6, 12), times(made.model, 6)
    assert torch.equal(read.model.energy(y, t), made.model.energy(y, t))
    assert (read.origin, read.spec, read.statistics) == (made.origin, made.spec, made.statistics)
    assert read.fingerprint == made.fingerprint


def test_a_model_of_other_beads_or_system_is_refused_in_one_line(tmp_path: Path) -> None:
    made = saved(tmp_path / "model.safetensors")
    made.require(system="aldp", beads="backbone", state=None)
    with pytest.raises(InputError, match="the model is of beads backbone, not all: give the model"):
        made.require(system="aldp", beads="all")
    with pytest.raises(InputError, match="of system aldp, not chignolin"):
        made.require(system="chignolin")


def test_what_is_no_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no model"):
        load_molecule_model(tmp_path / "none.safetensors")
    h5py.File(tmp_path / "frames.h5", "w").close()
    with pytest.raises(InputError, match=r"frames\.h5 holds frames, not a model: give the model\.safetensors"):
        load_molecule_model(tmp_path / "frames.h5")
    with pytest.raises(InputError, match=r"is a folder: give the model\.safetensors in it"):
        load_molecule_model(tmp_path)
    save_checkpoint(tmp_path / "state.safetensors", {"w": torch.zeros(1)}, {"identity": {}})
    with pytest.raises(InputError, match="state of a training, not a trained model"):
        load_molecule_model(tmp_path / "state.safetensors")
    identity = {"kind": KIND, "format": FORMAT - 1}
    save_checkpoint(tmp_path / "old.safetensors", {"w": torch.zeros(1)}, {"identity": identity})
    with pytest.raises(InputError, match="another version of this package: train the model again"):
        load_molecule_model(tmp_path / "old.safetensors")
    whole = (tmp_path / "state.safetensors").read_bytes()
    (tmp_path / "cut.safetensors").write_bytes(whole[:-2])
    with pytest.raises(InputError, match="cannot be read"):
        load_molecule_model(tmp_path / "cut.safetensors")


def test_an_unknown_network_is_refused() -> None:
    statistics = measure_molecule(frames(), CHAIN, named_generator(0, "r"))
    with pytest.raises(InputError, match="choose one of invariants, equivariant, both"):
        build_molecule_model(MoleculeSpec(TYPES, CHAIN, network="mlp"), statistics, named_generator(0, "w"))
    with pytest.raises(ValueError, match="needs a network"):
        CentredMoleculeNet(CentredCoordinates(5, 0.1), None, None)


def test_forces_on_frames_are_the_slopes_of_the_log_density_in_the_coordinates_of_the_model() -> None:
    x = frames(3).double()
    coordinates = CentredCoordinates(x.shape[1], 0.2).double()
    pool = molecule_pool(x, coordinates, force=-3.0 * x)
    y = pool.samples.x.clone().requires_grad_(True)
    log_density = -1.5 * coordinates.positions(y).square().sum((1, 2))
    (slope,) = torch.autograd.grad(log_density.sum(), y)
    torch.testing.assert_close(pool.samples.score, slope)
