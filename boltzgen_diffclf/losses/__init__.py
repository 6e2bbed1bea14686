"""Losses: per-sample objectives; weighting and reduction happen in training."""

from boltzgen_diffclf.losses.classification import binary_classification_loss, level_classification_loss
from boltzgen_diffclf.losses.classification_diffusion import (
    classification_diffusion_loss,
    noise_level_cross_entropy_loss,
    noise_prediction_loss,
)
from boltzgen_diffclf.losses.score_matching import (
    denoising_score_matching_loss,
    endpoint_target_score_matching_loss,
)

__all__ = [
    "binary_classification_loss",
    "classification_diffusion_loss",
    "denoising_score_matching_loss",
    "endpoint_target_score_matching_loss",
    "level_classification_loss",
    "noise_level_cross_entropy_loss",
    "noise_prediction_loss",
]
