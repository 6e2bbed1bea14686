"""The internal-coordinate route of ``workflows.solvation``: train, integrate, classify, anneal."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from boltzgen_diffclf.confined_energy import ConfinedEnergyModel
from boltzgen_diffclf.coordinates import Arc
from boltzgen_diffclf.energy import AnchoredEnergyModel, EnergyModel
from boltzgen_diffclf.errors import NotTrustworthyError
from boltzgen_diffclf.estimators import Estimate
from boltzgen_diffclf.free_energy.annealed import AnnealingSettings, annealed_estimate
from boltzgen_diffclf.free_energy.annealed_ladders import learned_works
from boltzgen_diffclf.free_energy.evaluation import Cost, time_derivatives
from boltzgen_diffclf.free_energy.learned import (
    LearningSettings,
    Pools,
    build_pools,
    exact_end_classes,
    integrate,
    strided,
    train_replicate,
    untrained_model,
)
from boltzgen_diffclf.free_energy.path_pool import PathSpace
from boltzgen_diffclf.free_energy.relaxed import RelaxationSettings, relaxed_mbar
from boltzgen_diffclf.nets import TorsionConfig, TorsionEnergyNet
from boltzgen_diffclf.streams import named_generator, split_seed
from boltzgen_diffclf.training import ObjectiveWeights, TrainingSettings
from systems.legs import Leg
from systems.starts import soft_column
from workflows.run_folder import StageResult

if TYPE_CHECKING:
    from workflows.solvation_stages import SolvationStages

DENOISING_WEIGHT = 10.0
"""Score matching is a mean over coordinates, classification a sum: with equal weights the noisier loss drowns it."""

OBJECTIVES: Mapping[str, ObjectiveWeights] = {
    "dsm_only": ObjectiveWeights(denoising=1.0, classification=0.0),
    "diffclf_only": ObjectiveWeights(denoising=0.0, classification=1.0),
    "dsm_diffclf": ObjectiveWeights(denoising=DENOISING_WEIGHT, classification=1.0),
}
"""What the networks of each row are trained with."""

RELAXED_LEVELS, RELAXED_CONFIGURATIONS = 9, 500
"""Most that the relaxed row takes; its cost is their product with ``--relaxation-steps``."""

EXACT_END_STRIDE = 4
"""Levels that the exact-ends classifier skips: MBAR grows with the square of their number."""

_log = logging.getLogger(__name__)


def learned_replicate(stages: SolvationStages, leg: Leg, replicate: int, objectives: tuple[str, ...]) -> StageResult:
    """Return what one replicate of a leg learned: estimates, integrands, curves, for each objective.

    A replicate has its own seed, trains on its own disjoint share of the walkers and is judged on another.
    """
    name = f"learned-{leg.name}-{replicate}"

    def learn() -> StageResult:
        return _learn(stages, leg, replicate, objectives, name)

    return stages.folder.stage(name, learn, together=True)


def _learn(stages: SolvationStages, leg: Leg, replicate: int, objectives: tuple[str, ...], stage: str) -> StageResult:
    seed = split_seed(stages.config.seed, f"learned/{leg.name}/{replicate}")
    settings = learning_settings(stages)
    arrays: dict[str, np.ndarray] = {}
    facts: dict[str, Any] = {}
    steps = settings.training.steps
    total = (1 + len(objectives)) * steps  # a pool takes about as long as a training
    with stages.folder.progress.stage(stage, total) as advance:
        pools = leg_pools(stages, leg, replicate, stages.space(leg), settings, seed, lambda made: advance(made * steps))
        untrained = integrate(untrained_model(_model(stages, leg), pools.training, seed), pools.evaluation)
        _keep_integral(arrays, facts, "no_network", untrained, pools, 0, 0.0)
        for objective in objectives:
            weighted = replace(settings, training=replace(settings.training, weights=OBJECTIVES[objective]))
            done = 0

            def progress(step: int, steps: int, record: Mapping[str, float]) -> None:
                nonlocal done
                advance(step - done)
                done = step

            result, cost = train_replicate(
                _model(stages, leg),
                pools,
                weighted,
                seed,
                checkpoint=stages.folder.path / "models" / f"{leg.name}-{objective}-{replicate}.safetensors",
                identity=stages.identity(leg, replicate),
                progress=progress,
            )
            integral = integrate(result.model, pools.evaluation)
            evaluated = cost.network_evaluations + pools.evaluation.y[..., 0].numel()
            _keep_integral(arrays, facts, objective, integral, pools, evaluated, cost.seconds)
            _keep_history(arrays, objective, result.history)
            if objective == "dsm_diffclf":
                arrays["dsm_diffclf.derivatives"] = time_derivatives(result.model, pools.evaluation).cpu().numpy()
                _keep_classifier(arrays, facts, result.model, pools)
                _keep_relaxed(stages, facts, result.model, leg, pools, seed)
                _keep_annealed(stages, arrays, facts, result.model, leg, replicate, seed)
    return StageResult(arrays, facts)


def _keep_classifier(arrays: dict[str, np.ndarray], facts: dict[str, Any], model: EnergyModel, pools: Pools) -> None:
    def classify() -> Estimate:
        estimate, arrays["exact_ends.overlap"] = exact_end_classes(model, pools.evaluation, EXACT_END_STRIDE)
        return estimate

    begun = time.monotonic()
    estimate = estimate_or_none(classify, "exact_ends")
    n_levels, pool, _ = pools.evaluation.y.shape
    matrix = pool * len(strided(n_levels, EXACT_END_STRIDE)) ** 2
    facts["exact_ends"] = _after_training(facts, estimate, Cost(0, matrix, time.monotonic() - begun))


def _keep_relaxed(
    stages: SolvationStages, facts: dict[str, Any], model: EnergyModel, leg: Leg, pools: Pools, seed: int
) -> None:
    if not stages.config.wants("relaxed_mbar") or stages.config.relaxation_steps == 0:
        return
    n_levels, pool, _ = pools.evaluation.y.shape
    settings = RelaxationSettings(
        levels=min(RELAXED_LEVELS, n_levels),
        configurations=min(RELAXED_CONFIGURATIONS, pool),
        steps=stages.config.relaxation_steps,
    )
    cost = Cost()

    def relax() -> Estimate:
        nonlocal cost
        generator = named_generator(seed, "relaxation")
        relaxed = relaxed_mbar(model, stages.space(leg), pools.evaluation, settings, generator)
        cost = relaxed.cost
        return relaxed.estimate

    facts["relaxed_mbar"] = _after_training(facts, estimate_or_none(relax, "relaxed_mbar"), cost)


def _after_training(facts: Mapping[str, Any], estimate: Estimate, cost: Cost) -> dict[str, Any]:
    """Return the facts of a row that starts from the trained model and pays for its training too."""
    trained = facts["dsm_diffclf"]
    return {
        "value": estimate.value,
        "sampling_stderr": estimate.stderr,
        "overlap": estimate.overlap,
        "n_effective": estimate.n_effective,
        "energy_evaluations": trained["energy_evaluations"] + cost.energy_evaluations,
        "network_evaluations": trained["network_evaluations"] + cost.network_evaluations,
        "seconds": trained["seconds"] + cost.seconds,
    }


def _keep_annealed(
    stages: SolvationStages,
    arrays: dict[str, np.ndarray],
    facts: dict[str, Any],
    model: EnergyModel,
    leg: Leg,
    replicate: int,
    seed: int,
) -> None:
    if not stages.config.wants("learned_ais"):
        return
    a, b = (stages.share(state, replicate + 1) for state in (leg.state_a, leg.state_b))
    group_a, group_b = stages.walkers(leg, a, b)
    works = learned_works(
        model,
        stages.space(leg),
        a.positions.double(),
        group_a,
        b.positions.double(),
        group_b,
        AnnealingSettings(levels=stages.config.anneal_levels, particles=stages.config.anneal_particles),
        named_generator(seed, "learned annealing"),
    )
    estimate = estimate_or_none(
        lambda: annealed_estimate(works, np.random.default_rng(split_seed(seed, "bootstrap")))[0], "learned_ais"
    )
    arrays["learned_ais.forward"], arrays["learned_ais.reverse"] = works.forward, works.reverse
    facts["learned_ais"] = _after_training(facts, estimate, works.cost)


def estimate_or_none(estimate: Callable[[], Estimate], name: str) -> Estimate:
    """Return an estimate, or one that is no number where states along the path share nothing; the log says why."""
    try:
        return estimate()
    except NotTrustworthyError as error:
        _log.warning("%s has no value: %s", name, error)
        return Estimate(math.nan, math.nan, 0.0, 0.0, name)


def leg_pools(
    stages: SolvationStages,
    leg: Leg,
    replicate: int,
    space: PathSpace,
    settings: LearningSettings,
    seed: int,
    advance: Callable[[float], None],
) -> Pools:
    """Return the pools of a replicate: it learns from its own share of the walkers, and is judged on the next one's."""
    training, evaluation = (
        [stages.share(state, share) for state in (leg.state_a, leg.state_b)] for share in (replicate, replicate + 1)
    )
    return build_pools(
        space,
        (stages.positions(training[0]), stages.positions(training[1])),
        (stages.positions(evaluation[0]), stages.positions(evaluation[1])),
        settings,
        seed,
        stages.walkers(leg, *evaluation),
        advance,
    )


