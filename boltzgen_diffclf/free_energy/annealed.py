"""Works of annealing between two states, forward and reverse, along any ladder, and what Bennett makes of them."""

from __future__ import annotations

import logging
import math
import time
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from boltzgen_diffclf.errors import InputError
from boltzgen_diffclf.estimators import Estimate, bar, exponential_averaging
from boltzgen_diffclf.estimators.replicates import student_factor
from boltzgen_diffclf.free_energy.evaluation import Cost
from boltzgen_diffclf.free_energy.step_sizes import (
    KernelFamily,
    march_from_both_ends,
    pilot_step_sizes,
)
from boltzgen_diffclf.samplers import Annealing, Kernel, KernelState, anneal
from boltzgen_diffclf.samplers.resampling import effective_sample_size
from boltzgen_diffclf.streams import named_generator
from boltzgen_diffclf.target import Ladder

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class AnnealingSettings:
    """Sizes of one annealing between two states.

    Attributes:
        levels: on the ladder, both ends included; at least three.
        particles: in each direction.
        steps_per_level: kernel steps at each level between the ends. Arriving at a level costs one evaluation
            besides, so fewer than three waste much of the effort.
        resample_below: resample when the effective fraction of the particles falls below this (sequential Monte
            Carlo); None never does (annealed importance sampling).
        populations: independent populations of a sequential Monte Carlo run, each of other walkers; their scatter
            is the error bar. Not used without resampling.
        target_acceptance: wanted of the pilot's step sizes; 0.574 is best for MALA, 0.65 for HMC.
        pilot_particles: walkers a level of the pilot run.
        pilot_steps: kernel steps of the pilot run.
    """

    levels: int = 17
    particles: int = 512
    steps_per_level: int = 3
    resample_below: float | None = None
    populations: int = 8
    target_acceptance: float = 0.574
    pilot_particles: int = 16
    pilot_steps: int = 24

    def __post_init__(self) -> None:
        """Refuse sizes that are no annealing."""
        if self.levels < 3 or self.steps_per_level < 0 or min(self.pilot_particles, self.pilot_steps) < 1:
            raise ValueError(f"annealing needs three levels, a pilot run and no negative number of steps: {self}")
        if self.particles < 2 or (self.resample_below is not None and self.particles < 2 * self.populations):
            raise ValueError(f"annealing needs two particles at least in each population: {self}")


@dataclass(frozen=True, eq=False)
class AnnealedWorks:
    """Works of both directions and how the passes went.

    Attributes:
        forward: from A to B [kT]. With resampling ``-(log_weight + log_normaliser)`` of each particle, whose
            exponential average is that of the population.
        reverse: from B to A [kT].
        groups_forward: walker of each forward work; its population with resampling.
        groups_reverse: walker of each reverse work; its population with resampling.
        acceptance_forward: mean of the kernel at levels 1 to ``levels - 2``.
        acceptance_reverse: the same of the reverse pass, in the same order of levels.
        effective_fraction_forward: effective share of the particles on arrival at levels 1 to ``levels - 1``.
        effective_fraction_reverse: on arrival at levels 0 to ``levels - 2``.
        step_sizes: of every level, fixed before the passes.
        nonfinite: works of both directions that were not finite; they count as samples of weight zero.
        resampled: whether this was sequential Monte Carlo.
        cost: of pilot and passes.
    """

    forward: Float[np.ndarray, " forward"]
    reverse: Float[np.ndarray, " reverse"]
    groups_forward: Int[np.ndarray, " forward"]
    groups_reverse: Int[np.ndarray, " reverse"]
    acceptance_forward: Float[np.ndarray, " inner"]
    acceptance_reverse: Float[np.ndarray, " inner"]
    effective_fraction_forward: Float[np.ndarray, " arrivals"]
    effective_fraction_reverse: Float[np.ndarray, " arrivals"]
    step_sizes: Float[np.ndarray, " levels"]
    nonfinite: int
    resampled: bool
    cost: Cost


