"""One row of a one-sided suite: train an energy of a known mixture by a named objective, and measure all of it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from boltzgen_diffclf.data_energy import DataEnergyModel
from boltzgen_diffclf.estimators.estimate import Measurement
from boltzgen_diffclf.estimators.profile import (
    chained_free_energies,
    profile_free_energies,
    sample_losses,
    stratified_mean,
)
from boltzgen_diffclf.noised_energy import NoisedEnergyModel
from boltzgen_diffclf.observables import (
    energy_mode_weights,
    fisher_divergence,
    kullback_leibler,
    level_effective_fractions,
    mode_error_floor,
    mode_errors,
)
from boltzgen_diffclf.paths import DiffusionPath, path_levels
from boltzgen_diffclf.samplers import sample_reverse_weighted
from boltzgen_diffclf.samplers.diffusion_smc import EnergyAndGradient
from boltzgen_diffclf.streams import named_generator
from boltzgen_diffclf.training.level_curves import neighbour_energies
from boltzgen_diffclf.training.noised_problem import NoisedObjective
from systems.analytic import GaussianMixture, MixtureMarginals
from workflows.benchmark_suites.one_sided_training import (
    OneSidedSizes,
    Trained,
    one_sided_target,
    train_one_sided,
)
from workflows.benchmark_suites.reverse_samples import distance_metrics, draw_samples, mode_metrics, sample_metrics
from workflows.benchmark_suites.suite import Metric, RowContext, RowSpec, StepProgress

SHOWN_LEVELS = 8
"""Levels, evenly among all and the first and last included, where scores and weights are measured one by one."""

_ROWS = 4096
"""Configurations evaluated at once."""


def train_row(path: DiffusionPath, spec: RowSpec, context: RowContext) -> Trained:
    """Return the trained energy of one row; killed, the same call goes on from the row's checkpoint.

    Args:
        path: of the noise; an energy of the data alone has no use for it.
        spec: its target is one of :data:`ONE_SIDED_TARGETS`.
        context: its sizes are those of :class:`OneSidedSizes`.

    Raises:
        InputError: an unknown name.
    """
    return train_as(spec.objective, OneSidedSizes(**context.sizes), path, spec, context)


def train_as(
    objective: str | NoisedObjective,
    sizes: OneSidedSizes,
    path: DiffusionPath,
    spec: RowSpec,
    context: RowContext,
    layout: str | None = None,
) -> Trained:
    """Return what :func:`train_row` does where rows are not named by their objective, or differ in sizes or levels."""
    return train_one_sided(
        one_sided_target(spec.target, spec.dim),
        path,
        objective,
        spec.seed,
        sizes,
        device=context.device,
        checkpoint=context.checkpoint(spec),
        progress=StepProgress(context).report,
        layout=layout,
    )


def measure(trained: Trained, path: DiffusionPath, seed: int, sizes: OneSidedSizes) -> list[Metric]:
    """Return everything measured on a trained energy."""
    cost = [
        Metric("training_seconds", trained.seconds),
        Metric("network_evaluations", float(trained.network_evaluations)),
    ]
    model = trained.model
    if isinstance(model, DataEnergyModel):
        x = trained.target.sample(sizes.measured, named_generator(seed, "evaluation"))
        with torch.no_grad():
            energy, score = model.energy(x), -model.gradient(x)
            log_density = model.log_density(x)
        is_normalised = math.isfinite(float(model.log_normaliser))
        own = (
            [Metric("kullback_leibler", *_kullback_leibler(trained.target, x, log_density), 0.0)]
            if is_normalised
            else []
        )
        return [*energy_metrics(trained.target, x, energy, score), *own, *cost]
    oracle = MixtureMarginals(trained.target, path)
    levels = path_levels(path, sizes.levels)
    samples = draw_samples(model, oracle, levels, sizes.measured, seed)
    reverse = sample_metrics(samples, oracle.at(float(levels[0])), seed)
    return [
        *classification_metrics(model, trained.learned_curve, oracle, levels, sizes, seed),
        *level_metrics(model, oracle, levels, sizes, seed),
        *reverse,
        *annealing_metrics(model, oracle, levels, sizes, seed),
        *cost,
        *likelihood_metrics(model, oracle, levels, sizes, seed),
        *distance_metrics(samples, reverse, seed),
    ]


def classification_metrics(
    model: NoisedEnergyModel,
    learned_curve: Float[Tensor, " levels"],
    oracle: MixtureMarginals,
    levels: Float[Tensor, " levels"],
    sizes: OneSidedSizes,
    seed: int,
) -> list[Metric]:
    """Return the classification loss [nats] less that of the exact densities, on the same samples.

    With the learned F, with the one profiled on the training data that the model has, and with one profiled on other
    exact samples; and how far the first two are from what the energies have on still other ones.
    """
    stream, n = named_generator(seed, "classification"), sizes.level_pool
    y = _exact_samples(oracle, levels, 2 * n, stream)
    with torch.no_grad():
        ours = _matrix(model.level_energies, y, levels)
        exact = _matrix(lambda part, at: _oracle_energies(oracle, part, at), y[:, n:], levels)
        own = model.free_energy(levels).numpy()
        more = _exact_samples(oracle, levels, sizes.profile_pool, stream)
        held_out = chained_free_energies(*neighbour_energies(model, more, levels))
    best = sample_losses(exact, np.zeros(len(levels)))
    fitted = profile_free_energies(ours[:, :n]).free_energies
    learned = np.interp(levels.numpy(), model.curve.levels.numpy(), learned_curve.numpy())
    curves = {"learned_f": learned, "model_f": own, "profiled_f": fitted}
    own_loss, bayes = (stratified_mean(loss) for loss in (sample_losses(ours[:, n:], own), best))
    excesses = {
        name: stratified_mean(sample_losses(ours[:, n:], curve) - best) for name, curve in reversed(curves.items())
    }
    return [
        *(Metric(f"excess_classification.{name}", *excess, 0.0) for name, excess in excesses.items()),
        Metric("classification", *own_loss, bayes.value),
        *(
            Metric(f"free_energy_rms.{name}", float((curves[name] - held_out).std()), None, 0.0)
            for name in ("learned_f", "model_f")
        ),
    ]


def _exact_samples(
    oracle: MixtureMarginals, levels: Float[Tensor, " levels"], n: int, stream: torch.Generator
) -> Float[Tensor, "levels n dim"]:
    return torch.stack([oracle.at(float(t)).sample(n, stream) for t in levels])


def level_metrics(
    model: NoisedEnergyModel,
    oracle: MixtureMarginals,
    levels: Float[Tensor, " levels"],
    sizes: OneSidedSizes,
    seed: int,
) -> list[Metric]:
    """Return Fisher divergence and effective fraction at some levels, and what the energy of the first is worth."""
    stream = named_generator(seed, "levels")
    shown = levels[torch.linspace(0, len(levels) - 1, SHOWN_LEVELS).round().long()]
    fisher: list[Metric] = []
    first: list[Metric] = []
    curves: list[Metric] = []
    for t in shown.tolist():
        exact = oracle.at(t)
        y, at = exact.sample(sizes.measured, stream), levels.new_full((sizes.measured,), t)
        with torch.no_grad():
            energy, gradient = (torch.cat(parts) for parts in zip(*_evaluate(model, y, at), strict=True))
        here = energy_metrics(exact, y, energy, -gradient)
        first = first or here
        fisher += [metric for metric in here if metric.name == "fisher"]
        curves += [replace(m, name=f"{m.name}@{t:.4g}") for m in here if m.name in ("fisher", "effective_fraction")]
    spread = math.sqrt(sum((one.stderr or 0.0) ** 2 for one in fisher)) / len(fisher)
    mean = float(np.mean([one.value for one in fisher]))
    return [*first, Metric("fisher.mean", mean, spread, 0.0), *curves]


def energy_metrics(
    exact: GaussianMixture,
    y: Float[Tensor, "samples dim"],
    energy: Float[Tensor, " samples"],
    score: Float[Tensor, "samples dim"],
) -> list[Metric]:
    """Return how good an unnormalised energy is at exact samples ``y``: scores, weights of its modes, overlap."""
    log_density, responsibilities = exact.log_density(y), exact.responsibilities(y).numpy()
    fisher = fisher_divergence(score.numpy()[None], exact.score(y).numpy()[None])
    weights, worth = energy_mode_weights(energy.numpy(), log_density.numpy(), responsibilities)
    fraction = level_effective_fractions(log_density.numpy()[None], -energy.numpy()[None])
    return [
        *mode_metrics("energy_mode", weights, exact, len(y)),
        Metric("energy_mode_effective", worth.n_effective, None, float(len(y))),
        Metric("fisher", float(fisher.value[0]), float(fisher.stderr[0]), 0.0),
        Metric("effective_fraction", float(fraction[0]), None, 1.0),
    ]


def likelihood_metrics(
    model: NoisedEnergyModel,
    oracle: MixtureMarginals,
    levels: Float[Tensor, " levels"],
    sizes: OneSidedSizes,
    seed: int,
) -> list[Metric]:
    """Return the Kullback-Leibler divergence [nats] of the data under the least noise, by the F that the model has.

    That F is the one of its energies on the training data: where the divergence is negative, F is off by more.
    """
    t = float(levels[0])
    exact, stream = oracle.at(t), named_generator(seed, "likelihood")
    y = exact.sample(sizes.measured, stream)
    with torch.no_grad():
        ours = torch.cat([model.log_density(part, levels.new_full((len(part),), t)) for part in y.split(_ROWS)])
    return [Metric("kullback_leibler.model_f", *_kullback_leibler(exact, y, ours), 0.0)]


def annealing_metrics(
    model: NoisedEnergyModel,
    oracle: MixtureMarginals,
    levels: Float[Tensor, " levels"],
    sizes: OneSidedSizes,
    seed: int,
) -> list[Metric]:
    """Return the weights of the modes by sequential Monte Carlo on the learned energies, from exact noise.

    Where the reverse process follows scores, its weights compare energies: they are right only if these are.
    """
    stream, times = named_generator(seed, "annealing"), informed_levels(model, levels, sizes.annealing_levels)
    start = oracle.at(float(times[-1])).sample(sizes.particles, stream)
    with torch.no_grad():
        result = sample_reverse_weighted(
            _between(model, model.curve.levels), oracle.path, times, start, stream, resolution=float(model.resolution)
        )
    exact, weights = oracle.at(float(times[0])), result.log_weights.softmax(0)
    errors = mode_errors((weights @ exact.responsibilities(result.position)).log().numpy(), exact.weights.numpy())
    floor = mode_error_floor(exact.weights.numpy(), sizes.particles)
    fraction = float(result.effective_sample_size.min()) / sizes.particles
    return [
        Metric("smc_mode_total_variation", errors.total_variation, None, floor.total_variation),
        Metric("smc_least_effective_fraction", fraction, None, 1.0),
    ]


def informed_levels(model: NoisedEnergyModel, levels: Float[Tensor, " levels"], n: int) -> Float[Tensor, " times"]:
    """Return ``n`` times between the first and the last level, evenly in :meth:`NoisedEnergyModel.information`.

    Neighbours then overlap as well everywhere, also where the given levels leap over the width of the modes.
    """
    index = np.arange(len(levels))
    fine = levels.new_tensor(np.interp(np.linspace(0, index[-1], 64 * index[-1] + 1), index, levels.numpy()))
    given = -model.information(fine).numpy()
    inner = np.interp(np.linspace(given[0], given[-1], n)[1:-1], given, fine.numpy())
    return torch.cat([levels[:1], levels.new_tensor(inner), levels[-1:]])


def _between(model: NoisedEnergyModel, levels: Float[Tensor, " levels"]) -> EnergyAndGradient:
    """Return energy and gradient at any time, from the two levels about it: only at levels has the network learned."""

    def energy_and_gradient(y: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        after = torch.searchsorted(levels, t.contiguous()).clamp(1, len(levels) - 1)
        low, high = levels[after - 1], levels[after]
        information = [model.information(time) for time in (low, t, high)]
        share = (information[0] - information[1]) / (information[0] - information[2])
        (energy, gradient), (other, slope) = (model.energy_and_gradient(y, time) for time in (low, high))
        return torch.lerp(energy, other, share), torch.lerp(gradient, slope, share[:, None])

    return energy_and_gradient


def _kullback_leibler(target: GaussianMixture, x: Tensor, log_density: Tensor) -> Measurement:
    return kullback_leibler(target.log_density(x).numpy(), log_density.numpy())


def _matrix(
    energies: Callable[[Tensor, Tensor], Tensor], y: Float[Tensor, "levels pool dim"], levels: Float[Tensor, " levels"]
) -> Float[np.ndarray, "levels pool levels"]:
    """Return the energy of every sample at every level."""
    parts = [energies(part, levels) for part in y.flatten(0, 1).split(max(1, 8 * _ROWS // len(levels)))]
    return torch.cat(parts).unflatten(0, y.shape[:2]).numpy()


def _oracle_energies(oracle: MixtureMarginals, y: Tensor, levels: Tensor) -> Tensor:
    rows = y.repeat_interleave(len(levels), dim=0)
    return oracle.energy(rows, levels.repeat(len(y))).unflatten(0, (len(y), len(levels)))


def _evaluate(model: NoisedEnergyModel, y: Tensor, t: Tensor) -> list[tuple[Tensor, Tensor]]:
    return [model.energy_and_gradient(*part) for part in zip(y.split(_ROWS), t.split(_ROWS), strict=True)]
