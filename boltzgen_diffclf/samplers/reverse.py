"""The noising reversed: from noise to data by a denoiser, with fresh noise on the way or with none.

Each coordinate counts as one degree of freedom, so centred positions take this way in
:class:`~boltzgen_diffclf.coordinates.CentredCoordinates`, as they do everywhere in this room.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from boltzgen_diffclf.paths import DiffusionPath, forward_kernel, unknown_share

Denoiser = Callable[[Tensor, Tensor], Tensor]
"""``(y, t) -> E[x | y]``, shapes ``(batch, dim)`` and ``(batch,)``."""


def reverse_step(
    path: DiffusionPath,
    y: Float[Tensor, "batch dim"],
    denoised: Float[Tensor, "batch dim"],
    t: Float[Tensor, " batch"],
    s: Float[Tensor, " batch"],
    noise: Float[Tensor, "batch dim"],
    churn: float,
) -> Float[Tensor, "batch dim"]:
    r"""Return a sample at ``s`` from ``y`` at ``t > s``, as if the clean sample were ``denoised``.

    ``y_s = alpha_s D + sqrt(sigma_s^2 - eta^2) (y - alpha_t D) / sigma_t + eta noise``: the marginal given ``x = D`` is
    kept for any ``eta``. With ``churn = 1``, ``eta^2 = sigma_s^2 (1 - exp(log_snr_t - log_snr_s))``, which is the
    variance of ``y_s`` given ``y_t`` and ``x``; with 0 the step is deterministic.

    Args:
        path: the noising.
        y: where the samples are.
        denoised: ``E[x | y]`` there.
        t: their times.
        s: the earlier times.
        noise: standard normal.
        churn: ``eta`` over its largest value, from 0 (DDIM, the probability flow) to 1 (the reverse SDE).

    References:
        Song, Meng & Ermon 2021, arXiv:2010.02502, eq. 12; Ho, Jain & Abbeel 2020, arXiv:2006.11239.
    """
    sigma_s = path.sigma(s)
    fresh = churn * sigma_s * unknown_share(path, s, t).sqrt()
    kept = (sigma_s.square() - fresh.square()).sqrt() / path.sigma(t)
    residual = y - path.alpha(t)[:, None] * denoised
    return path.alpha(s)[:, None] * denoised + kept[:, None] * residual + fresh[:, None] * noise


@runtime_checkable
class ReverseSolver(Protocol):
    """What takes samples from one noise level to the one before it."""

    def step(
        self,
        denoiser: Denoiser,
        path: DiffusionPath,
        y: Float[Tensor, "batch dim"],
        t: Float[Tensor, " 1"],
        s: Float[Tensor, " 1"],
        generator: torch.Generator,
    ) -> Float[Tensor, "batch dim"]:
        """Return samples at ``s`` from samples at ``t > s``."""
        ...


@dataclass(frozen=True)
class MarginalStep:
    """:func:`reverse_step`, of first order and exact where ``E[x | y]`` does not change on the way.

    Args:
        churn: from 0 (DDIM, the probability flow) to 1 (the reverse SDE).

    Raises:
        ValueError: a churn outside [0, 1].
    """

    churn: float = 1.0

    def __post_init__(self) -> None:
        """Refuse more noise than there is."""
        if not 0 <= self.churn <= 1:
            raise ValueError(f"a churn lies in [0, 1], got {self.churn}")

    def step(
        self, denoiser: Denoiser, path: DiffusionPath, y: Tensor, t: Tensor, s: Tensor, generator: torch.Generator
    ) -> Tensor:
        """See :meth:`ReverseSolver.step`; nothing is drawn when there is no churn."""
        t, s = t.expand(len(y)), s.expand(len(y))
        noise = _normal_like(y, generator) if self.churn > 0 else torch.zeros_like(y)
        return reverse_step(path, y, denoiser(y, t), t, s, noise, self.churn)


@dataclass(frozen=True)
class EulerMaruyama:
    r"""Euler's rule for the reverse SDE in the time of the path, ``dy = (f y - g^2 score) dt + g dW``.

    Of first order, and stable only where the steps are short against the noise level: the yardstick, not the choice.

    References:
        Song et al. 2021, arXiv:2011.13456, eq. 6.
    """

    def step(
        self, denoiser: Denoiser, path: DiffusionPath, y: Tensor, t: Tensor, s: Tensor, generator: torch.Generator
    ) -> Tensor:
        """See :meth:`ReverseSolver.step`."""
        gradient = (y - path.alpha(t) * denoiser(y, t.expand(len(y)))) / path.sigma(t).square()
        mean, variance = self.normal(path, y, gradient, t, s)
        return mean + variance.sqrt() * _normal_like(y, generator)

    def normal(
        self, path: DiffusionPath, y: Tensor, gradient: Tensor, t: Tensor, s: Tensor
    ) -> tuple[Float[Tensor, "batch dim"], Float[Tensor, " 1"]]:
        """Return mean and variance of the step, a proposal whose path weights ``ReverseSmc`` tracks."""
        diffusion = path.diffusion_squared(t)
        return y - (t - s) * (path.drift_rate(t) * y + diffusion * gradient), diffusion * (t - s)


@dataclass(frozen=True)
class Heun:
    r"""Heun's rule of second order for the probability flow, two denoisings a step, after some noise is put back.

    In ``x = y / alpha`` and ``noise = sigma / alpha`` the flow is ``dx = (x - D) d(log noise)``. Before it steps, the
    noise goes up to ``noise_t (noise_t / noise_s)^churn``, though not beyond that of ``t_max``. A step to no noise at
    all is Euler's, without churn.

    Args:
        churn: 0 is deterministic; 1 puts as much noise in as the reverse SDE in the limit of short steps.

    Raises:
        ValueError: a churn below zero.

    References:
        Karras et al. 2022, arXiv:2206.00364, algorithms 1 and 2.
    """

    churn: float = 0.0

    def __post_init__(self) -> None:
        """Refuse to take noise away."""
        if not self.churn >= 0:
            raise ValueError(f"the churn of Heun's rule is zero or more, got {self.churn}")

    def step(
        self, denoiser: Denoiser, path: DiffusionPath, y: Tensor, t: Tensor, s: Tensor, generator: torch.Generator
    ) -> Tensor:
        """See :meth:`ReverseSolver.step`; nothing is drawn when there is no churn."""
        if self.churn > 0:
            step = path.log_snr(t) - path.log_snr(s)
            log_snr = path.log_snr(t) + self.churn * torch.where(step.isfinite(), step, 0.0)
            raised = path.time_at_log_snr(log_snr).clamp(t, t.new_full((1,), path.t_max).maximum(t))
            scale, spread = forward_kernel(path, t, raised)
            y, t = scale * y + spread * _normal_like(y, generator), raised
        noise_t, noise_s = ((-0.5 * path.log_snr(time)).exp() for time in (t, s))
        x, step = y / path.alpha(t), noise_s - noise_t
        slope = (x - denoiser(y, t.expand(len(y)))) / noise_t
        end = x + step * slope
        slope_there = (end - denoiser(path.alpha(s) * end, s.expand(len(y)))) / noise_s
        slope_there = torch.where(noise_s > 0, slope_there, slope)
        return path.alpha(s) * (x + 0.5 * step * (slope + slope_there))


SOLVERS: Mapping[str, ReverseSolver] = {
    "ddpm": MarginalStep(1.0),
    "ddim": MarginalStep(0.0),
    "heun": Heun(),
    "euler_maruyama": EulerMaruyama(),
}
"""Solvers by name; the first wants the fewest levels, the second and third draw nothing on the way."""


def sample_reverse(
    denoiser: Denoiser,
    path: DiffusionPath,
    times: Float[Tensor, " levels"],
    start: Float[Tensor, "batch dim"],
    generator: torch.Generator,
    *,
    solver: ReverseSolver = MarginalStep(),
) -> Float[Tensor, "batch dim"]:
    """Return samples of the first level from samples of the last; exact in the limit of many levels.

    Args:
        denoiser: ``E[x | y]`` of the model or an oracle.
        path: the noising.
        times: growing; they are visited from the last to the first.
        start: samples at the last time.
        generator: on the device of ``start``.
        solver: of each step.

    Raises:
        ValueError: times that do not grow.
    """
    if not bool((times.diff() > 0).all()):
        raise ValueError(f"the way back needs growing times, got {times.tolist()}")
    y = start
    with torch.no_grad():
        for t, s in pairwise(times.flip(0).split(1)):
            y = solver.step(denoiser, path, y, t, s, generator)
    return y


def _normal_like(y: Float[Tensor, "batch dim"], generator: torch.Generator) -> Float[Tensor, "batch dim"]:
    return torch.randn(y.shape, generator=generator, dtype=y.dtype, device=y.device)
