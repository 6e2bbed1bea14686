"""From a model and a batch to one number: the losses side by side, weighted and reduced in this one place."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from boltzgen_diffclf.energy import Ends, EnergyModel
from boltzgen_diffclf.losses import (
    denoising_score_matching_loss,
    endpoint_target_score_matching_loss,
    exact_end_classification_loss,
    level_classification_loss,
)
from boltzgen_diffclf.training.path_data import PathBatch

CLASH = 10.0
"""Squared prior force, in units of the noise and a coordinate, at which a configuration counts half."""


@dataclass(frozen=True)
class ObjectiveWeights:
    """How much of each loss; zero leaves it out of the gradient and keeps it in the log.

    Attributes:
        denoising: denoising score matching, DSM.
        classification: the diffusive classification loss, DiffCLF.
        target_score: endpoint target score matching, TSM.
    """

    denoising: float = 1.0
    classification: float = 1.0
    target_score: float = 0.0

    def __post_init__(self) -> None:
        """Refuse an objective that asks for nothing."""
        if min(self.denoising, self.classification, self.target_score) < 0 or not any(
            (self.denoising, self.classification, self.target_score)
        ):
            raise ValueError(f"loss weights must be non-negative and not all zero, got {self}")

    def tensor(self, device: torch.device) -> Float[Tensor, " losses"]:
        """Return the weights in the order of :class:`PathLosses`."""
        return torch.tensor([self.denoising, self.classification, self.target_score], device=device)


class PathLosses(NamedTuple):
    """Mean of each objective over a batch."""

    denoising: Float[Tensor, ""]
    classification: Float[Tensor, ""]
    target_score: Float[Tensor, ""]


def path_losses(model: EnergyModel, batch: PathBatch, dimension: int) -> PathLosses:
    """Evaluate every objective on one batch: N energies and one gradient a configuration."""
    energies, gradient, free_energies = evaluate_groups(model, batch)
    denoising = denoising_score_matching_loss(gradient, batch.noise, batch.gamma, dimension)
    denoising = denoising * clash_weight(model, batch, dimension)
    classification = level_classification_loss(energies, free_energies)
    target_score = endpoint_target_score_matching_loss(
        gradient, batch.end_force[:, :, 0], batch.end_force[:, :, 1], batch.t, batch.gamma, dimension
    )
    return PathLosses(denoising.mean(), classification.mean(), target_score.mean())


def exact_end_path_losses(model: EnergyModel, batch: PathBatch, dimension: int) -> PathLosses:
    """Evaluate every objective on groups whose first and last level are the true end states, as classes too.

    The model says nothing of the energies of those two: its curve ends in the free energies of the states themselves,
    whatever it learns between. Score matching takes the levels between; at exact ends there is nothing to match.
    """
    groups, size, dim = batch.y.shape
    inner = PathBatch(*(value[:, 1:-1] for value in batch))
    y_rows = batch.y[:, :, None].expand(-1, -1, size - 2, -1).reshape(-1, dim)
    t_columns = inner.t[:, None].expand(-1, size, -1).reshape(-1)
    end_rows = batch.end_energy[:, :, None].expand(-1, -1, size - 2, -1).reshape(-1, 2)
    energies = model.energy(y_rows, t_columns, end_rows).reshape(groups * size, size - 2)
    classification = exact_end_classification_loss(
        batch.end_energy.flatten(0, 1),
        energies,
        model.free_energy(batch.t).repeat_interleave(size, dim=0),
        torch.arange(size, device=batch.y.device).repeat(groups),
        batch.t.new_ones(size),
    )
    gradient = model.gradient(inner.y.reshape(-1, dim), inner.t.reshape(-1), _ends(inner)).reshape(inner.y.shape)
    denoising = denoising_score_matching_loss(gradient, inner.noise, inner.gamma, dimension)
    denoising = denoising * clash_weight(model, inner, dimension)
    target_score = endpoint_target_score_matching_loss(
        gradient, inner.end_force[:, :, 0], inner.end_force[:, :, 1], inner.t, inner.gamma, dimension
    )
    return PathLosses(denoising.mean(), classification.mean(), target_score.mean())


def clash_weight(model: EnergyModel, batch: PathBatch, dimension: int) -> Float[Tensor, "groups size"]:
    r"""Return the weight of each configuration in score matching: 1, less where the end energies clash.

    Between two conformers of an anchored path atoms may overlap, and a single force of thousands of kT would rule
    the gradient. Score matching is a regression at each (y, t), so any positive weight that depends on y and t
    alone leaves its optimum where it is: ``1 / (1 + |gamma grad U_prior|^2 / (CLASH dimension))``.
    """
    groups, size, dim = batch.y.shape
    prior = model.prior_gradient(batch.t.reshape(-1), _ends(batch)).reshape(groups, size, dim)
    return 1 / (1 + (batch.gamma * prior).square().sum(-1) / (CLASH * dimension))


def evaluate_groups(
    model: EnergyModel, batch: PathBatch
) -> tuple[Float[Tensor, "groups size size"], Float[Tensor, "groups size dim"], Float[Tensor, "groups size"]]:
    """Return ``U(y_i, t_j)`` within each group, ``dU/dy`` at each own level, and ``F(t_j)``."""
    groups, size, dim = batch.y.shape
    y_rows = batch.y[:, :, None].expand(-1, -1, size, -1).reshape(-1, dim)
    t_columns = batch.t[:, None, :].expand(-1, size, -1).reshape(-1)
    end_rows = batch.end_energy[:, :, None].expand(-1, -1, size, -1).reshape(-1, 2)
    energies = model.energy(y_rows, t_columns, end_rows).reshape(groups, size, size)
    gradient = model.gradient(batch.y.reshape(-1, dim), batch.t.reshape(-1), _ends(batch))
    return energies, gradient.reshape(groups, size, dim), model.free_energy(batch.t)


def _ends(batch: PathBatch) -> Ends:
    return Ends(batch.end_energy.flatten(0, 1), batch.end_gradient.flatten(0, 1))
