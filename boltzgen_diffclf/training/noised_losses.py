"""The losses of a noised energy, side by side: each one line of a table, from a batch to its mean."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from boltzgen_diffclf.losses import (
    RatioTerms,
    clean_sample_by_force,
    conditional_noise_contrastive_loss,
    contrastive_divergence_loss,
    denoiser_matching_loss,
    forward_step,
    jensen_shannon_terms,
    kernel_ratio_loss,
    kullback_leibler_terms,
    level_classification_loss,
    level_posterior,
    posterior_classification_loss,
    probed_fokker_planck_loss,
    target_score_matching_loss,
    time_score_matching_loss,
)
from boltzgen_diffclf.paths import DiffusionPath
from boltzgen_diffclf.training.noised_case import Case, coefficients

KERNEL_STEP = 0.02
"""Length of the steps whose kernels are compared, in the log signal-to-noise ratio."""


def denoising(case: Case) -> Float[Tensor, ""]:
    """Denoising score matching; about 1 for a fresh network on Gaussian data."""
    return _denoiser_error(case, case.clean())


def denoising_by_force(case: Case) -> Float[Tensor, ""]:
    """The same, with the forces at the clean samples in place of what little noise leaves unsaid."""
    rows, path, width = case.rows, case.setting.path, case.model.resolution
    noising = path.alpha(rows.t), path.sigma(rows.t)
    return _denoiser_error(case, clean_sample_by_force(case.clean(), rows.y, case.clean_score(), noising, width))


def _denoiser_error(case: Case, wanted: Float[Tensor, "rows dim"]) -> Float[Tensor, ""]:
    model = case.model
    denoised, clean = (model.data.along(x) for x in (case.denoised(), wanted))
    return denoiser_matching_loss(denoised, clean, model.denoising_weight(case.rows.t)).mean()


def target_score(case: Case) -> Float[Tensor, ""]:
    """Target score matching, in units of the data's variance."""
    model, rows = case.model, case.rows
    alpha, gradient = case.setting.path.alpha(rows.t), model.gradient(rows.y, rows.t)
    loss = target_score_matching_loss(gradient, case.clean_score(), alpha, rows.y.shape[1])
    return model.data.variance.mean() * loss.mean()


def classification(case: Case) -> Float[Tensor, ""]:
    """The diffusive classification loss among the levels of each group, its labels averaged."""
    batch, levels = case.batch, coefficients(case.setting.path, case.batch.t)
    posterior = level_posterior(batch.x, batch.z, levels, levels, case.rows.others)
    return posterior_classification_loss(_group_energies(case), case.model.free_energy(batch.t), posterior).mean()


def classification_chained(case: Case) -> Float[Tensor, ""]:
    """The sum of the binary losses of neighbouring levels of each group, a sample: to it, all others are far away.

    Of groups of N it takes ``3 N - 2`` energies instead of ``N^2``.
    """
    batch = case.batch
    x, z, t = (_neighbours(value) for value in (batch.x, batch.z, batch.t))
    levels = coefficients(case.setting.path, t)
    posterior = level_posterior(x, z, levels, levels, case.rows.others)
    loss = posterior_classification_loss(_neighbour_energies(case), case.model.free_energy(t), posterior)
    return loss.sum() / batch.t.numel()


def classification_named(case: Case) -> Float[Tensor, ""]:
    """The same as published: each sample's label is the level that made it."""
    return level_classification_loss(_group_energies(case), case.model.free_energy(case.batch.t)).mean()


def classification_jensen_shannon(case: Case) -> Float[Tensor, ""]:
    """The Jensen-Shannon loss of every two levels of a group, a pair: with groups of two, twice ``classification``."""
    return _pairwise(case, jensen_shannon_terms)


def classification_kullback_leibler(case: Case) -> Float[Tensor, ""]:
    """The Kullback-Leibler loss of every two levels of a group, a pair.

    Its exponential is taken at the noisier level of a pair: there the ratio hardly varies. At the other, in the tails,
    it has no variance where the noisier level is more than twice as wide.
    """
    return _pairwise(case, kullback_leibler_terms)


