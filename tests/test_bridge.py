"""The bridge from one energy to another: right weights whatever the first, and families that tell their worth."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from boltzgen_diffclf.estimators.reweighting import diagnose_weights, family_log_weights, reweighted_mean
from boltzgen_diffclf.paths import VarianceExploding, log_snr_levels
from boltzgen_diffclf.samplers import Bridge, BridgeState, ReverseSmc
from boltzgen_diffclf.streams import named_generator
from boltzgen_diffclf.target import GaussianTarget, Target
from systems.analytic import GaussianMixture, MixtureMarginals

DTYPE = torch.float64
MEANS = torch.tensor([[-1.0, 0.5], [1.5, -1.0]], dtype=DTYPE)


def two_modes(left: float, width: float, shift: float = 0.0, log_normaliser: float = 0.0) -> GaussianMixture:
    weights, widths = torch.tensor([left, 1 - left], dtype=DTYPE), torch.full((2,), width, dtype=DTYPE)
    return GaussianMixture(weights, MEANS + shift, widths, log_normaliser)


ORIGIN = two_modes(0.9, 0.3)
TARGET = two_modes(0.1, 0.1, shift=0.1, log_normaliser=2.0)
"""Nine to one where the generator has one to nine, narrower modes and elsewhere; further apart than any move."""


def crossed(n: int = 2000, seed: int = 0, **settings: float) -> tuple[BridgeState, list[float]]:
    bridge, stream = Bridge(ORIGIN, TARGET, first_step_size=0.1, **settings), named_generator(seed, "bridge")
    state = bridge.init(ORIGIN.sample(n, stream), torch.zeros(n, dtype=DTYPE), stream)
    acceptance = []
    while not state.arrived:
        state, info = bridge.step(state, stream)
        acceptance.append(float(info.acceptance))
    return state, acceptance


def left_share(state: BridgeState) -> tuple[float, float]:
    """Return the weight of the left mode, and its error from families."""
    found = reweighted_mean((state.position[:, 0] < 0).double().numpy(), state.log_weights.numpy(), state.root.numpy())
    return found.value, found.stderr


def test_wrong_weights_of_modes_are_put_right_within_the_error_that_families_tell() -> None:
    state, acceptance = crossed()
    share, stderr = left_share(state)
    assert 0.004 < stderr < 0.03
    assert abs(share - 0.1) < 4 * stderr
    weights = state.log_weights.softmax(0)
    right = state.position[:, 0] > 0
    mean = (weights[right] @ state.position[right]) / weights[right].sum()
    torch.testing.assert_close(mean, TARGET.means[1], atol=0.02, rtol=0)
    assert 0.4 < np.mean(acceptance) < 0.8


def test_the_size_of_steps_is_found_by_a_few_particles() -> None:
    stream = named_generator(0, "pilots")
    bridge, position = Bridge(ORIGIN, TARGET, first_step_size=0.001, pilots=100), ORIGIN.sample(1000, stream)
    log_weights = torch.zeros(1000, dtype=DTYPE)
    log_weights[1::2] = -math.inf
    state = bridge.init(position, log_weights, stream)
    moved = (state.position != position).any(1)
    assert moved.nonzero()[:, 0].tolist() == list(range(0, 1000, 10))
    assert float(state.step_size) > 0.01
    share, stderr = left_share(crossed(pilots=100)[0])
    assert abs(share - 0.1) < 4 * stderr


def test_the_error_that_families_tell_is_the_scatter_of_independent_runs() -> None:
    """One that took particles for independent would be a third of it: nine of ten have been resampled away."""
    shares, told, naive = [], [], []
    for seed in range(16):
        state, _ = crossed(400, seed, moves=1)
        share, stderr = left_share(state)
        shares.append(share)
        told.append(stderr)
        inside = (state.position[:, 0] < 0).double().numpy()
        naive.append(reweighted_mean(inside, state.log_weights.numpy()).stderr)
    scatter = float(np.std(shares, ddof=1))
    assert 0.55 < scatter / np.mean(told) < 1.6
    assert scatter > 1.25 * np.mean(naive)
    assert abs(np.mean(shares) - 0.1) < 4 * scatter / math.sqrt(16)


def test_the_normaliser_is_that_of_the_target() -> None:
    state, _ = crossed(4000, wanted=0.95)
    log_mean = state.log_weights.logsumexp(0) - math.log(len(state.log_weights))
    assert float(state.log_normaliser + log_mean) == pytest.approx(2.0, abs=0.15)


def test_a_bridge_leaves_more_than_the_weights_alone() -> None:
    stream = named_generator(1, "wide")
    origin, target = GaussianTarget(20), GaussianTarget(20, sigma=0.3)
    bridge = Bridge(origin, target, first_step_size=0.1)
    position = torch.randn(1000, 20, generator=stream, dtype=DTYPE)
    alone = diagnose_weights(-bridge.difference(position).numpy())
    state = bridge.init(position, torch.zeros(1000, dtype=DTYPE), stream)
    while not state.arrived:
        state, _ = bridge.step(state, stream)
    after = diagnose_weights(family_log_weights(state.log_weights.numpy(), state.root.numpy(), 1000))
    assert alone.n_effective < 10
    assert not alone.reliable
    assert after.n_effective > 20 * alone.n_effective
    squared = state.log_weights.softmax(0) @ (state.position / 0.3).square().mean(1)
    assert float(squared) == pytest.approx(1.0, abs=0.05)


class Walled(Target):
    """A normal whose energy is no number beyond the origin, as that of a broken molecule."""

    event_shape, dimension = (2,), 2

    def energy(self, x: Tensor) -> Tensor:
        return torch.where(x[:, 0] > 0, 0.5 * x.square().sum(-1), torch.nan)


def test_particles_that_the_target_does_not_know_have_no_weight() -> None:
    stream = named_generator(2, "walled")
    bridge = Bridge(GaussianTarget(2), Walled(), first_step_size=0.1)
    state = bridge.init(torch.randn(400, 2, generator=stream, dtype=DTYPE), torch.zeros(400, dtype=DTYPE), stream)
    while not state.arrived:
        state, _ = bridge.step(state, stream)
    weights = state.log_weights.softmax(0)
    assert float(weights[state.position[:, 0] <= 0].sum()) == 0
    assert float(weights @ state.position[:, 0]) == pytest.approx(math.sqrt(2 / math.pi), abs=0.15)


def test_particles_without_weight_do_not_shorten_the_steps_of_the_others() -> None:
    steps = {}
    for dead in (0, 120, 360):
        stream = named_generator(5, "dead")
        bridge = Bridge(GaussianTarget(2), Walled(), first_step_size=0.1, resample_below=None)
        position = torch.randn(400, 2, generator=stream, dtype=DTYPE)
        position[:, 0] = position[:, 0].abs() + 0.2
        position[:dead, 0] = -1e4  # from where no proposal ever leads to the others
        weights = torch.where(torch.arange(400) < dead, -torch.inf, 0.0).double()
        state = bridge.init(position, weights, stream)
        steps[dead] = float(state.step_size)
    assert steps[120] == pytest.approx(steps[0], rel=0.25)
    assert steps[360] == pytest.approx(steps[0], rel=0.4)


def test_particles_saved_on_the_bridge_arrive_as_they_would_have(tmp_path: Path) -> None:
    bridge, stream = Bridge(ORIGIN, TARGET, first_step_size=0.1), named_generator(3, "saved")
    state = bridge.init(ORIGIN.sample(100, stream), torch.zeros(100, dtype=DTYPE), stream)
    state, _ = bridge.step(state, stream)
    save_file({**state.tensors(), "generator": stream.get_state()}, tmp_path / "state.safetensors")
    whole, _ = bridge.step(state, stream)
    tensors = load_file(tmp_path / "state.safetensors")
    other = named_generator(9, "other")
    other.set_state(tensors.pop("generator"))
    again, _ = bridge.step(state.with_tensors(tensors), other)
    for name, tensor in whole.tensors().items():
        assert torch.equal(tensor, again.tensors()[name]), name


def test_nothing_goes_on_beyond_the_end() -> None:
    state, _ = crossed(50)
    with pytest.raises(ValueError, match="already are at the end"):
        Bridge(ORIGIN, TARGET).step(state, named_generator(0, "end"))


def test_the_way_back_tells_which_particle_each_descends_from() -> None:
    path, stream = VarianceExploding(0.05, 10.0), named_generator(4, "roots")
    marginals, times = MixtureMarginals(ORIGIN, path), log_snr_levels(path, 4)
    ancestors = torch.tensor([3, 3, 0, 1])
    smc = ReverseSmc(path, times, resample_below=1.1, resampling=lambda log_weights, generator: ancestors)

    def energy_and_gradient(y: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        return marginals.energy(y, t), marginals.gradient(y, t)

    state = smc.init(energy_and_gradient, torch.randn(4, 2, generator=stream, dtype=DTYPE))
    assert state.root.tolist() == [0, 1, 2, 3]
    once, _ = smc.step(energy_and_gradient, state, stream)
    assert once.root.tolist() == [3, 3, 0, 1]
    assert smc.step(energy_and_gradient, once, stream)[0].root.tolist() == [1, 1, 3, 3]


def test_weights_of_a_family_are_added_up() -> None:
    log_w = np.log(np.array([1.0, 2.0, 3.0, 4.0]))
    families = family_log_weights(log_w, np.array([2, 0, 2, 2]), 4)
    np.testing.assert_allclose(np.exp(families), [2.0, 0.0, 8.0, 0.0])
