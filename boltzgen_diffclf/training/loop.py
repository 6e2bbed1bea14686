"""The one training loop: any energy model, any path, any mixture of the losses; measured in steps."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from boltzgen_diffclf.compilation import fuse
from boltzgen_diffclf.energy import EnergyModel
from boltzgen_diffclf.errors import RunFailedError
from boltzgen_diffclf.streams import named_generator
from boltzgen_diffclf.training import parallel
from boltzgen_diffclf.training.checkpoint import (
    load_checkpoint,
    optimiser_tensors,
    restore_optimiser,
    save_checkpoint,
)
from boltzgen_diffclf.training.objective import ObjectiveWeights, PathLosses, path_losses
from boltzgen_diffclf.training.path_data import PathBatch, PathData

History = list[dict[str, float]]
Progress = Callable[[int, int, Mapping[str, float]], None]


@dataclass(frozen=True)
class TrainingSettings:
    """How to train; time does not enter, so that a slow machine gives the same model.

    Attributes:
        steps: optimiser steps.
        groups: groups of levels a step.
        group_size: levels a group: N of the N-level classification loss.
        neighbours: groups of consecutive levels; False draws levels as the paper does.
        weights: of the losses.
        learning_rate: peak, for the network.
        curve_learning_rate: peak, for the level free energies, which must move by kT.
        weight_decay: AdamW's.
        warm_up: fraction of the steps.
        clip: largest gradient norm.
        ema_decay: of the averaged weights, which are the result.
        log_every: steps between records of losses, gradient norms and the drift of F.
        checkpoint_every: steps between checkpoints.
        seed: of the batches.
    """

    steps: int
    groups: int = 64
    group_size: int = 8
    neighbours: bool = True
    weights: ObjectiveWeights = field(default_factory=ObjectiveWeights)
    learning_rate: float = 2e-3
    curve_learning_rate: float = 2e-2
    weight_decay: float = 1e-4
    warm_up: float = 0.05
    clip: float = 1.0
    ema_decay: float = 0.99
    log_every: int = 50
    checkpoint_every: int = 200
    seed: int = 0

    def rate(self, step: int) -> float:
        """Return the factor on the learning rates at ``step``: linear warm-up, then a cosine to one hundredth."""
        warm = max(1, round(self.warm_up * self.steps))
        if step < warm:
            return (step + 1) / warm
        progress = (step - warm) / max(1, self.steps - warm)
        return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * progress))


@dataclass(frozen=True)
class TrainingResult:
    """A trained model (averaged weights, in evaluation state) and how it got there.

    Attributes:
        model: with the exponential moving average of the weights.
        history: a record every ``log_every`` steps: losses in training and on held-out data, gradient norm of
            each weighted loss, the largest change of F since the last record.
        network_evaluations: spent on the steps, energies and gradients alike.
    """

    model: EnergyModel
    history: History
    network_evaluations: int


def train(
    model: EnergyModel,
    data: PathData,
    held_out: PathData,
    settings: TrainingSettings,
    *,
    checkpoint: Path | None = None,
    identity: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> TrainingResult:
    """Train ``model`` on ``data``; killed at any moment, the same call goes on from the last checkpoint.

    Under ``torchrun`` every process takes its share of each batch and the gradients are averaged, so that the
    number of processes changes nothing but the order of sums.

    Args:
        model: starts from the weights it has; they are the same on every process.
        data: what it learns from.
        held_out: other frames of the same path, to see overfitting; never learned from.
        settings: see :class:`TrainingSettings`.
        checkpoint: where the state is kept; None keeps none.
        identity: what else must be the same when resuming: the system, the data, the network.
        progress: called with step, steps and the newest record.

    Raises:
        InputError: the checkpoint is broken or of another training.
        RunFailedError: the loss became NaN, or the disk refuses.
    """
    trainer = _Trainer(model, data, held_out, settings, checkpoint, identity or {})
    trainer.resume()
    while trainer.step < settings.steps:
        trainer.advance()
        if progress is not None and trainer.history:
            progress(trainer.step, settings.steps, trainer.history[-1])
    averaged = cast(EnergyModel, trainer.averaged.module)
    evaluations = settings.steps * settings.groups * settings.group_size * (settings.group_size + 2)
    return TrainingResult(averaged.eval().requires_grad_(False), trainer.history, evaluations)


class _Trainer:
    """Everything that changes from step to step, and how to save it."""

    def __init__(
        self,
        model: EnergyModel,
        data: PathData,
        held_out: PathData,
        settings: TrainingSettings,
        checkpoint: Path | None,
        identity: Mapping[str, Any],
    ) -> None:
        self.model, self.data, self.settings = model, data, settings
        self.checkpoint = checkpoint
        self.identity = {**identity, "settings": dataclasses.asdict(settings), **_shape_of(model)}
        self.averaged = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(settings.ema_decay))
        self.optimiser = torch.optim.AdamW(
            [
                {"params": list(model.net.parameters()), "peak": settings.learning_rate},
                {
                    "params": list(model.curve.parameters()),
                    "peak": settings.curve_learning_rate,
                    "weight_decay": 0.0,
                },
            ],
            weight_decay=settings.weight_decay,
        )
        self.losses: Callable[[EnergyModel, PathBatch, int], PathLosses] = fuse(path_losses, data.y.device)
        self.generator = named_generator(settings.seed, "batches")
        self.weights = settings.weights.tensor(data.y.device)
        examined = held_out.draw(
            *self._draw_size(), named_generator(settings.seed, "held-out"), neighbours=settings.neighbours
        )
        self.held_out = self._share(examined)
        self.watched_curve = model.free_energy(data.levels).detach()
        self.step = 0
        self.history: History = []

    def advance(self) -> None:
        """Take one optimiser step, record and save where it is due."""
        settings = self.settings
        batch = self._share(self.data.draw(*self._draw_size(), self.generator, neighbours=settings.neighbours))
        for group in self.optimiser.param_groups:
            group["lr"] = group["peak"] * settings.rate(self.step)
        is_due = (self.step + 1) % settings.log_every == 0 or self.step + 1 == settings.steps
        record = self._gradient_norms(batch) if is_due else {}
        losses = torch.stack(self.losses(self.model, batch, self.data.dimension))
        self.optimiser.zero_grad(set_to_none=True)
        (self.weights * losses).sum().backward()
        parallel.average_gradients(self.model)
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), settings.clip)
        if not torch.isfinite(norm):
            raise RunFailedError(
                f"training diverged at step {self.step}: gradient norm {norm.item()}; lower the learning rate"
            )
        self.optimiser.step()
        self.averaged.update_parameters(self.model)
        self.step += 1
        if is_due:
            self.history.append({"step": float(self.step), **self._losses(losses), **record, **self._watch()})
        if self.checkpoint and (self.step % settings.checkpoint_every == 0 or self.step == settings.steps):
            self.save()

    def save(self) -> None:
        """Write the checkpoint; only the first process does."""
        if self.checkpoint is None or not parallel.is_first():
            return
        tensors = {f"model.{name}": value for name, value in self.model.state_dict().items()}
        tensors |= {f"averaged.{name}": value for name, value in self.averaged.state_dict().items()}
        tensors |= optimiser_tensors(self.optimiser)
        tensors |= {"generator": self.generator.get_state(), "watched_curve": self.watched_curve}
        metadata = {"identity": self.identity, "step": self.step, "history": self.history}
        save_checkpoint(self.checkpoint, tensors, metadata)

    def resume(self) -> None:
        """Go back to the checkpoint, where there is one."""
        if self.checkpoint is None or not self.checkpoint.exists():
            return
        tensors, metadata = load_checkpoint(self.checkpoint, self.identity)
        self.model.load_state_dict(_strip(tensors, "model."))
        self.averaged.load_state_dict(_strip(tensors, "averaged."))
        restore_optimiser(self.optimiser, tensors)
        self.generator.set_state(tensors["generator"])
        self.watched_curve = tensors["watched_curve"].to(self.watched_curve)
        self.step, self.history = metadata["step"], metadata["history"]

    def _draw_size(self) -> tuple[int, int]:
        return self.settings.groups, self.settings.group_size

    def _share(self, batch: PathBatch) -> PathBatch:
        return PathBatch(*(parallel.share(tensor) for tensor in batch))

    def _gradient_norms(self, batch: PathBatch) -> dict[str, float]:
        """Return the norm of each weighted loss's gradient on the network: the balance of the objective."""
        record = {}
        parameters = list(self.model.net.parameters())
        for index, name in enumerate(PathLosses._fields):
            if self.weights[index] > 0:
                # A fused function can be differentiated once: each loss has an evaluation of its own.
                loss = self.losses(self.model, batch, self.data.dimension)[index]
                gradients = torch.autograd.grad(self.weights[index] * loss, parameters, allow_unused=True)
                squares = [gradient.square().sum() for gradient in gradients if gradient is not None]
                record[f"gradient_norm.{name}"] = float(torch.stack(squares).sum().sqrt())
        return record

    def _losses(self, losses: Tensor) -> dict[str, float]:
        values = parallel.average(losses.detach())
        return {f"loss.{name}": float(value) for name, value in zip(PathLosses._fields, values, strict=True)}

    def _watch(self) -> dict[str, float]:
        """Return the held-out losses of the averaged model, F(1), and the drift of F since the last record."""
        averaged = cast(EnergyModel, self.averaged.module)
        values = torch.stack(self.losses(averaged, self.held_out, self.data.dimension)).detach()
        values = parallel.average(values)
        record = {f"held_out.{name}": float(v) for name, v in zip(PathLosses._fields, values, strict=True)}
        curve = averaged.free_energy(self.data.levels).detach()
        record["free_energy.end"] = float(curve[-1])
        record["free_energy.drift"] = float((curve - self.watched_curve).abs().max())
        self.watched_curve = curve
        return record


def _strip(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def _shape_of(model: EnergyModel) -> dict[str, Any]:
    shapes = {name: list(value.shape) for name, value in model.state_dict().items()}
    return {"network": type(model.net).__name__, "energy": type(model).__name__, "weights": shapes}
