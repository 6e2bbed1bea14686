"""The whole training of a noised energy: scores first where the objective asks for it, then the rest, then ``F``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from jaxtyping import Float
from torch import Tensor

from boltzgen_diffclf.noised_energy import NoisedEnergyModel
from boltzgen_diffclf.paths import DiffusionPath, close_levels
from boltzgen_diffclf.streams import named_generator, split_seed
from boltzgen_diffclf.training.clean_data import CleanData
from boltzgen_diffclf.training.level_curves import gaussian_length, profile_curve
from boltzgen_diffclf.training.level_samplers import named_level_sampler
from boltzgen_diffclf.training.loop import Progress, TrainingResult, optimise
from boltzgen_diffclf.training.noised_case import Setting
from boltzgen_diffclf.training.noised_losses import DENOISING
from boltzgen_diffclf.training.noised_problem import NoisedObjective, NoisedProblem, NoisedSettings

LARGEST_GAP = 1.0
"""Longest thermodynamic length between neighbouring levels in training, so that each learns from the next."""


@dataclass(frozen=True)
class NoisedSizes:
    """How much is trained.

    Attributes:
        steps: of the optimiser.
        groups: of levels, a step, see :class:`NoisedSettings`.
        group_size: levels a group.
        learning_rate: peak, of the network.
        averaged_steps: that the averaged weights look back on.
        profile_pool: samples a level that the model's own ``F`` is profiled on, and where that is judged as many again.
        later_rate: peak of the second phase, in that of the first; None where one schedule goes through both, which
            suits a short preparation: after a long one there would be little left.
        hold: fraction of a schedule at the peak, before the learning rates fall; below one.
        reference_batch: other clean samples a step, over which the targets are averaged too, see
            :class:`NoisedSettings`; it pays where noised samples of several clean ones overlap.
    """

    steps: int
    groups: int = 128
    group_size: int = 4
    learning_rate: float = 2e-3
    averaged_steps: int = 100
    profile_pool: int = 256
    later_rate: float | None = 1.0
    hold: float = 0.0
    reference_batch: int = 0


@dataclass(frozen=True, eq=False)
class NoisedTraining:
    """What a noised energy is trained on, and how.

    Attributes:
        objective: its classification losses are taken a coordinate, see :meth:`NoisedObjective.balanced`.
        path: the noising.
        data: what is learned from.
        held_out: other samples, never learned from.
        dimension: degrees of freedom of a sample.
        seed: of batches and profiles.
        sizes: how much.
        length: gives the thermodynamic length at every level, only asked for where levels are chosen by it.
        identity: what else must be the same when resuming.
        checkpoint: where the state is kept; a second phase has a file of its own beside it.
        progress: told of every step, those of both phases counted together.
        is_prepared: the model was trained before: its curve is profiled first, and there is no preparation.
    """

    objective: NoisedObjective
    path: DiffusionPath
    data: CleanData
    held_out: CleanData
    dimension: int
    seed: int
    sizes: NoisedSizes
    length: Callable[[Setting], Float[Tensor, " levels"]] | None = None
    identity: Mapping[str, object] = field(default_factory=dict)
    checkpoint: Path | None = None
    progress: Progress | None = None
    is_prepared: bool = False

    def state(self, steps: range) -> dict[str, Any]:
        """Return how the loop is to keep its state and to tell of it, in these of all steps."""
        tell, total, file = self.progress, self.sizes.steps, self.checkpoint
        if file and steps.start:
            file = file.with_name(f"{file.stem}-from-{steps.start}{file.suffix}")
        return {
            "checkpoint": file,
            "identity": self.identity,
            "progress": tell and (lambda step, _, record: tell(steps.start + step, total, record)),
        }


def train_noised(
    model: NoisedEnergyModel, training: NoisedTraining
) -> tuple[TrainingResult[NoisedEnergyModel], Float[Tensor, " levels"]]:
    """Return the trained model in float64, with its profiled curve, and the curve as it was learned [kT].

    Where two levels of the model's curve are farther apart than :data:`LARGEST_GAP`, it is given others between them.

    Raises:
        InputError: a checkpoint of another training.
        TrainingDivergedError: the loss became NaN.
    """
    objective = training.objective.balanced(training.dimension)
    steps = training.sizes.steps
    early = 0 if training.is_prepared else min(round(objective.pretraining * steps), steps - 1)
    prepared, seconds = 0, 0.0
    levels = model.curve.levels.double().cpu()
    model.set_levels(close_levels(levels, lambda times: gaussian_length(model, times), LARGEST_GAP))
    if early:
        denoising = replace(objective, weights=dict.fromkeys(DENOISING & set(objective.weights), 1.0))
        result = _phase(model, denoising, training, range(early))
        model = result.model.requires_grad_(True).train()
        prepared, seconds = result.network_evaluations, result.seconds
    if early or training.is_prepared:
        _profile(model, training)
    result = _phase(model, objective, training, range(early, steps))
    model = result.model.double()
    learned = model.free_energy(model.curve.levels).detach()
    _profile(model, training)
    evaluations, seconds = prepared + result.network_evaluations, seconds + result.seconds
    return replace(result, model=model, network_evaluations=evaluations, seconds=seconds), learned


def _phase(
    model: NoisedEnergyModel, objective: NoisedObjective, training: NoisedTraining, steps: range
) -> TrainingResult[NoisedEnergyModel]:
    """Train one objective for some of the steps, with a checkpoint of its own."""
    sizes, levels = training.sizes, model.curve.levels
    is_continued = sizes.later_rate is None
    peak = sizes.later_rate if steps.start and sizes.later_rate is not None else 1.0
    settings = NoisedSettings(
        len(steps),
        learning_rate=sizes.learning_rate * peak,
        hold=sizes.hold,
        part=(steps.start / sizes.steps, steps.stop / sizes.steps) if is_continued else (0.0, 1.0),
        ema_decay=1 - 1 / min(sizes.averaged_steps, max(2, len(steps) // 10)),
        seed=split_seed(training.seed, f"phase from {steps.start}"),
        groups=sizes.groups,
        group_size=sizes.group_size,
        reference_batch=sizes.reference_batch,
    )
    sampler, length = named_level_sampler(objective.level_sampler or settings.level_sampler), None
    if sampler.needs_length and training.length is not None:
        length = training.length(Setting(training.path, levels.double().cpu()))
    problem = NoisedProblem(objective, training.path, levels, training.data, training.held_out, settings, length)
    return optimise(model, problem, settings, **training.state(steps))


def _profile(model: NoisedEnergyModel, training: NoisedTraining) -> None:
    setting = Setting(training.path, model.curve.levels)
    profile_curve(model, training.data, setting, training.sizes.profile_pool, named_generator(training.seed, "profile"))
