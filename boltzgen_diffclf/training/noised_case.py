"""What the losses of a noised energy look at: a model, a batch of noised configurations, path and levels."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from boltzgen_diffclf.losses import CleanPosterior, clean_posterior
from boltzgen_diffclf.noised_energy import NoisedEnergyModel
from boltzgen_diffclf.paths import DiffusionPath
from boltzgen_diffclf.streams import device_stream
from boltzgen_diffclf.training.clean_data import CleanSamples


class NoisedBatch(NamedTuple):
    """Groups of noised configurations, one a level, each from a clean sample and noise of its own.

    Its tensors begin with groups and levels a group; those of :attr:`rows` with both in one axis.

    Attributes:
        level: index among the levels of the problem.
        t: their times.
        x: the clean samples.
        score: ``grad log p`` there.
        z: the noise.
        y: the noised samples.
        spare: two more standard normals, for probes and perturbations.
        uniform: a uniform number.
        others: clean samples drawn independently of the noised ones, one in an axis of its own: what a loss regresses
            on is averaged over these too. None of them is fine.
        others_score: ``grad log p`` there.
        contrast_t: levels of chains of the model's own, one in an axis of its own; none where no loss asks for them.
        contrast_data: noised samples of those levels.
        contrast_chain: where the chains are.
        beyond_t: the level of least noise, one in an axis of its own; none where no loss looks beyond the data.
        beyond_y: configurations that spread farther than the data, at that noise.
        beyond_score: ``grad log p`` of the data at the clean ones behind them.
    """

    level: Int[Tensor, "*batch"]
    t: Float[Tensor, "*batch"]
    x: Float[Tensor, "*batch dim"]
    score: Float[Tensor, "*batch dim"]
    z: Float[Tensor, "*batch dim"]
    y: Float[Tensor, "*batch dim"]
    spare: Float[Tensor, "*batch 2 dim"]
    uniform: Float[Tensor, "*batch"]
    others: Float[Tensor, "*others dim"]
    others_score: Float[Tensor, "*others dim"]
    contrast_t: Float[Tensor, "*chains"]
    contrast_data: Float[Tensor, "*chains dim"]
    contrast_chain: Float[Tensor, "*chains dim"]
    beyond_t: Float[Tensor, "*beyond"]
    beyond_y: Float[Tensor, "*beyond dim"]
    beyond_score: Float[Tensor, "*beyond dim"]

    @property
    def rows(self) -> NoisedBatch:
        """The batch with groups and levels in one axis."""
        return NoisedBatch(*(value.flatten(0, 1) for value in self))

    def beside(
        self, t: Float[Tensor, " chains"], data: Float[Tensor, "chains dim"], chain: Float[Tensor, "chains dim"]
    ) -> NoisedBatch:
        """Return the batch with chains of the model's own, one a group."""
        return self._replace(contrast_t=t[:, None], contrast_data=data[:, None], contrast_chain=chain[:, None])

    def beyond(
        self, t: Float[Tensor, " groups"], y: Float[Tensor, "groups dim"], score: Float[Tensor, "groups dim"]
    ) -> NoisedBatch:
        """Return the batch with configurations beyond the data, one a group."""
        return self._replace(beyond_t=t[:, None], beyond_y=y[:, None], beyond_score=score[:, None])


class Setting(NamedTuple):
    """What the losses share: the path and the levels of the problem."""

    path: DiffusionPath
    levels: Float[Tensor, " levels"]


def noised_batch(
    clean: CleanSamples,
    level: Int[Tensor, "groups size"],
    setting: Setting,
    generator: torch.Generator,
    others: CleanSamples | None = None,
) -> NoisedBatch:
    """Return every clean sample at its level, under independent noise that follows from a CPU stream.

    Args:
        clean: samples, as many as levels.
        level: those of each group.
        setting: path and levels.
        generator: a CPU stream.
        others: a reference batch, see :class:`NoisedBatch`.
    """
    like, shape = setting.levels, (*level.shape, clean.x.shape[1])
    stream = device_stream(generator, like.device)
    level = level.to(like.device)
    t = like[level]
    x, score = (value.to(like).reshape(shape) for value in clean)
    shapes = (shape, (*level.shape, 2, shape[-1]))
    z, spare = (torch.randn(wanted, generator=stream, device=like.device).to(like) for wanted in shapes)
    y = setting.path.sample(x.flatten(0, 1), t.flatten(), z.flatten(0, 1)).reshape(shape)
    uniform = torch.rand(level.shape, generator=stream, device=like.device).to(like)
    nobody, nothing = y[:0, :1], y[:, :0]
    other, other_score = (nobody, nobody) if others is None else (value.to(like)[:, None] for value in others)
    none = nothing[..., 0], nothing, nothing
    return NoisedBatch(level, t, x, score, z, y, spare, uniform, other, other_score, *none, *none)


class Case:
    """A model on a batch: what the losses of one step look at. What two of them ask for is computed once.

    Args:
        model: that learns.
        batch: see there.
        setting: see there.
    """

    def __init__(self, model: NoisedEnergyModel, batch: NoisedBatch, setting: Setting) -> None:
        self.model, self.batch, self.setting, self.rows = model, batch, setting, batch.rows
        self._energy: Tensor | None = None
        self._posterior: CleanPosterior | None = None

    def posterior(self) -> CleanPosterior:
        """Return which clean sample made every row."""
        if self._posterior is None:
            rows = self.rows
            self._posterior = clean_posterior(rows.y, rows.z, coefficients(self.setting.path, rows.t), rows.others)
        return self._posterior

    def clean(self) -> Float[Tensor, "rows dim"]:
        """Return the average clean sample behind every row."""
        return self.posterior().mean(self.rows.x, self.rows.others)

    def clean_score(self) -> Float[Tensor, "rows dim"]:
        """Return the average of ``grad log p`` at the clean sample behind every row."""
        return self.posterior().mean(self.rows.score, self.rows.others_score)

    def denoised(self) -> Float[Tensor, "rows dim"]:
        """Return ``E[x | y]`` of every row at its own level."""
        self._energy, denoised = self.model.energy_and_denoiser(self.rows.y, self.rows.t)
        return denoised

    def own_energy(self) -> Float[Tensor, " rows"]:
        """Return ``U(y, t)`` [kT] of every row at its own level; what the denoiser came with, where one was asked."""
        return self.model.energy(self.rows.y, self.rows.t) if self._energy is None else self._energy


def coefficients(path: DiffusionPath, t: Float[Tensor, "..."]) -> tuple[Tensor, Tensor]:
    """Return ``alpha`` and ``log sigma``."""
    flat = t.flatten()
    return path.alpha(flat).reshape(t.shape), path.log_sigma(flat).reshape(t.shape)