def _pairwise(case: Case, terms: Callable[[Tensor], RatioTerms]) -> Float[Tensor, ""]:
    """Return the mean Bregman loss of the pairs of levels of a group, from the noisier to the other, labels averaged.

    ``E_s a(g) + E_t b(g)`` is twice the mean of ``P(s | y) a(g) + P(t | y) b(g)`` over samples of both, whatever
    ``P(s | y)`` is averaged over: which of the two made ``y`` only has to be as likely as that.
    """
    batch, path = case.batch, case.setting.path
    pair = torch.combinations(torch.arange(batch.t.shape[1], device=batch.t.device))
    x, z, t = (value[:, pair].flatten(0, 1) for value in (batch.x, batch.z, batch.t))
    levels = coefficients(path, t)
    posterior = level_posterior(x, z, levels, levels, case.rows.others)
    energies = _group_energies(case)[:, pair[:, :, None], pair[:, None]].flatten(0, 1)
    log_density = case.model.free_energy(t).unsqueeze(-2) - energies
    at_start, at_end = terms(log_density[..., 0] - log_density[..., 1])
    return 2 * (posterior[..., 1] * at_start + posterior[..., 0] * at_end).mean()


def classification_among_all(case: Case) -> Float[Tensor, ""]:
    """The diffusive classification loss among all levels; one pass where the network gives them together.

    Kernels of many others at all levels would cost more than the network, and few make a step noisier: none here. The
    levels of the samples must be drawn evenly: the classes have no prior.
    """
    model, batch, levels = case.model, case.batch, case.setting.levels
    energies = model.level_energies(case.rows.y, levels).unflatten(0, batch.level.shape)
    made_by, classes = (coefficients(case.setting.path, t) for t in (batch.t, levels))
    posterior = level_posterior(batch.x, batch.z, made_by, classes, case.rows.others[:0])
    return posterior_classification_loss(energies, model.free_energy(levels), posterior).mean()


def _group_energies(case: Case) -> Float[Tensor, "groups size size"]:
    """Return ``U(y_i, t_j)`` of the samples and levels of each group."""
    y, t = case.batch.y, case.batch.t
    groups, size, dim = y.shape
    level = torch.arange(size, device=t.device)
    # The other levels of a sample begin with the next one, and go round.
    others = (level[:, None] + level[1:]) % size
    elsewhere = case.model.energy(y[:, :, None].expand(-1, -1, size - 1, -1).reshape(-1, dim), t[:, others].flatten())
    energies = torch.cat([case.own_energy().view(groups, size, 1), elsewhere.view(groups, size, size - 1)], dim=-1)
    return energies.gather(-1, ((level - level[:, None]) % size).expand(groups, -1, -1))


def _neighbours(values: Float[Tensor, "groups size ..."]) -> Float[Tensor, "pairs 2 ..."]:
    """Return the pairs of neighbours of every group."""
    return torch.stack([values[:, :-1], values[:, 1:]], dim=2).flatten(0, 1)


def _neighbour_energies(case: Case) -> Float[Tensor, "pairs 2 2"]:
    """Return ``U(y_i, t_j)`` of the samples and levels of each pair of neighbours."""
    y, t = _neighbours(case.batch.y), _neighbours(case.batch.t)
    own = _neighbours(case.own_energy().view(case.batch.t.shape))
    other = case.model.energy(y.flatten(0, 1), t.flip(1).flatten()).view(own.shape)
    return torch.stack([torch.stack([own[:, 0], other[:, 0]], -1), torch.stack([other[:, 1], own[:, 1]], -1)], dim=1)


def time_score(case: Case) -> Float[Tensor, ""]:
    """Conditional time score matching, in the logarithm of the noise as time: else the clean end outshouts all."""
    model, rows = case.model, case.rows
    pace = _pace(case.setting.path, rows.t)
    return time_score_matching_loss(model, rows.y, rows.t, _clean_time_score(case), 1 / pace, rows.y.shape[1]).mean()


