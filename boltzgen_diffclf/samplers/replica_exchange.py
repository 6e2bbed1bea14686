"""Replica exchange along any ladder: temperatures, alchemical states, noise levels."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Generic

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from boltzgen_diffclf.samplers.kernels import Kernel, KernelInfo, State, metropolis_accept, relevel
from boltzgen_diffclf.samplers.state import TensorState
from boltzgen_diffclf.target import Ladder


@dataclass(frozen=True, eq=False)
class ExchangeCounters(TensorState):
    """Totals since the start.

    Attributes:
        attempted: swaps tried between levels k and k + 1.
        accepted: swaps made between levels k and k + 1.
        occupancy: sweeps that each walker ended at each level.
        round_trips: journeys bottom, top, bottom that each walker has completed.
        heading: 1 after the bottom level, -1 after the top, 0 for a walker that has not seen the bottom.
    """

    attempted: Int[Tensor, " pairs"]
    accepted: Int[Tensor, " pairs"]
    occupancy: Int[Tensor, "walkers levels"]
    round_trips: Int[Tensor, " walkers"]
    heading: Int[Tensor, " walkers"]

    @classmethod
    def zero(cls, level: Int[Tensor, " walkers"], n_levels: int) -> ExchangeCounters:
        """Return the counters of walkers at ``level`` before anything has happened, e.g. after a burn-in."""
        return cls(
            attempted=level.new_zeros(n_levels - 1),
            accepted=level.new_zeros(n_levels - 1),
            occupancy=level.new_zeros(len(level), n_levels),
            round_trips=torch.zeros_like(level),
            heading=(level == 0).long(),
        )

    @property
    def acceptance(self) -> Float[Tensor, " pairs"]:
        """Fraction of swaps made between neighbours; NaN where none was tried."""
        return self.accepted.double() / self.attempted.double()


@dataclass(frozen=True, eq=False)
class ReplicaExchangeState(TensorState, Generic[State]):
    """Walkers, where each is on the ladder, and the totals.

    Attributes:
        walkers: state of the kernel; walker ``r * levels + k`` belongs to replica group r and started at level k.
        level: of each walker; a permutation of all levels within each group.
        sweep: sweeps made; its parity chooses which pairs are tried next.
        counters: totals since the start.
    """

    walkers: State
    level: Int[Tensor, " walkers"]
    sweep: Int[Tensor, ""]
    counters: ExchangeCounters


@dataclass(frozen=True, eq=False)
class ReplicaExchangeInfo:
    """What happened in one sweep.

    Attributes:
        kernel: of the moves between the swaps.
        attempted: swaps tried between levels k and k + 1.
        accepted: swaps made between levels k and k + 1.
    """

    kernel: KernelInfo
    attempted: Int[Tensor, " pairs"]
    accepted: Int[Tensor, " pairs"]


@dataclass(frozen=True, eq=False)
class ReplicaExchange(Generic[State]):
    """Independent groups of one walker a level: moves of a kernel, then swaps of levels between neighbours.

    Levels travel, configurations stay, so velocities need no rescaling: on every level they belong to the
    reference temperature.

    Attributes:
        kernel: moves the walkers at their levels.
        steps_per_sweep: kernel steps before each round of swaps.

    References:
        Sugita & Okamoto 1999, Chem. Phys. Lett. 314, 141.
    """

    kernel: Kernel[State]
    steps_per_sweep: int

    def init(
        self, ladder: Ladder, position: Float[Tensor, "walkers *event"], generator: torch.Generator
    ) -> ReplicaExchangeState[State]:
        """Return the start: walker ``r * levels + k`` at level k.

        Args:
            ladder: of ``levels`` levels.
            position: ``groups * levels`` configurations.
            generator: of the kernel's first draws.

        Raises:
            ValueError: when the walkers do not fill whole groups.
        """
        n_walkers, n_levels = len(position), ladder.n_levels
        if n_walkers == 0 or n_walkers % n_levels:
            raise ValueError(f"{n_walkers} walkers do not fill whole groups of {n_levels} levels")
        level = torch.arange(n_levels, device=position.device).repeat(n_walkers // n_levels)
        walkers = self.kernel.init(ladder, position, level, generator)
        counters = ExchangeCounters.zero(level, n_levels)
        return ReplicaExchangeState(walkers, level, level.new_zeros(()), counters)

    def step(
        self, ladder: Ladder, state: ReplicaExchangeState[State], generator: torch.Generator
    ) -> tuple[ReplicaExchangeState[State], ReplicaExchangeInfo]:
        """Return the state after one sweep, the kernel's steps and a round of swaps, and what happened."""
        walkers, kernel_info = self.kernel.run(ladder, state.walkers, state.level, self.steps_per_sweep, generator)
        partner, pair = _pairing(state.level.view(-1, ladder.n_levels), state.sweep)
        new_level = state.level[partner]
        moved = relevel(ladder, walkers, state.level, new_level)
        gain = walkers.energy - moved.energy
        swapped = _decide(gain, partner, pair, ladder.n_levels, generator)
        level = torch.where(swapped, new_level, state.level)
        info = ReplicaExchangeInfo(
            kernel_info,
            attempted=_count_pairs(pair, pair >= 0, ladder.n_levels),
            accepted=_count_pairs(pair, swapped, ladder.n_levels),
        )
        counters = _update(state.counters, level, info)
        return ReplicaExchangeState(_merge(swapped, moved, walkers), level, state.sweep + 1, counters), info


