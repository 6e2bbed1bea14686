"""Rows of suites that join two states of known free energies: the classical ones, and the learned path."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch

from boltzgen_diffclf.energy import AnchoredEnergyModel, EnergyModel, UnanchoredEnergyModel
from boltzgen_diffclf.estimators import Estimate, bar
from boltzgen_diffclf.free_energy.annealed import AnnealingSettings, annealed_estimate
from boltzgen_diffclf.free_energy.annealed_ladders import linear_ladder_works
from boltzgen_diffclf.free_energy.cartesian import corrected_integral, end_correction
from boltzgen_diffclf.free_energy.chained_classes import chained_end_classes
from boltzgen_diffclf.free_energy.evaluation import Cost
from boltzgen_diffclf.free_energy.learned import (
    LearningSettings,
    MakeModel,
    build_pools,
    exact_end_classes,
    integrate,
    train_replicate,
)
from boltzgen_diffclf.free_energy.step_sizes import mala_family
from boltzgen_diffclf.free_energy.vector_space import VectorSpace
from boltzgen_diffclf.nets import MlpEnergyNet, WellPairsEnergyNet, find_wells
from boltzgen_diffclf.streams import named_generator, split_seed
from boltzgen_diffclf.training import ExactEndsProblem, ObjectiveWeights, PathData, TrainingSettings, TwoSidedProblem
from systems.analytic import MixturePair
from workflows.benchmark_suites.suite import Metric, RowContext, RowSpec, StepProgress

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

WEIGHTS: Mapping[str, ObjectiveWeights] = {
    "dsm": ObjectiveWeights(denoising=1.0, classification=0.0),
    "diffclf": ObjectiveWeights(denoising=0.0, classification=1.0),
    # Score matching is a mean over coordinates, classification a sum: with equal weights the noisier drowns it.
    "dsm_diffclf": ObjectiveWeights(denoising=20.0, classification=1.0),
    "dsm_diffclf_mlp": ObjectiveWeights(denoising=20.0, classification=1.0),
    "dsm_diffclf_ends": ObjectiveWeights(denoising=20.0, classification=1.0),
}
"""What the learned rows are trained with."""

EXACT_ENDS = "dsm_diffclf_ends"
"""The row that has the true ends among the classes of its training."""

EXACT_END_STRIDE = 4
"""Levels that the exact-ends classifier skips: MBAR grows with the square of their number."""

MOST_WELLS = 64
"""Of either end, for the network of learned wells."""


_ROWS = 4096
"""Configurations whose true energies are evaluated at once."""


@dataclass(frozen=True)
class PathChoice:
    """How a suite joins its states.

    Attributes:
        noise: see :class:`VectorSpace`.
        transport: see there.
        softened: bend the prior of the end energies above what their samples reach.
        learning_rate: of the network.
        network: a plain one whose energies are anchored to those of the ends, or one of learned wells, unanchored.
    """

    noise: float = math.sqrt(2)
    transport: bool = False
    softened: bool = False
    learning_rate: float = 1e-2
    network: Literal["mlp", "wells"] = "mlp"


def two_sided_row(pair: MixturePair, choice: PathChoice, spec: RowSpec, context: RowContext) -> list[Metric]:
    """Return what one row measured: F_B - F_A [kT] from a fixed pool of samples an end, drawn by the row's seed."""
    samples_a, samples_b = (
        state.sample(context.sizes["samples"], named_generator(spec.seed, f"samples {name}")).to(context.device)
        for name, state in (("A", pair.state_a), ("B", pair.state_b))
    )
    pair = MixturePair(pair.state_a.to(device=context.device), pair.state_b.to(device=context.device))
    if spec.objective in WEIGHTS:
        return _learned(pair, choice, samples_a, samples_b, spec, context)
    if spec.objective == "bar":
        return _bar(pair, samples_a, samples_b, spec)
    return _annealed(pair, samples_a, samples_b, spec, context)


