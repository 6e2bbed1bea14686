"""Populations of torsion basins, with errors from the scatter between walkers."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float, Shaped

from boltzgen_diffclf.estimators.groups import refuse_nan
from boltzgen_diffclf.estimators.reweighting import WeightedMean, reweighted_mean
from boltzgen_diffclf.observables.torsions import wrap


def in_basin(angle: Float[np.ndarray, "*shape"], low: float, high: float) -> Bool[np.ndarray, "*shape"]:
    """Return which angles [rad] lie in the open arc from ``low`` up to ``high``, through pi where low > high.

    >>> in_basin(np.array([1.0, 3.0, -3.0]), 2.0, -2.0).tolist()
    [False, True, True]
    """
    refuse_nan(angle, "angle")
    inside = wrap(angle)
    if low < high:
        return (inside > low) & (inside < high)
    return (inside > low) | (inside < high)


def population(
    angle: Float[np.ndarray, " samples"],
    low: float,
    high: float,
    *,
    groups: Shaped[np.ndarray, " samples"] | None = None,
    log_w: Float[np.ndarray, " samples"] | None = None,
) -> WeightedMean:
    """Return the (weighted) share of samples whose torsion lies in (low, high) [rad].

    Args:
        angle: torsion of every sample [rad].
        low: lower end of the arc.
        high: upper end; below ``low`` the arc passes through pi.
        groups: walker of every sample; the standard error treats each as one draw.
        log_w: unnormalised log weights.
    """
    inside = in_basin(angle, low, high).astype(np.float64)
    return reweighted_mean(inside, np.zeros(len(angle)) if log_w is None else log_w, groups)
