"""Bennett's acceptance ratio between two states, and one-sided exponential averaging."""

from __future__ import annotations

from typing import Literal

import numpy as np
from jaxtyping import Float, Shaped
from scipy.optimize import brentq
from scipy.special import expit, log_expit, logsumexp

from boltzgen_diffclf.errors import InputError, NotTrustworthyError
from boltzgen_diffclf.estimators.estimate import Estimate
from boltzgen_diffclf.estimators.groups import (
    are_shared,
    correlated_size,
    group_index,
    refuse_nan,
    resampled_multiplicities,
)
from boltzgen_diffclf.estimators.overlap import equal_overlap
from boltzgen_diffclf.estimators.reweighting import free_energy_from_weights

_CHUNK_ELEMENTS = 2_000_000


def bar(
    work_forward: Float[np.ndarray, " forward"],
    work_reverse: Float[np.ndarray, " reverse"],
    *,
    groups_forward: Shaped[np.ndarray, " forward"] | None = None,
    groups_reverse: Shaped[np.ndarray, " reverse"] | None = None,
    generator: np.random.Generator | None = None,
    n_bootstrap: int = 200,
) -> Estimate:
    r"""Return F_B - F_A [kT] from works of both directions.

    The root of ``sum_F f(M + w_F - delta_f) = sum_R f(-M + w_R + delta_f)`` with ``f(x) = 1 / (1 + exp(x))`` and
    ``M = ln(n_F / n_R)``. A work of ``+inf`` is a sample of weight zero: it is counted and moves the answer.

    Args:
        work_forward: ``u_B - u_A`` [kT] of samples of A, or the work of paths from A to B.
        work_reverse: ``u_A - u_B`` [kT] of samples of B, or the work of paths from B to A.
        groups_forward: walker of every forward work. With groups the standard error is a bootstrap over them.
        groups_reverse: walker of every reverse work. The two directions are resampled independently, unless they share
            labels: a label in both is one walker.
        generator: for the bootstrap; required with groups.
        n_bootstrap: number of bootstrap replicates.

    Returns:
        ``overlap`` is the off-diagonal element of the MBAR overlap matrix that equal numbers of samples would have,
        ½ where both states are the same. ``n_effective`` is the number of independent works that would give this
        standard error.

    Raises:
        InputError: on NaN, on ``-inf``, or without works of both directions.
        NotTrustworthyError: when every work of one direction is infinite: the root does not exist.

    References:
        Bennett 1976, J. Comput. Phys. 22:245, eq. 12; Shirts et al. 2003, Phys. Rev. Lett. 91:140601
        (works); Klimovich, Shirts & Mobley 2015, J. Comput. Aided Mol. Des. 29:397 (overlap matrix).
    """
    _check_works(work_forward, "work_forward")
    _check_works(work_reverse, "work_reverse")
    size_forward, size_reverse = float(len(work_forward)), float(len(work_reverse))
    log_ratio = float(np.log(size_forward / size_reverse))
    value = _root(work_forward, work_reverse, log_ratio)
    argument_forward, argument_reverse = log_ratio + work_forward - value, -log_ratio + work_reverse + value
    shared = size_forward * _mean_product(argument_forward) + size_reverse * _mean_product(argument_reverse)
    stderr = _asymptotic_stderr(shared, size_forward, size_reverse)
    n_effective = size_forward + size_reverse
    if groups_forward is not None or groups_reverse is not None:
        if generator is None:
            raise ValueError("bar with groups draws random numbers: give generator=np.random.default_rng(seed)")
        replicates = _bootstrap(
            argument_forward, argument_reverse, groups_forward, groups_reverse, generator, n_bootstrap
        )
        grouped = float(np.std(replicates, ddof=1)) if np.isfinite(replicates).all() else float("inf")
        n_effective, stderr = correlated_size(n_effective, stderr, grouped), grouped
    overlap = 0.0
    for argument, own, other in (
        (argument_forward, size_forward, size_reverse),
        (argument_reverse, size_reverse, size_forward),
    ):
        overlap += equal_overlap(expit(argument) / own, expit(-argument) / other)
    return Estimate(value, stderr, overlap, n_effective, "BAR")


