"""One row of suite ``composition``: two members, learned or exact, composed at every level of noise and sampled."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple, cast

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from boltzgen_diffclf.composition import (
    ComposedLadder,
    ComposedTarget,
    Mixture,
    Negation,
    NormalisedLadder,
    Product,
    Rule,
    TimeEnergyLadder,
    tied_free_energies,
)
from boltzgen_diffclf.energy import TimeEnergy
from boltzgen_diffclf.noised_energy import NoisedEnergyModel
from boltzgen_diffclf.observables import mode_error_floor, sliced_wasserstein_2
from boltzgen_diffclf.paths import VariancePreserving, path_levels
from boltzgen_diffclf.samplers import Annealing, Mala, anneal, sample_reverse
from boltzgen_diffclf.samplers.resampling import systematic
from boltzgen_diffclf.samplers.reverse import Denoiser
from boltzgen_diffclf.streams import named_generator, split_seed
from boltzgen_diffclf.target import GaussianTarget, Ladder
from systems.analytic import MixtureMarginals, PlaneDensity, crossing_ellipses, ring_of_clusters
from workflows.benchmark_suites.one_sided_training import OneSidedSizes, train_one_sided
from workflows.benchmark_suites.suite import Metric, RowContext, RowSpec, StepProgress

EXACT = "exact"
"""The objective that learns nothing."""

PATH = VariancePreserving(t_min=1e-2, t_max=1 - 1e-4)
"""It begins where the noise is a quarter of the narrowest mode."""

MEMBERS = crossing_ellipses()
REGIONS = ring_of_clusters(5, radius=1.6).means
"""Middles of the regions: a point belongs to the nearest."""

POPULATIONS = 8
"""Independent runs of sequential Monte Carlo, whose scatter is the error."""

WINDOW = (2.4, 32)
"""Half width of the square where densities are shown, and its cells along a side."""

_NOISE = GaussianTarget(2)
_NOISE_SAMPLES = 4096
_TRAINING_SHARE = 0.4
"""Of a row's progress, for each member."""


def composed_row(spec: RowSpec, context: RowContext) -> list[Metric]:
    """Return everything measured on one rule with members of one objective.

    Raises:
        InputError: a member's checkpoint is broken or of another training.
    """
    sizes = OneSidedSizes(**context.sizes)
    models, evaluations = _models(spec, context, sizes)
    levels, exact = path_levels(PATH, sizes.levels), exact_composition(spec.target)
    ladder = composed_ladder(spec.target, models, levels, named_generator(spec.seed, "noise"))
    particles = annealed(ladder, levels, sizes.particles, named_generator(spec.seed, "annealing"))
    reverse = reversed_scores(ladder, levels, sizes.measured, named_generator(spec.seed, "reverse"))
    return [
        *annealing_metrics(particles, exact),
        *sample_metrics("smc", particles, exact, spec.seed),
        *sample_metrics("reverse", reverse, exact, spec.seed),
        *density_curve("density", particles, exact),
        # The learned scores go astray like the exact ones, which show the bias alone.
        *(density_curve("reverse_density", reverse, exact) if spec.objective == EXACT else ()),
        Metric("network_evaluations", float(evaluations)),
    ]


def named_rule(name: str, n_levels: int) -> Rule:
    """Return one of :data:`RULES`, for members that are normalised at each of ``n_levels`` levels."""
    return RULES[name](n_levels)


RULES: Mapping[str, Callable[[int], Rule]] = {
    "product": lambda n_levels: Product(_tensor(1.0, 1.0)),
    "tempered_product": lambda n_levels: Product(_tensor(0.5, 1.5)),
    "mixture": lambda n_levels: Mixture(_tensor(0.25, 0.75), torch.zeros(n_levels, 2, dtype=torch.float64)),
    "negation": lambda n_levels: Negation(1.0, ceiling=3.0),
}


def exact_composition(rule: str) -> PlaneDensity:
    """Return the composition of the exact members under the least noise, by quadrature."""
    members = [MixtureMarginals(member, PATH).at(PATH.t_min) for member in MEMBERS]
    # Its cells fit into those of the window, and its edges are far from every mode.
    return PlaneDensity(ComposedTarget(members, named_rule(rule, 1)), half_width=4.5, cells=300)