def _clean_time_score(case: Case) -> Float[Tensor, " rows"]:
    """Return the average conditional time score of every row, over the clean samples that may be behind it."""
    rows, path, posterior = case.rows, case.setting.path, case.posterior()
    zz, xz = posterior.mean_products(rows.x, rows.y, rows.z, coefficients(path, rows.t), rows.others)
    return path.time_score_of_products(rows.t, zz, xz, rows.y.shape[1])


def fokker_planck(case: Case) -> Float[Tensor, ""]:
    """The squared Fokker-Planck residual at the samples, in the same time."""
    model, rows = case.model, case.rows
    probes = rows.spare.sign().transpose(0, 1)
    loss = probed_fokker_planck_loss(model, case.setting.path, rows.y, rows.t, rows.y.shape[1], probes)
    return (loss / _pace(case.setting.path, rows.t).square()).mean()


def kernel_ratio(case: Case) -> Float[Tensor, ""]:
    """The squared log ratio of kernels over a short step, per squared step and coordinate."""
    model, rows, path = case.model, case.rows, case.setting.path
    later = path.time_at_log_snr(path.log_snr(rows.t) - KERNEL_STEP)
    moved = forward_step(path, rows.y, rows.t, later, rows.spare[:, 0])
    score = model.score(moved, later).detach()
    loss = kernel_ratio_loss(model, path, rows.y, moved, rows.t, later, score, rows.y.shape[1])
    # A step out of the last level leaves the path.
    return torch.where(later <= case.setting.levels[-1], loss, 0.0).mean() / (KERNEL_STEP**2 * rows.y.shape[1])


def conditional_noise(case: Case) -> Float[Tensor, ""]:
    """Conditional noise contrast under symmetric perturbations of one site, or some, by every length.

    Noise of all sites at once never shows what it is to stretch one bond alone, and an energy that has not seen it may
    have a hole there. About half of the groups are at the least noise, where dynamics run. Lengths go from half the
    finest structure of a level to twice its spread, and numbers of sites from one to all, evenly in the logarithm.
    """
    model, rows, path = case.model, case.rows, case.setting.path
    # The last binary digit of a group's first uniform number, not its place: processes share a batch among them.
    at_least = (case.batch.uniform[:, :1] * 2**24).remainder(2) < 1
    t = torch.where(at_least.expand_as(case.batch.t).flatten(), case.setting.levels[0], rows.t)
    y, alpha, sigma = path.sample(rows.x, t, rows.z), path.alpha(t), path.sigma(t)
    finest = torch.hypot(sigma, alpha * model.resolution)
    spread = torch.hypot(sigma, alpha * model.data.variance.mean().sqrt())
    length = 0.5 * finest * (4 * spread / finest) ** rows.uniform
    # The later digits of a uniform number are another one.
    number = ((model.data.n_sites + 1) ** (4096 * rows.uniform).frac()).floor()
    chosen = rows.spare[:, 1, : model.data.n_sites].argsort(1).argsort(1) < number[:, None]
    perturbed = y + length[:, None] * model.data.at_sites(rows.spare[:, 0], chosen)
    return conditional_noise_contrastive_loss(model, y, perturbed, t, torch.zeros_like(t)).mean()


def contrastive_divergence(case: Case) -> Float[Tensor, ""]:
    """Contrastive divergence at the levels of the chains: what the energy falls into by itself, and data never does."""
    rows, model = case.rows, case.model

    def energy(y: Tensor) -> Tensor:
        return model.energy(y, rows.contrast_t)

    return contrastive_divergence_loss(energy, rows.contrast_data, rows.contrast_chain).mean()