def bar_influence(
    work_forward: Float[np.ndarray, " forward"], work_reverse: Float[np.ndarray, " reverse"], value: float
) -> tuple[Float[np.ndarray, " forward"], Float[np.ndarray, " reverse"]]:
    """Return the change of ``value``, the answer of :func:`bar`, by each work [kT]: of its equation, linearised.

    The squares of all sum to the squared standard error where works are independent; where they are not, not even those
    of several answers, the changes of samples that belong together are added first.
    """
    log_ratio = float(np.log(len(work_forward) / len(work_reverse)))
    parts, slope = [], 0.0
    for argument in (log_ratio + work_forward - value, -log_ratio + work_reverse + value):
        log_fermi = log_expit(-argument)
        shares = np.exp(log_fermi - logsumexp(log_fermi))
        slope += float(shares @ expit(argument))
        parts.append(shares - 1 / len(argument))
    return -parts[0] / slope, parts[1] / slope


def exponential_averaging(
    work: Float[np.ndarray, " samples"],
    *,
    direction: Literal["forward", "reverse"] = "forward",
    groups: Shaped[np.ndarray, " samples"] | None = None,
) -> Estimate:
    """Return F_B - F_A [kT] from works of one direction (free energy perturbation, or Jarzynski's equality).

    Args:
        work: ``u_B - u_A`` [kT] from A to B when ``forward``, ``u_A - u_B`` from B to A when ``reverse``.
        direction: which way the works go; the answer is F_B - F_A in both.
        groups: walker of every work.

    Returns:
        ``n_effective`` is Kish's size of the weights ``exp(-work)``, divided by how much larger walkers make the
        variance. ``overlap`` is None: one direction cannot see
        what it misses, so a small error bar alone proves nothing.

    References:
        Zwanzig 1954, J. Chem. Phys. 22:1420; Jarzynski 1997, Phys. Rev. Lett. 78:2690, eq. 2.
    """
    _check_works(work, "work")
    one_sided = free_energy_from_weights(-work, groups=groups)
    sign = 1.0 if direction == "forward" else -1.0
    return Estimate(sign * one_sided.value, one_sided.stderr, None, one_sided.n_effective, f"FEP {direction}")


def _check_works(work: Float[np.ndarray, " samples"], name: str) -> None:
    refuse_nan(work, name)
    if len(work) < 2:
        raise InputError(f"{name} holds {len(work)} works; at least two are needed")
    if np.isneginf(work).any():
        raise InputError(
            f"{name} holds {int(np.isneginf(work).sum())} works of -inf: those samples have infinite energy in "
            "the very state that drew them; check the sampler"
        )
    if np.isposinf(work).all():
        raise NotTrustworthyError(
            f"every one of the {len(work)} values of {name} is infinite: the states share no configuration; "
            "put states between them"
        )


def _log_mean_fermi(argument: Float[np.ndarray, " samples"]) -> float:
    return float(logsumexp(log_expit(-argument)) - np.log(len(argument)))


def _root(work_forward: Float[np.ndarray, " f"], work_reverse: Float[np.ndarray, " r"], log_ratio: float) -> float:
    def balance(delta_f: float) -> float:
        # In logarithms: without overlap both sides underflow, and the root is still well defined.
        forward = _log_mean_fermi(log_ratio + work_forward - delta_f)
        return log_ratio + forward - _log_mean_fermi(-log_ratio + work_reverse + delta_f)

    differences = np.concatenate([work_forward, -work_reverse])
    differences = differences[np.isfinite(differences)]
    low, high, margin = float(differences.min()), float(differences.max()), 1.0
    # With finite works the root lies between the extreme differences; infinite ones push it out by a logarithm.
    while balance(low - margin) > 0 or balance(high + margin) < 0:
        margin *= 2
    return float(brentq(balance, low - margin, high + margin, xtol=1e-11, rtol=1e-14))


def _asymptotic_stderr(shared: float, size_forward: float, size_reverse: float) -> float:
    """Return the standard error from summed products of the two posteriors; infinite without overlap."""
    if shared == 0.0:
        return float("inf")
    # Perfect overlap leaves the rounding of a difference of equal numbers.
    return float(np.sqrt(max(1 / shared - 1 / size_forward - 1 / size_reverse, 0.0)))


