"""The normaliser and the held-out likelihood of an unnormalised energy, between two bounds."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from boltzgen_diffclf.free_energy.annealed import AnnealingSettings
from boltzgen_diffclf.free_energy.sandwich import Sandwich, held_out_log_likelihood, sandwich_log_normaliser
from boltzgen_diffclf.free_energy.step_sizes import hmc_family
from boltzgen_diffclf.streams import named_generator
from boltzgen_diffclf.target import GaussianTarget, LinearLadder

DIM, SIGMA = 4, 0.5


def sandwich(levels: int, steps: int, seed: int, particles: int = 200) -> tuple[Sandwich, GaussianTarget]:
    base, target = GaussianTarget(DIM, sigma=2.0), GaussianTarget(DIM, sigma=SIGMA, mean=1.0)
    lambdas = np.linspace(0, 1, levels) ** 2
    noise = torch.randn(2, particles, DIM, generator=named_generator(seed, "samples"), dtype=torch.float64)
    found = sandwich_log_normaliser(
        LinearLadder(base, target, lambdas.tolist()),
        base.log_normaliser,
        2.0 * noise[0],
        1 + SIGMA * noise[1],
        hmc_family(torch.ones(()), n_leapfrog=3, first_step_size=0.3),
        AnnealingSettings(levels=levels, particles=particles, steps_per_level=steps, pilot_steps=12),
        named_generator(seed, "moves"),
    )
    return found, target


def test_long_annealing_closes_on_the_exact_normaliser() -> None:
    found, target = sandwich(levels=33, steps=2, seed=0)
    for bound in (found.lower, found.upper):
        assert abs(bound.value - target.log_normaliser) < 4 * bound.stderr < 0.6


def test_short_annealing_bounds_the_normaliser_from_both_sides() -> None:
    pairs = [sandwich(levels=3, steps=1, seed=seed, particles=8) for seed in range(25)]
    exact = pairs[0][1].log_normaliser
    for bounds, sign in (([p.lower.value for p, _ in pairs], -1), ([p.upper.value for p, _ in pairs], 1)):
        assert sign * (np.mean(bounds) - exact) > 4 * np.std(bounds) / math.sqrt(len(bounds))


def test_held_out_likelihood_is_between_the_bounds() -> None:
    found, target = sandwich(levels=33, steps=2, seed=1)
    x = 1 + SIGMA * torch.randn(5000, DIM, generator=named_generator(3, "held out"), dtype=torch.float64)
    low, high = held_out_log_likelihood(target.energy(x).numpy(), found)
    exact = -0.5 * DIM * (1 + math.log(2 * math.pi * SIGMA**2))
    assert low.value == pytest.approx(-float(target.energy(x).mean()) - found.upper.value)
    for bound in (low, high):
        assert abs(bound.value - exact) < 4 * bound.stderr


def test_resampled_paths_have_no_sandwich() -> None:
    ladder, x = LinearLadder(GaussianTarget(1), GaussianTarget(1), [0.0, 0.5, 1.0]), torch.zeros(9, 1).double()
    settings = AnnealingSettings(levels=3, particles=16, resample_below=0.5)
    with pytest.raises(ValueError, match="independent weights"):
        sandwich_log_normaliser(ladder, 0.0, x, x, hmc_family(torch.ones(()), 1), settings, named_generator(0, "moves"))
