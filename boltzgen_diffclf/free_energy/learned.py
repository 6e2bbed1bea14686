"""The learned path between two states: train a model on it, integrate along it, read off its levels."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from boltzgen_diffclf.energy import EnergyModel
from boltzgen_diffclf.estimators import Estimate, mbar, thermodynamic_integration
from boltzgen_diffclf.estimators.thermodynamic_integration import ThermodynamicIntegration
from boltzgen_diffclf.free_energy.evaluation import Cost, cast, level_energies, time_derivatives
from boltzgen_diffclf.free_energy.path_pool import PathSpace, build_path_data
from boltzgen_diffclf.paths import arcsine_levels
from boltzgen_diffclf.streams import named_generator
from boltzgen_diffclf.training import PathData, TrainingResult, TrainingSettings, TwoSidedProblem, train
from boltzgen_diffclf.training.loop import Progress

MakeModel = Callable[[Float[Tensor, " levels"], torch.Generator], EnergyModel]
"""Levels and the stream of the first weights, to an untrained model."""


@dataclass(frozen=True)
class LearningSettings:
    """Sizes of one learned path.

    Attributes:
        levels: on the path, both exact ends included.
        pool: configurations a level that training draws from.
        evaluation_pool: configurations a level, of other frames, for the integral.
        training: of the network.
    """

    levels: int = 33
    pool: int = 1000
    evaluation_pool: int = 1000
    training: TrainingSettings = field(default_factory=lambda: TrainingSettings(steps=1000))


@dataclass(frozen=True, eq=False)
class Pools:
    """Path configurations of one replicate, in float64; the two share no frame.

    Attributes:
        training: what the network learns from.
        evaluation: what the estimates are taken on, and what shows overfitting.
        cost: of making both.
    """

    training: PathData
    evaluation: PathData
    cost: Cost


def build_pools(
    space: PathSpace,
    training_frames: tuple[Float[Tensor, "frames_a *event"], Float[Tensor, "frames_b *event"]],
    evaluation_frames: tuple[Float[Tensor, "other_a *event"], Float[Tensor, "other_b *event"]],
    settings: LearningSettings,
    seed: int,
    evaluation_walkers: tuple[Int[Tensor, " other_a"], Int[Tensor, " other_b"]] | None = None,
    advance: Callable[[float], None] = lambda share: None,
) -> Pools:
    """Draw the two pools of a replicate from two sets of frames that share no walker.

    Error bars of what is estimated on the second pool hold its walkers together; where none are given, its frames.
    ``advance`` is told each share of both that is made.
    """
    begun = time.monotonic()
    levels = arcsine_levels(settings.levels)
    share = settings.pool / (settings.pool + settings.evaluation_pool)
    training = build_path_data(
        space,
        *training_frames,
        levels,
        settings.pool,
        named_generator(seed, "training pool"),
        advance=lambda made: advance(made * share),
    )
    evaluation = build_path_data(
        space,
        *evaluation_frames,
        levels,
        settings.evaluation_pool,
        named_generator(seed, "evaluation pool"),
        evaluation_walkers,
        lambda made: advance(made * (1 - share)),
    )
    evaluations = 2 * settings.levels * (settings.pool + settings.evaluation_pool)
    return Pools(training, evaluation, Cost(evaluations, 0, time.monotonic() - begun))


def untrained_model(make_model: MakeModel, data: PathData, seed: int) -> EnergyModel:
    """Return a model whose level free energies already are those of its untrained energies on ``data``."""
    model = make_model(data.levels, named_generator(seed, "weights")).to(data.y)
    curve = integrate(model, data).cumulative
    with torch.no_grad():
        model.curve.values.copy_(torch.as_tensor(curve).to(model.curve.values))
    return model


def train_replicate(
    make_model: MakeModel,
    pools: Pools,
    settings: LearningSettings,
    seed: int,
    *,
    problem: type[TwoSidedProblem] = TwoSidedProblem,
    checkpoint: Path | None = None,
    identity: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> tuple[TrainingResult[EnergyModel], Cost]:
    """Train one network in float32 and return it in float64, with what it cost."""
    model = untrained_model(make_model, pools.training, seed).float()
    result = train(
        model,
        cast(pools.training, torch.float32),
        cast(pools.evaluation, torch.float32),
        replace(settings.training, seed=seed),
        problem=problem,
        checkpoint=checkpoint,
        identity=identity,
        progress=progress,
    )
    result = replace(result, model=result.model.double())
    return result, Cost(0, result.network_evaluations, result.seconds)


def integrate(model: EnergyModel, data: PathData) -> ThermodynamicIntegration:
    """Return the neural thermodynamic integration of ``model`` over the configurations of ``data``.

    The standard error is that of the configurations at fixed model, those of one origin taken together: the scatter
    between replicates, not this, is the error of the method.

    References:
        Mate, Fleuret & Bereau 2024, arXiv:2406.02313 (neural TI).
    """
    derivatives = time_derivatives(model, data).cpu().numpy()
    nodes, origin = data.levels.double().cpu().numpy(), list(data.origin.cpu().numpy())
    return thermodynamic_integration(nodes, list(derivatives), groups=origin, rule="arcsine")


def exact_end_classes(model: EnergyModel, data: PathData, stride: int) -> tuple[Estimate, Float[np.ndarray, "k k"]]:
    """Return the classifier's answer with frozen energies and the exact ends as classes, and its overlap matrix.

    The level free energies that minimise the N-level classification loss on ``data`` solve the MBAR equations;
    the difference of the two end classes is the answer. It is consistent where the configurations of a level
    follow the model's energy there, which training makes nearly true, and only then.

    Args:
        model: trained, float64.
        data: configurations that the model has not seen.
        stride: every how many levels; the ends are kept.
    """
    kept = data.at_levels(strided(len(data.levels), stride))
    return mbar_over_levels(level_energies(model, kept, kept.levels), kept.origin)


def strided(n_levels: int, stride: int) -> Int[Tensor, " kept"]:
    """Return every so many of the levels, the first and the last among them.

    Raises:
        ValueError: they do not reach the last one.
    """
    keep = torch.arange(0, n_levels, stride)
    if keep[-1] != n_levels - 1:
        raise ValueError(f"{n_levels} levels taken every {stride} do not reach the last one")
    return keep


def mbar_over_levels(
    energies: Float[Tensor, "levels pool levels"], origin: Int[Tensor, "levels pool 2"]
) -> tuple[Estimate, Float[np.ndarray, "k k"]]:
    """Return MBAR of ``U(y_i, t_j)`` [kT] of the configurations of a pool, and its overlap matrix.

    The standard error takes configurations of one origin together, at whatever levels they are.
    """
    n_levels, pool, _ = energies.shape
    u_kn = energies.reshape(-1, n_levels).T.double().cpu().numpy()
    labels = origin.reshape(-1, 2).cpu().numpy()
    result = mbar(np.ascontiguousarray(u_kn), np.full(n_levels, pool), groups=labels)
    return result.estimate, result.overlap_matrix