def score_beyond(case: Case) -> Float[Tensor, ""]:
    """Target score matching where the data does not reach, at the least noise, in units of the finest structure.

    Dynamics on an energy leave what the samples cover now and then, and what a network says there is chance: holes.
    With ``x`` from a density q that spreads farther than p, the mean of ``grad log p(x)`` given ``y`` is wrong by about
    ``sigma^2`` times the curvature of p's energy times ``grad log q - grad log p``: the minimum is at p only as far as
    the noise is finer than all structure, and more noise is not looked at.
    """
    rows, model, path = case.rows, case.model, case.setting.path
    alpha = path.alpha(rows.beyond_t)
    finest = torch.hypot(path.sigma(rows.beyond_t), alpha * model.resolution)
    gradient = model.gradient(rows.beyond_y, rows.beyond_t)
    loss = target_score_matching_loss(gradient, rows.beyond_score, alpha, rows.beyond_y.shape[1])
    return (finest.square() * loss).mean()


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
        mean: from a case to the mean over its batch.
        price: network evaluations a group, energies and derivatives alike, of this loss alone.
    """

    mean: Callable[[Case], Float[Tensor, ""]]
    price: Callable[[Sizes], int]


NOISED_LOSSES: Mapping[str, NoisedLoss] = {
    "denoising": NoisedLoss(denoising, lambda sizes: 2 * sizes.group_size),
    "denoising_by_force": NoisedLoss(denoising_by_force, lambda sizes: 2 * sizes.group_size),
    "target_score": NoisedLoss(target_score, lambda sizes: 2 * sizes.group_size),
    "classification": NoisedLoss(classification, lambda sizes: sizes.group_size**2),
    "classification_chained": NoisedLoss(classification_chained, lambda sizes: 3 * sizes.group_size - 2),
    "classification_named": NoisedLoss(classification_named, lambda sizes: sizes.group_size**2),
    "classification_jensen_shannon": NoisedLoss(classification_jensen_shannon, lambda sizes: sizes.group_size**2),
    "classification_kullback_leibler": NoisedLoss(classification_kullback_leibler, lambda sizes: sizes.group_size**2),
    "classification_among_all": NoisedLoss(classification_among_all, lambda sizes: sizes.group_size * sizes.all_levels),
    "time_score": NoisedLoss(time_score, lambda sizes: 2 * sizes.group_size),
    "fokker_planck": NoisedLoss(fokker_planck, lambda sizes: 7 * sizes.group_size),
    "kernel_ratio": NoisedLoss(kernel_ratio, lambda sizes: 4 * sizes.group_size),
    "conditional_noise": NoisedLoss(conditional_noise, lambda sizes: 2 * sizes.group_size),
    "score_beyond": NoisedLoss(score_beyond, lambda sizes: 2),
    # What chains cost does not go with the groups, see NoisedProblem.evaluations.
    "contrastive_divergence": NoisedLoss(contrastive_divergence, lambda sizes: 0),
}
"""Losses of a noised energy by name."""

DENOISING = frozenset({"denoising", "denoising_by_force"})
"""Those that prepare a network for the others, one of them at a time."""

BY_FORCE = frozenset({"denoising_by_force", "target_score"})
"""Those that ask for forces at the clean samples."""

BEYOND = frozenset({"score_beyond"})
"""Those that ask for configurations beyond the data, and forces there."""

BY_CHAINS = frozenset({"contrastive_divergence"})
"""Those that ask for chains of the model's own."""

COMPARING = frozenset(
    {
        "classification",
        "classification_named",
        "classification_chained",
        "classification_jensen_shannon",
        "classification_kullback_leibler",
    }
)
"""Those that compare the levels of a group."""

AMONG_ALL = frozenset({"classification_among_all"})
"""Those that compare all levels, which then have to be drawn evenly."""


def price_together(names: Collection[str], sizes: Sizes) -> int:
    """Return the network evaluations a group of several losses at once, see :class:`Case`."""
    shared = not DENOISING.isdisjoint(names) and not COMPARING.isdisjoint(names)
    return sum(NOISED_LOSSES[name].price(sizes) for name in names) - shared * sizes.group_size