def _bar(
    pair: MixturePair, samples_a: Float[Tensor, "n dim"], samples_b: Float[Tensor, "n dim"], spec: RowSpec
) -> list[Metric]:
    """Return the estimate with its bootstrap error, blind to what no sample shows, and the one that sees overlap."""
    forward, reverse = (works.cpu().numpy() for works in _end_works(pair, samples_a, samples_b))
    single = np.arange(len(forward))
    bootstrap = np.random.default_rng(split_seed(spec.seed, "bootstrap bar"))
    estimate = bar(forward, reverse, groups_forward=single, groups_reverse=single + len(single), generator=bootstrap)
    metrics = _metrics(pair, estimate, Cost(2 * (len(samples_a) + len(samples_b))))
    return [*metrics, Metric("asymptotic_stderr", bar(forward, reverse).stderr)]


def _end_works(pair: MixturePair, samples_a: Tensor, samples_b: Tensor) -> tuple[Tensor, Tensor]:
    u_a, u_b = pair.state_a.energy, pair.state_b.energy
    return u_b(samples_a) - u_a(samples_a), u_a(samples_b) - u_b(samples_b)


def _annealed(
    pair: MixturePair,
    samples_a: Float[Tensor, "n dim"],
    samples_b: Float[Tensor, "n dim"],
    spec: RowSpec,
    context: RowContext,
) -> list[Metric]:
    slower = 10 if spec.objective == "ais_slow" else 1
    particles = min(context.sizes["anneal_particles"], len(samples_a))
    walker = torch.arange(len(samples_a), device=samples_a.device)
    works = linear_ladder_works(
        pair.state_a,
        pair.state_b,
        samples_a,
        walker,
        samples_b,
        walker + len(walker),
        mala_family(torch.ones_like(samples_a[0])),
        AnnealingSettings(slower * context.sizes["anneal_levels"] + 1, particles, steps_per_level=1),
        named_generator(spec.seed, f"annealing {spec.objective}", context.device),
    )
    bootstrap = np.random.default_rng(split_seed(spec.seed, f"bootstrap {spec.objective}"))
    estimate, cost = annealed_estimate(works, bootstrap)
    return _metrics(pair, estimate, cost)


def _learned(
    pair: MixturePair,
    choice: PathChoice,
    samples_a: Float[Tensor, "n dim"],
    samples_b: Float[Tensor, "n dim"],
    spec: RowSpec,
    context: RowContext,
) -> list[Metric]:
    wells = choice.network == "wells"
    space = VectorSpace(
        pair.state_a,
        pair.state_b,
        samples_a,
        samples_b,
        noise=choice.noise,
        transport=choice.transport,
        anchored=not wells,
    )
    settings = _learning_settings(choice, spec, context.sizes)
    # Half the samples are for the integral: what the network has seen would flatter it.
    seen, unseen = zip(samples_a.chunk(2), samples_b.chunk(2), strict=True)
    pools = build_pools(space, seen, unseen, settings, spec.seed)
    exact_ends = spec.objective == EXACT_ENDS
    if exact_ends and wells:
        training, evaluation = (_with_end_energies(pair, data) for data in (pools.training, pools.evaluation))
        pools = replace(pools, training=training, evaluation=evaluation)
    make_model = _wells(space, *seen) if wells else _anchored_mlp(space, choice, context.sizes)
    result, training_cost = train_replicate(
        make_model,
        pools,
        settings,
        spec.seed,
        problem=ExactEndsProblem if exact_ends else TwoSidedProblem,
        checkpoint=context.checkpoint(spec),
        identity={"row": spec.stage, "sizes": dict(context.sizes)},
        progress=StepProgress(context).report,
    )
    integral, classes = _answers(pair, result.model, pools.evaluation, anchored=not wells)
    metrics = _metrics(pair, integral, pools.cost + training_cost)
    metrics.append(Metric("delta_f_exact_ends", classes.value, classes.stderr, pair.delta_f))
    if exact_ends:
        first, final = result.model.free_energy(pools.evaluation.levels[[0, -1]]).tolist()
        metrics.append(Metric("delta_f_classifier", final - first, None, pair.delta_f))
    last = result.history[-1]
    metrics += [Metric(f"held_out_{name}", last[f"held_out.{name}"]) for name in ("denoising", "classification")]
    return metrics


