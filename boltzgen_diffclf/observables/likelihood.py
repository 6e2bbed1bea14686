"""How well learned log densities fit exact ones, level by level, on exact samples."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from boltzgen_diffclf.errors import InputError
from boltzgen_diffclf.estimators.estimate import Measurement
from boltzgen_diffclf.estimators.groups import refuse_nan
from boltzgen_diffclf.estimators.reweighting import effective_sample_size


def kullback_leibler(
    log_density: Float[np.ndarray, " samples"], model_log_density: Float[np.ndarray, " samples"]
) -> Measurement:
    r"""Return ``KL(p || p_theta) = E_p[log p - log p_theta]`` [nats] from independent samples of ``p``.

    Args:
        log_density: exact and normalised ``log p(y)``.
        model_log_density: ``log p_theta(y)``: ``F - U``, with the F that normalises it. With an F from
            :func:`~boltzgen_diffclf.estimators.profile_free_energies`, which puts the level's misfit into F, the
            value may be negative: it then lacks the term ``log Z_theta + F``.

    References:
        Kullback & Leibler 1951, Ann. Math. Stat. 22:79.
    """
    refuse_nan(model_log_density, "model_log_density")
    if len(log_density) < 2:
        raise InputError(f"{len(log_density)} sample has no error bar; give at least two")
    ratio = log_density.astype(np.float64) - model_log_density.astype(np.float64)
    return Measurement(float(ratio.mean()), float(ratio.std(ddof=1) / np.sqrt(len(ratio))))


def level_effective_fractions(
    log_density: Float[np.ndarray, "levels samples"], model_log_density: Float[np.ndarray, "levels samples"]
) -> Float[np.ndarray, " levels"]:
    r"""Return ``(sum w)^2 / (n sum w^2)``, ``w = p_theta / p_t`` on exact samples of ``p_t``, of every level.

    It is 1 where the model is right and 1/n where one sample carries all weight. It cannot see mass that the
    model puts where no sample is.

    Args:
        log_density: ``log p_t(y)``; a constant per level is free.
        model_log_density: ``-U(y, t)`` or ``F - U``; a constant per level is free.

    >>> level_effective_fractions(np.zeros((1, 4)), np.full((1, 4), 7.0)).round(6).tolist()
    [1.0]
    """
    log_w = model_log_density.astype(np.float64) - log_density.astype(np.float64)
    return np.array([effective_sample_size(level) / len(level) for level in log_w])
