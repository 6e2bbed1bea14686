r"""Ratios of kernels (RNE): over a short step, ``p_t(y_t) q(y_s | y_t) = p_s(y_s) p(y_t | y_s)``, ``s < t``.

``p`` is the exact kernel of the noising, ``q`` one Euler step of its reversal with a score that is held fixed. Where
the minimum lies: write ``h`` for the error of the model's log density and ``e = log p(y_s | y_t) - log q(y_s | y_t)``
for that of the kernel, ``p(y_s | y_t)`` the true reversal. Then ``r = h_t(y_t) - h_s(y_s) - e``, and

- *with q given*, the minimiser is the projection of ``e``, in mean square over the pairs, on such differences. It is
  unique up to one constant common to all levels, and it is the true density if q is the true reversal. With the true
  score the Euler kernel is not quite that, and leaves ``h`` of the order of the step.
- *with q from the model's own score* the parts of ``r`` of order ``sqrt(t - s)`` cancel, and what is left is the step
  times the Fokker-Planck residual plus noise of mean zero. So no initial density is preferred, and the pull towards a
  consistent model is of second order in the step, as is the push from the Euler error: no step is short enough for
  this objective alone. It is a regulariser beside score matching, which has to hold the score.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from boltzgen_diffclf.energy import TimeEnergy
from boltzgen_diffclf.losses.fokker_planck import LinearDiffusion
from boltzgen_diffclf.paths import HasKernel, forward_kernel


@runtime_checkable
class DiffusionKernel(LinearDiffusion, HasKernel, Protocol):
    """A linear noising process whose kernel is known: ``y_t = alpha(t) x + sigma(t) z``."""


def forward_step(
    path: DiffusionKernel,
    y: Float[Tensor, "batch dim"],
    s: Float[Tensor, " batch"],
    t: Float[Tensor, " batch"],
    z: Float[Tensor, "batch dim"],
) -> Float[Tensor, "batch dim"]:
    """Return ``y_t ~ p(y_t | y_s)`` for standard normal ``z`` (centred for centred positions), ``s < t``."""
    scale, spread = forward_kernel(path, s, t)
    return scale[:, None] * y + spread[:, None] * z


def kernel_ratio_loss(
    model: TimeEnergy,
    path: DiffusionKernel,
    y_s: Float[Tensor, "batch dim"],
    y_t: Float[Tensor, "batch dim"],
    s: Float[Tensor, " batch"],
    t: Float[Tensor, " batch"],
    score: Float[Tensor, "batch dim"],
    dimension: int,
) -> Float[Tensor, " batch"]:
    r"""Return ``r^2``, ``r = l_t(y_t) + log q(y_s | y_t) - l_s(y_s) - log p(y_t | y_s)`` with ``l = F - U``.

    Of the order of the step ``t - s``, or its square where the score is the model's own: scale it before adding it to
    another loss. Differences of large numbers: float64 for steps below 1e-3.

    Args:
        model: the energy and its level free energies.
        path: the noising process.
        y_s: samples at ``s``.
        y_t: the same after :func:`forward_step` to ``t``.
        s: the earlier times.
        t: the later times.
        score: of q at ``(y_t, t)``, usually ``-model.gradient(y_t, t)``; no gradient flows through it.
        dimension: degrees of freedom of the noise.

    References:
        He, Hernandez-Lobato, Du & Vargas 2025, arXiv:2506.05668: the Radon-Nikodym estimator as a regulariser.
    """
    log_density_t = model.free_energy(t) - model.energy(y_t, t)
    log_density_s = model.free_energy(s) - model.energy(y_s, s)
    residual = log_density_t - log_density_s + _log_kernel_ratio(path, y_s, y_t, s, t, score.detach(), dimension)
    return residual.square()


def _log_kernel_ratio(
    path: DiffusionKernel, y_s: Tensor, y_t: Tensor, s: Tensor, t: Tensor, score: Tensor, dimension: int
) -> Tensor:
    """Return ``log q(y_s | y_t) - log p(y_t | y_s)``."""
    scale, spread = forward_kernel(path, s, t)
    variance = path.diffusion_squared(t) * (t - s)
    reverse_drift = path.drift_rate(t)[:, None] * y_t - path.diffusion_squared(t)[:, None] * score
    backward = (y_s - y_t + (t - s)[:, None] * reverse_drift).square().sum(-1) / variance
    forward = ((y_t - scale[:, None] * y_s) / spread[:, None]).square().sum(-1)
    return 0.5 * (forward - backward) + 0.5 * dimension * (spread.square() / variance).log()
