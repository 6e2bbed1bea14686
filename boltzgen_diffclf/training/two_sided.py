"""Training between two states: the losses of a pool of path configurations as a problem for the loop."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from boltzgen_diffclf.compilation import fuse
from boltzgen_diffclf.energy import EnergyModel
from boltzgen_diffclf.errors import InputError
from boltzgen_diffclf.training.loop import LoopSettings, Progress, TrainingResult, optimise
from boltzgen_diffclf.training.path_data import PathBatch, PathData
from boltzgen_diffclf.training.path_losses import ObjectiveWeights, PathLosses, exact_end_path_losses, path_losses
from boltzgen_diffclf.training.problem import Problem


@dataclass(frozen=True)
class TrainingSettings(LoopSettings):
    """How to train between two states.

    Attributes:
        groups: groups of levels a step.
        group_size: levels a group: N of the N-level classification loss.
        neighbours: groups of consecutive levels; False draws levels as the paper does.
        weights: of the losses.
    """

    groups: int = 64
    group_size: int = 8
    neighbours: bool = True
    weights: ObjectiveWeights = field(default_factory=ObjectiveWeights)


class TwoSidedProblem(Problem[EnergyModel, PathBatch]):
    """The losses of :func:`path_losses` on groups drawn from a pool.

    Args:
        data: what is learned from.
        held_out: other frames of the same path, to see overfitting; never learned from.
        settings: sizes of a batch and weights.

    Raises:
        InputError: target score matching is asked of a path that holds no forces.
    """

    names = PathLosses._fields

    def __init__(self, data: PathData, held_out: PathData, settings: TrainingSettings) -> None:
        if settings.weights.target_score > 0 and not bool(data.end_force.any()):
            raise InputError("target score matching needs forces at both ends of each pair, and this path holds none")
        self.data, self.held_out, self.settings = data, held_out, settings
        self.weights = settings.weights.tensor(data.y.device)
        self._losses: Callable[[EnergyModel, PathBatch, int], PathLosses] = fuse(path_losses, data.y.device)

    def draw(self, model: EnergyModel, generator: torch.Generator) -> PathBatch:
        """See :meth:`Problem.draw`."""
        return self._draw(self.data, generator)

    def draw_held_out(self, model: EnergyModel, generator: torch.Generator) -> PathBatch:
        """See :meth:`Problem.draw_held_out`."""
        return self._draw(self.held_out, generator)

    def losses(self, model: EnergyModel, batch: PathBatch) -> Float[Tensor, " losses"]:
        """See :meth:`Problem.losses`."""
        return torch.stack(self._losses(model, batch, self.data.dimension))

    def free_energies(self, model: EnergyModel) -> Float[Tensor, " levels"]:
        """See :meth:`Problem.free_energies`."""
        return model.free_energy(self.data.levels)

    def evaluations(self, model: EnergyModel) -> int:
        """See :meth:`Problem.evaluations`: N energies, and one energy and gradient, a configuration."""
        return self.settings.groups * self.settings.group_size * (self.settings.group_size + 2)

    @property
    def identity(self) -> Mapping[str, Any]:
        """See :attr:`Problem.identity`."""
        return {"classes": "levels"}

    def _draw(self, data: PathData, generator: torch.Generator) -> PathBatch:
        size = self.settings.groups, self.settings.group_size
        return data.draw(*size, generator, neighbours=self.settings.neighbours)


class ExactEndsProblem(TwoSidedProblem):
    """The same with both ends of the path in every group, classes whose energies are the true ones.

    Args:
        data: what is learned from; its end energies are those of the states, also for a model that does not use them.
        held_out: see :class:`TwoSidedProblem`.
        settings: see there; the ends count among the levels of a group.

    Raises:
        InputError: groups without a level between the ends, or a path that holds no end energies.
    """

    def __init__(self, data: PathData, held_out: PathData, settings: TrainingSettings) -> None:
        super().__init__(data, held_out, settings)
        if settings.group_size < 3:
            raise InputError(
                f"groups of {settings.group_size} have no level between the exact ends; take a group size of 3 or more"
            )
        if not bool(data.end_energy.any()):
            raise InputError("exact ends as classes need the energies of both states, and this path holds none")
        self._losses = fuse(exact_end_path_losses, data.y.device)

    def evaluations(self, model: EnergyModel) -> int:
        """See :meth:`Problem.evaluations`: energies and gradients of the levels between alone."""
        return self.settings.groups * (self.settings.group_size - 2) * (self.settings.group_size + 2)

    @property
    def identity(self) -> Mapping[str, Any]:
        """See :attr:`Problem.identity`."""
        return {"classes": "exact ends"}

    def _draw(self, data: PathData, generator: torch.Generator) -> PathBatch:
        size = self.settings.groups, self.settings.group_size
        return data.draw_with_ends(*size, generator, neighbours=self.settings.neighbours)


def train(
    model: EnergyModel,
    data: PathData,
    held_out: PathData,
    settings: TrainingSettings,
    *,
    problem: type[TwoSidedProblem] = TwoSidedProblem,
    checkpoint: Path | None = None,
    identity: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> TrainingResult[EnergyModel]:
    """Train ``model`` on ``data``: :func:`~boltzgen_diffclf.training.loop.optimise` of a :class:`TwoSidedProblem`.

    Args:
        model: starts from the weights it has; they are the same on every process.
        data: what it learns from.
        held_out: other frames of the same path, to see overfitting; never learned from.
        settings: see :class:`TrainingSettings`.
        problem: what is minimised.
        checkpoint: where the state is kept; None keeps none.
        identity: what else must be the same when resuming: the system, the data, the network.
        progress: called with step, steps and the newest record.

    Raises:
        InputError: the checkpoint is broken or of another training.
        RunFailedError: the loss became NaN, or the disk refuses.
    """
    chosen = problem(data, held_out, settings)
    return optimise(model, chosen, settings, checkpoint=checkpoint, identity=identity, progress=progress)
