"""Every sampler on a double well and on forty modes: moments and ratio of normalisers within four standard errors."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor

from boltzgen_diffclf.composition import TimeEnergyLadder
from boltzgen_diffclf.estimators import mbar
from boltzgen_diffclf.grounded import GroundedLadder
from boltzgen_diffclf.paths import VarianceExploding, log_snr_levels
from boltzgen_diffclf.samplers import (
    SOLVERS,
    Annealing,
    EulerMaruyama,
    HamiltonianMonteCarlo,
    Heun,
    Kernel,
    Mala,
    MarginalProposal,
    ProbabilityFlow,
    ReplicaExchange,
    ReverseSmc,
    ReverseSolver,
    UnadjustedLangevin,
    anneal,
    sample_reverse,
    spaced_order,
    spaced_times,
)
from boltzgen_diffclf.samplers.diffusion_smc import Proposal
from boltzgen_diffclf.samplers.resampling import log_mean_exp
from boltzgen_diffclf.streams import named_generator
from systems.analytic import DoubleWell, GaussianMixture, MixtureMarginals, mog40
from systems.analytic.exact import AnalyticTarget

N, RUNS, SWEEPS = 60, 20, 80
RESAMPLED = 10
"""Runs of twice as many particles, where they are not independent."""


class Problem(NamedTuple):
    """A target, its noised marginals, and the mean and second moment of each coordinate.

    Attributes:
        width: of the modes.
    """

    target: AnalyticTarget
    marginals: MixtureMarginals
    first: Tensor
    second: Tensor
    width: float

    @property
    def path(self) -> VarianceExploding:
        return self.marginals.path

    @property
    def prior(self) -> GaussianMixture:
        return self.marginals.at(self.path.t_max)

    def energy_and_gradient(self, y: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        return self.marginals.energy(y, t), self.marginals.gradient(y, t)

    def denoiser(self, y: Tensor, t: Tensor) -> Tensor:
        return y - self.path.sigma(t)[:, None].square() * self.marginals.gradient(y, t)

    def noise_levels(self, n_levels: int) -> Tensor:
        """Times from where the noise is half as wide as a mode."""
        t_first = self.path.time_at_log_snr(torch.tensor([-2 * math.log(0.5 * self.width)]).double())
        return log_snr_levels(self.path, n_levels, t_min=float(t_first))

    def ladder(self, n_levels: int) -> GroundedLadder:
        return GroundedLadder(self.target, TimeEnergyLadder(self.marginals, self.noise_levels(n_levels), 2))

    def level_variances(self, n_levels: int) -> Tensor:
        """Return the variance of a mode at each level of the grounded ladder."""
        sigmas = self.path.sigma(self.noise_levels(n_levels))
        return torch.cat([sigmas.new_zeros(1), sigmas]).square() + self.width**2


def double_well() -> Problem:
    """The marginals are those of a comb of narrow normals under the well's own density."""
    well, comb = DoubleWell(barrier=3.0, tilt=0.4), torch.linspace(-1.8, 1.8, 41, dtype=torch.float64)
    nodes = torch.stack([comb, torch.zeros_like(comb)], 1)
    sigmas = torch.tensor([0.08, 1.0], dtype=torch.float64).expand(41, 2)
    mixture = GaussianMixture((-well.energy(nodes)).exp(), nodes, sigmas)
    moments = [torch.tensor([well.expectation(lambda x, k=k: x**k), k - 1.0]).double() for k in (1, 2)]
    return Problem(well, MixtureMarginals(mixture, VarianceExploding(0.02, 20.0)), *moments, 0.2)


def forty_modes() -> Problem:
    modes = mog40()
    target = GaussianMixture(modes.weights, modes.means, modes.sigmas, log_normaliser=2.0)
    marginals = MixtureMarginals(target, VarianceExploding(0.1, 100.0))
    return Problem(target, marginals, modes.mean, modes.variance + modes.mean.square(), 1.3)


PROBLEMS: dict[str, Callable[[], Problem]] = {"double-well": double_well, "mog40": forty_modes}


@pytest.fixture(params=PROBLEMS.values(), ids=PROBLEMS.keys(), scope="module")
def problem(request: pytest.FixtureRequest) -> Problem:
    return request.param()


