"""Pairs of mixtures with a known difference of free energy."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from systems.analytic.gaussian_mixture import GaussianMixture
from systems.analytic.mixtures import uniform_modes


@dataclass(frozen=True)
class MixturePair:
    """Two mixtures, the ends of a free-energy calculation."""

    state_a: GaussianMixture
    state_b: GaussianMixture

    @property
    def delta_f(self) -> float:
        """F_B - F_A [kT], exact."""
        return self.state_a.log_normaliser - self.state_b.log_normaliser


def feat_mixtures(dimension: int = 40) -> MixturePair:
    """Return 40 modes of width ``softplus(-2)`` and 16 of width ``softplus(-3)``, all in ``(-2, 2)``; delta F is 0.

    References:
        He et al. 2025, arXiv:2504.11516.
    """
    return MixturePair(
        uniform_modes(40, dimension, half_width=2.0, softplus_argument=-2.0, seed=0),
        uniform_modes(16, dimension, half_width=2.0, softplus_argument=-3.0, seed=10),
    )


def crossed_mixtures(dimension: int = 20) -> MixturePair:
    """Return two states that live 12 sigma apart, each with a mode of tiny weight where the other lives; delta F is 10.

    Samples of A never show its mode of weight ``e^-12``, nor those of B its of ``e^-20`` (beside 1). Estimators from
    the ends alone see works of ``10 + 20`` from A and ``-10 + 12`` from B, the same in every sample, and settle on
    the middle: 14, whose error no scatter betrays. Only a path that carries samples across finds 10.
    """
    place = torch.zeros(2, dimension, dtype=torch.float64)
    place[:, 0] = torch.tensor([-6.0, 6.0])
    ones = torch.ones(2, dtype=torch.float64)
    weights_a, weights_b = (
        torch.tensor(values, dtype=torch.float64) for values in ([1.0, math.exp(-12)], [math.exp(-20), 1.0])
    )
    return MixturePair(
        GaussianMixture(weights_a, place, ones, log_normaliser=10.0), GaussianMixture(weights_b, place, ones)
    )
