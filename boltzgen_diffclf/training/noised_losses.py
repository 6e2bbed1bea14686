"""The losses of a noised energy, side by side: each one line of a table, from a batch to its mean."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from boltzgen_diffclf.losses import (
    conditional_noise_contrastive_loss,
    denoiser_matching_loss,
    forward_step,
    kernel_ratio_loss,
    level_classification_loss,
    level_posterior,
    posterior_classification_loss,
    probed_fokker_planck_loss,
    target_score_matching_loss,
    time_score_matching_loss,
)
from boltzgen_diffclf.noised_energy import NoisedEnergyModel
from boltzgen_diffclf.paths import DiffusionPath

KERNEL_STEP = 0.02
"""Length of the steps whose kernels are compared, in the log signal-to-noise ratio."""


class NoisedBatch(NamedTuple):
    """Groups of noised configurations: one clean sample a group, seen at several levels under independent noise.

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
    """

    level: Int[Tensor, "*batch"]
    t: Float[Tensor, "*batch"]
    x: Float[Tensor, "*batch dim"]
    score: Float[Tensor, "*batch dim"]
    z: Float[Tensor, "*batch dim"]
    y: Float[Tensor, "*batch dim"]
    spare: Float[Tensor, "*batch 2 dim"]
    uniform: Float[Tensor, "*batch"]

    @property
    def rows(self) -> NoisedBatch:
        """The batch with groups and levels in one axis."""
        return NoisedBatch(*(value.flatten(0, 1) for value in self))


class Setting(NamedTuple):
    """What the losses share: the path and the levels of the problem."""

    path: DiffusionPath
    levels: Float[Tensor, " levels"]


def denoising(model: NoisedEnergyModel, batch: NoisedBatch, setting: Setting) -> Float[Tensor, ""]:
    """Denoising score matching; about 1 for a fresh network on Gaussian data."""
    rows = batch.rows
    denoised, clean = (model.data.along(x) for x in (model.denoiser(rows.y, rows.t), rows.x))
    return denoiser_matching_loss(denoised, clean, model.denoising_weight(rows.t)).mean()


def target_score(model: NoisedEnergyModel, batch: NoisedBatch, setting: Setting) -> Float[Tensor, ""]:
    """Target score matching, in units of the data's variance."""
    rows = batch.rows
    alpha, gradient = setting.path.alpha(rows.t), model.gradient(rows.y, rows.t)
    loss = target_score_matching_loss(gradient, rows.score, alpha, rows.y.shape[1])
    return model.data.variance.mean() * loss.mean()


def classification(model: NoisedEnergyModel, batch: NoisedBatch, setting: Setting) -> Float[Tensor, ""]:
    """The diffusive classification loss among the levels of each group, its labels averaged."""
    alpha_and_log_sigma = _coefficients(setting.path, batch.t)
    posterior = level_posterior(batch.x, batch.z, alpha_and_log_sigma, alpha_and_log_sigma)
    return posterior_classification_loss(_group_energies(model, batch), model.free_energy(batch.t), posterior).mean()


def classification_named(model: NoisedEnergyModel, batch: NoisedBatch, setting: Setting) -> Float[Tensor, ""]:
    """The same as published: each sample's label is the level that made it."""
    return level_classification_loss(_group_energies(model, batch), model.free_energy(batch.t)).mean()


def classification_among_all(model: NoisedEnergyModel, batch: NoisedBatch, setting: Setting) -> Float[Tensor, ""]:
    """The diffusive classification loss among all levels; one pass where the network gives them together."""
    energies = model.level_energies(batch.rows.y, setting.levels).unflatten(0, batch.level.shape)
    made_by, classes = (_coefficients(setting.path, t) for t in (batch.t, setting.levels))
    posterior = level_posterior(batch.x, batch.z, made_by, classes)
    return posterior_classification_loss(energies, model.free_energy(setting.levels), posterior).mean()


def _coefficients(path: DiffusionPath, t: Float[Tensor, "*batch"]) -> tuple[Tensor, Tensor]:
    """Return ``alpha`` and ``log sigma``."""
    flat = t.flatten()
    return path.alpha(flat).reshape(t.shape), path.log_sigma(flat).reshape(t.shape)


