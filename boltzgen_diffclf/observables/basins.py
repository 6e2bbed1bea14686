"""Populations and free energies of torsion basins, with errors from the scatter between walkers."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float, Shaped

from boltzgen_diffclf.errors import NotTrustworthyError
from boltzgen_diffclf.estimators.estimate import Estimate
from boltzgen_diffclf.estimators.groups import refuse_nan
from boltzgen_diffclf.estimators.reweighting import WeightedMean, reweighted_mean, sample_weights
from boltzgen_diffclf.observables.torsions import wrap


def in_basin(angle: Float[np.ndarray, "*shape"], low: float, high: float) -> Bool[np.ndarray, "*shape"]:
    """Return which angles [rad] lie in the open arc from ``low`` up to ``high``, through pi where low > high.

    All are taken modulo a turn.

    >>> in_basin(np.array([1.0, 3.0, -3.0]), 2.0, -2.0).tolist()
    [False, True, True]
    >>> in_basin(np.array([1.0, 3.0, -3.0]), 2.0, 4.0).tolist()
    [False, True, True]
    """
    refuse_nan(angle, "angle")
    inside, low, high = wrap(angle), *wrap(np.array([low, high], dtype=np.float64))
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
    return state_population(in_basin(angle, low, high), groups=groups, log_w=log_w)


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
    inside = in_basin(angle, low, high)
    return state_free_energy(inside, f"the arc from {low:g} to {high:g} rad", groups=groups, log_w=log_w)


def state_free_energy(
    inside: Bool[np.ndarray, " samples"],
    name: str,
    *,
    groups: Shaped[np.ndarray, " samples"] | None = None,
    log_w: Float[np.ndarray, " samples"] | None = None,
) -> Estimate:
    r"""Return ``F_B - F_A`` [kT] ``= -ln(p / (1 - p))``: B is the samples inside, A all the rest.

    Args:
        inside: which samples are in the state.
        name: of the state, for the error.
        groups: see :func:`conformer_free_energy`, also for what comes out.
        log_w: unnormalised log weights.

    Raises:
        NotTrustworthyError: no sample is in the state, or none outside.
    """
    found = state_population(inside, groups=groups, log_w=log_w)
    variance = found.value * (1 - found.value)
    # By who counts and not by the sum of the weights, which rounding leaves a little above or below one.
    seen = inside[sample_weights(log_w, len(inside)) > 0]
    if seen.all() or not seen.any() or not variance > 0:
        raise NotTrustworthyError(
            f"{name} holds {100 * found.value:g} % of {len(inside)} samples, so one of the two conformers was never "
            "seen: sample longer, or from both"
        )
    n_effective = min(float(len(inside)), variance / found.stderr**2) if found.stderr > 0 else float(len(inside))
    value = float(np.log1p(-found.value) - np.log(found.value))
    return Estimate(value, found.stderr / variance, None, n_effective, "population")


def state_population(
    inside: Bool[np.ndarray, " samples"],
    *,
    groups: Shaped[np.ndarray, " samples"] | None = None,
    log_w: Float[np.ndarray, " samples"] | None = None,
) -> WeightedMean:
    """Return the (weighted) share of samples in a state; its standard error treats each group as one draw."""
    return reweighted_mean(inside.astype(np.float64), np.zeros(len(inside)) if log_w is None else log_w, groups)
