"""A ladder of variance-preserving noise levels with both ends, and what any denoiser of it can do."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn


def cosine_alpha_bar(n_steps: int) -> Float[Tensor, " classes"]:
    """Return ``cos^2(pi t / (2 (T + 1)))`` for t = 0 to T + 1: data and noise turn into each other at a steady rate.

    Raises:
        ValueError: if there is no level between the data and the noise.

    References:
        Nichol & Dhariwal 2021, arXiv:2102.09672, without the offset at the data, which is a class of its own here.

    >>> cosine_alpha_bar(1).tolist()
    [1.0, 0.5, 0.0]
    """
    if n_steps < 1:
        raise ValueError(f"n_steps must be at least 1, got {n_steps}")
    turn = torch.linspace(0, 1, n_steps + 2, dtype=torch.float64)
    # cos^2 through the double angle: cos(pi / 2) is not zero in floating point, (1 + cos pi) / 2 is.
    return 0.5 * (1 + torch.cos(math.pi * turn))


class DiscreteLevels(nn.Module, ABC):
    """Levels ``y_t = sqrt(alpha_bar_t) x + sqrt(1 - alpha_bar_t) eps`` and a denoiser of them.

    Args:
        alpha_bar: from 1 (data) down to 0 (noise), one a level.
        prior: probability of each level among the samples that are trained on; equal ones by default.

    Raises:
        ValueError: if ``alpha_bar`` does not fall from 1 to 0, or ``prior`` is not positive or of another length.
    """

    alpha_bar: Tensor
    log_prior: Tensor

    def __init__(self, alpha_bar: Float[Tensor, " classes"], prior: Float[Tensor, " priors"] | None = None) -> None:
        super().__init__()
        if not (float(alpha_bar[0]) == 1 and float(alpha_bar[-1]) == 0 and bool((alpha_bar.diff() < 0).all())):
            raise ValueError(f"alpha_bar must fall strictly from 1 to 0, got {alpha_bar.tolist()}")
        prior = torch.ones_like(alpha_bar) if prior is None else prior
        if prior.shape != alpha_bar.shape or not bool((prior > 0).all()):
            raise ValueError(f"prior needs {len(alpha_bar)} positive numbers, got {prior.tolist()}")
        self.register_buffer("alpha_bar", alpha_bar)
        self.register_buffer("log_prior", (prior / prior.sum()).log())

    @property
    def last(self) -> int:
        """The level of pure noise, ``T + 1``."""
        return len(self.alpha_bar) - 1

    def noised(
        self, x: Float[Tensor, "batch dim"], t: Int[Tensor, " batch"], noise: Float[Tensor, "batch dim"]
    ) -> Float[Tensor, "batch dim"]:
        """Return ``y_t`` made of ``x`` and standard normal ``noise``."""
        alpha_bar = self.alpha_bar[t][:, None]
        return alpha_bar.sqrt() * x + (1 - alpha_bar).sqrt() * noise

    @abstractmethod
    def denoiser(self, y: Float[Tensor, "batch dim"], t: Int[Tensor, " batch"]) -> Float[Tensor, "batch dim"]:
        """Return ``E[eps | y_t]``, the noise in ``y``."""

    def step(
        self, y: Float[Tensor, "batch dim"], t: Int[Tensor, " batch"], z: Float[Tensor, "batch dim"]
    ) -> Float[Tensor, "batch dim"]:
        r"""Return a sample of level t - 1 from ``y`` of level t, ``1 <= t <= T``, by the reverse step of DDPM.

        ``y_{t-1} = (y - (1 - a) / sqrt(1 - alpha_bar_t) E[eps | y]) / sqrt(a) + sigma z`` with
        ``a = alpha_bar_t / alpha_bar_{t-1}``. The mean is ``E[y_{t-1} | y_t]`` whatever the data;
        ``sigma^2 = (1 - a) (1 - alpha_bar_{t-1}) / (1 - alpha_bar_t)`` is the variance if ``x`` were known, so none
        at t = 1. Start at T from a standard normal.

        Raises:
            ValueError: if a ``t`` is 0 or ``T + 1``: the noise class holds nothing of the data to step from.

        References:
            Ho, Jain & Abbeel 2020, arXiv:2006.11239, eq. 7 and 11.
        """
        if bool((t < 1).any()) or bool((t >= self.last).any()):
            raise ValueError(f"a step starts from a level between 1 and {self.last - 1}, got {t.min()} to {t.max()}")
        now, before = self.alpha_bar[t][:, None], self.alpha_bar[t - 1][:, None]
        ratio = now / before
        sigma = ((1 - ratio) * (1 - before) / (1 - now)).sqrt()
        return (y - (1 - ratio) / (1 - now).sqrt() * self.denoiser(y, t)) / ratio.sqrt() + sigma * z