def annealed_works(
    ladder: Ladder,
    frames_a: Float[Tensor, "frames_a *event"],
    group_a: Int[Tensor, " frames_a"],
    frames_b: Float[Tensor, "frames_b *event"],
    group_b: Int[Tensor, " frames_b"],
    family: KernelFamily,
    settings: AnnealingSettings,
    generator: torch.Generator,
) -> AnnealedWorks:
    """Anneal frames of A up the ladder and frames of B down it; the works are exact whatever the ladder.

    Args:
        ladder: from state A to state B.
        frames_a: of state A, in the ladder's coordinates.
        group_a: walker of each.
        frames_b: of state B.
        group_b: walker of each; a label that A has too is one walker.
        family: the moves; their step sizes come from a pilot run.
        settings: sizes; ``levels`` is that of the ladder.
        generator: gives the seeds of three streams, pilot, forward and reverse.

    Returns:
        ``cost`` holds the seconds alone: who made the ladder knows how to count its evaluations.

    Raises:
        InputError: fewer walkers than populations.
        RunFailedError: when weights to resample are not finite.

    References:
        Crooks 1999, Phys. Rev. E 60, 2721 (both directions); Neal 2001, Stat. Comput. 11, 125 (annealing).
    """
    if ladder.n_levels != settings.levels:
        raise ValueError(f"the ladder has {ladder.n_levels} levels and the settings say {settings.levels}")
    begun = time.monotonic()
    seed = int(torch.randint(2**62, (1,), generator=generator, device=generator.device))
    streams = {name: named_generator(seed, name, frames_a.device) for name in ("pilot", "forward", "reverse")}
    step_sizes = _pilot(ladder, frames_a, frames_b, family, settings, streams["pilot"])
    kernel = family.build(step_sizes)
    up = range(settings.levels)
    forward = _pass(ladder, kernel, up, frames_a, group_a, settings, streams["forward"])
    reverse = _pass(ladder, kernel, up[::-1], frames_b, group_b, settings, streams["reverse"])
    nonfinite = forward.nonfinite + reverse.nonfinite
    if nonfinite:
        _log.warning("%d of %d works are not finite and count as zero weight", nonfinite, 2 * settings.particles)
    return AnnealedWorks(
        forward=forward.work,
        reverse=reverse.work,
        groups_forward=forward.label,
        groups_reverse=reverse.label,
        acceptance_forward=forward.acceptance,
        acceptance_reverse=reverse.acceptance[::-1],
        effective_fraction_forward=forward.effective_fraction,
        effective_fraction_reverse=reverse.effective_fraction[::-1],
        step_sizes=step_sizes.double().cpu().numpy(),
        nonfinite=nonfinite,
        resampled=settings.resample_below is not None,
        cost=Cost(seconds=time.monotonic() - begun),
    )


def annealed_estimate(works: AnnealedWorks, generator: np.random.Generator) -> tuple[Estimate, Cost]:
    """Return F_B - F_A [kT] from works of both directions, and what they cost.

    Without resampling this is Bennett's acceptance ratio of the works, the walkers bootstrapped whole. Resampled
    populations of the two directions are no time-reversed pairs, so there the answer is the mean of the two
    one-sided ones, whose biases have opposite signs; the error is the scatter of the populations, with Student's factor
    for their number.

    Args:
        works: of :func:`annealed_works`.
        generator: of the bootstrap.

    References:
        Shirts et al. 2003, Phys. Rev. Lett. 91:140601, eq. 7; Del Moral, Doucet & Jasra 2006, J. R. Stat. Soc. B
        68, 411.
    """
    if not works.resampled:
        estimate = bar(
            works.forward,
            works.reverse,
            groups_forward=works.groups_forward,
            groups_reverse=works.groups_reverse,
            generator=generator,
        )
        return replace(estimate, method="AIS + BAR"), works.cost
    up = exponential_averaging(works.forward, direction="forward", groups=works.groups_forward)
    down = exponential_averaging(works.reverse, direction="reverse", groups=works.groups_reverse)
    few_up, few_down = (student_factor(len(np.unique(one))) for one in (works.groups_forward, works.groups_reverse))
    estimate = Estimate(
        value=0.5 * (up.value + down.value),
        stderr=0.5 * math.hypot(few_up * up.stderr, few_down * down.stderr),
        overlap=None,
        n_effective=up.n_effective + down.n_effective,
        method="SMC",
    )
    return estimate, works.cost


def spread_over_groups(group: Int[Tensor, " frames"], n: int) -> Int[Tensor, " n"]:
    """Return ``n`` frames evenly spread over the walkers and along each; some repeat where ``n`` exceeds them.

    >>> spread_over_groups(torch.tensor([1, 0, 1, 0]), 2).tolist()
    [3, 2]
    """
    order = torch.argsort(group, stable=True)
    place = (2 * torch.arange(n, device=group.device) + 1) * len(group) // (2 * n)
    return order[place]


