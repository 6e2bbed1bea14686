"""Sequential Monte Carlo along the reverse process: weights are right whatever the steps."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from boltzgen_diffclf.errors import InputError, RunFailedError
from boltzgen_diffclf.paths import DiffusionPath, VarianceExploding, VariancePreserving, log_snr_levels
from boltzgen_diffclf.samplers import (
    MarginalProposal,
    ReverseSmc,
    WeightedSamples,
    sample_reverse_weighted,
    spaced_times,
)
from boltzgen_diffclf.samplers.diffusion_smc import EnergyAndGradient
from boltzgen_diffclf.streams import named_generator
from systems.analytic import GaussianMixture, MixtureMarginals

PATHS = {"preserving": VariancePreserving(t_min=1e-3), "exploding": VarianceExploding(0.02, 30.0)}
MIXTURE = GaussianMixture(
    torch.tensor([0.2, 0.8], dtype=torch.float64),
    torch.tensor([[-2.0, 1.0], [2.0, -1.0]], dtype=torch.float64),
    torch.tensor([0.3, 0.3], dtype=torch.float64),
)


def run(name: str, n_levels: int, n: int = 2000, *, slope: float = 1.0, shift: float = 0.0, **rest) -> WeightedSamples:
    """Go down ``exp(-U)``, ``U`` the exact energy plus ``shift`` times log-SNR, with ``slope`` times its gradient."""
    path = PATHS[name]
    marginals, times = MixtureMarginals(MIXTURE, path), log_snr_levels(path, n_levels)
    generator = named_generator(0, "smc")

    def energy_and_gradient(y: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        return marginals.energy(y, t) + shift * path.log_snr(t), slope * marginals.gradient(y, t)

    start = marginals.at(float(times[-1])).sample(n, generator)
    return sample_reverse_weighted(energy_and_gradient, path, times, start, generator, **rest)


@pytest.mark.parametrize("slope", [1.0, 0.8])
@pytest.mark.parametrize("name", list(PATHS))
def test_modes_have_their_weights_though_the_score_that_moves_is_wrong(name: str, slope: float) -> None:
    result = run(name, 150, slope=slope)
    weights = result.log_weights.softmax(0)
    left = result.position[:, 0] < 0
    assert float(weights[left].sum()) == pytest.approx(0.2, abs=0.05)
    mean = (weights[left] @ result.position[left]) / weights[left].sum()
    torch.testing.assert_close(mean, MIXTURE.means[0], atol=0.06, rtol=0)


@pytest.mark.parametrize("resample_below", [0.0, 0.9])
def test_the_ratio_of_normalisers_is_that_of_the_energies(resample_below: float) -> None:
    path = PATHS["preserving"]
    result = run("preserving", 400, n=1000, shift=0.1, resample_below=resample_below)
    span = -float(path.log_snr(torch.tensor([path.t_min, path.t_max])).diff())
    assert float(result.log_normaliser) == pytest.approx(-0.1 * span, abs=0.12)


def hollow(largest_gain: float | None) -> tuple[int, float]:
    """Return the families left, and the weight of the left mode, where some levels have a deep and narrow hole."""
    path, n = PATHS["preserving"], 2000
    marginals, times = MixtureMarginals(MIXTURE, path), log_snr_levels(path, 150)
    generator, place = named_generator(0, "hole"), torch.tensor([1.5, 0.0]).double()

    def energy_and_gradient(y: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        deep = 12 * torch.exp(-(path.log_snr(t).square()) - 50 * (y - place).square().sum(-1))
        return marginals.energy(y, t) - deep, marginals.gradient(y, t)

    smc = ReverseSmc(path, times, largest_gain=largest_gain)
    state = smc.init(energy_and_gradient, marginals.at(float(times[-1])).sample(n, generator))
    for _ in times[1:]:
        state, _ = smc.step(energy_and_gradient, state, generator)
    left = float(state.whole_log_weights.softmax(0)[state.position[:, 0] < 0].sum())
    return len(state.root.unique()), left


def test_what_one_particle_gains_above_all_others_does_not_displace_them() -> None:
    few, _ = hollow(None)
    many, left = hollow(3.0)
    assert many > 3 * few
    assert left == pytest.approx(0.2, abs=0.05)


@pytest.mark.parametrize("largest_gain", [0.5, 3.0])
def test_weights_and_normalisers_are_right_with_some_of_them_put_aside(largest_gain: float) -> None:
    path, n = PATHS["preserving"], 1000
    marginals, times = MixtureMarginals(MIXTURE, path), log_snr_levels(path, 400)
    generator = named_generator(0, "aside")

    def energy_and_gradient(y: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        return marginals.energy(y, t) + 0.1 * path.log_snr(t), marginals.gradient(y, t)

    smc = ReverseSmc(path, times, resample_below=0.9, largest_gain=largest_gain)
    state = smc.init(energy_and_gradient, marginals.at(float(times[-1])).sample(n, generator))
    for _ in times[1:]:
        state, _ = smc.step(energy_and_gradient, state, generator)
    assert float(state.aside.abs().max()) > 0
    weights = state.whole_log_weights.softmax(0)
    assert float(weights[state.position[:, 0] < 0].sum()) == pytest.approx(0.2, abs=0.06)
    log_normaliser = float(state.log_normaliser + state.whole_log_weights.logsumexp(0)) - math.log(n)
    span = -float(path.log_snr(torch.tensor([path.t_min, path.t_max])).diff())
    assert log_normaliser == pytest.approx(-0.1 * span, abs=0.15)


@pytest.mark.parametrize("broken", [math.inf, math.nan])
def test_an_energy_that_is_none_costs_its_particle_alone(broken: float) -> None:
    path = PATHS["preserving"]
    marginals, times = MixtureMarginals(MIXTURE, path), log_snr_levels(path, 60)
    generator, forbidden_ones = named_generator(0, "broken"), list[Tensor]()

    def energy_and_gradient(y: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        # At one level in the midst of the way, and never again.
        forbidden = (t == times[30]) & (y[:, 0] < 0)
        if bool((t == times[30]).all()):
            forbidden_ones.append(forbidden)
        return torch.where(forbidden, broken, marginals.energy(y, t)), marginals.gradient(y, t)

    start = marginals.at(float(times[-1])).sample(200, generator)
    for resample_below in (None, 0.5):
        found = sample_reverse_weighted(
            energy_and_gradient, path, times, start, generator, resample_below=resample_below
        )
        assert bool(found.log_normaliser.isfinite())
        assert not bool(found.log_weights.isnan().any())
        if resample_below is None:
            alive = found.log_weights.isfinite()
            assert 0 < int(forbidden_ones[0].sum()) < 200
            assert torch.equal(alive, ~forbidden_ones[0])


@pytest.mark.parametrize("largest_gain", [None, 3.0])
def test_particles_without_any_weight_stay_without_it(largest_gain: float | None) -> None:
    path = PATHS["preserving"]
    marginals, times = MixtureMarginals(MIXTURE, path), log_snr_levels(path, 60)
    generator = named_generator(0, "wall")

    def energy_and_gradient(y: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        forbidden = (t < times[1]) & (y[:, 0] < 0)
        return torch.where(forbidden, torch.inf, marginals.energy(y, t)), marginals.gradient(y, t)

    smc = ReverseSmc(path, times, resample_below=None, largest_gain=largest_gain)
    state = smc.init(energy_and_gradient, marginals.at(float(times[-1])).sample(200, generator))
    for _ in times[1:]:
        state, _ = smc.step(energy_and_gradient, state, generator)
    left = state.position[:, 0] < 0
    assert 0 < int(left.sum()) < 200
    assert bool((state.whole_log_weights[left] == -torch.inf).all())
    assert bool(state.whole_log_weights[~left].isfinite().all())


def test_steps_as_wide_as_the_modes_waste_fewer_samples() -> None:
    narrow, wide = (run("preserving", 60, resolution=rho, resample_below=0.0) for rho in (0.0, 0.3))
    assert float(wide.effective_sample_size[-1]) > 2 * float(narrow.effective_sample_size[-1])


def test_one_gaussian_of_that_width_is_followed_without_error() -> None:
    gaussian = GaussianMixture(
        torch.ones(1).double(), torch.tensor([[1.0, -2.0]]).double(), torch.tensor([0.3]).double()
    )
    path = PATHS["exploding"]
    marginals, times = MixtureMarginals(gaussian, path), log_snr_levels(path, 5)
    stream = named_generator(1, "one")
    start = marginals.at(float(times[-1])).sample(500, stream)
    result = sample_reverse_weighted(
        lambda y, t: (marginals.energy(y, t), marginals.gradient(y, t)), path, times, start, stream, resolution=0.3
    )
    assert float(result.log_weights.abs().max()) < 1e-6
    assert abs(float(result.log_normaliser)) < 1e-6


def exact_energy(path: DiffusionPath, mixture: GaussianMixture = MIXTURE) -> EnergyAndGradient:
    marginals = MixtureMarginals(mixture, path)
    return lambda y, t: (marginals.energy(y, t), marginals.gradient(y, t))


def test_a_target_at_the_end_takes_the_place_of_the_last_energy() -> None:
    """Its normaliser too, and nothing but its energy is asked for."""

    class Shifted(GaussianMixture):
        def energy_and_force(self, x: Tensor) -> tuple[Tensor, Tensor]:
            raise AssertionError("the force of the target is not needed")

    target = Shifted(MIXTURE.weights.flip(0), MIXTURE.means, MIXTURE.sigmas, log_normaliser=3.0)
    path = PATHS["preserving"]
    marginals, times = MixtureMarginals(MIXTURE, path), log_snr_levels(path, 60)
    stream = named_generator(3, "target")
    start = marginals.at(1.0).sample(2000, stream)
    result = sample_reverse_weighted(exact_energy(path), path, times, start, stream, target=target, resolution=0.3)
    weights = result.log_weights.softmax(0)
    assert float(weights[result.position[:, 0] < 0].sum()) == pytest.approx(0.8, abs=0.06)
    assert float(result.log_normaliser) == pytest.approx(3.0, abs=0.1)


def test_a_target_in_double_precision_weighs_single_precision_particles_in_double() -> None:
    path, far, ends = PATHS["exploding"], 1e8, []
    energy, times = exact_energy(path, MIXTURE.to(dtype=torch.float32)), log_snr_levels(path, 3).float()
    for log_normaliser in (-far, 0.0):
        target = GaussianMixture(MIXTURE.weights, MIXTURE.means, MIXTURE.sigmas, log_normaliser)
        smc, stream = ReverseSmc(path, times, target, resample_below=None), named_generator(7, "double")
        state = smc.init(energy, torch.randn(20, 2, generator=stream))
        for _ in times[1:]:
            state, _ = smc.step(energy, state, stream)
        ends.append(state)
    assert ends[0].position.dtype == ends[0].energy.dtype == torch.float32
    torch.testing.assert_close(ends[0].log_weights + far, ends[1].log_weights, atol=1e-6, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_killed_descent_resumes_to_the_same_particles(tmp_path: Path, dtype: torch.dtype) -> None:
    path, mixture = PATHS["exploding"], MIXTURE.to(dtype=dtype)
    energy, times = exact_energy(path, mixture), log_snr_levels(path, 12).to(dtype)
    smc, stream = ReverseSmc(path, times, mixture, resample_below=0.9), named_generator(4, "resume")
    state = smc.init(energy, MixtureMarginals(mixture, path).at(1.0).sample(50, stream))
    for _ in range(5):
        state, _ = smc.step(energy, state, stream)
    save_file(state.tensors() | {"generator": stream.get_state()}, tmp_path / "state.safetensors")
    banked = []
    for _ in range(6):
        state, info = smc.step(energy, state, stream)
        banked.append(float(info.log_normaliser_increment))
    saved, fresh = load_file(tmp_path / "state.safetensors"), named_generator(9, "another")
    fresh.set_state(saved.pop("generator"))
    resumed = smc.init(energy, torch.zeros(50, 2, dtype=dtype)).with_tensors(saved)
    for _ in range(6):
        resumed, _ = smc.step(energy, resumed, fresh)
    assert all(torch.equal(resumed.tensors()[name], tensor) for name, tensor in state.tensors().items())
    assert any(value != 0 for value in banked)
    assert (state.position.dtype, state.energy.dtype, state.log_weights.dtype) == (dtype, dtype, torch.float64)
    with pytest.raises(ValueError, match="already are at the first time"):
        smc.step(energy, state, stream)


def test_steps_and_the_whole_descent_are_one_and_nothing_is_recorded() -> None:
    path, stream = PATHS["exploding"], named_generator(5, "whole")
    times, start = log_snr_levels(path, 8), 30 * torch.randn(30, 2, generator=stream, dtype=torch.float64)
    smc, before = ReverseSmc(path, times), stream.get_state()
    state = smc.init(exact_energy(path), start)
    for _ in times[1:]:
        state, _ = smc.step(exact_energy(path), state, stream)
    stream.set_state(before)
    whole = sample_reverse_weighted(exact_energy(path), path, times, start.requires_grad_(True), stream)
    assert torch.equal(whole.position, state.position)
    assert not whole.position.requires_grad


def test_spaced_times_hold_the_fraction_and_lie_where_the_steps_are_hard() -> None:
    path, stream = PATHS["exploding"], named_generator(6, "spaced")
    start = MixtureMarginals(MIXTURE, path).at(1.0).sample(400, stream)
    few, many = (spaced_times(exact_energy(path), path, start, stream, wanted=wanted) for wanted in (0.8, 0.98))
    assert float(many[0]) == path.t_min
    assert float(many[-1]) == path.t_max
    assert bool((many.diff() > 0).all())
    assert 3 < len(few) < 0.7 * len(many)
    result = sample_reverse_weighted(exact_energy(path), path, many, start, stream, resample_below=1.0)
    assert float(result.effective_sample_size.mean()) > 0.9 * 400
    # One Gaussian of the width of the proposal needs no level in between.
    gaussian = GaussianMixture(torch.ones(1).double(), torch.zeros(1, 2).double(), torch.tensor([0.3]).double())
    ends = spaced_times(exact_energy(path, gaussian), path, start, stream, proposal=MarginalProposal(0.3))
    assert ends.tolist() == [path.t_min, path.t_max]


def test_times_are_not_spaced_from_where_there_is_no_noise() -> None:
    path, stream = VariancePreserving(t_min=0.0), named_generator(6, "noiseless")
    with pytest.raises(InputError, match="from time 0 to 1 the log signal-to-noise ratio is not finite"):
        spaced_times(exact_energy(path), path, torch.zeros(4, 2, dtype=torch.float64), stream)


def test_times_that_do_not_grow_and_broken_energies_are_refused() -> None:
    path, stream = PATHS["preserving"], named_generator(2, "bad")
    start = torch.zeros(4, 2, dtype=torch.float64)
    with pytest.raises(ValueError, match="growing"):
        sample_reverse_weighted(lambda y, t: (y.sum(1), y), path, torch.tensor([0.5, 0.2]).double(), start, stream)
    with pytest.raises(RunFailedError, match="finite"):
        sample_reverse_weighted(
            lambda y, t: (math.nan * y.sum(1), y), path, torch.tensor([0.2, 0.5]).double(), start, stream
        )