def composed_ladder(
    rule: str, models: Sequence[TimeEnergy], levels: Float[Tensor, " levels"], generator: torch.Generator
) -> ComposedLadder:
    """Return the models, normalised at every level by their own level free energies, under a rule."""
    noise = torch.randn(_NOISE_SAMPLES, 2, generator=generator, dtype=levels.dtype)
    tied = tied_free_energies(models, levels, noise, -_NOISE.energy(noise) - _NOISE.log_normaliser)
    members = [
        NormalisedLadder(TimeEnergyLadder(model, levels, 2), curve)
        for model, curve in zip(models, tied.unbind(1), strict=True)
    ]
    return ComposedLadder(members, named_rule(rule, len(levels)))


class Populations(NamedTuple):
    """Weighted samples of an unnormalised density in independent populations.

    Attributes:
        position: of the samples.
        log_weights: whose mean exponential over a population is its estimate of Z.
        least_effective_fraction: of a population, over all levels.
    """

    position: Float[Tensor, "populations particles 2"]
    log_weights: Float[Tensor, "populations particles"]
    least_effective_fraction: float


def annealed(
    ladder: Ladder, levels: Float[Tensor, " levels"], particles: int, generator: torch.Generator
) -> Populations:
    """Return samples of the first level by sequential Monte Carlo down all levels from weighted standard noise."""
    narrowest = min(float(member.sigmas.min()) for member in MEMBERS)
    width = (PATH.alpha(levels) * narrowest).square() + PATH.sigma(levels).square()
    kernel = Mala(0.3 * width, levels.new_ones(()))
    annealing = Annealing(kernel, range(len(levels) - 1, -1, -1), steps_per_level=2, resample_below=0.5)
    last = torch.full((particles,), len(levels) - 1)
    positions, log_weights, fractions = [], [], []
    for _ in range(POPULATIONS):
        start = torch.randn(particles, 2, generator=generator, dtype=levels.dtype)
        log_start = _NOISE.energy(start) + _NOISE.log_normaliser - ladder.energy(start, last)
        result = anneal(annealing, ladder, start, generator, log_start)
        positions.append(result.particles.position)
        log_weights.append(result.log_weights.log_softmax(0) + result.log_normaliser + math.log(particles))
        fractions.append(float(result.effective_sample_size.min()) / particles)
    return Populations(torch.stack(positions), torch.stack(log_weights), min(fractions))


def reversed_scores(
    ladder: Ladder, levels: Float[Tensor, " levels"], samples: int, generator: torch.Generator
) -> Populations:
    """Return samples of reverse diffusion along the composed scores, each a population of its own."""
    start = torch.randn(samples, 2, generator=generator, dtype=levels.dtype)
    y = sample_reverse(_composed_denoiser(ladder, levels), PATH, levels, start, generator)
    return Populations(y[:, None], torch.zeros(samples, 1, dtype=levels.dtype), 1.0)


def annealing_metrics(particles: Populations, exact: PlaneDensity) -> list[Metric]:
    """Return the log normaliser and the least effective fraction."""
    log_z = particles.log_weights.logsumexp(1) - math.log(particles.log_weights.shape[1])
    log_mean = log_z.logsumexp(0) - math.log(POPULATIONS)
    spread = float((log_z - log_mean).exp().std()) / math.sqrt(POPULATIONS)
    return [
        Metric("log_normaliser", float(log_mean), spread, exact.log_normaliser),
        Metric("least_effective_fraction", particles.least_effective_fraction, None, 1.0),
    ]


def sample_metrics(name: str, samples: Populations, exact: PlaneDensity, seed: int) -> list[Metric]:
    """Return the weights of the regions and the distance to exact samples, beside what as many exact ones score."""
    stream, directions = named_generator(seed, f"{name} compared"), np.random.default_rng(split_seed(seed, name))
    n = samples.log_weights.numel()
    weights, stderr = region_weights(samples)
    truth = _regions(exact.points).mul(exact.probabilities[:, None]).sum(0)
    spread = 0.5 * float(stderr.square().sum().sqrt())
    floor = mode_error_floor(truth.numpy(), n).total_variation
    ours = samples.position.flatten(0, 1)[systematic(samples.log_weights.flatten(), stream)]
    reference, other = (exact.sample(n, stream).numpy() for _ in range(2))
    distances = [sliced_wasserstein_2(one, reference, directions) for one in (ours.numpy(), other)]
    return [
        Metric(f"{name}_region_total_variation", 0.5 * float((weights - truth).abs().sum()), spread, floor),
        Metric(f"{name}_sliced_w2", distances[0], None, distances[1]),
        *(
            Metric(f"{name}_region_weight@{k}", float(weights[k]), float(stderr[k]), float(truth[k]))
            for k in range(len(truth))
        ),
    ]