class Run(NamedTuple):
    """Weighted samples of the target, and the estimate of its log normaliser."""

    position: Tensor
    log_weights: Tensor
    log_normaliser: Tensor


def agrees(values: Tensor, exact: Tensor | float) -> None:
    """The mean over independent rows is within four standard errors of the exact value."""
    score = (values.mean(0) - exact) / (values.std(0) / math.sqrt(len(values)))
    assert bool((score.abs() < 4).all()), score


def assert_right(problem: Problem, runs: list[Run]) -> None:
    """Independent runs have the normaliser of the target and its moments.

    In the mean of the ratios themselves, by which the runs are weighted: both are unbiased for any number of particles.
    """
    ratios = torch.stack([(one.log_normaliser - problem.target.log_normaliser).exp() for one in runs])
    agrees(ratios, 1.0)
    for power, exact in ((1, problem.first), (2, problem.second)):
        excess = torch.stack([one.log_weights.softmax(0) @ (one.position**power - exact) for one in runs])
        agrees(ratios[:, None] * excess, 0.0)
    assert all(one.position.dtype == torch.float64 for one in runs)


def parted(position: Tensor, log_weights: Tensor) -> list[Run]:
    """Return the runs that independent particles, none of them resampled, are together."""
    parts = zip(position.chunk(RUNS), log_weights.chunk(RUNS), strict=True)
    return [Run(x, log_w, log_mean_exp(log_w)) for x, log_w in parts]


FEWER_LEVELS = {"heun": 30, "heun-churned": 60}
"""That a solver of second order wants, where others have 150."""


@pytest.mark.parametrize(
    ("solver", "n_levels"),
    [
        pytest.param(solver, FEWER_LEVELS.get(name, 150), id=name)
        for name, solver in {**SOLVERS, "heun-churned": Heun(1.0)}.items()
    ],
)
def test_reverse_solvers_have_the_moments(problem: Problem, solver: ReverseSolver, n_levels: int) -> None:
    generator = named_generator(0, "solvers")
    start, times = problem.prior.sample(N * RUNS, generator), log_snr_levels(problem.path, n_levels)
    y = sample_reverse(problem.denoiser, problem.path, times, start, generator, solver=solver)
    agrees(y, problem.first)
    agrees(y.square(), problem.second)


PROPOSALS: dict[str, tuple[Callable[[Problem], Proposal], int]] = {
    "marginal": (lambda problem: MarginalProposal(problem.width), 50),
    "euler-maruyama": (lambda problem: EulerMaruyama().normal, 60),
}


@pytest.mark.parametrize(("build", "n_levels"), PROPOSALS.values(), ids=PROPOSALS.keys())
def test_the_reverse_process_with_path_weights_ends_in_the_target(
    problem: Problem, build: Callable[[Problem], Proposal], n_levels: int
) -> None:
    times, stream = log_snr_levels(problem.path, n_levels), named_generator(1, "importance")
    smc = ReverseSmc(problem.path, times, problem.target, build(problem), resample_below=None)
    state = smc.init(problem.energy_and_gradient, problem.prior.sample(2 * N * RUNS, stream))
    for _ in times[1:]:
        state, _ = smc.step(problem.energy_and_gradient, state, stream)
    assert_right(problem, parted(state.position, state.log_weights))


def descend(smc: ReverseSmc, energy_and_gradient: Any, prior: GaussianMixture, seed: int) -> list[Run]:
    stream, runs = named_generator(seed, "descent"), []
    for _ in range(RESAMPLED):
        state = smc.init(energy_and_gradient, prior.sample(2 * N, stream))
        for _ in smc.times[1:]:
            state, _ = smc.step(energy_and_gradient, state, stream)
        log_normaliser = state.log_normaliser + log_mean_exp(state.log_weights)
        runs.append(Run(state.position, state.log_weights, log_normaliser))
    return runs


