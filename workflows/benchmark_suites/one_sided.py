"""One row of a one-sided suite: train an energy of a known mixture by a named objective, and measure all of it."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from boltzgen_diffclf.composition import TimeEnergyLadder
from boltzgen_diffclf.data_energy import DataEnergyModel
from boltzgen_diffclf.errors import InputError
from boltzgen_diffclf.estimators.estimate import Measurement
from boltzgen_diffclf.estimators.profile import profile_free_energies, sample_losses, stratified_mean
from boltzgen_diffclf.noised_energy import NoisedEnergyModel
from boltzgen_diffclf.observables import (
    ModeWeights,
    energy_mode_weights,
    fisher_divergence,
    kullback_leibler,
    level_effective_fractions,
    mode_error_floor,
    mode_errors,
    sampled_mode_weights,
    sliced_wasserstein_2,
    squared_mmd,
)
from boltzgen_diffclf.paths import DiffusionPath
from boltzgen_diffclf.samplers import Annealing, Mala, anneal, sample_reverse
from boltzgen_diffclf.streams import named_generator, split_seed
from boltzgen_diffclf.training.loop import Progress
from systems.analytic import GaussianMixture, MixtureMarginals
from workflows.benchmark_suites.one_sided_training import (
    ONE_SIDED_TARGETS,
    PATHS,
    OneSidedSizes,
    Trained,
    choose,
    path_levels,
    train_one_sided,
)

SHOWN_LEVELS = 8
"""Levels, evenly among all and the first and last included, where scores and weights are measured one by one."""

_ROWS = 4096
"""Configurations evaluated at once."""


class RowMetric(NamedTuple):
    """A measured number, its standard error, and what a perfect model would score on the same samples."""

    value: float
    stderr: float | None = None
    limit: float | None = None


Metrics = dict[str, RowMetric]


class SuiteRow(NamedTuple):
    """One row of a suite."""

    target: str
    dim: int
    objective: str
    seed: int
    metrics: Metrics


def one_sided_row(
    target_name: str,
    dim: int,
    path_name: str,
    objective: str,
    seed: int,
    sizes: OneSidedSizes,
    *,
    checkpoint: Path | None = None,
    progress: Progress | None = None,
) -> Metrics:
    """Train one energy and return everything measured on it, by name.

    Args:
        target_name: see :data:`ONE_SIDED_TARGETS`.
        dim: of the target, where it has a choice.
        path_name: see :data:`PATHS`; an energy of the data alone has no use for it.
        objective: see :mod:`boltzgen_diffclf.training.objectives`.
        seed: of everything random.
        sizes: of training and measuring.
        checkpoint: state of the training, from which a killed row goes on.
        progress: of the training.

    Raises:
        InputError: an unknown name.
    """
    if path_name not in PATHS:
        raise InputError(f"there is no path {path_name!r}; choose one of {', '.join(PATHS)}")
    target, path = choose(ONE_SIDED_TARGETS, target_name)(dim), PATHS[path_name]
    trained = train_one_sided(target, path, objective, seed, sizes, checkpoint=checkpoint, progress=progress)
    return measure(trained, path, seed, sizes)


def measure(trained: Trained, path: DiffusionPath, seed: int, sizes: OneSidedSizes) -> Metrics:
    """Return everything measured on a trained energy, by name."""
    metrics = {
        "seconds": RowMetric(trained.seconds),
        "network_evaluations": RowMetric(float(trained.network_evaluations)),
    }
    model = trained.model
    if isinstance(model, DataEnergyModel):
        x = trained.target.sample(sizes.samples, named_generator(seed, "evaluation"))
        with torch.no_grad():
            energy, score = model.energy(x), -model.gradient(x)
            own = RowMetric(*_kullback_leibler(trained.target, x, model.log_density(x)))
        return metrics | energy_metrics(trained.target, x, energy, score) | {"kullback_leibler": own}
    oracle = MixtureMarginals(trained.target, path)
    levels = path_levels(path, sizes.levels)
    metrics |= classification_metrics(model, trained.learned_curve, oracle, levels, sizes, seed)
    metrics |= level_metrics(model, oracle, levels, sizes, seed)
    metrics |= sample_metrics(model, oracle, levels, sizes, seed)
    return metrics | annealing_metrics(model, oracle, levels, sizes, seed)


def classification_metrics(
    model: NoisedEnergyModel,
    learned_curve: Float[Tensor, " levels"],
    oracle: MixtureMarginals,
    levels: Float[Tensor, " levels"],
    sizes: OneSidedSizes,
    seed: int,
) -> Metrics:
    """Return the classification loss [nats] less that of the exact densities, on the same samples.

    With the learned F, with the one profiled on the training data that the model has, and with one profiled on other
    exact samples; and how far the learned F is from the latter.
    """
    stream, n = named_generator(seed, "classification"), sizes.level_pool
    y = torch.stack([oracle.at(float(t)).sample(2 * n, stream) for t in levels])
    with torch.no_grad():
        ours = _matrix(model.level_energies, y, levels)
        exact = _matrix(lambda part, at: _oracle_energies(oracle, part, at), y[:, n:], levels)
        own = model.free_energy(levels).numpy()
    best = sample_losses(exact, np.zeros(len(levels)))
    fitted = profile_free_energies(ours[:, :n]).free_energies
    curves = {"learned_f": learned_curve.numpy(), "model_f": own, "profiled_f": fitted}
    own_loss, bayes = (stratified_mean(loss) for loss in (sample_losses(ours[:, n:], own), best))
    metrics = {"classification": RowMetric(*own_loss, bayes.value)}
    for name, curve in curves.items():
        excess = stratified_mean(sample_losses(ours[:, n:], curve) - best)
        metrics[f"excess_classification.{name}"] = RowMetric(*excess, 0.0)
    for name in ("learned_f", "model_f"):
        error = curves[name] - fitted
        metrics[f"free_energy_rms.{name}"] = RowMetric(float(error.std()), None, 0.0)
    return metrics


def level_metrics(
    model: NoisedEnergyModel,
    oracle: MixtureMarginals,
    levels: Float[Tensor, " levels"],
    sizes: OneSidedSizes,
    seed: int,
) -> Metrics:
    """Return Fisher divergence and effective fraction at some levels, and what the energy of the first is worth."""
    stream = named_generator(seed, "levels")
    shown = levels[torch.linspace(0, len(levels) - 1, SHOWN_LEVELS).round().long()]
    metrics: Metrics = {}
    fisher = []
    for t in shown.tolist():
        exact = oracle.at(t)
        y, at = exact.sample(sizes.samples, stream), levels.new_full((sizes.samples,), t)
        with torch.no_grad():
            energy, gradient = (torch.cat(parts) for parts in zip(*_evaluate(model, y, at), strict=True))
        here = energy_metrics(exact, y, energy, -gradient)
        fisher.append(here["fisher"])
        if t == float(shown[0]):
            metrics |= here
        metrics |= {f"{name}@{t:.4g}": here[name] for name in ("fisher", "effective_fraction")}
    spread = math.sqrt(sum((one.stderr or 0.0) ** 2 for one in fisher)) / len(fisher)
    return metrics | {"fisher.mean": RowMetric(float(np.mean([one.value for one in fisher])), spread, 0.0)}


def energy_metrics(
    exact: GaussianMixture,
    y: Float[Tensor, "samples dim"],
    energy: Float[Tensor, " samples"],
    score: Float[Tensor, "samples dim"],
) -> Metrics:
    """Return how good an unnormalised energy is at exact samples ``y``: scores, weights of its modes, overlap."""
    log_density, responsibilities = exact.log_density(y), exact.responsibilities(y).numpy()
    fisher = fisher_divergence(score.numpy()[None], exact.score(y).numpy()[None])
    weights, worth = energy_mode_weights(energy.numpy(), log_density.numpy(), responsibilities)
    fraction = level_effective_fractions(log_density.numpy()[None], -energy.numpy()[None])
    return {
        "fisher": RowMetric(float(fisher.value[0]), float(fisher.stderr[0]), 0.0),
        "effective_fraction": RowMetric(float(fraction[0]), None, 1.0),
        "energy_mode_effective": RowMetric(worth.n_effective, None, float(len(y))),
        **_mode_metrics("energy_mode", weights, exact, len(y)),
    }


def sample_metrics(
    model: NoisedEnergyModel,
    oracle: MixtureMarginals,
    levels: Float[Tensor, " levels"],
    sizes: OneSidedSizes,
    seed: int,
) -> Metrics:
    """Return how far samples of the reverse process are from exact ones, beside what exact ones would score."""
    stream, numpy_stream = named_generator(seed, "reverse"), np.random.default_rng(split_seed(seed, "directions"))
    last, exact = levels[-1:], oracle.at(float(levels[0]))
    spread = (model.path.alpha(last).square() * model.data.variance + model.path.sigma(last).square()).sqrt()
    noise = torch.randn(sizes.samples, oracle.dimension, generator=stream, dtype=levels.dtype)
    start = model.path.alpha(last) * model.data.mean + spread * noise
    y = sample_reverse(model.denoiser, oracle.path, levels, start, stream)
    reference, other = (exact.sample(sizes.samples, stream) for _ in range(2))
    metrics = _mode_metrics("reverse_mode", sampled_mode_weights(exact.responsibilities(y).numpy()), exact, len(y))
    samples = [part.numpy() for part in (y, reference, other)]
    distances = [sliced_wasserstein_2(one, samples[1], numpy_stream) for one in (samples[0], samples[2])]
    return metrics | {
        "reverse_mmd_squared": RowMetric(*squared_mmd(samples[0], samples[1]), 0.0),
        "reverse_sliced_w2": RowMetric(distances[0], None, distances[1]),
    }


def annealing_metrics(
    model: NoisedEnergyModel,
    oracle: MixtureMarginals,
    levels: Float[Tensor, " levels"],
    sizes: OneSidedSizes,
    seed: int,
) -> Metrics:
    """Return the weights of the modes by sequential Monte Carlo down the learned energies, from exact noise.

    Where the reverse process follows scores, this compares energies: it is right only if they are.
    """
    stream = named_generator(seed, "annealing")
    sigma, alpha, variance = model.path.sigma(levels), model.path.alpha(levels), model.data.variance.mean()
    # The width of x known from y, which no mode of y is narrower than, at the scaling of MALA in many dimensions.
    width = sigma.square() * variance / (alpha.square() * variance + sigma.square())
    kernel = Mala(0.3 * oracle.dimension ** (-1 / 3) * width, levels.new_ones(()))
    annealing = Annealing(kernel, range(len(levels) - 1, -1, -1), steps_per_level=2, resample_below=0.5)
    start = oracle.at(float(levels[-1])).sample(sizes.particles, stream)
    result = anneal(annealing, TimeEnergyLadder(model, levels, oracle.dimension), start, stream)
    exact, weights = oracle.at(float(levels[0])), result.log_weights.softmax(0)
    errors = mode_errors(
        (weights @ exact.responsibilities(result.particles.position)).log().numpy(), exact.weights.numpy()
    )
    floor = mode_error_floor(exact.weights.numpy(), sizes.particles)
    return {
        "smc_mode_total_variation": RowMetric(errors.total_variation, None, floor.total_variation),
        "smc_least_effective_fraction": RowMetric(
            float(result.effective_sample_size.min()) / sizes.particles, None, 1.0
        ),
    }


def _mode_metrics(name: str, weights: ModeWeights, exact: GaussianMixture, n: int) -> Metrics:
    truth = exact.weights.numpy()
    errors, floor = mode_errors(weights.log_weights, truth), mode_error_floor(truth, n)
    spread = 0.5 * float(np.sqrt(np.square(weights.stderr).sum()))
    return {
        f"{name}_total_variation": RowMetric(errors.total_variation, spread, floor.total_variation),
        f"{name}s_forgotten": RowMetric(errors.forgotten, None, floor.forgotten),
    }


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
