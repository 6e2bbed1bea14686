r"""Sequential Monte Carlo along the noising reversed: steps by the score, weights by the energy.

A particle goes from ``y_t`` to ``y_s``, ``s < t``, by a Gaussian ``q(y_s | y_t)`` about what the score says, and its
weight takes

.. math:: \frac{e^{-U(y_s, s)}\, p(y_t | y_s)}{e^{-U(y_t, t)}\, q(y_s | y_t)}

with the exact kernel ``p`` of the noising. Then the weighted particles stand for ``exp(-U(., s))`` at every level,
whatever the steps were: a poor score costs effective samples and no bias. Annealing by moves that leave each level
invariant needs them to cross between modes; here the score carries particles into all of them as they part.

References:
    Del Moral, Doucet & Jasra 2006, J. R. Stat. Soc. B 68, 411, eq. 12, for backward kernels; He, Hernandez-Lobato, Du &
    Vargas 2025, arXiv:2506.05668, for the ratio of the two kernels of a diffusion.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor

from boltzgen_diffclf.paths import DiffusionPath, unknown_share
from boltzgen_diffclf.samplers.resampling import Resampling, effective_sample_size, systematic
from boltzgen_diffclf.samplers.reverse import reverse_step

EnergyAndGradient = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""``(y, t) -> U [kT], dU/dy``, shapes ``(batch, dim)``, ``(batch,)`` to ``(batch,)``, ``(batch, dim)``."""


@dataclass(frozen=True, eq=False)
class WeightedSamples:
    """Weighted samples of the first level.

    Attributes:
        position: of the samples.
        log_weights: since the last resampling.
        log_normaliser: estimate of ``log Z_first - log Z_last`` of ``exp(-U)``, unbiased for the ratio itself.
        effective_sample_size: on arrival at each level after the last.
    """

    position: Float[Tensor, "batch dim"]
    log_weights: Float[Tensor, " batch"]
    log_normaliser: Float[Tensor, ""]
    effective_sample_size: Float[Tensor, " stages"]


def sample_reverse_weighted(
    energy_and_gradient: EnergyAndGradient,
    path: DiffusionPath,
    times: Float[Tensor, " levels"],
    start: Float[Tensor, "batch dim"],
    generator: torch.Generator,
    *,
    resolution: float = 0.0,
    resample_below: float = 0.5,
    resampling: Resampling = systematic,
) -> WeightedSamples:
    """Return weighted samples of ``exp(-U)`` at the first level from equilibrium at the last.

    Args:
        energy_and_gradient: of the model or an oracle.
        path: the noising.
        times: growing; they are visited from the last to the first.
        start: samples of ``exp(-U)`` at the last time.
        generator: on the device of ``start``.
        resolution: width of the modes of the data: the steps then have the spread of a mode as well as that of the
            noise, so that fewer levels do.
        resample_below: resample when the effective sample size falls below this fraction.
        resampling: the scheme.

    Raises:
        ValueError: times that do not grow.
        RunFailedError: weights to resample that are not finite.
    """
    if not bool((times.diff() > 0).all()):
        raise ValueError(f"the way back needs growing times, got {times.tolist()}")
    n, y = len(start), start
    log_weights = torch.zeros(n, dtype=torch.float64, device=y.device)
    log_normaliser, sizes = log_weights.new_zeros(()), []
    energy, gradient = energy_and_gradient(y, times[-1].expand(n))
    for t, s in pairwise(times.flip(0).split(1)):
        mean, variance = _reverse_normal(path, y, gradient, t, s, resolution)
        moved = mean + variance.sqrt() * torch.randn(y.shape, generator=generator, dtype=y.dtype, device=y.device)
        new_energy, gradient = energy_and_gradient(moved, s.expand(n))
        scale = path.alpha(t) / path.alpha(s)
        forward = _log_normal(y, scale * moved, path.sigma(t).square() * unknown_share(path, s, t))
        log_weights = log_weights + (forward - _log_normal(moved, mean, variance) - new_energy + energy).double()
        y, energy = moved, new_energy
        sizes.append(effective_sample_size(log_weights))
        # A NaN size is not above the threshold, so that broken weights are reported and not carried on.
        if not float(sizes[-1]) >= resample_below * n:
            ancestors = resampling(log_weights, generator)
            log_normaliser = log_normaliser + log_weights.logsumexp(0) - math.log(n)
            y, energy, gradient = y[ancestors], energy[ancestors], gradient[ancestors]
            log_weights = torch.zeros_like(log_weights)
    log_normaliser = log_normaliser + log_weights.logsumexp(0) - math.log(n)
    return WeightedSamples(y, log_weights, log_normaliser, torch.stack(sizes))


def _reverse_normal(
    path: DiffusionPath, y: Tensor, gradient: Tensor, t: Tensor, s: Tensor, resolution: float
) -> tuple[Tensor, Tensor]:
    """Return mean and variance of ``y_s`` given ``y_t``, exact where the data is one Gaussian of that width."""
    alpha_t, alpha_s, sigma_t, sigma_s = path.alpha(t), path.alpha(s), path.sigma(t), path.sigma(s)
    clean = (y - sigma_t.square() * gradient) / alpha_t
    fresh = sigma_s.square() * unknown_share(path, s, t)
    kept = (sigma_s.square() - fresh).sqrt() / sigma_t
    unknown = (sigma_t * resolution).square() / (sigma_t.square() + (alpha_t * resolution).square())
    n = len(y)
    mean = reverse_step(path, y, clean, t.expand(n), s.expand(n), torch.zeros_like(y), churn=1.0)
    return mean, fresh + (alpha_s - kept * alpha_t).square() * unknown


def _log_normal(x: Float[Tensor, "batch dim"], mean: Tensor, variance: Tensor) -> Float[Tensor, " batch"]:
    return -0.5 * ((x - mean).square() / variance + (2 * math.pi * variance).log()).sum(-1)