def _with_end_energies(pair: MixturePair, data: PathData) -> PathData:
    """Return a pool of a model that is not anchored, with the true energies of both ends all the same."""
    # In parts: each takes the distances to all modes along all coordinates.
    parts = data.y.flatten(0, 1).split(_ROWS)
    ends = [torch.cat([state.energy(y) for y in parts]) for state in (pair.state_a, pair.state_b)]
    return replace(data, end_energy=torch.stack(ends, dim=-1).unflatten(0, data.y.shape[:2]))


def _anchored_mlp(space: VectorSpace, choice: PathChoice, sizes: Mapping[str, int]) -> MakeModel:
    def make(levels: Tensor, generator: torch.Generator) -> EnergyModel:
        net = MlpEnergyNet(space.dimension, generator, hidden=sizes["hidden"], layers=sizes["layers"])
        return AnchoredEnergyModel(net, levels, space.ceilings if choice.softened else None)

    return make


def _wells(space: VectorSpace, samples_a: Float[Tensor, "n dim"], samples_b: Float[Tensor, "n dim"]) -> MakeModel:
    (wells_a, variance_a), (wells_b, variance_b) = (
        find_wells(samples, min(MOST_WELLS, len(samples))) for samples in (samples_a, samples_b)
    )
    noise_variance = float(space.path.noise_scale[0]) ** 2

    def make(levels: Tensor, generator: torch.Generator) -> EnergyModel:
        net = WellPairsEnergyNet(wells_a, wells_b, (variance_a, variance_b), noise_variance)
        return UnanchoredEnergyModel(net, levels)

    return make


def _answers(pair: MixturePair, model: EnergyModel, data: PathData, *, anchored: bool) -> tuple[Estimate, Estimate]:
    """Return the integral and the classifier with the exact ends as classes, from true energy to true energy."""
    if anchored:
        return integrate(model, data).estimate, exact_end_classes(model, data, EXACT_END_STRIDE)[0]
    ends = ((0, pair.state_a), (-1, pair.state_b))
    start, end = (end_correction(model, data, level, state.energy(data.y[level])) for level, state in ends)
    integral = corrected_integral(model, data, (start, end))
    return integral, chained_end_classes(model, data, pair.state_a, pair.state_b)


def _learning_settings(choice: PathChoice, spec: RowSpec, sizes: Mapping[str, int]) -> LearningSettings:
    training = TrainingSettings(
        steps=sizes["steps"],
        groups=sizes["groups"],
        group_size=sizes["group_size"],
        # Levels from all over the path: neighbours look alike, and their classifier teaches slowly.
        neighbours=False,
        weights=WEIGHTS[spec.objective],
        learning_rate=choice.learning_rate,
        log_every=max(1, sizes["steps"] // 10),
        checkpoint_every=max(50, sizes["steps"] // 5),
    )
    return LearningSettings(
        levels=sizes["levels"], pool=sizes["pool"], evaluation_pool=sizes["evaluation_pool"], training=training
    )


def _metrics(pair: MixturePair, estimate: Estimate, cost: Cost) -> list[Metric]:
    metrics = [Metric("delta_f", estimate.value, estimate.stderr, pair.delta_f)]
    if estimate.overlap is not None:
        metrics.append(Metric("overlap", estimate.overlap))
    return [
        *metrics,
        Metric("n_effective", estimate.n_effective),
        Metric("energy_evaluations", float(cost.energy_evaluations)),
        Metric("network_evaluations", float(cost.network_evaluations)),
    ]
