"""The Fisher divergence: how far a learned score is from the exact one, on exact samples."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from boltzgen_diffclf.errors import InputError
from boltzgen_diffclf.estimators.groups import refuse_nan


class FisherDivergence(NamedTuple):
    """One value a level, and its standard error [per squared unit of y]."""

    value: Float[np.ndarray, " levels"]
    stderr: Float[np.ndarray, " levels"]


def fisher_divergence(
    model_score: Float[np.ndarray, "levels samples dim"],
    score: Float[np.ndarray, "levels samples dim"],
    dimension: int | None = None,
) -> FisherDivergence:
    r"""Return ``E_t |s_theta - s|^2 / d`` of every level; no factor of one half.

    Args:
        model_score: ``s_theta(y, t)`` at independent samples of ``p_t`` [per unit of y].
        score: the exact score there.
        dimension: ``d``, ``3 (atoms - 1)`` for centred positions; the number of coordinates when None.

    References:
        Hyvärinen 2005, J. Mach. Learn. Res. 6:695.

    >>> fisher_divergence(np.ones((1, 2, 3)), np.zeros((1, 2, 3))).value.tolist()
    [1.0]
    """
    samples = score.shape[1]
    if samples < 2:
        raise InputError(f"each level has {samples} sample, and an error bar needs two")
    refuse_nan(model_score, "model_score")
    difference = model_score.astype(np.float64) - score.astype(np.float64)
    squared = np.square(difference).sum(axis=-1) / (dimension or score.shape[-1])
    return FisherDivergence(squared.mean(axis=1), squared.std(axis=1, ddof=1) / np.sqrt(samples))