def region_weights(samples: Populations) -> tuple[Float[Tensor, " regions"], Float[Tensor, " regions"]]:
    """Return the weights of the regions and their standard errors, from the scatter of the populations."""
    log_weights, n = samples.log_weights, len(samples.log_weights)
    weights = (log_weights - log_weights.max()).exp()
    inside = (weights[..., None] * _regions(samples.position.flatten(0, 1)).unflatten(0, weights.shape)).mean(1)
    shares = inside.sum(0) / inside.sum()
    influence = (inside - inside.sum(1, keepdim=True) * shares) / inside.sum(1).mean()
    return shares, influence.square().sum(0).sqrt() / math.sqrt(n * (n - 1))


def density_curve(name: str, samples: Populations, exact: PlaneDensity) -> list[Metric]:
    """Return the densities of weighted samples and of the exact answer in the cells of the window."""
    weights = samples.log_weights.flatten().softmax(0)
    ours, truth = (
        _histogram(points, mass)
        for points, mass in ((samples.position.flatten(0, 1), weights), (exact.points, exact.probabilities))
    )
    middles = window_edges()[:-1] + 0.5 * np.diff(window_edges())
    return [
        Metric(f"{name}@{x:.3f},{y:.3f}", float(ours[i, j]), None, float(truth[i, j]))
        for i, x in enumerate(middles)
        for j, y in enumerate(middles)
    ]


def window_edges() -> Float[np.ndarray, " edges"]:
    """Return the edges of the cells along a side of the window."""
    half_width, cells = WINDOW
    return np.linspace(-half_width, half_width, cells + 1)


def _models(spec: RowSpec, context: RowContext, sizes: OneSidedSizes) -> tuple[list[TimeEnergy], int]:
    """Return the two members' energies and the network evaluations that training them takes."""
    if spec.objective == EXACT:
        return [MixtureMarginals(member, PATH) for member in MEMBERS], 0
    part = replace(context, advance=lambda fraction: context.advance(_TRAINING_SHARE * fraction))
    models: list[TimeEnergy] = []
    evaluations = 0
    for name, member in zip("ab", MEMBERS, strict=True):
        # Rows of all rules share a member: the first of them trains it.
        trained = train_one_sided(
            member,
            PATH,
            spec.objective,
            split_seed(spec.seed, f"member {name}"),
            sizes,
            device=context.device,
            checkpoint=context.checkpoint(replace(spec, target=f"member_{name}")),
            progress=StepProgress(part).report,
        )
        models.append(cast(NoisedEnergyModel, trained.model))
        evaluations += trained.network_evaluations
    return models, evaluations


def _composed_denoiser(ladder: Ladder, levels: Float[Tensor, " levels"]) -> Denoiser:
    def denoiser(y: Tensor, t: Tensor) -> Tensor:
        score = ladder.energy_and_force(y, torch.searchsorted(levels, t.contiguous()))[1]
        return (y + PATH.sigma(t).square()[:, None] * score) / PATH.alpha(t)[:, None]

    return denoiser


def _regions(x: Float[Tensor, "points 2"]) -> Float[Tensor, "points regions"]:
    nearest = torch.cdist(x, REGIONS).argmin(1)
    return torch.nn.functional.one_hot(nearest, len(REGIONS)).to(x)


def _histogram(x: Float[Tensor, "points 2"], mass: Float[Tensor, " points"]) -> Float[np.ndarray, "cells cells"]:
    edges = window_edges()
    shares = np.histogram2d(x[:, 0].numpy(), x[:, 1].numpy(), bins=(edges, edges), weights=mass.numpy())[0]
    return shares / np.outer(np.diff(edges), np.diff(edges))


def _tensor(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)
