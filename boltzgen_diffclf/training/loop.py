"""The one training loop: any energy model, any problem, any mixture of its losses; measured in steps."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, cast

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from boltzgen_diffclf.errors import TrainingDivergedError
from boltzgen_diffclf.streams import named_generator
from boltzgen_diffclf.training import parallel
from boltzgen_diffclf.training.checkpoint import (
    load_checkpoint,
    optimiser_tensors,
    restore_optimisers,
    save_checkpoint,
)
from boltzgen_diffclf.training.optimisers import named_optimisers
from boltzgen_diffclf.training.problem import Batch, Model, Problem

History = list[dict[str, float]]
Progress = Callable[[int, int, Mapping[str, float]], None]


@dataclass(frozen=True)
class LoopSettings:
    """How to optimise; time does not enter, so that a slow machine gives the same model.

    Attributes:
        steps: optimiser steps.
        learning_rate: peak, for the network.
        curve_learning_rate: peak, for the level free energies, which must move by kT.
        optimiser: one of ``OPTIMISERS``.
        weight_decay: decoupled, of the network.
        warm_up: fraction of the steps.
        hold: fraction of the schedule at the peak, before the rates fall; below one.
        part: of a longer schedule that these steps are, from and to, as fractions of it.
        clip: largest gradient norm.
        ema_decay: of the averaged weights, which are the result.
        log_every: steps between records of losses, gradient norms and the drift of F.
        checkpoint_every: steps between checkpoints.
        seed: of the batches.
    """

    steps: int
    learning_rate: float = 2e-3
    curve_learning_rate: float = 2e-2
    optimiser: str = "adamw"
    weight_decay: float = 1e-4
    warm_up: float = 0.05
    hold: float = 0.0
    part: tuple[float, float] = (0.0, 1.0)
    clip: float = 1.0
    ema_decay: float = 0.99
    log_every: int = 50
    checkpoint_every: int = 200
    seed: int = 0

    def rate(self, step: int) -> float:
        """Return the factor on the learning rates at ``step``.

        Linear warm-up, then one for as long as they are held, then a cosine, at the end of the schedule one hundredth.
        """
        warm, (first, last) = max(1, round(self.warm_up * self.steps)), self.part
        progress = first + (last - first) * max(0, step - warm) / max(1, self.steps - warm)
        fall = max(0.0, progress - self.hold) / (1 - self.hold)
        return min(1.0, (step + 1) / warm) * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * fall)))


@dataclass(frozen=True)
class TrainingResult(Generic[Model]):
    """A trained model (averaged weights, in evaluation state) and how it got there.

    Attributes:
        model: with the exponential moving average of the weights.
        history: a record every ``log_every`` steps: losses in training and on held-out data, gradient norm of
            each weighted loss, the largest change of F since the last record.
        network_evaluations: spent on the steps, energies and gradients alike.
        seconds: time [s] of the steps, all starts together.
    """

    model: Model
    history: History
    network_evaluations: int
    seconds: float


def optimise(
    model: Model,
    problem: Problem[Model, Batch],
    settings: LoopSettings,
    *,
    checkpoint: Path | None = None,
    identity: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> TrainingResult[Model]:
    """Train ``model`` on ``problem``; killed at any moment, the same call goes on from the last checkpoint.

    Under ``torchrun`` every process takes its share of each batch and the gradients are averaged, so that the
    number of processes changes nothing but the order of sums.

    Args:
        model: starts from the weights it has; they are the same on every process.
        problem: what it learns; its state is that of the start.
        settings: see :class:`LoopSettings`.
        checkpoint: where the state is kept; None keeps none.
        identity: what else must be the same when resuming: the system, the data, the network.
        progress: called with step, steps and the newest record.

    Raises:
        InputError: the checkpoint is broken or of another training.
        TrainingDivergedError: the loss became NaN.
        RunFailedError: the disk refuses.
    """
    trainer = _Trainer(model, problem, settings, checkpoint, identity or {})
    trainer.resume()
    while trainer.step < settings.steps:
        trainer.advance()
        if progress is not None and trainer.history:
            progress(trainer.step, settings.steps, trainer.history[-1])
    averaged = trainer.averaged_model.eval().requires_grad_(False)
    return TrainingResult(averaged, trainer.history, settings.steps * problem.evaluations(model), trainer.seconds)


class _Trainer(Generic[Model, Batch]):
    """Everything that changes from step to step, and how to save it."""

    def __init__(
        self,
        model: Model,
        problem: Problem[Model, Batch],
        settings: LoopSettings,
        checkpoint: Path | None,
        identity: Mapping[str, Any],
    ) -> None:
        self.model, self.problem, self.settings = model, problem, settings
        self.checkpoint = checkpoint
        as_settings = {"settings": dataclasses.asdict(settings)}
        self.identity = {**identity, **problem.identity, **as_settings, **_shape_of(model)}
        self.averaged = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(settings.ema_decay))
        self.net_parameters = list(model.get_submodule("net").parameters())
        peaks = (settings.learning_rate, settings.curve_learning_rate)
        self.optimisers = named_optimisers(settings.optimiser, model, peaks, settings.weight_decay)
        self.generator = named_generator(settings.seed, "batches")
        self.watched_curve = problem.free_energies(model).detach()
        self.step = 0
        self.history: History = []
        self.begun, self.earlier_seconds = time.monotonic(), 0.0

    @property
    def seconds(self) -> float:
        """Time [s] of the steps up to here, those of earlier starts up to their last checkpoint."""
        return self.earlier_seconds + time.monotonic() - self.begun

    @property
    def averaged_model(self) -> Model:
        """The model with the moving average of the weights."""
        return cast(Model, self.averaged.module)

    def advance(self) -> None:
        """Take one optimiser step, record and save where it is due."""
        settings = self.settings
        batch = self._share(self.problem.draw(self.model, self.generator))
        for group in (group for optimiser in self.optimisers for group in optimiser.param_groups):
            group["lr"] = group["peak"] * settings.rate(self.step)
        is_due = (self.step + 1) % settings.log_every == 0 or self.step + 1 == settings.steps
        record = self._gradient_norms(batch) if is_due else {}
        losses = self.problem.losses(self.model, batch)
        self.model.zero_grad(set_to_none=True)
        (self.problem.weights * losses).sum().backward()
        parallel.average_gradients(self.model)
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), settings.clip)
        if not torch.isfinite(norm):
            raise TrainingDivergedError(
                f"training diverged at step {self.step}: gradient norm {norm.item()}; lower the learning rate"
            )
        for optimiser in self.optimisers:
            optimiser.step()
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
        tensors |= optimiser_tensors(self.optimisers)
        tensors |= {f"problem.{name}": value for name, value in self.problem.state.items()}
        tensors |= {"generator": self.generator.get_state(), "watched_curve": self.watched_curve}
        metadata = {
            "identity": self.identity,
            "step": self.step,
            "history": self.history,
            "seconds": self.seconds,
        }
        save_checkpoint(self.checkpoint, tensors, metadata)

    def resume(self) -> None:
        """Go back to the checkpoint, where there is one."""
        if self.checkpoint is None or not self.checkpoint.exists():
            return
        tensors, metadata = load_checkpoint(self.checkpoint, self.identity)
        self.model.load_state_dict(_strip(tensors, "model."))
        self.averaged.load_state_dict(_strip(tensors, "averaged."))
        restore_optimisers(self.optimisers, tensors)
        self.problem.restore(_strip(tensors, "problem."))
        self.generator.set_state(tensors["generator"])
        self.watched_curve = tensors["watched_curve"].to(self.watched_curve)
        self.step, self.history = metadata["step"], metadata["history"]
        self.begun, self.earlier_seconds = time.monotonic(), metadata.get("seconds", 0.0)

    def _gradient_norms(self, batch: Batch) -> dict[str, float]:
        """Return the norm of each weighted loss's gradient on the network: the balance of the objective."""
        record = {}
        for index, (name, weight) in enumerate(zip(self.problem.names, self.problem.weights, strict=True)):
            if weight > 0:
                # A fused function can be differentiated once: each loss has an evaluation of its own.
                loss = weight * self.problem.losses(self.model, batch)[index]
                gradients = torch.autograd.grad(loss, self.net_parameters, allow_unused=True)
                flat = torch.cat([gradient.flatten() for gradient in gradients if gradient is not None])
                record[f"gradient_norm.{name}"] = float(parallel.average(flat).norm())
        return record

    def _losses(self, losses: Tensor) -> dict[str, float]:
        values = parallel.average(losses.detach())
        return {f"loss.{name}": float(value) for name, value in zip(self.problem.names, values, strict=True)}

    def _watch(self) -> dict[str, float]:
        """Return the held-out losses of the averaged model, F(1), and the drift of F since the last record."""
        held_out = self.problem.draw_held_out(self.averaged_model, named_generator(self.settings.seed, "held-out"))
        values = parallel.average(self.problem.losses(self.averaged_model, self._share(held_out)).detach())
        record = {f"held_out.{name}": float(v) for name, v in zip(self.problem.names, values, strict=True)}
        curve = self.problem.free_energies(self.averaged_model).detach()
        record["free_energy.end"] = float(curve[-1])
        record["free_energy.drift"] = float((curve - self.watched_curve).abs().max())
        self.watched_curve = curve
        return record

    def _share(self, batch: Batch) -> Batch:
        named = batch._asdict().items()  # type: ignore[attr-defined]
        return type(batch)(*(one if name in self.problem.undivided else parallel.share(one) for name, one in named))


def _strip(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def _shape_of(model: nn.Module) -> dict[str, Any]:
    shapes = {name: list(value.shape) for name, value in model.state_dict().items()}
    return {"network": type(model.get_submodule("net")).__name__, "energy": type(model).__name__, "weights": shapes}