def _group_energies(model: NoisedEnergyModel, batch: NoisedBatch) -> Float[Tensor, "groups size size"]:
    """Return ``U(y_i, t_j)`` of the samples and levels of each group."""
    _, size, dim = batch.y.shape
    y = batch.y[:, :, None].expand(-1, -1, size, -1).reshape(-1, dim)
    t = batch.t[:, None, :].expand(-1, size, -1).reshape(-1)
    return model.energy(y, t).reshape(-1, size, size)


def time_score(model: NoisedEnergyModel, batch: NoisedBatch, setting: Setting) -> Float[Tensor, ""]:
    """Conditional time score matching, in the logarithm of the noise as time: else the clean end outshouts all."""
    rows = batch.rows
    target = setting.path.conditional_time_score(rows.x, rows.t, rows.z)
    pace = _pace(setting.path, rows.t)
    return time_score_matching_loss(model, rows.y, rows.t, target, 1 / pace, rows.y.shape[1]).mean()


def fokker_planck(model: NoisedEnergyModel, batch: NoisedBatch, setting: Setting) -> Float[Tensor, ""]:
    """The squared Fokker-Planck residual at the samples, in the same time."""
    rows = batch.rows
    probes = rows.spare.sign().transpose(0, 1)
    loss = probed_fokker_planck_loss(model, setting.path, rows.y, rows.t, rows.y.shape[1], probes)
    return (loss / _pace(setting.path, rows.t).square()).mean()


def kernel_ratio(model: NoisedEnergyModel, batch: NoisedBatch, setting: Setting) -> Float[Tensor, ""]:
    """The squared log ratio of kernels over a short step, per squared step and coordinate."""
    rows, path = batch.rows, setting.path
    later = path.time_at_log_snr(path.log_snr(rows.t) - KERNEL_STEP)
    moved = forward_step(path, rows.y, rows.t, later, rows.spare[:, 0])
    score = model.score(moved, later).detach()
    loss = kernel_ratio_loss(model, path, rows.y, moved, rows.t, later, score, rows.y.shape[1])
    # A step out of the last level leaves the path.
    return torch.where(later <= setting.levels[-1], loss, 0.0).mean() / (KERNEL_STEP**2 * rows.y.shape[1])


def conditional_noise(model: NoisedEnergyModel, batch: NoisedBatch, setting: Setting) -> Float[Tensor, ""]:
    """Conditional noise contrast under symmetric perturbations of every length from the noise to the data."""
    rows, path = batch.rows, setting.path
    alpha, sigma = path.alpha(rows.t), path.sigma(rows.t)
    spread = (alpha.square() * model.data.variance.mean() + sigma.square()).sqrt()
    length = sigma * (spread / sigma) ** rows.uniform
    perturbed = rows.y + length[:, None] * rows.spare[:, 0]
    return conditional_noise_contrastive_loss(model, rows.y, perturbed, rows.t, torch.zeros_like(rows.t)).mean()


def _pace(path: DiffusionPath, t: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
    """Return ``d log(sigma / alpha) / dt``."""
    return path.d_log_sigma(t) - path.d_log_alpha(t)


class Sizes(NamedTuple):
    """What the price of a loss depends on: levels a group, and passes that the energies of all levels take."""

    group_size: int
    all_levels: int


@dataclass(frozen=True)
class NoisedLoss:
    """A loss and its price.

    Attributes:
        mean: from model, batch and setting to the mean over the batch.
        price: network evaluations a configuration, energies and derivatives alike.
    """

    mean: Callable[[NoisedEnergyModel, NoisedBatch, Setting], Float[Tensor, ""]]
    price: Callable[[Sizes], int]


NOISED_LOSSES: Mapping[str, NoisedLoss] = {
    "denoising": NoisedLoss(denoising, lambda _: 2),
    "target_score": NoisedLoss(target_score, lambda _: 2),
    "classification": NoisedLoss(classification, lambda sizes: sizes.group_size),
    "classification_named": NoisedLoss(classification_named, lambda sizes: sizes.group_size),
    "classification_among_all": NoisedLoss(classification_among_all, lambda sizes: sizes.all_levels),
    "time_score": NoisedLoss(time_score, lambda _: 2),
    "fokker_planck": NoisedLoss(fokker_planck, lambda _: 7),
    "kernel_ratio": NoisedLoss(kernel_ratio, lambda _: 4),
    "conditional_noise": NoisedLoss(conditional_noise, lambda _: 2),
}
"""Losses of a noised energy by name."""
