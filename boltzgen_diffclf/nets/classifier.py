r"""Classification diffusion: one pass of a network without a time input names the noise level, and so gives densities.

Classes are the levels ``y_t = sqrt(alpha_bar_t) x + sqrt(1 - alpha_bar_t) eps``, from ``alpha_bar_0 = 1`` (clean
data) down to ``alpha_bar_{T+1} = 0`` (a standard normal). With classes drawn with probabilities ``pi``, Bayes' rule
gives

.. math:: F(y, t) = \log P(T{+}1 | y) - \log P(t | y) = \log N(y; 0, I) - \log p_t(y) + \log (\pi_{T+1} / \pi_t),

so the last class is the gauge in which every other density is absolute, ``score = -y - grad F``, and by Tweedie
``E[eps | y_t] = -sqrt(1 - alpha_bar_t) score = sqrt(1 - alpha_bar_t) (grad F + y)``. The normaliser of the posterior
cancels in ``F``: it is a difference of two logits.

References:
    Yadin, Elata & Michaeli 2024, arXiv:2402.10095.
"""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from boltzgen_diffclf.nets.initialisation import linear, zero_linear


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


class LevelClassifierNet(nn.Module):
    """Logits of every level from one pass, each the sum of those of the steps before it; zero before training.

    Neighbouring levels then differ by one output, and ``F`` by a sum of few. Beside the trunk, ``y`` and
    ``|y|^2 / 2`` enter the steps linearly: that is what tells isotropic Gaussians apart, and it holds far out.

    Args:
        dim: length of ``y``; its columns should have a scale of about one.
        n_classes: number of levels, both ends included.
        generator: draws the starting weights.
        hidden: width of the trunk.
        layers: number of hidden layers, at least one.

    Raises:
        ValueError: if ``layers`` is below one.

    References:
        Yadin, Elata & Michaeli 2024, arXiv:2402.10095, for the cumulative sum.
    """

    def __init__(
        self, dim: int, n_classes: int, generator: torch.Generator, *, hidden: int = 128, layers: int = 4
    ) -> None:
        super().__init__()
        if layers < 1:
            raise ValueError(f"layers must be at least 1, got {layers}")
        self.layers = nn.ModuleList([linear(*pair, generator) for pair in pairwise([dim] + [hidden] * layers)])
        self.readout = zero_linear(hidden + dim + 1, n_classes)

    def forward(self, y: Float[Tensor, "batch dim"]) -> Float[Tensor, "batch classes"]:
        """Return the logits of all classes."""
        features = y
        for layer in self.layers:
            features = nn.functional.gelu(layer(features))
        square = 0.5 * y.square().sum(-1, keepdim=True)
        return self.readout(torch.cat([features, y, square], dim=-1)).cumsum(-1)


