"""What an energy in the plane is worth: its density by quadrature, and bounds of its likelihood by annealing."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch

from boltzgen_diffclf.estimators.estimate import Measurement
from boltzgen_diffclf.free_energy.annealed import AnnealingSettings
from boltzgen_diffclf.free_energy.sandwich import Sandwich, held_out_log_likelihood, sandwich_log_normaliser
from boltzgen_diffclf.free_energy.step_sizes import mala_family
from boltzgen_diffclf.losses import run_negatives
from boltzgen_diffclf.samplers import Mala
from boltzgen_diffclf.streams import named_generator
from boltzgen_diffclf.target import LinearLadder
from systems.analytic import GaussianMixture
from systems.analytic.plane import PlaneDensity
from workflows.benchmark_suites.learned_density import LearnedDensity
from workflows.benchmark_suites.suite import Metric

_CELLS_PER_SIGMA = 5
"""Of the narrowest mode."""

_SIGMAS_BEYOND = 3
"""Standard deviations of the whole mixture that the grid reaches beyond the outermost mode."""

_LEVELS = 65
_RELAXING_STEPS = 10


def plane_density(learned: LearnedDensity) -> PlaneDensity:
    """Return the learned density on a grid that resolves and covers the exact one."""
    exact = learned.exact
    half_width = float(exact.means.abs().max() + _SIGMAS_BEYOND * exact.variance.max().sqrt())
    cell = float(exact.variances.min().sqrt()) / _CELLS_PER_SIGMA
    with torch.no_grad():
        return PlaneDensity(learned, half_width, math.ceil(2 * half_width / cell))


def quadrature_metrics(learned: LearnedDensity, plane: PlaneDensity) -> list[Metric]:
    """Return the weights of the modes in ``exp(-U)`` as the curve ``mode_weight@k``, their error, and divergences.

    Mass that the energy has away from the modes belongs to the likeliest of them. Where ``log Z`` was learned, its
    error tells how far the energy is from normalised.
    """
    exact, points = learned.exact, plane.points
    with torch.no_grad():
        log_density = -learned.energy(points) - plane.log_normaliser
    log_truth, truth = exact.log_density(points), exact.weights.numpy()
    weights = (plane.probabilities @ exact.responsibilities(points)).numpy()
    divergence = float((log_truth.exp() * (log_truth - log_density)).sum()) * plane.cell**2
    normaliser = Metric("log_z_error.learned", learned.log_normaliser - plane.log_normaliser, None, 0.0)
    return [
        Metric("mode_weight_error", 0.5 * float(np.abs(weights - truth).sum()), None, 0.0),
        Metric("kullback_leibler.normalised", divergence, None, 0.0),
        *([normaliser] if math.isfinite(normaliser.value) else []),
        *(
            Metric(f"mode_weight@{k}", float(one), None, float(true))
            for k, (one, true) in enumerate(zip(weights, truth, strict=True), start=1)
        ),
    ]


def likelihood_metrics(
    learned: LearnedDensity, plane: PlaneDensity, seed: int, sizes: Mapping[str, int]
) -> list[Metric]:
    """Return the mean log-likelihood [nats] of held-out samples, and what annealing both ways bounds it by.

    ``log_likelihood`` is normalised by quadrature; in more dimensions only its bounds could be known. Those of
    ``log Z`` are told as their distance from the quadrature.
    """
    x = learned.exact.sample(sizes["measured"], named_generator(seed, "held out"))
    with torch.no_grad():
        energies = learned.energy(x)
    truth = float(learned.exact.log_density(x).mean())
    normalised = -(energies.mean() + plane.log_normaliser)
    own = Measurement(float(normalised), float(energies.std()) / math.sqrt(len(x)))
    bounds = _sandwich(learned, plane, sizes["particles"], named_generator(seed, "sandwich"))
    low, high = held_out_log_likelihood(energies.numpy(), bounds)
    errors = {"lower": bounds.lower, "upper": bounds.upper}
    return [
        Metric("log_likelihood", *own, truth),
        Metric("log_likelihood.lower", *low, truth),
        Metric("log_likelihood.upper", *high, truth),
        *(
            replace(Metric(f"log_z_error.{side}", *bound, 0.0), value=bound.value - plane.log_normaliser)
            for side, bound in errors.items()
        ),
    ]


def _sandwich(learned: LearnedDensity, plane: PlaneDensity, particles: int, generator: torch.Generator) -> Sandwich:
    """Return the bounds of ``log Z`` from the Gaussian of the exact density and from samples of the learned one."""
    exact = learned.exact
    width, narrowest = exact.variance.sqrt(), exact.variances.min()
    base = GaussianMixture(torch.ones(1, dtype=width.dtype), exact.mean[None], width[None])
    # From the cells of the grid a few exact moves lead to the density itself.
    kernel = Mala(0.1 * narrowest[None], torch.ones_like(narrowest))
    relaxed, _ = run_negatives(learned.energy, kernel, plane.sample(particles, generator), _RELAXING_STEPS, generator)
    return sandwich_log_normaliser(
        LinearLadder(base, learned, np.square(np.linspace(0, 1, _LEVELS)).tolist()),
        base.log_normaliser,
        base.sample(particles, generator),
        relaxed,
        mala_family(exact.variance, first_step_size=float(narrowest / exact.variance.max())),
        AnnealingSettings(levels=_LEVELS, particles=particles),
        generator,
    )
