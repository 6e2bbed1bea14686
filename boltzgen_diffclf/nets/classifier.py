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

from boltzgen_diffclf.nets.discrete_levels import DiscreteLevels
from boltzgen_diffclf.nets.initialisation import linear, zero_linear


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


class ClassificationDiffusion(DiscreteLevels):
    """Densities, scores, denoisers and sampler steps of a network that names noise levels.

    Args:
        net: ``y -> (batch, classes)`` logits.
        alpha_bar: from 1 (data) down to 0 (noise), one a class.
        prior: probability of each class among the samples that the network is trained on; equal ones by default.

    Raises:
        ValueError: see :class:`DiscreteLevels`.
    """

    def __init__(
        self, net: nn.Module, alpha_bar: Float[Tensor, " classes"], prior: Float[Tensor, " priors"] | None = None
    ) -> None:
        super().__init__(alpha_bar, prior)
        self.net = net

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

    def _logits_and_slope(self, y: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """Return the logits and ``grad F(y, t)``, from one pass through the network."""
        pulled = torch.func.vjp(self.logits, y)
        logits, pullback = pulled[0], pulled[1]
        # F is the last logit minus that of t; at t = T + 1 the two cancel.
        difference = -nn.functional.one_hot(t, len(self.alpha_bar)).to(logits.dtype)
        difference[:, -1] += 1
        return logits, pullback(difference)[0]
