r"""From one energy to another along the straight line between them, in steps that the particles choose.

Where weights ``exp(u_A - u_B)`` alone leave a handful of samples, a bridge leaves many: the particles take a little of
the weight at a time, the light ones go, and moves that leave every ``(1 - lambda) u_A + lambda u_B`` invariant heal
what they brought along. Bonds and angles are healed within a few moves; conformers, between which no move leads, keep
the weights that they were given. The particles at the end stand for ``exp(-u_B)`` whatever ``u_A`` was.

References:
    Del Moral, Doucet & Jasra 2006, J. R. Stat. Soc. B 68, 411; Jarzynski 1997, Phys. Rev. Lett. 78, 2690; Beskos,
    Jasra, Kantas & Thiery 2016, Ann. Appl. Probab. 26, 1111, for levels and steps that follow the particles.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from boltzgen_diffclf.samplers.rejuvenation import hamiltonian_moves
from boltzgen_diffclf.samplers.resampling import Resampling, select, systematic
from boltzgen_diffclf.samplers.spacing import next_lambda
from boltzgen_diffclf.samplers.state import TensorState
from boltzgen_diffclf.target import Ladder, LinearLadder, SingleLevel, Target


@dataclass(frozen=True, eq=False)
class BridgeState(TensorState):
    """Weighted particles on the bridge.

    Attributes:
        position: of the particles.
        difference: ``u_B - u_A`` there [kT]; infinite where either energy is no number.
        progress: lambda, 0 at the start and 1 at the end.
        step_size: of one leapfrog step, one entry.
        log_weights: since the last resampling, at ``progress``.
        log_normaliser: log ratio of normalisers banked by the resamplings so far.
        root: which of the particles that were given each descends from.
    """

    position: Float[Tensor, "batch *event"]
    difference: Float[Tensor, " batch"]
    progress: Float[Tensor, ""]
    step_size: Float[Tensor, " 1"]
    log_weights: Float[Tensor, " batch"]
    log_normaliser: Float[Tensor, ""]
    root: Int[Tensor, " batch"]

    @property
    def arrived(self) -> bool:
        """Whether the particles stand for the target."""
        return float(self.progress) == 1.0


@dataclass(frozen=True, eq=False)
class BridgeInfo:
    """What happened in one step.

    Attributes:
        effective_sample_size: of the weights on arrival, before any resampling.
        acceptance: mean of the moves of particles that have weight.
    """

    effective_sample_size: Float[Tensor, ""]
    acceptance: Float[Tensor, ""]


@dataclass(frozen=True, eq=False)
class Bridge:
    """Weigh a little further towards the target, resample if needed, move; until there.

    Attributes:
        origin: ``u_A``, what the particles stand for at the start.
        target: ``u_B``, on the same space.
        wanted: conditional effective fraction of each step, see
            :func:`~boltzgen_diffclf.samplers.spacing.conditional_fraction`.
        moves: proposals of Hamiltonian Monte Carlo in each step.
        n_leapfrog: force evaluations of each proposal.
        warm_up: proposals at the start, in which the step size is found.
        pilots: how many of the particles make them.
        first_step_size: where that begins [unit of x].
        resample_below: resample when the effective sample size falls below this fraction; None never does.
        resampling: the scheme.
        least_step: in lambda; where even that loses more than is wanted, the step is made all the same.
    """

    origin: Target
    target: Target
    wanted: float = 0.9
    moves: int = 2
    n_leapfrog: int = 4
    warm_up: int = 20
    pilots: int = 2000
    first_step_size: float = 0.01
    resample_below: float | None = 0.5
    resampling: Resampling = systematic
    least_step: float = 1e-5

    def difference(self, position: Float[Tensor, "batch *event"]) -> Float[Tensor, " batch"]:
        """Return ``u_B - u_A`` [kT], infinite where either is no number: minus the log weights without a bridge."""
        with torch.no_grad():
            difference = self.target.energy(position) - self.origin.energy(position)
        return torch.where(difference.isfinite(), difference, torch.inf)

    def init(
        self,
        position: Float[Tensor, "batch *event"],
        log_weights: Float[Tensor, " batch"],
        generator: torch.Generator,
    ) -> BridgeState:
        """Return particles at the start of the bridge, some of them moved until steps have the right size.

        Args:
            position: of the particles.
            log_weights: with respect to ``exp(-u_A)``.
            generator: on the device of ``position``.
        """
        step_size, counted = position.new_full((1,), self.first_step_size), log_weights.isfinite().nonzero()[:, 0]
        chosen = counted[:: -(-len(counted) // self.pilots)] if len(counted) else counted
        pilots, every = position[chosen], torch.ones_like(chosen, dtype=torch.bool)
        for index in range(self.warm_up if len(chosen) else 0):
            rate = 3.0 * (1 - index / self.warm_up)
            pilots, step_size, _ = hamiltonian_moves(
                self._between(0.0), pilots, every, 1, self.n_leapfrog, step_size, rate, generator
            )
        position = position.index_copy(0, chosen, pilots)
        return BridgeState(
            position=position,
            difference=self.difference(position),
            progress=torch.zeros((), dtype=torch.float64, device=position.device),
            step_size=step_size,
            log_weights=log_weights.double(),
            log_normaliser=log_weights.new_zeros((), dtype=torch.float64),
            root=torch.arange(len(position), device=position.device),
        )

    def step(self, state: BridgeState, generator: torch.Generator) -> tuple[BridgeState, BridgeInfo]:
        """Return the particles as far on as the wanted fraction allows, and what happened.

        Raises:
            ValueError: when the end has been reached.
            RunFailedError: when weights to resample are not finite.
        """
        if state.arrived:
            raise ValueError("the particles already are at the end of the bridge")
        here = float(state.progress)
        there = next_lambda(state.difference, state.log_weights, here, self.wanted, self.least_step)
        log_weights = state.log_weights - (there - here) * state.difference
        chosen = select(log_weights, self.resample_below, self.resampling, generator)
        counted = chosen.log_weights.isfinite()
        position, step_size, acceptance = hamiltonian_moves(
            self._between(there),
            state.position[chosen.ancestors],
            counted,
            self.moves,
            self.n_leapfrog,
            state.step_size,
            1.0,
            generator,
        )
        after = BridgeState(
            position=position,
            difference=self.difference(position),
            progress=torch.full_like(state.progress, there),
            step_size=step_size,
            log_weights=chosen.log_weights,
            log_normaliser=state.log_normaliser + chosen.banked,
            root=state.root[chosen.ancestors],
        )
        return after, BridgeInfo(chosen.effective_sample_size, acceptance)

    def _between(self, progress: float) -> Ladder:
        # At its ends one of the two energies is not asked for.
        if progress in (0.0, 1.0):
            return SingleLevel(self.target if progress else self.origin)
        return LinearLadder(self.origin, self.target, [progress])
