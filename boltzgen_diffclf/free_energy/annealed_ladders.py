"""The ladders that two molecular states are annealed along: the straight line, and the learned path."""

from __future__ import annotations

from dataclasses import replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from boltzgen_diffclf.energy import EnergyModel, LearnedLadder
from boltzgen_diffclf.free_energy.annealed import AnnealedWorks, AnnealingSettings, annealed_works
from boltzgen_diffclf.free_energy.evaluation import Cost
from boltzgen_diffclf.free_energy.internal_space import InternalSpace
from boltzgen_diffclf.free_energy.step_sizes import KernelFamily, mala_family
from boltzgen_diffclf.paths import arcsine_levels
from boltzgen_diffclf.target import CountingTarget, LinearLadder, Target

TORSION_PRECONDITIONER = 0.1
"""Squared length [rad^2] of a torsion's moves where that of a whitened coordinate is one."""


def linear_ladder_works(
    target_a: Target,
    target_b: Target,
    frames_a: Float[Tensor, "frames_a *event"],
    group_a: Int[Tensor, " frames_a"],
    frames_b: Float[Tensor, "frames_b *event"],
    group_b: Int[Tensor, " frames_b"],
    family: KernelFamily,
    settings: AnnealingSettings,
    generator: torch.Generator,
) -> AnnealedWorks:
    """Return works along ``(1 - lambda) u_A + lambda u_B``, lambda evenly spaced; see :func:`annealed_works`.

    Args:
        target_a: energy of state A.
        target_b: energy of state B.
        frames_a: configurations of state A.
        group_a: walker of each.
        frames_b: configurations of state B.
        group_b: walker of each; a label that A has too is one walker.
        family: moves; for positions :func:`hmc_family` with the inverse masses.
        settings: sizes.
        generator: see :func:`annealed_works`.
    """
    counted_a, counted_b = CountingTarget(target_a), CountingTarget(target_b)
    ladder = LinearLadder(counted_a, counted_b, torch.linspace(0, 1, settings.levels, dtype=torch.float64).tolist())
    works = annealed_works(
        ladder,
        frames_a.to(target_a.device, target_a.dtype),
        group_a,
        frames_b.to(target_a.device, target_a.dtype),
        group_b,
        family,
        settings,
        generator,
    )
    evaluations = counted_a.evaluations + counted_b.evaluations
    return replace(works, cost=replace(works.cost, energy_evaluations=evaluations))


def learned_works(
    model: EnergyModel,
    space: InternalSpace,
    frames_a: Float[Tensor, "frames_a atoms 3"],
    group_a: Int[Tensor, " frames_a"],
    frames_b: Float[Tensor, "frames_b atoms 3"],
    group_b: Int[Tensor, " frames_b"],
    settings: AnnealingSettings,
    generator: torch.Generator,
) -> AnnealedWorks:
    """Return works along ``U_theta(., t)`` at arcsine levels, in path coordinates; see :func:`annealed_works`.

    Only levels whose ends are the true energies give an unbiased answer, whatever the network has learned: the
    model must be anchored.

    Args:
        model: anchored, in float64.
        space: the path's coordinates and the true end energies.
        frames_a: positions of state A [nm].
        group_a: walker of each.
        frames_b: positions of state B [nm].
        group_b: walker of each; a label that A has too is one walker.
        settings: sizes.
        generator: see :func:`annealed_works`.
    """
    ladder, counters = counted_ladder(model, space, arcsine_levels(settings.levels))
    works = annealed_works(
        ladder,
        space.encode(frames_a.to(ladder.device, ladder.dtype)),
        group_a,
        space.encode(frames_b.to(ladder.device, ladder.dtype)),
        group_b,
        mala_family(path_preconditioner(space)),
        settings,
        generator,
    )
    evaluations = sum(counter.evaluations for counter in counters)
    return replace(works, cost=Cost(evaluations, ladder.network_evaluations, works.cost.seconds))


def counted_ladder(
    model: EnergyModel, space: InternalSpace, times: Float[Tensor, " levels"]
) -> tuple[LearnedLadder, tuple[CountingTarget, CountingTarget]]:
    """Return the learned ladder at ``times`` and the counters of its two end targets."""
    counters = CountingTarget(space.target_a), CountingTarget(space.target_b)
    return LearnedLadder(model, times, *counters), counters


def path_preconditioner(space: InternalSpace) -> Float[Tensor, " dim"]:
    """Return the squared lengths of moves in path coordinates: one for whitened columns, less for torsions."""
    scale = space.path.noise_scale
    return torch.where(space.scaled.is_periodic, TORSION_PRECONDITIONER, 1.0).to(scale)
