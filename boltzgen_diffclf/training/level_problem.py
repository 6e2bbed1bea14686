"""Training over a ladder of discrete levels: classification diffusion, and the plain denoiser to hold it against."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from boltzgen_diffclf.losses import noise_level_cross_entropy_loss, noise_prediction_loss
from boltzgen_diffclf.nets import ClassificationDiffusion, DiscreteLevels, NoisePrediction
from boltzgen_diffclf.streams import named_generator
from boltzgen_diffclf.training.clean_data import CleanData
from boltzgen_diffclf.training.loop import LoopSettings
from boltzgen_diffclf.training.problem import Problem

Levels = TypeVar("Levels", bound=DiscreteLevels)


class LevelBatch(NamedTuple):
    """Noised samples, each at a level of its own.

    Attributes:
        level: index of the level, both ends included.
        y: the noised sample.
        noise: the standard normal that made it.
    """

    level: Int[Tensor, " groups"]
    y: Float[Tensor, "groups dim"]
    noise: Float[Tensor, "groups dim"]


@dataclass(frozen=True)
class LevelSettings(LoopSettings):
    """How to train over discrete levels.

    Attributes:
        groups: samples a step.
    """

    groups: int = 512


@dataclass(frozen=True)
class ClassifierWeights:
    """How much of each loss of classification diffusion; zero leaves it out of the gradient and keeps it in the log.

    Attributes:
        denoising: squared error of the noise, a coordinate.
        cross_entropy: of naming the level [nats].

    References:
        Yadin, Elata & Michaeli 2024, arXiv:2402.10095, with 0.001 of the cross-entropy for images.
    """

    denoising: float = 1.0
    cross_entropy: float = 0.001

    def __post_init__(self) -> None:
        """Refuse an objective that asks for nothing."""
        if min(self.denoising, self.cross_entropy) < 0 or not (self.denoising or self.cross_entropy):
            raise ValueError(f"loss weights must be non-negative and not both zero, got {self}")


class LevelProblem(Problem[Levels, LevelBatch]):
    """Samples at levels drawn with the model's probabilities, every step as evenly as they allow.

    Args:
        data: what is learned from.
        held_out: other samples, never learned from.
        settings: size of a batch.
    """

    def __init__(self, data: CleanData, held_out: CleanData, settings: LevelSettings) -> None:
        self.data, self.held_out, self.settings = data, held_out, settings

    @abstractmethod
    def losses(self, model: Levels, batch: LevelBatch) -> Float[Tensor, " losses"]:
        """See :meth:`Problem.losses`."""

    def draw(self, model: Levels, generator: torch.Generator) -> LevelBatch:
        """See :meth:`Problem.draw`."""
        return self._draw(model, self.data, generator)

    def draw_held_out(self, model: Levels, generator: torch.Generator) -> LevelBatch:
        """See :meth:`Problem.draw_held_out`."""
        return self._draw(model, self.held_out, generator)

    def _draw(self, model: Levels, data: CleanData, generator: torch.Generator) -> LevelBatch:
        n, like = self.settings.groups, model.alpha_bar
        level = systematic_levels(model.log_prior.exp().cpu(), n, generator).to(like.device)
        x = data.draw(n, generator).x.to(like)
        noise = torch.randn(x.shape, generator=generator).to(like)
        return LevelBatch(level, model.noised(x, level, noise), noise)


class ClassifierProblem(LevelProblem[ClassificationDiffusion]):
    """The two losses of classification diffusion.

    Args:
        weights: of the losses.
        like: gives dtype and device of the model.
        data: what is learned from.
        held_out: other samples, never learned from.
        settings: size of a batch.
    """

    names = ("denoising", "cross_entropy")

    def __init__(
        self,
        weights: ClassifierWeights,
        like: Tensor,
        data: CleanData,
        held_out: CleanData,
        settings: LevelSettings,
    ) -> None:
        super().__init__(data, held_out, settings)
        self.weights = like.new_tensor([weights.denoising, weights.cross_entropy])
        self.watched = held_out.draw(64, named_generator(0, "watched")).x.to(like)

    def losses(self, model: ClassificationDiffusion, batch: LevelBatch) -> Float[Tensor, " losses"]:
        """See :meth:`Problem.losses`."""
        logits, denoised = model.logits_and_denoised(batch.y, batch.level)
        cross_entropy = noise_level_cross_entropy_loss(logits, batch.level)
        return torch.stack([noise_prediction_loss(denoised, batch.noise).mean(), cross_entropy.mean()])

    def free_energies(self, model: ClassificationDiffusion) -> Float[Tensor, " levels"]:
        """Return ``-log p_t`` of every level, a mean over some held-out data: the constants drift with it."""
        return -model.log_densities(self.watched).mean(0)

    def evaluations(self, model: ClassificationDiffusion) -> int:
        """See :meth:`Problem.evaluations`: the logits and one derivative a sample."""
        return 2 * self.settings.groups

    @property
    def identity(self) -> Mapping[str, Any]:
        """See :attr:`Problem.identity`."""
        return {"objective": dict(zip(self.names, self.weights.tolist(), strict=True))}


class NoisePredictionProblem(LevelProblem[NoisePrediction]):
    """The one loss of a plain denoiser.

    Args:
        like: gives dtype and device of the model.
        data: what is learned from.
        held_out: other samples, never learned from.
        settings: size of a batch.
    """

    names = ("denoising",)

    def __init__(self, like: Tensor, data: CleanData, held_out: CleanData, settings: LevelSettings) -> None:
        super().__init__(data, held_out, settings)
        self.weights = like.new_ones(1)

    def losses(self, model: NoisePrediction, batch: LevelBatch) -> Float[Tensor, " losses"]:
        """See :meth:`Problem.losses`."""
        return noise_prediction_loss(model.denoiser(batch.y, batch.level), batch.noise).mean()[None]

    def free_energies(self, model: NoisePrediction) -> Float[Tensor, " levels"]:
        """Return zero: a plain denoiser knows no density."""
        return self.weights.new_zeros(1)

    def evaluations(self, model: NoisePrediction) -> int:
        """See :meth:`Problem.evaluations`."""
        return self.settings.groups


def systematic_levels(
    probabilities: Float[Tensor, " classes"], n: int, generator: torch.Generator
) -> Int[Tensor, " draws"]:
    """Return ``n`` levels, each drawn with its probability, and its share of them within one of what that says.

    Args:
        probabilities: of the levels, summing to one.
        n: how many to draw.
        generator: a CPU stream.

    >>> systematic_levels(torch.tensor([0.5, 0.25, 0.25]), 4, torch.Generator()).tolist()
    [0, 0, 1, 2]
    """
    places = (torch.arange(n) + torch.rand(1, generator=generator)) / n
    return torch.searchsorted(probabilities.cumsum(0), places.to(probabilities)).clamp(max=len(probabilities) - 1)