def learning_settings(stages: SolvationStages) -> LearningSettings:
    """Return the sizes of the internal-coordinate route."""
    config = stages.config
    training = TrainingSettings(
        steps=config.training_steps,
        groups=config.batch_groups,
        group_size=config.levels_per_group,
        # Levels from all over the path: neighbours look alike, and their classifier teaches slowly.
        neighbours=False,
        learning_rate=1e-2,
        weight_decay=3e-2,
        log_every=max(1, config.training_steps // 20),
        checkpoint_every=max(50, config.training_steps // 10),
    )
    return LearningSettings(
        levels=config.path_levels, pool=config.pool, evaluation_pool=config.pool // 2, training=training
    )


def _model(stages: SolvationStages, leg: Leg) -> Any:
    space, symmetry = stages.space(leg), stages.internal.symmetry
    network = TorsionConfig(hidden=stages.config.hidden[0], layers=len(stages.config.hidden))

    def make(levels: torch.Tensor, generator: torch.Generator) -> EnergyModel:
        net = TorsionEnergyNet(space.scaled.is_periodic.cpu(), symmetry.cpu(), generator, network)
        model = AnchoredEnergyModel(net, levels, space.ceilings)
        if leg.divides is not None:
            model = ConfinedEnergyModel(net, levels, space.ceilings, *_walls(stages, leg))
        return model.to(levels.device)

    return make


def _walls(stages: SolvationStages, leg: Leg) -> tuple[int, tuple[Arc, Arc], float]:
    """Return the column of a divided torsion, the arcs of both ends and the noise of the path there [rad]."""
    system = stages.system
    basin = system.require_basin(leg.divides.basin if leg.divides else "")
    column = soft_column(system, stages.internal, basin.torsion)
    arc = Arc(basin.low, basin.high)
    return column, (arc.rest, arc), float(stages.space(leg).path.noise_scale[column])


def _keep_integral(
    arrays: dict[str, np.ndarray],
    facts: dict[str, Any],
    name: str,
    integral: Any,
    pools: Pools,
    network_evaluations: int,
    seconds: float,
) -> None:
    arrays[f"{name}.t"] = integral.nodes
    arrays[f"{name}.integrand"] = integral.integrand
    arrays[f"{name}.integrand_stderr"] = integral.integrand_stderr
    facts[name] = {
        "value": integral.estimate.value,
        "sampling_stderr": integral.estimate.stderr,
        "overlap": None,
        "n_effective": integral.estimate.n_effective,
        "energy_evaluations": pools.cost.energy_evaluations,
        "network_evaluations": network_evaluations,
        "seconds": pools.cost.seconds + seconds,
    }


def _keep_history(arrays: dict[str, np.ndarray], name: str, history: list[dict[str, float]]) -> None:
    for key in history[0]:
        arrays[f"{name}.history.{key}"] = np.array([record[key] for record in history])
