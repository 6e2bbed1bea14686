"""Samples of the reverse process of a learned energy, and how far they are from exact ones."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from boltzgen_diffclf.estimators.estimate import Measurement
from boltzgen_diffclf.noised_energy import NoisedEnergyModel
from boltzgen_diffclf.observables import (
    ModeWeights,
    mode_error_floor,
    mode_errors,
    root_discrepancy,
    sampled_mode_weights,
    sliced_kolmogorov_smirnov,
    sliced_wasserstein_2,
    squared_mmd,
    wasserstein_1,
    wasserstein_2,
)
from boltzgen_diffclf.samplers import sample_reverse
from boltzgen_diffclf.streams import named_generator, split_seed
from systems.analytic import GaussianMixture, MixtureMarginals
from workflows.benchmark_suites.suite import Metric

MOST_TRANSPORTED = 1024
"""Samples of each kind that are transported exactly, which costs seconds; more would cost minutes."""

_SQUARED = "reverse_mmd_squared"


class ReverseSamples(NamedTuple):
    """Samples of the reverse process, exact ones to compare them with, and others that show the noise of that."""

    own: Float[Tensor, "samples dim"]
    reference: Float[Tensor, "samples dim"]
    other: Float[Tensor, "samples dim"]


def draw_samples(
    model: NoisedEnergyModel, oracle: MixtureMarginals, levels: Float[Tensor, " levels"], n: int, seed: int
) -> ReverseSamples:
    """Return ``n`` samples of each kind, of the least noise."""
    stream, last, exact = named_generator(seed, "reverse"), levels[-1:], oracle.at(float(levels[0]))
    spread = (model.path.alpha(last).square() * model.data.variance + model.path.sigma(last).square()).sqrt()
    noise = torch.randn(n, oracle.dimension, generator=stream, dtype=levels.dtype)
    start = model.path.alpha(last) * model.data.mean + spread * noise
    own = sample_reverse(model.denoiser, oracle.path, levels, start, stream)
    return ReverseSamples(own, exact.sample(n, stream), exact.sample(n, stream))


def sample_metrics(samples: ReverseSamples, exact: GaussianMixture, seed: int) -> list[Metric]:
    """Return how far the samples are from exact ones, beside what exact ones would score."""
    stream = np.random.default_rng(split_seed(seed, "directions"))
    weights = sampled_mode_weights(exact.responsibilities(samples.own).numpy())
    own, reference, other = (part.numpy() for part in samples)
    distances = [sliced_wasserstein_2(one, reference, stream) for one in (own, other)]
    return [
        *mode_metrics("reverse_mode", weights, exact, len(own)),
        Metric(_SQUARED, *squared_mmd(own, reference), 0.0),
        Metric("reverse_sliced_w2", distances[0], None, distances[1]),
    ]


def distance_metrics(samples: ReverseSamples, measured: list[Metric], seed: int) -> list[Metric]:
    """Return further distances to the exact samples, with those of other exact samples as what is best.

    Args:
        samples: of which at most :data:`MOST_TRANSPORTED` are transported exactly.
        measured: what :func:`sample_metrics` found on them.
        seed: of directions that nothing else uses.
    """
    own, reference, other = (part.numpy() for part in samples)
    stream = np.random.default_rng(split_seed(seed, "directions of distribution functions"))
    squared = next(one for one in measured if one.name == _SQUARED)
    least = root_discrepancy(squared_mmd(other, reference))
    few = slice(0, MOST_TRANSPORTED)
    distances = {
        "reverse_w1": lambda one: wasserstein_1(one[few], reference[few]),
        "reverse_w2": lambda one: wasserstein_2(one[few], reference[few]),
        "reverse_sliced_ks": lambda one: sliced_kolmogorov_smirnov(one, reference, stream),
    }
    return [
        *(Metric(name, distance(own), None, distance(other)) for name, distance in distances.items()),
        Metric("reverse_mmd", *root_discrepancy(Measurement(squared.value, squared.stderr or 0.0)), least.value),
    ]


def mode_metrics(name: str, weights: ModeWeights, exact: GaussianMixture, n: int) -> list[Metric]:
    """Return how far weights of modes are from those of ``exact``, beside what ``n`` exact samples would score."""
    truth = exact.weights.numpy()
    errors, floor = mode_errors(weights.log_weights, truth), mode_error_floor(truth, n)
    spread = 0.5 * float(np.sqrt(np.square(weights.stderr).sum()))
    return [
        Metric(f"{name}_total_variation", errors.total_variation, spread, floor.total_variation),
        Metric(f"{name}s_forgotten", errors.forgotten, None, floor.forgotten),
    ]
