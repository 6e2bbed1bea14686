"""Annealed importance sampling and sequential Monte Carlo along any ladder, with any kernel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic

import torch
from jaxtyping import Float, Int
from torch import Tensor

from boltzgen_diffclf.samplers.kernels import Kernel, KernelInfo, State, relevel
from boltzgen_diffclf.samplers.resampling import Resampling, log_mean_exp, select, systematic
from boltzgen_diffclf.samplers.state import TensorState
from boltzgen_diffclf.target import Ladder


@dataclass(frozen=True, eq=False)
class AnnealingState(TensorState, Generic[State]):
    """Weighted particles on their way along the ladder.

    Attributes:
        particles: state of the kernel at the level ``order[stage]``.
        stage: position in the order of levels.
        log_weights: since the last resampling.
        work: ``sum_k u_(k+1)(x_k) - u_k(x_k)`` along each particle's line of ancestors [kT]; infinite, and the weight
            zero, from where an energy is no number.
        log_normaliser: log ratio of normalisers banked by the resamplings so far.
    """

    particles: State
    stage: Int[Tensor, ""]
    log_weights: Float[Tensor, " batch"]
    work: Float[Tensor, " batch"]
    log_normaliser: Float[Tensor, ""]


@dataclass(frozen=True, eq=False)
class AnnealingInfo:
    """What happened at one level.

    Attributes:
        effective_sample_size: of the weights on arrival, before any resampling.
        log_normaliser_increment: banked by the resampling of this stage; zero where none was needed.
        kernel: of the moves at this level.
    """

    effective_sample_size: Float[Tensor, ""]
    log_normaliser_increment: Float[Tensor, ""]
    kernel: KernelInfo


@dataclass(frozen=True, eq=False)
class Annealing(Generic[State]):
    """One pass along the levels ``order``: reweight to the next level, resample if needed, move there.

    Without resampling this is AIS, and ``work = -log_weights``; the reversed order gives the reverse work for
    Bennett's estimator. Weights are exact for kernels that leave each level exactly invariant (MALA, HMC);
    Langevin dynamics adds the error of its time step.

    Attributes:
        kernel: moves the particles at each level after the first.
        order: levels in the order of visiting; particles start in equilibrium at the first.
        steps_per_level: kernel steps at each.
        resample_below: resample when the effective sample size falls below this fraction; None never does.
        resampling: the scheme.

    References:
        Neal 2001, Stat. Comput. 11, 125; Del Moral, Doucet & Jasra 2006, J. R. Stat. Soc. B 68, 411.
    """

    kernel: Kernel[State]
    order: Sequence[int]
    steps_per_level: int = 1
    resample_below: float | None = None
    resampling: Resampling = systematic

    def __post_init__(self) -> None:
        """Refuse an order that goes nowhere."""
        if len(self.order) < 2:
            raise ValueError(f"annealing needs at least two levels, got the order {list(self.order)}")

    def init(
        self,
        ladder: Ladder,
        position: Float[Tensor, "batch *event"],
        generator: torch.Generator,
        log_weights: Float[Tensor, " batch"] | None = None,
    ) -> AnnealingState[State]:
        """Return particles at the first level: in equilibrium there, or of ``log_weights`` with respect to it."""
        level = torch.full((len(position),), self.order[0], device=position.device)
        particles = self.kernel.init(ladder, position, level, generator)
        zeros = torch.zeros(len(position), dtype=torch.float64, device=position.device)
        weights = zeros if log_weights is None else log_weights.double()
        return AnnealingState(particles, level.new_zeros(()), weights, zeros, zeros.new_zeros(()))

    def step(
        self, ladder: Ladder, state: AnnealingState[State], generator: torch.Generator
    ) -> tuple[AnnealingState[State], AnnealingInfo]:
        """Return the particles at the next level, and what happened.

        Raises:
            ValueError: when the last level has been reached.
            RunFailedError: when weights to resample are not finite.
        """
        stage = int(state.stage) + 1
        if stage >= len(self.order):
            raise ValueError(f"the particles already are at the last level {self.order[-1]}")
        level = torch.full(state.log_weights.shape, self.order[stage], device=state.log_weights.device)
        previous = torch.full_like(level, self.order[stage - 1])
        arrived = relevel(ladder, state.particles, previous, level)
        increment = _increment(state.particles.energy, arrived.energy)
        chosen = select(state.log_weights - increment, self.resample_below, self.resampling, generator)
        start = arrived.select(chosen.ancestors)
        particles, kernel_info = self.kernel.run(ladder, start, level, self.steps_per_level, generator)
        moved = AnnealingState(
            particles=particles,
            stage=state.stage + 1,
            log_weights=chosen.log_weights,
            work=(state.work + increment)[chosen.ancestors],
            log_normaliser=state.log_normaliser + chosen.banked,
        )
        return moved, AnnealingInfo(chosen.effective_sample_size, chosen.banked, kernel_info)


def _increment(before: Float[Tensor, " batch"], after: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
    """Return ``after - before`` [kT]; infinite, as of a particle without weight, where either is no number."""
    increment = after.double() - before.double()
    return torch.where(increment.isfinite(), increment, torch.inf)


@dataclass(frozen=True, eq=False)
class AnnealingResult(Generic[State]):
    """The end of a pass over ``n`` levels.

    Attributes:
        particles: at the last level.
        log_weights: of the particles there.
        work: of each particle's line of ancestors [kT]; minus what ``log_weights`` gained where nothing was resampled.
        log_normaliser: estimate of ``log Z_last - log Z_first``, unbiased for the ratio itself; of
            ``log Z_last`` alone where the particles came with weights, see :func:`anneal`.
        effective_sample_size: on arrival at each level after the first.
        acceptance: mean of the kernel at each level after the first.
        log_normaliser_increments: banked by resampling at each level after the first.
        nonfinite: particles whose moves met a NaN or infinite energy, at each level after the first.
    """

    particles: State
    log_weights: Float[Tensor, " batch"]
    work: Float[Tensor, " batch"]
    log_normaliser: Float[Tensor, ""]
    effective_sample_size: Float[Tensor, " stages"]
    acceptance: Float[Tensor, " stages"]
    log_normaliser_increments: Float[Tensor, " stages"]
    nonfinite: Int[Tensor, " stages"]

    @property
    def delta_f(self) -> float:
        """``F_last - F_first`` [kT]."""
        return -float(self.log_normaliser)


def anneal(
    annealing: Annealing[State],
    ladder: Ladder,
    position: Float[Tensor, "batch *event"],
    generator: torch.Generator,
    log_weights: Float[Tensor, " batch"] | None = None,
) -> AnnealingResult[State]:
    """Return the end of a whole pass; to save between the levels, call ``init`` and ``step`` instead.

    Args:
        annealing: how to go.
        ladder: the levels.
        position: in equilibrium at the first level, or with weights there.
        generator: of the moves and the resampling.
        log_weights: ``-u_first(x) - log q(x)`` of particles drawn from a normalised density ``q`` instead.
    """
    state = annealing.init(ladder, position, generator, log_weights)
    infos = []
    for _ in annealing.order[1:]:
        state, info = annealing.step(ladder, state, generator)
        infos.append(info)
    return AnnealingResult(
        particles=state.particles,
        log_weights=state.log_weights,
        work=state.work,
        log_normaliser=state.log_normaliser + log_mean_exp(state.log_weights),
        effective_sample_size=torch.stack([info.effective_sample_size for info in infos]),
        acceptance=torch.stack([info.kernel.acceptance.mean() for info in infos]),
        log_normaliser_increments=torch.stack([info.log_normaliser_increment for info in infos]),
        nonfinite=torch.stack([info.kernel.nonfinite.sum() for info in infos]),
    )
