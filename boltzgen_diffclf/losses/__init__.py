"""Losses: per-sample objectives; weighting and reduction happen in training."""

from boltzgen_diffclf.losses.classification import (
    binary_classification_loss,
    exact_end_classification_loss,
    level_classification_loss,
    level_posterior,
    posterior_classification_loss,
)
from boltzgen_diffclf.losses.classification_diffusion import (
    classification_diffusion_loss,
    noise_level_cross_entropy_loss,
    noise_prediction_loss,
)
from boltzgen_diffclf.losses.conditional_nce import conditional_noise_contrastive_loss
from boltzgen_diffclf.losses.contrastive_divergence import ReplayBuffer, contrastive_divergence_loss, run_negatives
from boltzgen_diffclf.losses.density_ratio import (
    RatioTerms,
    jensen_shannon_ratio_loss,
    jensen_shannon_terms,
    kullback_leibler_ratio_loss,
    kullback_leibler_terms,
)
from boltzgen_diffclf.losses.fokker_planck import (
    fokker_planck_loss,
    fokker_planck_residual,
    probed_fokker_planck_loss,
)
from boltzgen_diffclf.losses.noise_contrastive import noise_contrastive_loss
from boltzgen_diffclf.losses.reference_batch import CleanPosterior, clean_posterior
from boltzgen_diffclf.losses.rne import forward_step, kernel_ratio_loss
from boltzgen_diffclf.losses.score_matching import (
    clean_sample_by_force,
    denoiser_matching_loss,
    denoising_score_matching_loss,
    endpoint_target_score_matching_loss,
    target_score_matching_loss,
)
from boltzgen_diffclf.losses.sliced_score_matching import (
    reduced_variance_score_matching_loss,
    score_matching_loss,
    sliced_score_matching_loss,
)
from boltzgen_diffclf.losses.time_score import time_score, time_score_matching_loss

__all__ = [
    "CleanPosterior",
    "RatioTerms",
    "ReplayBuffer",
    "binary_classification_loss",
    "classification_diffusion_loss",
    "clean_posterior",
    "clean_sample_by_force",
    "conditional_noise_contrastive_loss",
    "contrastive_divergence_loss",
    "denoiser_matching_loss",
    "denoising_score_matching_loss",
    "endpoint_target_score_matching_loss",
    "exact_end_classification_loss",
    "fokker_planck_loss",
    "fokker_planck_residual",
    "forward_step",
    "jensen_shannon_ratio_loss",
    "jensen_shannon_terms",
    "kernel_ratio_loss",
    "kullback_leibler_ratio_loss",
    "kullback_leibler_terms",
    "level_classification_loss",
    "level_posterior",
    "noise_contrastive_loss",
    "noise_level_cross_entropy_loss",
    "noise_prediction_loss",
    "posterior_classification_loss",
    "probed_fokker_planck_loss",
    "reduced_variance_score_matching_loss",
    "run_negatives",
    "score_matching_loss",
    "sliced_score_matching_loss",
    "target_score_matching_loss",
    "time_score",
    "time_score_matching_loss",
]
