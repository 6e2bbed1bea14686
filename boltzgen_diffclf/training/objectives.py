"""Every objective by name: a new one is a line here."""

from __future__ import annotations

import difflib
from collections.abc import Mapping

from boltzgen_diffclf.errors import InputError
from boltzgen_diffclf.training.data_problem import (
    ContrastiveDivergence,
    DataProblem,
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
    "dsm_diffclf_binary": NoisedObjective({"denoising": 1.0, "classification": 1.0}, group_size=2),
    "dsm_diffclf": NoisedObjective({"denoising": 1.0, "classification": 1.0}),
    "dsm_diffclf_all": NoisedObjective({"denoising": 1.0, "classification_among_all": 1.0}, level_sampler="scattered"),
    "ctsm": NoisedObjective({"time_score": 1.0}),
    "dsm_ctsm": NoisedObjective({"denoising": 1.0, "time_score": 1.0}),
    "fokker_planck": NoisedObjective({"denoising": 1.0, "fokker_planck": 0.1}),
    "rne": NoisedObjective({"denoising": 1.0, "kernel_ratio": 0.1}),
    "cnce": NoisedObjective({"conditional_noise": 1.0}),
}
"""Objectives of a noised energy. The Fokker-Planck and kernel-ratio losses know nothing of the data: they come with
denoising score matching."""

DATA_OBJECTIVES: Mapping[str, type[DataProblem]] = {
    "nce": NoiseContrast,
    "cd": ContrastiveDivergence,
    "pcd": PersistentContrastiveDivergence,
    "sliced_score_matching": SlicedScoreMatching,
}
"""Objectives of an energy without noise levels."""


def named_objective(name: str) -> NoisedObjective | type[DataProblem]:
    """Return the objective called ``name``.

    Raises:
        InputError: there is none.
    """
    objectives: dict[str, NoisedObjective | type[DataProblem]] = {**NOISED_OBJECTIVES, **DATA_OBJECTIVES}
    if name not in objectives:
        near = difflib.get_close_matches(name.lower().replace("-", "_"), objectives, n=1, cutoff=0.0)[0]
        raise InputError(f"there is no objective {name!r}; did you mean {near!r}? All: {', '.join(objectives)}")
    return objectives[name]