def _pairing(
    level: Int[Tensor, "groups levels"], sweep: Int[Tensor, ""]
) -> tuple[Int[Tensor, " walkers"], Int[Tensor, " walkers"]]:
    """Return each walker's partner (itself where it has none) and the lower level of the pair (-1 for none)."""
    n_groups, n_levels = level.shape
    upward = (level + sweep) % 2 == 0
    wanted = torch.where(upward, level + 1, level - 1)
    alone = (wanted < 0) | (wanted >= n_levels)
    partner_level = torch.where(alone, level, wanted)
    walker_at_level = level.argsort(dim=1)
    first_of_group = n_levels * torch.arange(n_groups, device=level.device)[:, None]
    partner = walker_at_level.gather(1, partner_level) + first_of_group
    pair = torch.where(alone, -1, torch.minimum(level, partner_level))
    return partner.flatten(), pair.flatten()


def _decide(
    gain: Float[Tensor, " walkers"],
    partner: Int[Tensor, " walkers"],
    pair: Int[Tensor, " walkers"],
    n_levels: int,
    generator: torch.Generator,
) -> Bool[Tensor, " walkers"]:
    """Return which walkers swap; both of a pair read the one decision made for it."""
    has_partner = pair >= 0
    group = torch.arange(len(pair), device=pair.device) // n_levels
    slot = group * n_levels + pair.clamp(min=0)
    log_ratio = torch.full_like(gain, -torch.inf)
    log_ratio[slot[has_partner]] = (gain + gain[partner])[has_partner]
    return metropolis_accept(log_ratio, generator)[slot] & has_partner


def _count_pairs(
    pair: Int[Tensor, " walkers"], chosen: Bool[Tensor, " walkers"], n_levels: int
) -> Int[Tensor, " pairs"]:
    # Both walkers of a pair are marked, hence the half.
    return torch.bincount(pair[chosen], minlength=n_levels)[: n_levels - 1] // 2


def _merge(swapped: Bool[Tensor, " walkers"], moved: State, stayed: State) -> State:
    wide = swapped.view(-1, *[1] * (stayed.position.ndim - 1))
    return dataclasses.replace(
        stayed,
        energy=torch.where(swapped, moved.energy, stayed.energy),
        force=torch.where(wide, moved.force, stayed.force),
    )


def _update(counters: ExchangeCounters, level: Int[Tensor, " walkers"], info: ReplicaExchangeInfo) -> ExchangeCounters:
    n_levels = counters.occupancy.shape[1]
    at_bottom, at_top = level == 0, level == n_levels - 1
    heading = torch.where(at_top & (counters.heading == 1), -1, counters.heading)
    return ExchangeCounters(
        attempted=counters.attempted + info.attempted,
        accepted=counters.accepted + info.accepted,
        occupancy=counters.occupancy + torch.nn.functional.one_hot(level, n_levels),
        round_trips=counters.round_trips + (at_bottom & (counters.heading == -1)),
        heading=torch.where(at_bottom, 1, heading),
    )
