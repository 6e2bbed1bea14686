"""The contract of every kernel, replica exchange, annealing and resampling, on targets with known answers."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch

from boltzgen_diffclf.errors import RunFailedError
from boltzgen_diffclf.samplers import (
    RESAMPLINGS,
    Annealing,
    HamiltonianMonteCarlo,
    Kernel,
    Langevin,
    Mala,
    ReplicaExchange,
    UnadjustedLangevin,
    anneal,
    next_lambda,
    spaced_order,
    tune_step_size,
)
from boltzgen_diffclf.samplers.resampling import (
    Resampling,
    effective_sample_size,
    log_mean_exp,
    multinomial,
    residual,
    select,
    stratified,
    systematic,
)
from boltzgen_diffclf.streams import named_generator
from boltzgen_diffclf.target import (
    CountingTarget,
    GaussianTarget,
    Ladder,
    LinearLadder,
    SingleLevel,
    Target,
    TemperatureLadder,
)
from systems.analytic import DoubleWell, GaussianMixture, TiltedHarmonic, TiltedHarmonicPair

MAX_LEVELS = 16


def langevin(timestep: float = 0.1, friction: float = 2.0) -> Langevin:
    return Langevin(timestep, friction, torch.ones(()))


def hamiltonian() -> HamiltonianMonteCarlo:
    return HamiltonianMonteCarlo(torch.full((MAX_LEVELS,), 0.3), 4, torch.ones(()))


def mala() -> Mala:
    return Mala(torch.full((MAX_LEVELS,), 0.1), torch.ones(()))


def unadjusted() -> UnadjustedLangevin:
    return UnadjustedLangevin(torch.full((MAX_LEVELS,), 0.02), torch.ones(()))


KERNELS: dict[str, Callable[[], Kernel[Any]]] = {
    "langevin": langevin,
    "hmc": hamiltonian,
    "mala": mala,
    "unadjusted": unadjusted,
}


@pytest.fixture(params=KERNELS.values(), ids=KERNELS.keys())
def kernel(request: pytest.FixtureRequest) -> Kernel[Any]:
    return request.param()


@pytest.fixture(params=RESAMPLINGS.values(), ids=RESAMPLINGS.keys())
def scheme(request: pytest.FixtureRequest) -> Resampling:
    return request.param


def within_four_standard_errors(values: torch.Tensor, exact: float | torch.Tensor) -> bool:
    """Whether the mean over independent rows agrees with ``exact``."""
    stderr = values.std(0) / math.sqrt(len(values))
    return bool(((values.mean(0) - exact).abs() < 4 * stderr).all())


def run_from(
    kernel: Kernel[Any], ladder: Ladder, start: torch.Tensor, level: torch.Tensor, n_steps: int, seed: int = 0
) -> torch.Tensor:
    generator = named_generator(seed, "moves")
    state, _ = kernel.run(ladder, kernel.init(ladder, start, level, generator), level, n_steps, generator)
    return state.position


def zeros(n: int) -> torch.Tensor:
    return torch.zeros(n, dtype=torch.long)


def identical(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


class Recorder(Ladder):
    """A ladder that notes the batch size of every force evaluation."""

    def __init__(self, ladder: Ladder) -> None:
        self.ladder = ladder
        self.n_levels, self.event_shape, self.dimension = ladder.n_levels, ladder.event_shape, ladder.dimension
        self.dtype, self.device = ladder.dtype, ladder.device
        self.batches: list[int] = []

    def energy(self, x: torch.Tensor, level: torch.Tensor) -> torch.Tensor:
        self.batches.append(len(x))
        return self.ladder.energy(x, level)

    def energy_and_force(self, x: torch.Tensor, level: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        self.batches.append(len(x))
        return self.ladder.energy_and_force(x, level)


class Normal(Target):
    """A normal of any event shape and standard deviation."""

    def __init__(self, event_shape: tuple[int, ...], sigma: torch.Tensor | float = 1.0) -> None:
        self.event_shape, self.dimension, self.sigma = event_shape, math.prod(event_shape), sigma

    def energy(self, x: torch.Tensor) -> torch.Tensor:
        return 0.5 * (x / self.sigma).flatten(1).square().sum(1)


class Hole(Target):
    """A normal whose energy is NaN beyond one."""

    event_shape, dimension = (1,), 1

    def energy(self, x: torch.Tensor) -> torch.Tensor:
        return torch.where(x[:, 0] > 1.0, torch.nan, 0.5 * x.square().sum(-1))


def test_kernel_reaches_the_moments_of_a_gaussian(kernel: Kernel[Any]) -> None:
    ladder = SingleLevel(GaussianTarget(3, sigma=0.7, mean=0.3))
    x = run_from(kernel, ladder, torch.full((4000, 3), 2.0).double(), zeros(4000), 150)
    assert within_four_standard_errors(x, 0.3)
    assert within_four_standard_errors((x - 0.3).square(), 0.49)
    assert within_four_standard_errors((x[:, 0] - 0.3) * (x[:, 1] - 0.3), 0.0)


def test_kernel_reaches_the_moments_of_a_double_well(kernel: Kernel[Any]) -> None:
    well = DoubleWell(barrier=1.5, tilt=0.3)
    start = torch.tensor([[-1.0, 0.0]]).double().repeat(3000, 1)
    first = run_from(kernel, SingleLevel(well), start, zeros(3000), 500)[:, 0]
    assert within_four_standard_errors(first, well.expectation(lambda x: x))
    assert within_four_standard_errors(first.square(), well.expectation(lambda x: x**2))


def test_kernel_samples_each_walker_at_its_own_level(kernel: Kernel[Any]) -> None:
    ladder = TemperatureLadder(GaussianTarget(2), [300.0, 600.0, 900.0])
    level = torch.arange(6000) % 3
    x = run_from(kernel, ladder, torch.zeros(6000, 2).double(), level, 200)
    for k, temperature_ratio in enumerate([1.0, 2.0, 3.0]):
        assert within_four_standard_errors(x[level == k].square(), temperature_ratio)


MASSIVE: dict[str, Callable[[torch.Tensor], Kernel[Any]]] = {
    "langevin": lambda mass: Langevin(0.1, 2.0, mass),
    "mala": lambda mass: Mala(torch.tensor([0.1]), mass),
    "hmc": lambda mass: HamiltonianMonteCarlo(torch.tensor([0.3]), 4, mass),
}
UNADJUSTED_TOO = MASSIVE | {"unadjusted": lambda mass: UnadjustedLangevin(torch.tensor([0.1]), mass)}


@pytest.mark.parametrize("inverse_mass", [torch.tensor([0.25, 4.0]), torch.tensor([[1.0], [2.0], [0.5]])])
@pytest.mark.parametrize("build", MASSIVE.values(), ids=MASSIVE.keys())
def test_masses_change_the_path_and_not_the_answer(
    build: Callable[[torch.Tensor], Kernel[Any]], inverse_mass: torch.Tensor
) -> None:
    shape = (3, 2) if inverse_mass.ndim == 2 else (2,)
    x = run_from(build(inverse_mass), SingleLevel(Normal(shape)), torch.zeros(3000, *shape).double(), zeros(3000), 200)
    assert within_four_standard_errors(x.flatten(1).square(), 1.0)


@pytest.mark.parametrize("build", UNADJUSTED_TOO.values(), ids=UNADJUSTED_TOO.keys())
def test_masses_are_a_change_of_coordinates(build: Callable[[torch.Tensor], Kernel[Any]]) -> None:
    inverse_mass = torch.tensor([0.25, 4.0]).double()
    start = torch.randn(20, 2, generator=named_generator(33, "start"), dtype=torch.float64)
    light = run_from(build(torch.ones(2)), SingleLevel(Normal((2,))), start, zeros(20), 30)
    stretched = SingleLevel(Normal((2,), inverse_mass.sqrt()))
    heavy = run_from(build(inverse_mass), stretched, inverse_mass.sqrt() * start, zeros(20), 30)
    torch.testing.assert_close(heavy, inverse_mass.sqrt() * light)


@pytest.mark.parametrize("timestep", [0.5, 1.5])
def test_baoab_configurations_are_exact_for_a_harmonic_force_at_any_stable_step(timestep: float) -> None:
    kernel = langevin(timestep, friction=1.0)
    x = run_from(kernel, SingleLevel(GaussianTarget(4)), torch.zeros(8000, 4).double(), zeros(8000), 100)
    assert within_four_standard_errors(x.square(), 1.0)


def test_unadjusted_langevin_widens_a_harmonic_well_by_half_its_step() -> None:
    kernel = UnadjustedLangevin(torch.tensor([0.5]), torch.ones(()))
    x = run_from(kernel, SingleLevel(GaussianTarget(4)), torch.zeros(8000, 4).double(), zeros(8000), 40)
    assert within_four_standard_errors(x.square(), 1 / (1 - 0.25))


def test_langevin_velocities_are_maxwellian() -> None:
    inverse_mass = torch.tensor([0.5, 2.0])
    kernel = Langevin(0.02, 5.0, inverse_mass)
    ladder, generator = SingleLevel(GaussianTarget(2)), named_generator(1, "moves")
    state = kernel.init(ladder, torch.zeros(5000, 2).double(), zeros(5000), generator)
    assert within_four_standard_errors(state.velocity.square(), inverse_mass)
    state, _ = kernel.run(ladder, state, zeros(5000), 100, generator)
    assert within_four_standard_errors(state.velocity.square(), inverse_mass)


def test_langevin_without_friction_conserves_energy() -> None:
    well = DoubleWell()
    kernel, ladder, generator = langevin(0.005, friction=0.0), SingleLevel(well), named_generator(2, "moves")
    state = kernel.init(ladder, well.sample(50, generator), zeros(50), generator)
    after, _ = kernel.run(ladder, state, zeros(50), 200, generator)
    total = [s.energy + 0.5 * s.velocity.square().sum(1) for s in (state, after)]
    assert not torch.allclose(state.energy, after.energy, atol=0.1)
    torch.testing.assert_close(total[0], total[1], atol=5e-3, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_kernel_keeps_the_dtype_and_an_up_to_date_state(kernel: Kernel[Any], dtype: torch.dtype) -> None:
    target = GaussianMixture(torch.ones(2, dtype=dtype), torch.eye(2, dtype=dtype), torch.ones(2, dtype=dtype))
    ladder, generator = SingleLevel(target), named_generator(3, "moves")
    state = kernel.init(ladder, torch.zeros(8, 2, dtype=dtype), zeros(8), generator)
    state, _ = kernel.run(ladder, state, zeros(8), 5, generator)
    assert {tensor.dtype for tensor in state.tensors().values()} == {dtype}
    energy, force = target.energy_and_force(state.position)
    torch.testing.assert_close(state.energy, energy)
    torch.testing.assert_close(state.force, force)


def test_kernel_leaves_the_given_state_alone(kernel: Kernel[Any]) -> None:
    ladder, generator = SingleLevel(DoubleWell()), named_generator(4, "moves")
    start = torch.ones(8, 2).double()
    state = kernel.init(ladder, start, zeros(8), generator)
    before = {name: tensor.clone() for name, tensor in state.tensors().items()}
    kernel.run(ladder, state, zeros(8), 3, generator)
    assert identical(before, state.tensors())
    assert torch.equal(start, torch.ones(8, 2).double())


def test_kernel_resumes_bit_for_bit_and_steps_add_up_to_a_run(kernel: Kernel[Any]) -> None:
    ladder, generator = SingleLevel(DoubleWell()), named_generator(5, "moves")
    first = kernel.init(ladder, torch.ones(8, 2).double(), zeros(8), generator)
    saved, saved_generator = first.tensors(), generator.get_state()
    whole, _ = kernel.run(ladder, first, zeros(8), 6, generator)
    resumed = kernel.init(ladder, torch.zeros(8, 2).double(), zeros(8), generator).with_tensors(saved)
    generator.set_state(saved_generator)
    for _ in range(6):
        resumed, _ = kernel.step(ladder, resumed, zeros(8), generator)
    assert identical(whole.tensors(), resumed.tensors())


def test_restoring_refuses_another_state() -> None:
    generator = named_generator(6, "moves")
    ladder = SingleLevel(DoubleWell())
    state = langevin().init(ladder, torch.ones(8, 2).double(), zeros(8), generator)
    with pytest.raises(ValueError, match="are needed"):
        state.with_tensors(mala().init(ladder, torch.ones(8, 2).double(), zeros(8), generator).tensors())
    with pytest.raises(ValueError, match="is needed"):
        state.with_tensors(langevin().init(ladder, torch.ones(4, 2).double(), zeros(4), generator).tensors())


def test_one_evaluation_serves_all_walkers_however_many(kernel: Kernel[Any]) -> None:
    calls = []
    for n in (3, 300):
        ladder, generator = Recorder(SingleLevel(DoubleWell())), named_generator(7, "moves")
        state = kernel.init(ladder, torch.ones(n, 2).double(), zeros(n), generator)
        kernel.run(ladder, state, zeros(n), 5, generator)
        assert set(ladder.batches) == {n}
        calls.append(len(ladder.batches))
    assert calls[0] == calls[1]


def test_nonfinite_energies_are_reported_and_never_accepted_by_metropolis(kernel: Kernel[Any]) -> None:
    ladder, generator = SingleLevel(Hole()), named_generator(8, "moves")
    start = torch.linspace(-3, 0.9, 200).double()[:, None]
    state, info = kernel.run(ladder, kernel.init(ladder, start, zeros(200), generator), zeros(200), 40, generator)
    assert 0 < int(info.nonfinite.sum()) <= 200
    broken = ~torch.isfinite(state.energy)
    if isinstance(kernel, Langevin | UnadjustedLangevin):
        assert bool(broken.any())
        assert bool(info.nonfinite[broken].all())
    else:
        assert not bool(broken.any())
        assert float(state.position.max()) <= 1.0


def test_acceptance_is_one_for_langevin_and_falls_with_the_step_for_metropolis() -> None:
    ladder, generator = SingleLevel(DoubleWell()), named_generator(9, "moves")
    start = DoubleWell().sample(500, generator)

    def acceptance(kernel: Kernel[Any]) -> float:
        state = kernel.init(ladder, start, zeros(500), generator)
        return float(kernel.run(ladder, state, zeros(500), 5, generator)[1].acceptance.mean())

    assert acceptance(langevin()) == acceptance(unadjusted()) == 1.0
    assert acceptance(Mala(torch.tensor([1e-4]), torch.ones(()))) > 0.98
    assert acceptance(Mala(torch.tensor([1.0]), torch.ones(()))) < 0.5
    assert acceptance(HamiltonianMonteCarlo(torch.tensor([0.01]), 3, torch.ones(()))) > 0.98


def test_tuned_steps_reach_the_wanted_acceptance_at_every_level() -> None:
    ladder = TemperatureLadder(GaussianTarget(10, sigma=0.1), [300.0, 3000.0, 300.0])
    level, generator = torch.arange(400) % 2, named_generator(10, "moves")
    step_size = torch.full((3,), 1e-3, dtype=torch.float64)
    state = Mala(step_size, torch.ones(())).init(ladder, torch.zeros(400, 10).double(), level, generator)
    for _ in range(100):
        state, info = Mala(step_size, torch.ones(())).step(ladder, state, level, generator)
        step_size = tune_step_size(step_size, info.acceptance, level)
    _, info = Mala(step_size, torch.ones(())).run(ladder, state, level, 20, generator)
    for k in (0, 1):
        assert float(info.acceptance[level == k].mean()) == pytest.approx(0.574, abs=0.06)
    assert float(step_size[1] / step_size[0]) == pytest.approx(10.0, rel=0.2)
    assert float(step_size[2]) == 1e-3


@pytest.mark.parametrize(
    "build",
    [
        lambda: Langevin(0.0, 1.0, torch.ones(())),
        lambda: Langevin(0.1, -1.0, torch.ones(())),
        lambda: HamiltonianMonteCarlo(torch.ones(1), 0, torch.ones(())),
        lambda: Annealing(langevin(), [0]),
    ],
)
def test_impossible_settings_are_refused(build: Callable[[], object]) -> None:
    with pytest.raises(ValueError, match=r"needs|needed"):
        build()


def far_modes() -> GaussianMixture:
    return GaussianMixture(
        torch.tensor([0.25, 0.75]).double(), torch.tensor([[-4.0], [4.0]]).double(), torch.ones(2).double()
    )


def test_replica_exchange_restores_the_weights_that_langevin_alone_gets_wrong() -> None:
    mixture, n_groups = far_modes(), 64
    ladder = TemperatureLadder(mixture, [300.0, 520.0, 900.0, 1560.0, 2700.0])
    start = torch.full((n_groups * 5, 1), -4.0).double()
    alone = run_from(langevin(0.3), SingleLevel(mixture), start[:n_groups], zeros(n_groups), 600)
    assert float((alone > 0).double().mean()) < 0.2

    exchange, generator = ReplicaExchange(langevin(0.3), 5), named_generator(11, "moves")
    state = exchange.init(ladder, start, generator)
    right = []
    for sweep in range(700):
        state, _ = exchange.step(ladder, state, generator)
        if sweep >= 200:
            right.append(state.walkers.position[state.level == 0, 0] > 0)
    assert within_four_standard_errors(torch.stack(right).double().mean(0), 0.75)
    assert int(state.counters.round_trips.sum()) > 0


def test_every_level_keeps_its_own_distribution_under_exchange(kernel: Kernel[Any]) -> None:
    ladder = TemperatureLadder(GaussianTarget(2), [300.0, 600.0, 1200.0])
    exchange, generator = ReplicaExchange(kernel, 10), named_generator(12, "moves")
    state = exchange.init(ladder, torch.zeros(6000, 2).double(), generator)
    for _ in range(25):
        state, _ = exchange.step(ladder, state, generator)
    for k in range(3):
        assert within_four_standard_errors(state.walkers.position[state.level == k].square(), 2.0**k)


def test_levels_stay_a_permutation_and_energies_follow_them() -> None:
    ladder = LinearLadder(GaussianTarget(2), DoubleWell(), [0.0, 0.4, 0.7, 1.0])
    exchange, generator = ReplicaExchange(mala(), 2), named_generator(13, "moves")
    state = exchange.init(ladder, torch.zeros(20, 2).double(), generator)
    for _ in range(9):
        state, _ = exchange.step(ladder, state, generator)
        assert torch.equal(state.level.view(5, 4).sort(1).values, torch.arange(4).expand(5, 4))
        energy, force = ladder.energy_and_force(state.walkers.position, state.level)
        torch.testing.assert_close(state.walkers.energy, energy)
        torch.testing.assert_close(state.walkers.force, force)
    assert int(state.sweep) == 9
    assert 0 < int(state.counters.accepted.sum()) < int(state.counters.attempted.sum())


def test_swaps_are_accepted_with_the_metropolis_probability() -> None:
    ladder = TemperatureLadder(GaussianTarget(3), [300.0, 900.0])
    generator = named_generator(14, "moves")
    cold, hot = (scale * torch.randn(5000, 3, generator=generator, dtype=torch.float64) for scale in (1.0, 3.0**0.5))
    exchange = ReplicaExchange(mala(), 0)
    state = exchange.init(ladder, torch.stack([cold, hot], 1).flatten(0, 1), generator)
    state, info = exchange.step(ladder, state, generator)
    energies = ladder.energies(torch.stack([cold, hot], 1).flatten(0, 1)).view(5000, 2, 2)
    log_ratio = energies[:, 0, 0] + energies[:, 1, 1] - energies[:, 0, 1] - energies[:, 1, 0]
    probability = log_ratio.clamp(max=0).exp()
    swapped = (state.level.view(5000, 2)[:, 0] == 1).double()
    assert within_four_standard_errors(swapped - probability, 0.0)
    assert info.attempted.tolist() == [5000]
    assert info.accepted.tolist() == [int(swapped.sum())]
    assert state.counters.acceptance.item() == pytest.approx(float(swapped.mean()))


def test_equal_levels_carry_every_walker_up_and_down_like_clockwork() -> None:
    ladder = TemperatureLadder(GaussianTarget(1), [300.0] * 4)
    exchange, generator = ReplicaExchange(langevin(), 1), named_generator(15, "moves")
    state = exchange.init(ladder, torch.zeros(8, 1).double(), generator)
    for _ in range(24):
        state, _ = exchange.step(ladder, state, generator)
    counters = state.counters
    assert counters.acceptance.tolist() == [1.0, 1.0, 1.0]
    assert counters.attempted.tolist() == [24, 24, 24]
    assert torch.equal(counters.occupancy, torch.full((8, 4), 6))
    # A journey takes eight sweeps, and only walkers that started at the bottom have made three in full.
    assert counters.round_trips.view(2, 4).tolist() == [[3, 2, 2, 2]] * 2
    assert counters.heading.abs().min() == 1


def test_exchange_of_temperatures_costs_no_evaluation() -> None:
    counted = CountingTarget(DoubleWell())
    exchange, generator = ReplicaExchange(langevin(), 3), named_generator(16, "moves")
    ladder = TemperatureLadder(counted, [300.0, 400.0, 500.0])
    state = exchange.init(ladder, torch.zeros(12, 2).double(), generator)
    for _ in range(4):
        state, _ = exchange.step(ladder, state, generator)
    assert counted.evaluations == 12 * (1 + 4 * 3)
    assert int(state.counters.accepted.sum()) > 0


def test_a_walker_of_nan_energy_is_never_swapped() -> None:
    exchange, generator = ReplicaExchange(langevin(), 0), named_generator(17, "moves")
    ladder = TemperatureLadder(Hole(), [300.0, 300.0])
    state = exchange.init(ladder, torch.tensor([[2.0], [0.0]]).double(), generator)
    for _ in range(6):
        state, info = exchange.step(ladder, state, generator)
        assert info.kernel.nonfinite.tolist() == [True, False]
    assert int(state.counters.attempted.sum()) == 3
    assert int(state.counters.accepted.sum()) == 0


def test_replica_exchange_resumes_bit_for_bit(kernel: Kernel[Any]) -> None:
    ladder = TemperatureLadder(DoubleWell(), [300.0, 500.0, 800.0])
    exchange, generator = ReplicaExchange(kernel, 2), named_generator(18, "moves")
    state = exchange.init(ladder, torch.ones(12, 2).double(), generator)
    for _ in range(3):
        state, _ = exchange.step(ladder, state, generator)
    saved, saved_generator = state.tensors(), generator.get_state()
    for _ in range(4):
        state, _ = exchange.step(ladder, state, generator)
    resumed = exchange.init(ladder, torch.zeros(12, 2).double(), generator).with_tensors(saved)
    generator.set_state(saved_generator)
    for _ in range(4):
        resumed, _ = exchange.step(ladder, resumed, generator)
    assert identical(state.tensors(), resumed.tensors())


def test_one_level_runs_without_swaps_and_odd_walkers_are_refused() -> None:
    exchange, generator = ReplicaExchange(langevin(), 2), named_generator(19, "moves")
    state = exchange.init(SingleLevel(DoubleWell()), torch.zeros(3, 2).double(), generator)
    state, info = exchange.step(SingleLevel(DoubleWell()), state, generator)
    assert info.attempted.shape == (0,)
    assert state.counters.round_trips.tolist() == [0, 0, 0]
    with pytest.raises(ValueError, match="7 walkers do not fill whole groups of 3 levels"):
        exchange.init(TemperatureLadder(DoubleWell(), [300.0, 400.0, 500.0]), torch.zeros(7, 2).double(), generator)


PAIR = TiltedHarmonicPair(TiltedHarmonic(1.0, [0.0, 0.0]), TiltedHarmonic(3.0, [3.0, -1.5]))


def harmonic_ladder(n_levels: int = 9) -> LinearLadder:
    return LinearLadder(PAIR.state_a, PAIR.state_b, torch.linspace(0, 1, n_levels).tolist())


def relative_weights(log_weights: torch.Tensor, log_ratio: float) -> torch.Tensor:
    """Return weights whose mean is one when the ratio of normalisers is right."""
    return (log_weights - log_ratio).exp()


@pytest.mark.parametrize("direction", [1, -1], ids=["forward", "reverse"])
def test_annealing_finds_the_ratio_of_two_gaussians(kernel: Kernel[Any], direction: int) -> None:
    ladder, generator = harmonic_ladder(), named_generator(20, "moves")
    start = (PAIR.state_a if direction == 1 else PAIR.state_b).sample(4000, generator)
    result = anneal(Annealing(kernel, range(9)[::direction], 3), ladder, start, generator)
    assert within_four_standard_errors(relative_weights(result.log_weights, -direction * PAIR.delta_f), 1.0)
    assert result.delta_f == pytest.approx(direction * PAIR.delta_f, abs=0.15)
    torch.testing.assert_close(result.work, -result.log_weights)
    assert result.effective_sample_size.shape == result.acceptance.shape == (8,)
    assert float(result.effective_sample_size.min()) > 200
    assert int(result.nonfinite.sum()) == 0


@pytest.mark.parametrize("direction", [1, -1], ids=["forward", "reverse"])
def test_annealing_finds_the_ratio_of_gaussian_and_mixture(kernel: Kernel[Any], direction: int) -> None:
    generator = named_generator(21, "moves")
    broad = TiltedHarmonic(0.25, [0.0, 0.0])
    mixture = GaussianMixture(
        torch.tensor([0.3, 0.7]).double(),
        torch.tensor([[-1.5, 0.0], [1.5, 0.5]]).double(),
        torch.tensor([0.6, 0.8]).double(),
        log_normaliser=2.0,
    )
    ladder = LinearLadder(broad, mixture, torch.linspace(0, 1, 9).tolist())
    start = (broad if direction == 1 else mixture).sample(3000, generator)
    result = anneal(Annealing(kernel, range(9)[::direction], 3), ladder, start, generator)
    log_ratio = direction * (2.0 - broad.log_normaliser)
    assert within_four_standard_errors(relative_weights(result.log_weights, log_ratio), 1.0)


def test_monte_carlo_with_every_scheme_is_unbiased_for_the_ratio(scheme: Resampling) -> None:
    ladder, generator = harmonic_ladder(6), named_generator(22, "moves")
    annealing = Annealing(mala(), range(6), 2, resample_below=0.9, resampling=scheme)
    results = [anneal(annealing, ladder, PAIR.state_a.sample(100, generator), generator) for _ in range(60)]
    ratios = torch.stack([result.log_normaliser for result in results])
    assert within_four_standard_errors(relative_weights(ratios, -PAIR.delta_f), 1.0)
    assert all(bool((result.log_normaliser_increments != 0).any()) for result in results)


def test_particles_with_weights_need_not_be_in_equilibrium_at_the_first_level() -> None:
    """The ratio then is that to the normalised density they were drawn from, with and without resampling."""
    ladder, generator = harmonic_ladder(6), named_generator(35, "moves")
    broad = TiltedHarmonic(0.5, [0.5, 0.0])
    for resample_below in (None, 0.9):
        annealing = Annealing(mala(), range(6), 2, resample_below=resample_below)
        ratios = []
        for _ in range(60):
            start = broad.sample(100, generator)
            log_weights = -PAIR.state_a.energy(start) - broad.log_density(start)
            ratios.append(anneal(annealing, ladder, start, generator, log_weights).log_normaliser)
        assert within_four_standard_errors(relative_weights(torch.stack(ratios), PAIR.state_b.log_normaliser), 1.0)


def test_resampled_particles_follow_the_last_level() -> None:
    ladder, generator = harmonic_ladder(), named_generator(23, "moves")
    annealing = Annealing(mala(), range(9), 20, resample_below=0.5)
    result = anneal(annealing, ladder, PAIR.state_a.sample(3000, generator), generator)
    weights = torch.softmax(result.log_weights, 0)
    mean = (weights[:, None] * result.particles.position).sum(0)
    torch.testing.assert_close(mean, PAIR.state_b.tilt / 3.0, atol=0.06, rtol=0)
    torch.testing.assert_close(result.particles.energy, PAIR.state_b.energy(result.particles.position))
    total = result.log_normaliser_increments.sum() + result.log_weights.logsumexp(0) - math.log(3000)
    torch.testing.assert_close(result.log_normaliser, total)


@pytest.mark.parametrize("order", [range(7), [6, 3, 0], [0, 6], [2, 5, 4, 6]])
def test_without_moves_the_increments_sum_to_the_whole_difference(kernel: Kernel[Any], order: list[int]) -> None:
    ladder, generator = harmonic_ladder(7), named_generator(24, "moves")
    x = PAIR.state_a.sample(50, generator)
    result = anneal(Annealing(kernel, order, 0), ladder, x, generator)
    energies = ladder.energies(x)
    torch.testing.assert_close(result.work, energies[:, order[-1]] - energies[:, order[0]], rtol=0, atol=1e-12)
    assert torch.equal(result.particles.position, x)


def test_work_follows_the_line_of_ancestors_through_resampling() -> None:
    ladder, generator = harmonic_ladder(6), named_generator(34, "moves")
    annealing = Annealing(mala(), range(6), 0, resample_below=0.8)
    result = anneal(annealing, ladder, PAIR.state_a.sample(200, generator), generator)
    assert bool((result.log_normaliser_increments != 0).any())
    energies = ladder.energies(result.particles.position)
    torch.testing.assert_close(result.work, energies[:, -1] - energies[:, 0])


class Walls(Ladder):
    """Three levels of a normal, impossible beyond a wall at all but the first."""

    n_levels, event_shape, dimension = 3, (1,), 1

    def energy(self, x: torch.Tensor, level: torch.Tensor) -> torch.Tensor:
        normal = 0.5 * x.square().sum(-1)
        return torch.where((level > 0) & (x[:, 0] > 0.5), torch.inf, normal)

    def energy_and_force(self, x: torch.Tensor, level: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.energy(x, level), -x


def test_particles_behind_a_wall_keep_the_weight_zero_at_every_level_after_it() -> None:
    x = torch.linspace(-2, 2, 50, dtype=torch.float64)[:, None]
    result = anneal(Annealing(mala(), [0, 1, 2], steps_per_level=0), Walls(), x, named_generator(0, "walls"))
    behind = x[:, 0] > 0.5
    assert torch.equal(result.log_weights, torch.where(behind, -torch.inf, 0.0))
    assert torch.equal(result.work, torch.where(behind, torch.inf, 0.0))
    assert result.delta_f == pytest.approx(-math.log(float((~behind).double().mean())))


def test_annealing_weights_are_double_whatever_the_positions() -> None:
    ladder = LinearLadder(
        TiltedHarmonic(1.0, [0.0], torch.float32), TiltedHarmonic(2.0, [1.0], torch.float32), [0.0, 0.5, 1.0]
    )
    result = anneal(Annealing(mala(), range(3)), ladder, torch.zeros(10, 1), named_generator(25, "moves"))
    assert result.particles.position.dtype == torch.float32
    assert result.log_weights.dtype == result.work.dtype == result.log_normaliser.dtype == torch.float64


def test_annealing_resumes_bit_for_bit_between_levels(kernel: Kernel[Any]) -> None:
    ladder, generator = harmonic_ladder(6), named_generator(26, "moves")
    annealing = Annealing(kernel, range(6), 2, resample_below=0.95)
    state = annealing.init(ladder, PAIR.state_a.sample(40, generator), generator)
    for _ in range(2):
        state, _ = annealing.step(ladder, state, generator)
    saved, saved_generator = state.tensors(), generator.get_state()
    for _ in range(3):
        state, _ = annealing.step(ladder, state, generator)
    resumed = annealing.init(ladder, torch.zeros(40, 2).double(), generator).with_tensors(saved)
    generator.set_state(saved_generator)
    for _ in range(3):
        resumed, _ = annealing.step(ladder, resumed, generator)
    assert identical(state.tensors(), resumed.tensors())
    with pytest.raises(ValueError, match="last level 5"):
        annealing.step(ladder, state, generator)


def test_annealing_cost_does_not_depend_on_the_number_of_particles() -> None:
    calls = []
    for n in (5, 500):
        ladder, generator = Recorder(harmonic_ladder(5)), named_generator(27, "moves")
        anneal(Annealing(mala(), range(5), 2, resample_below=1.0), ladder, torch.zeros(n, 2).double(), generator)
        assert set(ladder.batches) == {n}
        calls.append(len(ladder.batches))
    assert calls[0] == calls[1] == 1 + 4 * (1 + 2)


def test_next_lambda_holds_the_conditional_sample_size_and_ends_at_one() -> None:
    difference = 40 * torch.rand(2000, generator=named_generator(28, "moves"), dtype=torch.float64)
    even = torch.zeros(2000).double()
    chosen = next_lambda(difference, even, 0.2, 0.8)
    assert 0.2 < chosen < 1.0
    assert float(effective_sample_size(-(chosen - 0.2) * difference)) == pytest.approx(1600, rel=1e-3)
    assert next_lambda(difference, even, 0.2, 0.5) > chosen
    assert next_lambda(1e-3 * difference, even, 0.2, 0.8) == 1.0
    lam, levels = 0.0, 0
    while lam < 1.0:
        lam, levels = next_lambda(difference, even, lam, 0.8), levels + 1
    assert lam == 1.0
    assert levels > 5


def test_resampling_is_unbiased(scheme: Resampling) -> None:
    log_weights = torch.tensor([0.05, 0.3, 0.0001, 0.2, 0.25, 0.1, 0.0999]).double().log() + 7.0
    generator = named_generator(29, "resampling")
    counts = torch.stack([torch.bincount(scheme(log_weights, generator), minlength=7) for _ in range(3000)]).double()
    assert bool((counts.sum(1) == 7).all())
    expected = 7 * torch.softmax(log_weights, 0)
    assert bool(((counts.mean(0) - expected).abs() <= 4 * counts.std(0) / math.sqrt(3000) + 1e-3).all())


def test_schemes_differ_in_how_far_counts_stray() -> None:
    log_weights = torch.randn(100, generator=named_generator(30, "weights"), dtype=torch.float64)
    generator = named_generator(30, "resampling")
    expected = 100 * torch.softmax(log_weights, 0)
    comb = torch.bincount(systematic(log_weights, generator), minlength=100)
    assert float((comb - expected).abs().max()) < 1
    strata = torch.bincount(stratified(log_weights, generator), minlength=100)
    assert float((strata - expected).abs().max()) < 2
    kept = torch.bincount(residual(log_weights, generator), minlength=100)
    assert bool((kept >= expected.floor()).all())
    free = torch.stack([torch.bincount(multinomial(log_weights, generator), minlength=100) for _ in range(50)])
    assert float((free - expected).abs().max()) > 2


def test_even_weights_keep_everyone_and_a_single_weight_takes_all(scheme: Resampling) -> None:
    generator = named_generator(31, "resampling")
    one = torch.full((6,), -torch.inf).double()
    one[2] = -3.0
    assert scheme(one, generator).tolist() == [2] * 6
    if scheme is not multinomial:
        assert scheme(torch.zeros(6), generator).sort().values.tolist() == list(range(6))


def test_what_is_banked_and_what_is_left_is_the_mean_weight_whether_resampled_or_not(scheme: Resampling) -> None:
    log_weights = torch.tensor([0.5, -1.0, 2.0, 0.0]).double()
    for threshold, resampled in ((None, False), (0.1, False), (1.0, True)):
        chosen = select(log_weights, threshold, scheme, named_generator(36, "resampling"))
        total = chosen.banked + log_mean_exp(chosen.log_weights)
        assert float(total) == pytest.approx(float(log_mean_exp(log_weights)))
        assert (float(chosen.banked) != 0) == resampled
        assert resampled or chosen.ancestors.tolist() == [0, 1, 2, 3]
        assert float(chosen.effective_sample_size) == pytest.approx(float(effective_sample_size(log_weights)))


def test_spaced_levels_of_an_order_begin_and_end_it_in_either_direction() -> None:
    ladder, generator = harmonic_ladder(100), named_generator(37, "moves")
    for levels, start in ((range(100), PAIR.state_a), (range(99, -1, -1), PAIR.state_b)):
        fine = Annealing(Mala(torch.full((100,), 0.1), torch.ones(())), levels)
        fewer, more = (
            spaced_order(fine, ladder, start.sample(500, generator), generator, wanted=wanted) for wanted in (0.5, 0.95)
        )
        assert (fewer[0], fewer[-1]) == (more[0], more[-1]) == (levels[0], levels[-1])
        assert 2 < len(fewer) < len(more) < 40
    # Where nothing is lost, nothing is visited in between; where no neighbour is near enough, every level is.
    still, far = (TemperatureLadder(GaussianTarget(1), [300.0 * ratio**k for k in range(5)]) for ratio in (1, 4))
    x = torch.randn(300, 1, generator=generator, dtype=torch.float64)
    annealing = Annealing(langevin(0.3), range(5), 100)
    assert spaced_order(annealing, still, x, generator) == [0, 4]
    assert spaced_order(annealing, far, x, generator, wanted=0.999) == [0, 1, 2, 3, 4]
    # A level whose energy is none keeps nothing.
    broken = Interrupted(still, 2)
    assert spaced_order(annealing, broken, x, generator) == [0, 1, 2, 3, 4]


class Interrupted(TemperatureLadder):
    """A ladder on whose right there is no energy from a level on."""

    def __init__(self, ladder: TemperatureLadder, first: int) -> None:
        super().__init__(ladder.target, [300.0] * ladder.n_levels)
        self.first = first

    def energy(self, x: torch.Tensor, level: torch.Tensor) -> torch.Tensor:
        return torch.where((level >= self.first) & (x[:, 0] > 1.5), math.nan, super().energy(x, level))


def test_broken_weights_are_refused_by_name(scheme: Resampling) -> None:
    with pytest.raises(RunFailedError, match="1 of 3 log weights are not finite"):
        scheme(torch.tensor([0.0, torch.nan, 0.0]), named_generator(32, "resampling"))


def test_effective_sample_size_counts_particles() -> None:
    assert float(effective_sample_size(torch.full((8,), 500.0))) == pytest.approx(8.0, rel=1e-4)
    assert float(effective_sample_size(torch.tensor([0.0, 0.0, -1e4, -1e4]))) == pytest.approx(2.0)
