"""MBAR over levels of the learned path whose configurations were first relaxed on the learned energies."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from boltzgen_diffclf.energy import EnergyModel, LearnedLadder
from boltzgen_diffclf.errors import InputError
from boltzgen_diffclf.estimators import Estimate
from boltzgen_diffclf.free_energy.annealed_ladders import counted_ladder, path_preconditioner
from boltzgen_diffclf.free_energy.evaluation import Cost
from boltzgen_diffclf.free_energy.internal_space import InternalSpace
from boltzgen_diffclf.free_energy.learned import mbar_over_levels
from boltzgen_diffclf.free_energy.step_sizes import mala_family, pilot_step_sizes
from boltzgen_diffclf.streams import named_generator
from boltzgen_diffclf.training import PathData

_CHUNK = 4096


@dataclass(frozen=True)
class RelaxationSettings:
    """Sizes of the relaxation.

    Attributes:
        levels: of the pool's levels that enter MBAR, evenly spread, both exact ends included.
        configurations: a level.
        steps: MALA steps of the configurations between the ends.
        target_acceptance: wanted of the pilot's step sizes.
        pilot_configurations: walkers a level of the pilot run.
        pilot_steps: its length.
    """

    levels: int = 11
    configurations: int = 500
    steps: int = 50
    target_acceptance: float = 0.574
    pilot_configurations: int = 32
    pilot_steps: int = 24

    def __post_init__(self) -> None:
        """Refuse sizes without a level between the ends."""
        if self.levels < 3 or min(self.configurations, self.pilot_configurations, self.pilot_steps) < 2:
            raise ValueError(f"relaxation needs three levels and two configurations of each: {self}")
        if self.steps < 1:
            raise ValueError(f"relaxation needs a step, got {self.steps}")


@dataclass(frozen=True, eq=False)
class RelaxedMbar:
    """The estimate and how far to believe it.

    Attributes:
        estimate: F_B - F_A; its standard error is that of the configurations at fixed model, those of one origin taken
            together, as if their moves had not parted them.
        overlap_matrix: of the levels.
        acceptance: of the moves at each level between the ends.
        cost: of the relaxation and the energies.
    """

    estimate: Estimate
    overlap_matrix: Float[np.ndarray, "levels levels"]
    acceptance: Float[np.ndarray, " inner"]
    cost: Cost


def relaxed_mbar(
    model: EnergyModel,
    space: InternalSpace,
    data: PathData,
    settings: RelaxationSettings,
    generator: torch.Generator,
) -> RelaxedMbar:
    """Move configurations of the path by MALA on ``U_theta(., t)``, each at its level, then solve MBAR.

    A long enough relaxation makes any anchored model right; one that is short of it, for a path whose modes do not
    mix, can be further off than the unrelaxed answer: a check, not a guarantee.

    Args:
        model: anchored, in float64.
        space: the path's coordinates and the true end energies.
        data: configurations that the model has not seen, float64.
        settings: sizes.
        generator: gives the seeds of the pilot and of the moves.

    Raises:
        InputError: a pool with too few levels or configurations.

    References:
        Shirts & Chodera 2008, J. Chem. Phys. 129:124105; Roberts & Tweedie 1996, Bernoulli 2, 341.
    """
    begun = time.monotonic()
    keep = _chosen_levels(data, settings)
    ladder, counters = counted_ladder(model, space, data.levels[keep])
    y, acceptance = _relax(ladder, space, data.y[keep, : settings.configurations], settings, generator)
    energies = torch.cat([ladder.energies(part) for part in y.flatten(0, 1).split(_CHUNK)])
    estimate, overlap_matrix = mbar_over_levels(
        energies.detach().unflatten(0, y.shape[:2]), data.origin[keep, : settings.configurations]
    )
    return RelaxedMbar(
        estimate=replace(estimate, method="MALA + MBAR"),
        overlap_matrix=overlap_matrix,
        acceptance=acceptance.cpu().numpy(),
        cost=Cost(
            sum(counter.evaluations for counter in counters),
            ladder.network_evaluations,
            time.monotonic() - begun,
        ),
    )


def _chosen_levels(data: PathData, settings: RelaxationSettings) -> Int[Tensor, " chosen"]:
    n_levels, pool, _ = data.y.shape
    if n_levels < settings.levels or pool < settings.configurations:
        raise InputError(
            f"the pool holds {n_levels} levels of {pool} configurations, and {settings.levels} of "
            f"{settings.configurations} are wanted; use fewer, or a larger evaluation pool"
        )
    return torch.linspace(0, n_levels - 1, settings.levels, dtype=torch.float64).round().long()


def _relax(
    ladder: LearnedLadder,
    space: InternalSpace,
    y: Float[Tensor, "levels pool dim"],
    settings: RelaxationSettings,
    generator: torch.Generator,
) -> tuple[Float[Tensor, "levels pool dim"], Float[Tensor, " inner"]]:
    """Return the configurations after their moves, the exact ends as they are, and the acceptance."""
    n_levels, pool, dim = y.shape
    seed = int(torch.randint(2**62, (1,), generator=generator, device=generator.device))
    inner = torch.arange(1, n_levels - 1, device=y.device)
    family = mala_family(path_preconditioner(space))
    pilot = y[1:-1, : settings.pilot_configurations]
    visits = inner.repeat_interleave(pilot.shape[1]).expand(settings.pilot_steps, -1)
    step_sizes = pilot_step_sizes(
        ladder,
        family,
        pilot.reshape(-1, dim),
        visits,
        settings.target_acceptance,
        named_generator(seed, "pilot", y.device),
    )
    kernel, stream = family.build(step_sizes), named_generator(seed, "moves", y.device)
    moved, acceptance = [], []
    for position, level in _chunks(y[1:-1].reshape(-1, dim), inner.repeat_interleave(pool)):
        start = kernel.init(ladder, position, level, stream)
        state, info = kernel.run(ladder, start, level, settings.steps, stream)
        moved.append(state.position)
        acceptance.append(info.acceptance)
    relaxed = torch.cat([y[:1], torch.cat(moved).reshape(-1, pool, dim), y[-1:]])
    return relaxed, torch.cat(acceptance).reshape(-1, pool).mean(1)


def _chunks(
    position: Float[Tensor, "batch dim"], level: Int[Tensor, " batch"]
) -> zip[tuple[Float[Tensor, "chunk dim"], Int[Tensor, " chunk"]]]:
    return zip(position.split(_CHUNK), level.split(_CHUNK), strict=True)
