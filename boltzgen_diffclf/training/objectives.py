"""Every objective by name: a new one is a line here."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping

from boltzgen_diffclf.errors import InputError
from boltzgen_diffclf.objective_names import SizedName, sized_name
from boltzgen_diffclf.training.data_problem import (
    ContrastiveDivergence,
    DataObjective,
    NoiseContrast,
    PersistentContrastiveDivergence,
    SlicedScoreMatching,
)
from boltzgen_diffclf.training.noised_problem import NoisedObjective

NOISED_OBJECTIVES: Mapping[str, NoisedObjective] = {
    "dsm": NoisedObjective({"denoising": 1.0}),
    "tsm": NoisedObjective({"target_score": 1.0}),
    "diffclf_binary": NoisedObjective({"classification": 1.0}, group_size=2),
    "diffclf": NoisedObjective({"classification": 1.0}),
    "diffclf_all": NoisedObjective({"classification_among_all": 1.0}, level_sampler="scattered"),
    "dsm_diffclf_binary": NoisedObjective({"denoising": 1.0, "classification": 0.5}, group_size=2, pretraining=0.25),
    "dsm_diffclf": NoisedObjective({"denoising": 1.0, "classification": 0.5}, pretraining=0.25),
    "dsm_diffclf_chained": NoisedObjective({"denoising": 1.0, "classification_chained": 0.5}, pretraining=0.25),
    "dsm_diffclf_named": NoisedObjective({"denoising": 1.0, "classification_named": 0.5}, pretraining=0.25),
    # The mean over pairs is twice that of the binary loss, hence half its weight.
    "dsm_diffclf_js": NoisedObjective({"denoising": 1.0, "classification_jensen_shannon": 0.25}, pretraining=0.25),
    # Of levels far apart the exponential of the ratio has hardly a mean: neighbours alone.
    "dsm_diffclf_kl": NoisedObjective(
        {"denoising": 1.0, "classification_kullback_leibler": 0.25}, level_sampler="neighbours", pretraining=0.25
    ),
    "dsm_diffclf_all": NoisedObjective(
        {"denoising": 1.0, "classification_among_all": 0.5}, level_sampler="scattered", pretraining=0.25
    ),
    "ctsm": NoisedObjective({"time_score": 1.0}),
    "dsm_ctsm": NoisedObjective({"denoising": 1.0, "time_score": 1.0}),
    "fokker_planck": NoisedObjective({"denoising": 1.0, "fokker_planck": 0.1}),
    "rne": NoisedObjective({"denoising": 1.0, "kernel_ratio": 0.1}),
    "dsm_diffclf_rne": NoisedObjective(
        {"denoising": 1.0, "classification": 0.5, "kernel_ratio": 0.1}, pretraining=0.25
    ),
    "cnce": NoisedObjective({"conditional_noise": 1.0}),
    "dsm_cnce": NoisedObjective({"denoising": 1.0, "conditional_noise": 0.2}, pretraining=0.25),
    "dsm_tsm": NoisedObjective({"denoising_by_force": 1.0}),
    "dsm_tsm_diffclf": NoisedObjective({"denoising_by_force": 1.0, "classification": 0.5}, pretraining=0.25),
    "dsm_diffclf_beyond": NoisedObjective(
        {"denoising": 1.0, "classification": 0.5, "score_beyond": 1.0}, pretraining=0.25
    ),
    "dsm_tsm_diffclf_beyond": NoisedObjective(
        {"denoising_by_force": 1.0, "classification": 0.5, "score_beyond": 1.0}, pretraining=0.25
    ),
    "dsm_tsm_diffclf_cnce": NoisedObjective(
        {"denoising_by_force": 1.0, "classification": 0.5, "conditional_noise": 0.2}, pretraining=0.25
    ),
    "dsm_diffclf_cnce": NoisedObjective(
        {"denoising": 1.0, "classification": 0.5, "conditional_noise": 0.2}, pretraining=0.25
    ),
    "dsm_diffclf_cnce_cd": NoisedObjective(
        {"denoising": 1.0, "classification": 0.5, "conditional_noise": 0.2, "contrastive_divergence": 0.1},
        pretraining=0.25,
    ),
    "dsm_tsm_diffclf_cnce_cd": NoisedObjective(
        {"denoising_by_force": 1.0, "classification": 0.5, "conditional_noise": 0.2, "contrastive_divergence": 0.1},
        pretraining=0.25,
    ),
}
"""Objectives of a noised energy. The Fokker-Planck and kernel-ratio losses know nothing of the data: they come with
denoising score matching."""

DATA_OBJECTIVES: Mapping[str, DataObjective] = {
    "nce": DataObjective(NoiseContrast),
    **{f"nce_{ratio}": DataObjective(NoiseContrast, draws=ratio) for ratio in (1, 4, 16)},
    "cd": DataObjective(ContrastiveDivergence),
    **{f"cd_{k}": DataObjective(ContrastiveDivergence, chain_steps=k) for k in (1, 10)},
    "pcd": DataObjective(PersistentContrastiveDivergence),
    "sliced_score_matching": DataObjective(SlicedScoreMatching),
}
"""Objectives of an energy without noise levels: NCE by its noise ratio, CD by the steps of its chains, and both as the
settings say. Other sizes have names too, see :func:`named_objective`."""


def named_objective(name: str) -> NoisedObjective | DataObjective:
    """Return the objective called ``name``: one of the above, or ``nce_RATIO`` or ``cd_STEPS`` of any size.

    Raises:
        InputError: there is none.
    """
    objectives: dict[str, NoisedObjective | DataObjective] = {**NOISED_OBJECTIVES, **DATA_OBJECTIVES}
    if name not in objectives:
        sized = sized_name(name)
        if sized is not None:
            return _sized_objective(sized)
        near = difflib.get_close_matches(name.lower().replace("-", "_"), objectives, n=1, cutoff=0.0)[0]
        raise InputError(f"there is no objective {name!r}; did you mean {near!r}? All: {', '.join(objectives)}")
    return objectives[name]


def _sized_objective(name: SizedName) -> DataObjective:
    """Return contrastive divergence of so many steps, or noise contrast of such odds from as few whole draws."""
    if name.base == "cd":
        return DataObjective(ContrastiveDivergence, chain_steps=int(name.size))
    return DataObjective(NoiseContrast, draws=math.ceil(name.size), noise_ratio=name.size)
