"""The objectives of the one-sided suites, in a sentence each; what they do is in ``boltzgen_diffclf.training``."""

from __future__ import annotations

NOISED = {
    "dsm": "denoising score matching",
    "tsm": "target score matching, which knows the score of the data",
    "diffclf_binary": "classification between two noise levels",
    "diffclf": "classification among a group of noise levels",
    "diffclf_all": "classification among all noise levels, from one pass of the network",
    "dsm_diffclf_binary": "denoising score matching, and classification between two levels",
    "dsm_diffclf": "denoising score matching, and classification among a group of levels",
    "dsm_diffclf_chained": "the same between neighbouring levels of a group alone, which costs less",
    "dsm_diffclf_named": "the same, the label of a sample being the level that made it, as published",
    "dsm_diffclf_js": "denoising score matching, and the Jensen-Shannon loss of every two levels of a group",
    "dsm_diffclf_kl": "denoising score matching, and the Kullback-Leibler loss of every two of a group of neighbours",
    "dsm_diffclf_all": "denoising score matching, and classification among all levels from one pass",
    "ctsm": "conditional time score matching",
    "dsm_ctsm": "denoising and conditional time score matching",
    "fokker_planck": "denoising score matching, and the residual of the Fokker-Planck equation",
    "rne": "denoising score matching, and the ratio of forward and reverse kernels",
    "dsm_diffclf_rne": "denoising score matching, classification among a group of levels, and the ratio of kernels",
    "cnce": "conditional noise contrastive estimation, some coordinates perturbed",
    "dsm_cnce": "denoising score matching, and conditional noise contrastive estimation",
    "dsm_tsm": "denoising score matching whose targets are mended by the forces at the samples",
    "dsm_tsm_diffclf": "dsm_tsm, and classification among a group of levels",
    "dsm_diffclf_beyond": "dsm_diffclf, and the scores of the data at configurations that spread farther",
    "dsm_tsm_diffclf_beyond": "dsm_tsm_diffclf, and the scores of the data at configurations that spread farther",
    "dsm_tsm_diffclf_cnce": "dsm_tsm, classification among a group of levels, and conditional noise contrastive "
    "estimation",
    "dsm_diffclf_cnce": "denoising score matching, classification among a group of levels, and conditional noise "
    "contrastive estimation",
    "dsm_diffclf_cnce_cd": "dsm_diffclf_cnce, and contrastive divergence from persistent chains at the levels",
    "dsm_tsm_diffclf_cnce_cd": "dsm_tsm_diffclf_cnce, and contrastive divergence from persistent chains at the levels",
}
"""Of an energy of the noised data, at every level."""

NOISELESS = {
    "nce": "noise contrastive estimation with a learned log Z, of the data alone",
    "cd": "contrastive divergence, of the data alone",
    "pcd": "persistent contrastive divergence, of the data alone",
    "sliced_score_matching": "sliced score matching, of the data alone",
}
"""Of an energy of the data alone."""

SIZED = {
    "nce_1": "noise contrastive estimation, a noise sample a datum",
    "nce_4": "noise contrastive estimation, four noise samples a datum",
    "nce_16": "noise contrastive estimation, sixteen noise samples a datum",
    "cd_1": "contrastive divergence, chains of one step from the data",
    "cd_10": "contrastive divergence, chains of ten steps from the data",
}
"""Of an energy of the data alone, with the size in the name that :data:`NOISELESS` leaves to the settings; suites of
``nce`` and ``cd`` take any size, see :meth:`Suite.place`."""

FOREMOST = (
    "dsm",
    "ctsm",
    "dsm_ctsm",
    "dsm_diffclf_binary",
    "dsm_diffclf",
    "dsm_diffclf_chained",
    "dsm_diffclf_all",
)
"""Objectives that a table wants in every dimension with three seeds."""

ALL = {**NOISED, **NOISELESS}
