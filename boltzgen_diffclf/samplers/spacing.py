"""Where to put the next level: as far as a chosen share of the particles still counts there.

A level chosen by the particles that are weighed there makes the ratio of normalisers slightly biased. Levels found by
a pilot run and then held fixed do not: :func:`spaced_order` and :func:`spaced_times` run the pilot. Ask for much: the
share is counted by particles that came, and those that a step misses do not vote.

References:
    Zhou, Johansen & Aston 2016, J. Comput. Graph. Stat. 25, 701, for the conditional effective sample size.
"""

from __future__ import annotations

import dataclasses
from bisect import bisect_left
from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from boltzgen_diffclf.errors import InputError
from boltzgen_diffclf.paths import DiffusionPath
from boltzgen_diffclf.samplers.annealing import Annealing, anneal
from boltzgen_diffclf.samplers.diffusion_smc import (
    EnergyAndGradient,
    MarginalProposal,
    Proposal,
    ReverseSmc,
    ReverseSmcState,
)
from boltzgen_diffclf.samplers.kernels import State
from boltzgen_diffclf.target import Ladder

_MARGINAL = MarginalProposal()


def conditional_fraction(log_weights: Float[Tensor, " batch"], log_gain: Float[Tensor, " batch"]) -> float:
    """Return the conditional effective sample size of a reweighting, as a fraction of the particles.

    Args:
        log_weights: of the particles before.
        log_gain: what the log weights are to take.

    >>> conditional_fraction(torch.tensor([0.0, 5.0]), torch.tensor([2.0, 2.0]))
    1.0
    """
    log_normalised = torch.log_softmax(log_weights, dim=0)
    first = (log_normalised + log_gain).logsumexp(0)
    second = (log_normalised + 2 * log_gain).logsumexp(0)
    return float((2 * first - second).exp())


def next_lambda(
    difference: Float[Tensor, " batch"],
    log_weights: Float[Tensor, " batch"],
    current: float,
    wanted: float,
    tolerance: float = 1e-6,
) -> float:
    """Return the farthest ``lambda <= 1`` on a linear ladder that keeps the conditional effective sample size.

    Args:
        difference: ``u_B(x) - u_A(x)`` of the particles [kT].
        log_weights: of the particles at ``current``.
        current: their lambda.
        wanted: :func:`conditional_fraction`.
        tolerance: of the bisection.

    Returns:
        A value above ``current``, by ``tolerance`` at the least, so that a ladder always ends at exactly one.
    """

    def keeps(candidate: float) -> bool:
        return conditional_fraction(log_weights, -(candidate - current) * difference) >= wanted

    return _farthest(keeps, current, 1.0, tolerance)


def spaced_order(
    annealing: Annealing[State],
    ladder: Ladder,
    position: Float[Tensor, "batch *event"],
    generator: torch.Generator,
    *,
    wanted: float = 0.9,
) -> list[int]:
    """Return the levels of a fine order that are worth a visit, its first and its last among them.

    Args:
        annealing: of the pilot's moves; its order is fine enough that neighbours keep the wanted fraction, and where
            they do not, none is left out.
        ladder: of the levels.
        position: of the pilot, in equilibrium at the first level of the order.
        generator: of the moves and the resampling.
        wanted: :func:`conditional_fraction` from each level to the next.
    """
    visited, here = [annealing.order[0]], 0
    even = torch.zeros(len(position), dtype=torch.float64, device=position.device)
    while here < len(annealing.order) - 1:
        here += 1 + _steps_kept(annealing.order[here:], ladder, position, even, wanted)
        visited.append(annealing.order[here])
        # Resampled at every level, so that the pilot has no weights.
        step = dataclasses.replace(annealing, order=visited[-2:], resample_below=1.0)
        position = anneal(step, ladder, position, generator).particles.position
    return visited


