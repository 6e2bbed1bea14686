"""Training of noised energies: groups of levels, a clean sample at each, under any mixture of the losses."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from boltzgen_diffclf.compilation import fuse
from boltzgen_diffclf.errors import InputError
from boltzgen_diffclf.nets import MultiLevelNet
from boltzgen_diffclf.noised_energy import NoisedEnergyModel
from boltzgen_diffclf.paths import DiffusionPath
from boltzgen_diffclf.training.clean_data import CleanData
from boltzgen_diffclf.training.level_chains import N_LEAPFROG, LevelChains, LevelChainsState
from boltzgen_diffclf.training.level_curves import gaussian_length
from boltzgen_diffclf.training.level_samplers import LEVEL_SAMPLERS, named_level_sampler
from boltzgen_diffclf.training.loop import LoopSettings
from boltzgen_diffclf.training.noised_case import Case, NoisedBatch, Setting, noised_batch
from boltzgen_diffclf.training.noised_losses import (
    AMONG_ALL,
    BEYOND,
    BY_CHAINS,
    COMPARING,
    NOISED_LOSSES,
    Sizes,
    price_together,
)
from boltzgen_diffclf.training.problem import Problem


@dataclass(frozen=True)
class NoisedObjective:
    """A mixture of losses, and how the levels of a group are drawn for it.

    Attributes:
        weights: by name of the loss, see :data:`NOISED_LOSSES`.
        group_size: levels a group; None leaves it to the settings.
        level_sampler: how they are chosen, one of ``LEVEL_SAMPLERS``; None leaves it to the settings.
        pretraining: share of the steps in which denoising score matching alone prepares the network. Where the
            densities are far apart, energies that know nothing are wrong by hundreds of kT, and naming levels shouts.
    """

    weights: Mapping[str, float]
    group_size: int | None = None
    level_sampler: str | None = None
    pretraining: float = 0.0

    def balanced(self, dimension: int) -> NoisedObjective:
        """Return the objective with losses in kT taken a coordinate, as denoising is a mean over coordinates.

        Conditional noise is none of them: it moves some coordinates alone, and what it tells apart is of order one
        whatever the number of the others.
        """
        in_kt = ("classification", "contrastive_divergence")
        factors = {name: 1 / dimension if name.startswith(in_kt) else 1.0 for name in self.weights}
        return replace(self, weights={name: factors[name] * weight for name, weight in self.weights.items()})

    def evaluations(self, sizes: Sizes) -> int:
        """Return the network evaluations of one group, energies and derivatives alike."""
        return price_together(self.weights, sizes)


@dataclass(frozen=True)
class NoisedSettings(LoopSettings):
    """How to train a noised energy.

    Attributes:
        groups: of levels, a step; ``group_size`` times as many, of one level, where no loss compares those of a group.
        group_size: levels a group, each with a clean sample of its own: N of the N-level classification loss.
        level_sampler: how these levels are chosen, one of ``LEVEL_SAMPLERS``.
        reference_batch: other clean samples a step, over which the targets are averaged too; at least as many as
            configurations a step, or none: fewer make a step noisier, for all configurations share them.
    """

    groups: int = 128
    group_size: int = 4
    level_sampler: str = "spaced"
    reference_batch: int = 0
    optimiser: str = "muon"


class NoisedProblem(Problem[NoisedEnergyModel, NoisedBatch]):
    """One named objective of a noised energy.

    Args:
        objective: what is learned.
        path: the noising.
        levels: growing times, in the dtype and on the device of the model.
        data: what is learned from.
        held_out: other samples, never learned from.
        settings: sizes of a batch.
        length: thermodynamic length at every level, see
            :func:`~boltzgen_diffclf.training.level_curves.energy_length`; only where levels are chosen by it. Else
            :func:`~boltzgen_diffclf.training.level_curves.gaussian_length` stands in for it.

    Raises:
        InputError: groups of more levels than there are, an unknown level sampler, one that lacks the length, one that
            favours levels where a loss compares all of them, or a reference batch smaller than the configurations a
            step.
    """

    undivided = frozenset({"others", "others_score"})

    def __init__(
        self,
        objective: NoisedObjective,
        path: DiffusionPath,
        levels: Float[Tensor, " levels"],
        data: CleanData,
        held_out: CleanData,
        settings: NoisedSettings,
        length: Float[Tensor, " levels"] | None = None,
    ) -> None:
        self.objective, self.data, self.held_out, self.settings = objective, data, held_out, settings
        self.setting = Setting(path, levels)
        self.names = tuple(objective.weights)
        self.weights = levels.new_tensor(list(objective.weights.values()))
        size = objective.group_size or settings.group_size
        # Where no loss compares the levels of a group, every level is drawn by itself.
        compares = not COMPARING.isdisjoint(objective.weights)
        self.groups, self.group_size = (settings.groups, size) if compares else (settings.groups * size, 1)
        self.level_sampler = objective.level_sampler or settings.level_sampler
        self._sampler = named_level_sampler(self.level_sampler)
        if 0 < settings.reference_batch < self.groups * self.group_size:
            raise InputError(
                f"a reference batch of {settings.reference_batch} is less than the {self.groups * self.group_size} "
                "configurations a step, and makes a step noisier; take as many, or none"
            )
        if compares and size < 2:
            raise InputError(
                f"{', '.join(COMPARING & objective.weights.keys())} compares levels: groups of two or more"
            )
        if self.group_size > len(levels):
            raise InputError(f"groups of {self.group_size} levels need as many, and there are {len(levels)}")
        uneven = AMONG_ALL & objective.weights.keys()
        if uneven and not self._sampler.is_even:
            even = ", ".join(name for name, one in LEVEL_SAMPLERS.items() if one.is_even)
            raise InputError(
                f"{next(iter(uneven))} takes all levels as equally frequent, and level sampler {self.level_sampler} "
                f"favours some of them; take {even}"
            )
        if self._sampler.needs_length and length is None:
            raise InputError(
                f"level sampler {self.level_sampler} needs the length of the path; give it, or take spaced"
            )
        self._length = None if length is None else length.cpu()
        self._chains: LevelChains | None = None
        self._chains_state: LevelChainsState | None = None
        if not BY_CHAINS.isdisjoint(objective.weights):
            self._chains = LevelChains(path, levels, settings.groups)
        self._losses: Callable[[NoisedEnergyModel, NoisedBatch], Tensor] = fuse(
            self._evaluate, levels.device, recorded=True
        )

    def draw(self, model: NoisedEnergyModel, generator: torch.Generator) -> NoisedBatch:
        """See :meth:`Problem.draw`."""
        batch, self._chains_state = self._draw(model, self.data, generator)
        return batch

    def draw_held_out(self, model: NoisedEnergyModel, generator: torch.Generator) -> NoisedBatch:
        """See :meth:`Problem.draw_held_out`."""
        return self._draw(model, self.held_out, generator)[0]

    def losses(self, model: NoisedEnergyModel, batch: NoisedBatch) -> Float[Tensor, " losses"]:
        """See :meth:`Problem.losses`."""
        return self._losses(model, batch).clone()  # On a GPU the next call writes over what this one returned.

    def free_energies(self, model: NoisedEnergyModel) -> Float[Tensor, " levels"]:
        """See :meth:`Problem.free_energies`."""
        return model.free_energy(self.setting.levels)

    def evaluations(self, model: NoisedEnergyModel) -> int:
        """See :meth:`Problem.evaluations`."""
        passes = 1 if isinstance(model.net, MultiLevelNet) else len(self.setting.levels)
        # Energy and gradient at the start and at every step of a move, an energy beside it, and both again in the loss.
        chains = 0 if self._chains is None else self._chains.moved * (2 * (N_LEAPFROG + 1) + 1 + 2)
        return self.groups * self.objective.evaluations(Sizes(self.group_size, passes)) + chains

    @property
    def state(self) -> Mapping[str, Tensor]:
        """See :attr:`Problem.state`."""
        return {} if self._chains_state is None else self._chains_state.tensors()

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """See :meth:`Problem.restore`."""
        if self._chains is not None and state:
            self._chains_state = LevelChainsState(**{name: value.to(self.weights) for name, value in state.items()})

    @property
    def identity(self) -> Mapping[str, Any]:
        """See :attr:`Problem.identity`."""
        return {
            "objective": dict(self.objective.weights),
            "path": repr(self.setting.path),
            "level_sampler": self.level_sampler,
            "levels of a group": self.group_size,
        }

    def _evaluate(self, model: NoisedEnergyModel, batch: NoisedBatch) -> Tensor:
        case = Case(model, batch, self.setting)
        return torch.stack([NOISED_LOSSES[name].mean(case) for name in self.names])

    def _draw(
        self, model: NoisedEnergyModel, data: CleanData, generator: torch.Generator
    ) -> tuple[NoisedBatch, LevelChainsState | None]:
        if self._length is None:
            self._length = gaussian_length(model, self.setting.levels)
        level = self._sampler.draw(self._length, self.group_size, self.groups, generator)
        # One clean sample at all levels of a group would serve the losses too, and a step would show fewer of them.
        clean = data.draw(level.numel(), generator)
        others = data.draw(self.settings.reference_batch, generator) if self.settings.reference_batch else None
        batch = noised_batch(clean, level, self.setting, generator, others)
        if not BEYOND.isdisjoint(self.objective.weights):
            beyond = data.draw_beyond(self.groups, generator)
            least = torch.zeros(self.groups, 1, dtype=torch.long)
            at_least = noised_batch(beyond, least, self.setting, generator).rows
            batch = batch.beyond(at_least.t, at_least.y, at_least.score)
        if self._chains is None:
            return batch, None
        begun = self._chains_state or self._chains.init(model, data, generator)
        state, contrast = self._chains.step(model, begun, data, generator)
        return batch.beside(*contrast), state