class ClassificationDiffusion(nn.Module):
    """Densities, scores, denoisers and sampler steps of a network that names noise levels.

    Args:
        net: ``y -> (batch, classes)`` logits.
        alpha_bar: from 1 (data) down to 0 (noise), one a class.
        prior: probability of each class among the samples that the network is trained on; equal ones by default.

    Raises:
        ValueError: if ``alpha_bar`` does not fall from 1 to 0, or ``prior`` is not positive or of another length.
    """

    alpha_bar: Tensor
    log_prior: Tensor

    def __init__(
        self, net: nn.Module, alpha_bar: Float[Tensor, " classes"], prior: Float[Tensor, " priors"] | None = None
    ) -> None:
        super().__init__()
        if not (float(alpha_bar[0]) == 1 and float(alpha_bar[-1]) == 0 and bool((alpha_bar.diff() < 0).all())):
            raise ValueError(f"alpha_bar must fall strictly from 1 to 0, got {alpha_bar.tolist()}")
        prior = torch.ones_like(alpha_bar) if prior is None else prior
        if prior.shape != alpha_bar.shape or not bool((prior > 0).all()):
            raise ValueError(f"prior needs {len(alpha_bar)} positive numbers, got {prior.tolist()}")
        self.net = net
        self.register_buffer("alpha_bar", alpha_bar)
        self.register_buffer("log_prior", (prior / prior.sum()).log())

    @property
    def last(self) -> int:
        """The class of pure noise, ``T + 1``."""
        return len(self.alpha_bar) - 1

    def noised(
        self, x: Float[Tensor, "batch dim"], t: Int[Tensor, " batch"], noise: Float[Tensor, "batch dim"]
    ) -> Float[Tensor, "batch dim"]:
        """Return ``y_t`` made of ``x`` and standard normal ``noise``."""
        alpha_bar = self.alpha_bar[t][:, None]
        return alpha_bar.sqrt() * x + (1 - alpha_bar).sqrt() * noise

    def logits(self, y: Float[Tensor, "batch dim"]) -> Float[Tensor, "batch classes"]:
        """Return the unnormalised ``log P(t | y)`` of all classes."""
        return self.net(y)

    def log_densities(self, y: Float[Tensor, "batch dim"]) -> Float[Tensor, "batch classes"]:
        """Return ``log p_t(y)`` [nats] at every level from one pass, normalised as well as the network is trained."""
        logits = self.logits(y)
        log_normal = -0.5 * (y.square() + math.log(2 * math.pi)).sum(-1, keepdim=True)
        return log_normal + logits - logits[:, -1:] + self.log_prior[-1] - self.log_prior

    def log_density(self, y: Float[Tensor, "batch dim"], t: Int[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        """Return ``log p_t(y)`` [nats]; t = 0 is the data."""
        return self.log_densities(y).gather(1, t[:, None])[:, 0]

    def logits_and_denoised(
        self, y: Float[Tensor, "batch dim"], t: Int[Tensor, " batch"]
    ) -> tuple[Float[Tensor, "batch classes"], Float[Tensor, "batch dim"]]:
        """Return the logits and ``E[eps | y_t]`` from one pass, both differentiable in the parameters."""
        logits, slope = self._logits_and_slope(y, t)
        return logits, (1 - self.alpha_bar[t]).sqrt()[:, None] * (slope + y)

    def denoiser(self, y: Float[Tensor, "batch dim"], t: Int[Tensor, " batch"]) -> Float[Tensor, "batch dim"]:
        """Return ``E[eps | y_t]``, the noise in ``y``; zero at t = 0."""
        return self.logits_and_denoised(y, t)[1]

    def score(self, y: Float[Tensor, "batch dim"], t: Int[Tensor, " batch"]) -> Float[Tensor, "batch dim"]:
        """Return ``grad log p_t(y)``."""
        return -y - self._logits_and_slope(y, t)[1]

    def step(
        self, y: Float[Tensor, "batch dim"], t: Int[Tensor, " batch"], z: Float[Tensor, "batch dim"]
    ) -> Float[Tensor, "batch dim"]:
        r"""Return a sample of level t - 1 from ``y`` of level t, ``1 <= t <= T``, by the reverse step of DDPM.

        ``y_{t-1} = sqrt(a) y - (1 - a) / sqrt(a) grad F + sigma z`` with ``a = alpha_bar_t / alpha_bar_{t-1}``. The
        mean is ``E[y_{t-1} | y_t]`` whatever the data; ``sigma^2 = (1 - a) (1 - alpha_bar_{t-1}) / (1 - alpha_bar_t)``
        is the variance if ``x`` were known, so none at t = 1. Start at T from a standard normal.

        Raises:
            ValueError: if a ``t`` is 0 or ``T + 1``: the noise class holds nothing of the data to step from.

        References:
            Ho, Jain & Abbeel 2020, arXiv:2006.11239, eq. 7 and 11.
        """
        if bool((t < 1).any()) or bool((t >= self.last).any()):
            raise ValueError(f"a step starts from a level between 1 and {self.last - 1}, got {t.min()} to {t.max()}")
        now, before = self.alpha_bar[t][:, None], self.alpha_bar[t - 1][:, None]
        ratio, (_, slope) = now / before, self._logits_and_slope(y, t)
        sigma = ((1 - ratio) * (1 - before) / (1 - now)).sqrt()
        return ratio.sqrt() * y - (1 - ratio) / ratio.sqrt() * slope + sigma * z

    def _logits_and_slope(self, y: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """Return the logits and ``grad F(y, t)``, from one pass through the network."""
        pulled = torch.func.vjp(self.logits, y)
        logits, pullback = pulled[0], pulled[1]
        # F is the last logit minus that of t; at t = T + 1 the two cancel.
        difference = -nn.functional.one_hot(t, len(self.alpha_bar)).to(logits.dtype)
        difference[:, -1] += 1
        return logits, pullback(difference)[0]