def _steps_kept(
    order: Sequence[int],
    ladder: Ladder,
    position: Float[Tensor, "batch *event"],
    log_weights: Float[Tensor, " batch"],
    wanted: float,
) -> int:
    """Return how many levels beyond the next one keep the wanted fraction, by bisection."""

    def energy(level: int) -> Tensor:
        return ladder.energy(position, torch.full((len(position),), level, device=position.device)).double()

    here = energy(order[0])
    return bisect_left(order[2:], True, key=lambda k: not conditional_fraction(log_weights, here - energy(k)) >= wanted)


def spaced_times(
    energy_and_gradient: EnergyAndGradient,
    path: DiffusionPath,
    start: Float[Tensor, "batch dim"],
    generator: torch.Generator,
    *,
    t_first: float | None = None,
    t_last: float | None = None,
    wanted: float = 0.95,
    proposal: Proposal = _MARGINAL,
    least_step: float = 0.01,
) -> Float[Tensor, " levels"]:
    """Return growing times for a ``ReverseSmc`` whose every step keeps the wanted fraction of the particles.

    A target at the end plays no part here: what it differs by from the last level is lost however short the step.

    Args:
        energy_and_gradient: of the model or an oracle.
        path: the noising, whose ``t_min`` and ``t_max`` stand in for times not given.
        start: samples of ``exp(-U)`` at the last time, for the pilot.
        generator: on the device of ``start``.
        t_first: the first time.
        t_last: the last time.
        wanted: :func:`conditional_fraction` of every step.
        proposal: of the moves.
        least_step: in the log signal-to-noise ratio; where even that loses more, the step is made all the same.

    Raises:
        InputError: there is no noise at the first time, or no signal at the last.
    """
    ends = start.new_tensor([path.t_min if t_first is None else t_first, path.t_max if t_last is None else t_last])
    if not path.log_snr(ends).isfinite().all():
        raise InputError(
            f"from time {float(ends[0]):g} to {float(ends[1]):g} the log signal-to-noise ratio is not finite: "
            "give a first time with noise, and a last one with signal"
        )
    times, y = ends, start
    while True:
        # Resampled at every time, so that the pilot has no weights.
        smc = ReverseSmc(path, times[:2], None, proposal, resample_below=1.0)
        state = smc.init(energy_and_gradient, y)
        s = _next_time(smc, energy_and_gradient, state, generator, wanted, least_step)
        if s == times[0]:
            return times
        times = torch.cat([times[:1], s, times[1:]])
        y = dataclasses.replace(smc, times=times[1:3]).step(energy_and_gradient, state, generator)[0].position


def _next_time(
    smc: ReverseSmc,
    energy_and_gradient: EnergyAndGradient,
    state: ReverseSmcState,
    generator: torch.Generator,
    wanted: float,
    least_step: float,
) -> Float[Tensor, " 1"]:
    """Return the earliest time between those of the descent to which a step keeps the wanted fraction."""
    y, path = state.position, smc.path
    noise = torch.randn(y.shape, generator=generator, dtype=y.dtype, device=y.device)
    end, current = path.log_snr(smc.times).tolist()

    def time(log_snr: float) -> Tensor:
        return smc.times[:1] if log_snr == end else path.time_at_log_snr(smc.times.new_tensor([log_snr]))

    def keeps(log_snr: float) -> bool:
        with torch.no_grad():
            moved = smc.move(energy_and_gradient, state, smc.times[1:], time(log_snr), noise, None)
        return conditional_fraction(state.log_weights, moved.log_gain) >= wanted

    return time(_farthest(keeps, current, end, least_step))


def _farthest(keeps: Callable[[float], bool], current: float, end: float, least_step: float) -> float:
    """Return the farthest value that keeps what is wanted, by bisection; ``least_step`` from here at the least."""
    if keeps(end):
        return end
    low, high = current, end
    while high - low > least_step:
        middle = 0.5 * (low + high)
        low, high = (middle, high) if keeps(middle) else (low, middle)
    return min(end, max(low, current + least_step))
