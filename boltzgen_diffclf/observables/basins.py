"""Populations and free energies of torsion basins, with errors from the scatter between walkers."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float, Shaped

from boltzgen_diffclf.errors import NotTrustworthyError
from boltzgen_diffclf.estimators.estimate import Estimate
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


def conformer_free_energy(
    angle: Float[np.ndarray, " samples"],
    low: float,
    high: float,
    *,
    groups: Shaped[np.ndarray, " samples"] | None = None,
    log_w: Float[np.ndarray, " samples"] | None = None,
) -> Estimate:
    r"""Return ``F_B - F_A`` [kT] ``= -ln(p / (1 - p))``: B is the arc (low, high) [rad], A all the rest.

    Args:
        angle: torsion of every sample [rad].
        low: lower end of the arc.
        high: upper end; below ``low`` the arc passes through pi.
        groups: walker of every sample; the standard error treats each as one draw.
        log_w: unnormalised log weights.

    Returns:
        The standard error is that of the population through ``1 / (p (1 - p))``; ``n_effective`` is the number of
        independent unweighted samples that would have the same one.

    Raises:
        NotTrustworthyError: no sample lies in the arc, or none outside.
    """
    found = population(angle, low, high, groups=groups, log_w=log_w)
    variance = found.value * (1 - found.value)
    if not variance > 0:
        raise NotTrustworthyError(
            f"the arc from {low:g} to {high:g} rad holds {100 * found.value:g} % of {len(angle)} samples, so one of "
            "the two conformers was never seen: sample longer, or from both"
        )
    n_effective = min(float(len(angle)), variance / found.stderr**2) if found.stderr > 0 else float(len(angle))
    value = float(np.log1p(-found.value) - np.log(found.value))
    return Estimate(value, found.stderr / variance, None, n_effective, "population")
