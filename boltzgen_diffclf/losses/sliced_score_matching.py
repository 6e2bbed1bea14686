"""Score matching without noise: the mean squared error of the score, by parts, from samples of the data alone.

All of these have the mean ``E|s - s_data|^2 / 2 - E|s_data|^2 / 2``, with ``s = -dU/dx``: the least at the score of the
data, which leaves the energy a constant on every connected piece of the support, and in practice in every mode.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from boltzgen_diffclf.divergence import directional_slopes, divergence


def score_matching_loss(energy: Callable[[Tensor], Tensor], x: Float[Tensor, "batch dim"]) -> Float[Tensor, " batch"]:
    r"""Return ``|dU/dx|^2 / 2 - tr d2U/dx2``, at the price of one derivative a coordinate.

    Args:
        energy: ``U`` [kT], one value a configuration.
        x: samples of the density to be learned.

    References:
        Hyvarinen 2005, J. Mach. Learn. Res. 6, 695.
    """
    gradient = _gradient(energy)
    return 0.5 * gradient(x).square().sum(-1) - divergence(gradient, x)


def sliced_score_matching_loss(
    energy: Callable[[Tensor], Tensor], x: Float[Tensor, "batch dim"], probes: Float[Tensor, "probes batch dim"]
) -> Float[Tensor, " batch"]:
    r"""Return ``(v . dU/dx)^2 / 2 - v^T d2U/dx2 v``, averaged over the probes ``v``.

    Args:
        energy: ``U`` [kT], one value a configuration.
        x: samples of the density to be learned.
        probes: ``v``, independent of ``x`` and of identity covariance: normal, or random signs.

    References:
        Song, Garg, Shi & Ermon 2019, arXiv:1905.07088.
    """
    gradient = _gradient(energy)
    along = (probes * gradient(x)).sum(-1)
    return (0.5 * along.square() - directional_slopes(gradient, x, probes)).mean(0)


def reduced_variance_score_matching_loss(
    energy: Callable[[Tensor], Tensor], x: Float[Tensor, "batch dim"], probes: Float[Tensor, "probes batch dim"]
) -> Float[Tensor, " batch"]:
    r"""Return ``|dU/dx|^2 / 2 - v^T d2U/dx2 v``, averaged over the probes ``v``: the first term needs none.

    The mean is that of :func:`sliced_score_matching_loss`, whose arguments these are. Random signs are the least noisy
    probes; with normal ones in few dimensions the slices may vary less.

    References:
        Song, Garg, Shi & Ermon 2019, arXiv:1905.07088 (variance reduction).
    """
    gradient = _gradient(energy)
    return 0.5 * gradient(x).square().sum(-1) - directional_slopes(gradient, x, probes).mean(0)


def _gradient(energy: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    return torch.func.grad(lambda x: energy(x).sum())