def _mean_product(argument: Float[np.ndarray, " samples"]) -> float:
    return float(np.exp(log_expit(argument) + log_expit(-argument)).mean())


def _bootstrap(
    argument_forward: Float[np.ndarray, " f"],
    argument_reverse: Float[np.ndarray, " r"],
    groups_forward: Shaped[np.ndarray, " f"] | None,
    groups_reverse: Shaped[np.ndarray, " r"] | None,
    generator: np.random.Generator,
    n_bootstrap: int,
) -> Float[np.ndarray, " bootstrap"]:
    """Return the shifts of the root over replicates of the groups; NaN where a replicate has none."""
    index_forward, n_forward = group_index(groups_forward, len(argument_forward), "groups_forward")
    index_reverse, n_reverse = group_index(groups_reverse, len(argument_reverse), "groups_reverse")
    forward, reverse = _ScaledFermi(argument_forward), _ScaledFermi(argument_reverse)
    # The full sample balances exactly, up to the constant that the two means differ by.
    offset = forward.log_mean(np.zeros(1))[0][0] - reverse.log_mean(np.zeros(1))[0][0]
    shifts = []
    chunk = max(1, _CHUNK_ELEMENTS // max(len(argument_forward), len(argument_reverse)))
    same = groups_forward is not None and groups_reverse is not None and are_shared(groups_forward, groups_reverse)
    if same:
        index, n_forward = group_index(
            np.concatenate([groups_forward, groups_reverse]), index_forward.size + index_reverse.size
        )
        index_forward, index_reverse = np.split(index, [index_forward.size])
    for start in range(0, n_bootstrap, chunk):
        size = min(chunk, n_bootstrap - start)
        drawn = resampled_multiplicities(n_forward, size, generator)
        weight_forward = drawn[:, index_forward]
        weight_reverse = (drawn if same else resampled_multiplicities(n_reverse, size, generator))[:, index_reverse]
        shifts.append(_shifted_roots(forward, reverse, weight_forward, weight_reverse, offset))
    return np.concatenate(shifts)


def _shifted_roots(
    forward: _ScaledFermi,
    reverse: _ScaledFermi,
    weight_forward: Float[np.ndarray, "bootstrap f"],
    weight_reverse: Float[np.ndarray, "bootstrap r"],
    offset: float,
) -> Float[np.ndarray, " bootstrap"]:
    shift = np.zeros(len(weight_forward))
    for _ in range(60):
        log_forward, slope_forward = forward.log_mean(shift, weight_forward)
        log_reverse, slope_reverse = reverse.log_mean(-shift, weight_reverse)
        with np.errstate(invalid="ignore", divide="ignore"):
            step = -(log_forward - log_reverse - offset) / (slope_forward + slope_reverse)
        shift += np.clip(step, -2.0, 2.0)
        if (np.abs(step) < 1e-8).all():
            return shift
    return np.where(np.abs(step) < 1e-8, shift, np.nan)


class _ScaledFermi:
    """Means of ``f(x - shift)`` for many shifts with one exponential a sample, scaled so that none underflows."""

    def __init__(self, argument: Float[np.ndarray, " samples"]) -> None:
        scale = max(float(argument.min()), 0.0)
        self.floor = np.exp(-scale)
        with np.errstate(over="ignore"):
            self.exponential = np.exp(argument - scale)

    def log_mean(
        self, shift: Float[np.ndarray, " bootstrap"], weight: Float[np.ndarray, "bootstrap samples"] | None = None
    ) -> tuple[Float[np.ndarray, " bootstrap"], Float[np.ndarray, " bootstrap"]]:
        """Return the logarithm of each weighted mean, up to a constant, and its derivative by the shift."""
        if weight is None:
            weight = np.ones((len(shift), len(self.exponential)))
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            fermi = 1.0 / (self.floor + self.exponential * np.exp(-shift)[:, None])
            weighted = weight * fermi
            total = weighted.sum(axis=1)
            slope = 1.0 - self.floor * np.einsum("bn,bn->b", weighted, fermi) / total
            return np.log(total / weight.sum(axis=1)), slope