@dataclass(frozen=True, eq=False)
class _Pass:
    """One direction, in the order of its visits."""

    work: Float[np.ndarray, " particles"]
    label: Int[np.ndarray, " particles"]
    acceptance: Float[np.ndarray, " inner"]
    effective_fraction: Float[np.ndarray, " arrivals"]
    nonfinite: int


def _pilot(
    ladder: Ladder,
    frames_a: Float[Tensor, "frames_a *event"],
    frames_b: Float[Tensor, "frames_b *event"],
    family: KernelFamily,
    settings: AnnealingSettings,
    generator: torch.Generator,
) -> Float[Tensor, " levels"]:
    device = frames_a.device
    visits = march_from_both_ends(settings.levels, settings.pilot_particles, settings.pilot_steps).to(device)
    chosen = [
        frames[torch.randint(len(frames), visits.shape[1:], generator=generator, device=device)]
        for frames in (frames_a, frames_b)
    ]
    # The last walkers belong to the highest levels, the first to the lowest.
    n_from_a = (settings.levels + 1) // 2 * settings.pilot_particles
    start = torch.cat([chosen[0][:n_from_a], chosen[1][n_from_a:]])
    return pilot_step_sizes(ladder, family, start, visits, settings.target_acceptance, generator)


def _pass(
    ladder: Ladder,
    kernel: Kernel[KernelState],
    order: range,
    frames: Float[Tensor, "frames *event"],
    group: Int[Tensor, " frames"],
    settings: AnnealingSettings,
    generator: torch.Generator,
) -> _Pass:
    batches, label = _batches(group.to(frames.device), settings)
    parts = [_anneal_batch(ladder, kernel, order, frames[batch], settings, generator) for batch in batches]
    work = torch.cat([part[0] for part in parts])
    finite = torch.isfinite(work)
    return _Pass(
        work=torch.where(finite, work, torch.inf).cpu().numpy(),
        label=label.cpu().numpy(),
        acceptance=torch.stack([part[1] for part in parts]).mean(0).double().cpu().numpy(),
        effective_fraction=torch.stack([part[2] for part in parts]).mean(0).cpu().numpy(),
        nonfinite=int((~finite).sum()),
    )


def _batches(
    group: Int[Tensor, " frames"], settings: AnnealingSettings
) -> tuple[list[Int[Tensor, " batch"]], Int[Tensor, " particles"]]:
    """Return the frames that are annealed together and the label of each: its walker, or its population."""
    if settings.resample_below is None:
        chosen = spread_over_groups(group, settings.particles)
        return [chosen], group[chosen]
    walkers = torch.unique(group)
    n = settings.populations
    if len(walkers) < n:
        raise InputError(f"{len(walkers)} walkers cannot fill {n} populations; use more walkers, or fewer populations")
    batches = []
    for part in torch.tensor_split(walkers, n):
        members = torch.isin(group, part).nonzero()[:, 0]
        batches.append(members[spread_over_groups(group[members], settings.particles // n)])
    label = torch.arange(n, device=group.device).repeat_interleave(settings.particles // n)
    return batches, label


def _anneal_batch(
    ladder: Ladder,
    kernel: Kernel[KernelState],
    order: range,
    start: Float[Tensor, "batch *event"],
    settings: AnnealingSettings,
    generator: torch.Generator,
) -> tuple[Float[Tensor, " batch"], Float[Tensor, " inner"], Float[Tensor, " arrivals"]]:
    """Return works, acceptance at the levels between, effective fraction on arrival at all but the first."""
    # The works are complete on arrival at the last level: moves there would be thrown away.
    annealing = Annealing(kernel, order[:-1], settings.steps_per_level, settings.resample_below)
    result = anneal(annealing, ladder, start, generator)
    last = torch.full((len(start),), order[-1], device=start.device)
    increment = ladder.energy(result.particles.position, last).detach().double() - result.particles.energy.double()
    log_weight = result.log_weights - increment
    work = -(log_weight + result.log_normaliser_increments.sum())
    sizes = torch.cat([result.effective_sample_size, effective_sample_size(log_weight)[None]])
    return work, result.acceptance, sizes / len(start)