def test_the_target_at_the_end_corrects_an_energy_that_is_wrong(problem: Problem) -> None:
    """The modes of the energy that guides have other weights than those of the target."""
    mixture = problem.marginals.mixture
    tilted = mixture.weights * (1 + 0.5 * torch.tanh(mixture.means[:, 0]))
    wrong = MixtureMarginals(GaussianMixture(tilted, mixture.means, 1.1 * mixture.sigmas), problem.path)

    def energy_and_gradient(y: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        return wrong.energy(y, t), wrong.gradient(y, t)

    stream = named_generator(2, "pilot")
    pilot, proposal = wrong.at(1.0).sample(500, stream), MarginalProposal(problem.width)
    times = spaced_times(energy_and_gradient, problem.path, pilot, stream, proposal=proposal)
    smc = ReverseSmc(problem.path, times, problem.target, proposal)
    assert_right(problem, descend(smc, energy_and_gradient, wrong.at(1.0), 2))


def test_the_probability_flow_has_weights_for_the_target(problem: Problem) -> None:
    stream, prior = named_generator(3, "flow"), problem.prior
    start = prior.sample(30 * RUNS, stream)
    flow = ProbabilityFlow(problem.path, tolerance=1e-6)
    samples = flow.sample(lambda y, t: -problem.marginals.gradient(y, t), start, prior.log_density(start), stream)
    log_weights = -problem.target.energy(samples.position) - samples.log_density
    assert_right(problem, parted(samples.position, log_weights))


KERNELS: dict[str, Callable[[Tensor], Kernel[Any]]] = {
    "mala": lambda variance: Mala(0.4 * variance, torch.ones(())),
    "hmc": lambda variance: HamiltonianMonteCarlo((0.8 * variance).sqrt(), 2, torch.ones(())),
    "unadjusted": lambda variance: UnadjustedLangevin(0.05 * variance, torch.ones(())),
}


@pytest.mark.parametrize("build", [KERNELS["mala"], KERNELS["hmc"]], ids=["mala", "hmc"])
def test_annealing_along_noise_levels_ends_in_the_target(
    problem: Problem, build: Callable[[Tensor], Kernel[Any]]
) -> None:
    n_levels, stream = 40, named_generator(4, "annealing")
    annealing = Annealing(build(problem.level_variances(n_levels)), range(n_levels, -1, -1))
    result = anneal(annealing, problem.ladder(n_levels), problem.prior.sample(N * RUNS, stream), stream)
    assert_right(problem, parted(result.particles.position, result.log_weights))


def test_sequential_monte_carlo_over_spaced_levels_ends_in_the_target(problem: Problem) -> None:
    n_levels, stream = 120, named_generator(5, "spaced")
    ladder, kernel = problem.ladder(n_levels), KERNELS["mala"](problem.level_variances(n_levels))
    fine = Annealing(kernel, range(n_levels, -1, -1), 1, resample_below=0.7)
    order = spaced_order(fine, ladder, problem.prior.sample(300, stream), stream, wanted=0.95)
    assert order[0] == n_levels
    assert order[-1] == 0
    assert 10 < len(order) < 100
    annealing, runs = dataclasses.replace(fine, order=order), []
    for _ in range(RESAMPLED):
        result = anneal(annealing, ladder, problem.prior.sample(2 * N, stream), stream)
        runs.append(Run(result.particles.position, result.log_weights, result.log_normaliser))
    assert_right(problem, runs)


@pytest.mark.parametrize("build", [KERNELS["mala"], KERNELS["unadjusted"]], ids=["mala", "unadjusted"])
def test_replica_exchange_over_noise_levels_leaves_the_mode_it_started_in(
    problem: Problem, build: Callable[[Tensor], Kernel[Any]]
) -> None:
    n_levels, n_groups, stream = 10, 80, named_generator(6, "exchange")
    ladder = problem.ladder(n_levels)
    exchange = ReplicaExchange(build(problem.level_variances(n_levels)), 2)
    start = problem.marginals.mixture.means[:1].expand(n_groups * (n_levels + 1), -1)
    state = exchange.init(ladder, start, stream)
    for _ in range(SWEEPS):
        state, _ = exchange.step(ladder, state, stream)
    by_level = state.walkers.position[state.level.argsort(stable=True)]
    ground = by_level[:n_groups]
    agrees(ground, problem.first)
    agrees(ground.square(), problem.second)
    counts = np.full(n_levels + 1, n_groups)
    estimate = mbar(ladder.energies(by_level).T.numpy(), counts).estimate
    exact = problem.target.log_normaliser - problem.marginals.at(problem.path.t_max).log_normaliser
    assert abs(estimate.value - exact) < 4 * estimate.stderr
    assert int(state.counters.round_trips.sum()) > 0
