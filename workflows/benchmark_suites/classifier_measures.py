"""What is measured on a classifier of noise levels, beside the exact one: density, likelihood, posterior, denoiser."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from boltzgen_diffclf.estimators.profile import stratified_mean
from boltzgen_diffclf.losses import noise_level_cross_entropy_loss
from boltzgen_diffclf.nets import ClassificationDiffusion, DiscreteLevels
from boltzgen_diffclf.observables import (
    kullback_leibler,
    mode_error_floor,
    mode_errors,
    sampled_mode_weights,
    sliced_wasserstein_2,
)
from boltzgen_diffclf.streams import named_generator, split_seed
from systems.analytic import GaussianMixture
from workflows.benchmark_suites.classifier_training import TrainedLevels, exact_levels
from workflows.benchmark_suites.suite import Metric

HIGH_NOISE = 0.75
"""Level, as a share of the way from data to noise, from which noise counts as high: 15 % of the variance is data."""

HALF_WIDTH = 6.0
"""Of the cube of the quadrature; the data has unit variance."""

POINTS = {1: 2401, 2: 301}
"""Of the quadrature along each axis."""

_SHOWN = 6
"""Every how many points of the line the density is kept."""

_ROWS = 16_384
"""Configurations evaluated at once."""


def measure(trained: TrainedLevels, seed: int, measured: int) -> list[Metric]:
    """Return everything measured on a trained model.

    Args:
        trained: the model; one without densities has the metrics of its denoiser alone.
        seed: of the samples.
        measured: samples a level, and of the sampler.
    """
    model, target = trained.model, trained.target
    exact = exact_levels(target, len(model.alpha_bar))
    metrics: list[Metric] = []
    if isinstance(model, ClassificationDiffusion):
        metrics += density_metrics(model, target)
        metrics += likelihood_metrics(model, target, measured, seed)
        metrics += cross_entropy_metrics(model, exact, target, measured, seed)
    return [
        *metrics,
        *denoising_metrics(model, exact, target, measured, seed),
        *sample_metrics(model, target, measured, seed),
        Metric("training_seconds", trained.seconds),
        Metric("network_evaluations", float(trained.network_evaluations)),
    ]


def density_metrics(model: ClassificationDiffusion, target: GaussianMixture) -> list[Metric]:
    """Return what the density of the data is by quadrature: its integral, its shape, on the line itself.

    ``kullback_leibler`` is that of the normalised density, so that a wrong constant shows in ``integral`` alone.
    """
    axis = torch.linspace(-HALF_WIDTH, HALF_WIDTH, POINTS[target.dimension], dtype=torch.float64)
    x = torch.cartesian_prod(*[axis] * target.dimension).reshape(-1, target.dimension)
    log_cell = target.dimension * float((axis[1] - axis[0]).log())
    ours, truth = _log_density(model, x), target.log_density(x)
    log_integral = float(ours.logsumexp(0)) + log_cell
    divergence = float((truth.exp() * (truth - ours)).sum()) * np.exp(log_cell) + log_integral
    curve = range(0, len(x), _SHOWN) if target.dimension == 1 else ()
    return [
        Metric("integral", float(np.exp(log_integral)), None, 1.0),
        Metric("kullback_leibler", divergence, None, 0.0),
        *(Metric(f"density@{float(x[k, 0]):.3f}", float(ours[k].exp()), None, float(truth[k].exp())) for k in curve),
    ]


def likelihood_metrics(
    model: ClassificationDiffusion, target: GaussianMixture, measured: int, seed: int
) -> list[Metric]:
    """Return the log-likelihood [nats] of exact samples from one pass, and how far ``log p`` is off on them."""
    x = target.sample(measured, named_generator(seed, "evaluation"))
    ours, truth = _log_density(model, x), target.log_density(x)
    lost = kullback_leibler(truth.numpy(), ours.numpy())
    return [
        # Its error is that of the difference: both are measured on the same samples.
        Metric("log_likelihood", float(ours.mean()), lost.stderr, float(truth.mean())),
        Metric("log_density_rms", float((ours - truth).square().mean().sqrt()), None, 0.0),
    ]


def cross_entropy_metrics(
    model: ClassificationDiffusion, exact: ClassificationDiffusion, target: GaussianMixture, measured: int, seed: int
) -> list[Metric]:
    """Return the cross-entropy [nats] of naming the level, and what it has above the Bayes-optimal one."""
    y, level = _noised_samples(exact, target, measured, seed)
    losses = [_cross_entropy(one, y, level).unflatten(0, (-1, measured)).numpy() for one in (model, exact)]
    own, bayes = (stratified_mean(loss) for loss in losses)
    return [
        Metric("cross_entropy", *own, bayes.value),
        Metric("excess_cross_entropy", *stratified_mean(losses[0] - losses[1]), 0.0),
    ]


def denoising_metrics(
    model: DiscreteLevels, exact: ClassificationDiffusion, target: GaussianMixture, measured: int, seed: int
) -> list[Metric]:
    """Return the squared error of ``E[eps | y]``, a coordinate, above the least possible: that against the exact one.

    As a curve over the levels that have both data and noise, and its means over all of them and at high noise.
    """
    y, level = _noised_samples(exact, target, measured, seed)
    difference = _denoised(model, y, level) - _denoised(exact, y, level)
    excess = difference.square().mean(-1).unflatten(0, (-1, measured)).numpy()
    t = np.arange(len(excess)) / model.last
    inside, high = slice(1, model.last), (t >= HIGH_NOISE) & (t < 1)
    return [
        Metric("excess_denoising.mean", *stratified_mean(excess[inside]), 0.0),
        Metric("excess_denoising.high_noise", *stratified_mean(excess[high]), 0.0),
        *(
            Metric(f"excess_denoising@{place:.4f}", *stratified_mean(one[None]), 0.0)
            for place, one in zip(t[inside], excess[inside], strict=True)
        ),
    ]


def sample_metrics(model: DiscreteLevels, target: GaussianMixture, measured: int, seed: int) -> list[Metric]:
    """Return how far samples are from exact ones, beside what exact ones would score."""
    stream, numpy_stream = named_generator(seed, "sampler"), np.random.default_rng(split_seed(seed, "directions"))
    y = sample_levels(model, measured, target.dimension, stream)
    reference, other = (target.sample(measured, stream).numpy() for _ in range(2))
    distances = [sliced_wasserstein_2(one, reference, numpy_stream) for one in (y.numpy(), other)]
    weights, truth = sampled_mode_weights(target.responsibilities(y).numpy()), target.weights.numpy()
    spread = 0.5 * float(np.sqrt(np.square(weights.stderr).sum()))
    errors, floor = mode_errors(weights.log_weights, truth), mode_error_floor(truth, measured)
    return [
        Metric("sampled_sliced_w2", distances[0], None, distances[1]),
        Metric("sampled_mode_total_variation", errors.total_variation, spread, floor.total_variation),
    ]


def sample_levels(model: DiscreteLevels, n: int, dim: int, generator: torch.Generator) -> Float[Tensor, "samples dim"]:
    """Return ``n`` samples of the data, one step a level down from pure noise."""
    y = torch.randn(n, dim, generator=generator, dtype=torch.float64)
    for t in range(model.last - 1, 0, -1):
        z = torch.randn(n, dim, generator=generator, dtype=torch.float64)
        y = model.step(y, torch.full((n,), t), z).detach()
    return y


def _noised_samples(
    exact: ClassificationDiffusion, target: GaussianMixture, measured: int, seed: int
) -> tuple[Tensor, Tensor]:
    """Return as many samples of every level, level behind level, and their levels."""
    stream = named_generator(seed, "levels")
    level = torch.arange(len(exact.alpha_bar)).repeat_interleave(measured)
    x = target.sample(len(level), stream)
    noise = torch.randn(x.shape, generator=stream, dtype=x.dtype)
    return exact.noised(x, level, noise), level


def _log_density(model: ClassificationDiffusion, x: Tensor) -> Tensor:
    with torch.no_grad():
        return torch.cat([model.log_densities(part)[:, 0] for part in x.split(_ROWS)])


def _cross_entropy(model: ClassificationDiffusion, y: Tensor, level: Tensor) -> Tensor:
    with torch.no_grad():
        logits = torch.cat([model.logits(part) for part in y.split(_ROWS)])
    return noise_level_cross_entropy_loss(logits, level)


def _denoised(model: DiscreteLevels, y: Tensor, level: Tensor) -> Tensor:
    parts = zip(y.split(_ROWS), level.split(_ROWS), strict=True)
    return torch.cat([model.denoiser(*part).detach() for part in parts])
