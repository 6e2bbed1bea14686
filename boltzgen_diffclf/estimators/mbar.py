"""The multistate Bennett acceptance ratio: pymbar solves it, the errors and the overlap are computed here."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from jaxtyping import Float, Int, Shaped
from scipy.special import logsumexp

from boltzgen_diffclf.errors import InputError, RunFailedError
from boltzgen_diffclf.estimators.bar import bar
from boltzgen_diffclf.estimators.estimate import Estimate
from boltzgen_diffclf.estimators.groups import (
    correlated_size,
    crossed_covariance,
    group_index,
    refuse_nan,
    resampled_multiplicities,
)
from boltzgen_diffclf.estimators.overlap import equal_overlap

_DISCONNECTED = 1e-9
"""Spectral gap of the overlap matrix below which the free energies between its parts are not determined."""


@dataclass(frozen=True)
class MbarResult:
    """Free energies of all states.

    Attributes:
        free_energies: F_k - F_0 [kT], ``(states,)``.
        covariance: of ``free_energies`` [kT^2], ``(states, states)``; row and column 0 are zero.
        overlap_matrix: ``O_ij``, the share of state i's density that samples of state j carry; rows sum to one.
        estimate: last state minus first.
    """

    free_energies: Float[np.ndarray, " states"]
    covariance: Float[np.ndarray, "states states"]
    overlap_matrix: Float[np.ndarray, "states states"]
    estimate: Estimate

    @property
    def stderr(self) -> Float[np.ndarray, " states"]:
        """Standard error [kT] of every F_k - F_0."""
        return np.sqrt(np.diagonal(self.covariance))


def mbar(
    u_kn: Float[np.ndarray, "states samples"],
    n_k: Int[np.ndarray, " states"],
    *,
    groups: Shaped[np.ndarray, "samples ..."] | None = None,
    generator: np.random.Generator | None = None,
    n_bootstrap: int = 200,
) -> MbarResult:
    """Return the free energies of K states from every sample's energy in every state.

    Where some states share nothing with the others, the equations do not determine the answer: the values are then
    those of BAR between neighbours, and the errors infinite.

    Args:
        u_kn: reduced energy [kT] in state k of sample n; the samples of state 0 come first, then those of state 1.
            ``+inf`` is a weight of zero there.
        n_k: samples drawn from each state, at least two, summing to the number of columns.
        groups: walker of every sample; the errors are then a bootstrap over walkers. The same label in several
            states is one walker that visited them all (replica exchange). Where two walkers made each sample, two
            columns name them, and the errors are those of the linearised equations.
        generator: for the bootstrap; required with groups of one column.
        n_bootstrap: number of bootstrap replicates.

    Returns:
        ``estimate.overlap`` is the smallest ``equal_overlap`` of neighbours; ``estimate.n_effective`` the number of
        independent samples that would give this standard error.

    Raises:
        InputError: on NaN, on a sample that is impossible in its own state, or counts that do not fit.
        RunFailedError: when the equations are not solved.

    References:
        Shirts & Chodera 2008, J. Chem. Phys. 129:124105, eq. 11; the covariance is that of the equivalent logistic
        regression, Prentice & Pyke 1979, Biometrika 66:403; overlap: Klimovich et al. 2015,
        J. Comput. Aided Mol. Des. 29:397.
    """
    counts = np.asarray(n_k, dtype=np.float64)
    origin = np.repeat(np.arange(len(n_k)), n_k)
    _check_energies(u_kn, n_k, origin)
    free_energies = _neighbour_chain(u_kn, n_k)
    posterior = _posterior(u_kn, counts, free_energies)
    connected = _spectral_gap(posterior, counts) > _DISCONNECTED
    if connected:
        free_energies = _solve(u_kn, n_k, free_energies)
        posterior = _posterior(u_kn, counts, free_energies)
    shared = posterior @ posterior.T
    covariance = _asymptotic_covariance(shared, posterior.sum(axis=1), counts) if connected else _unknown(len(n_k))
    n_effective = float(counts.sum()) if connected else 0.0
    if groups is not None and connected:
        if groups.ndim == 2:
            grouped = crossed_covariance(mbar_influence(posterior, origin, counts), groups)
        else:
            if generator is None:
                raise ValueError("mbar with groups draws random numbers: give generator=np.random.default_rng(seed)")
            weights = resample_groups(groups, origin, generator, n_bootstrap)
            grouped = _bootstrap_covariance(posterior / counts[:, None], origin, weights)
        n_effective = correlated_size(n_effective, np.sqrt(covariance[-1, -1]), np.sqrt(grouped[-1, -1]))
        covariance = grouped
    overlap = min(equal_overlap(*neighbours) for neighbours in pairwise(posterior / counts[:, None]))
    estimate = Estimate(float(free_energies[-1]), float(np.sqrt(covariance[-1, -1])), overlap, n_effective, "MBAR")
    return MbarResult(free_energies, covariance, shared / counts[:, None], estimate)


def _check_energies(
    u_kn: Float[np.ndarray, "states samples"], n_k: Int[np.ndarray, " states"], origin: Int[np.ndarray, " samples"]
) -> None:
    refuse_nan(u_kn, "u_kn")
    if len(n_k) < 2 or min(n_k) < 2:
        raise InputError(f"MBAR needs two states or more and two samples or more of each, got counts {n_k.tolist()}")
    if u_kn.shape != (len(n_k), len(origin)):
        raise InputError(f"u_kn has shape {u_kn.shape}, but the counts want {(len(n_k), len(origin))}")
    if np.isneginf(u_kn).any():
        raise InputError(f"u_kn holds {int(np.isneginf(u_kn).sum())} energies of -inf; check the energies")
    impossible = int(np.isposinf(u_kn[origin, np.arange(len(origin))]).sum())
    if impossible:
        raise InputError(
            f"{impossible} samples have infinite energy in the state that drew them; order the columns by state"
        )


def _neighbour_chain(
    u_kn: Float[np.ndarray, "states samples"], n_k: Int[np.ndarray, " states"]
) -> Float[np.ndarray, " states"]:
    """Return F_k - F_0 [kT] by BAR between neighbours, which exists even without overlap."""
    ends = np.cumsum(np.concatenate([[0], n_k]))
    steps = []
    for k in range(len(n_k) - 1):
        own, other = slice(ends[k], ends[k + 1]), slice(ends[k + 1], ends[k + 2])
        forward, reverse = u_kn[k + 1, own] - u_kn[k, own], u_kn[k, other] - u_kn[k + 1, other]
        steps.append(bar(forward, reverse).value)
    return np.concatenate([[0.0], np.cumsum(steps)])


def _spectral_gap(posterior: Float[np.ndarray, "states samples"], counts: Float[np.ndarray, " states"]) -> float:
    """Return 1 minus the second eigenvalue of the overlap matrix: zero when some states are cut off."""
    scaled = posterior / np.sqrt(counts)[:, None]
    return float(1 - np.linalg.eigvalsh(scaled @ scaled.T)[-2])


def _solve(
    u_kn: Float[np.ndarray, "states samples"], n_k: Int[np.ndarray, " states"], start: Float[np.ndarray, " states"]
) -> Float[np.ndarray, " states"]:
    """Return F_k - F_0 [kT] by pymbar."""
    # Relative to a column's lowest energy, 1e4 kT is already a weight of exactly zero; pymbar takes no infinity.
    relative = np.minimum(u_kn - u_kn.min(axis=0), 1e4)
    # pymbar computes with JAX where that is installed, which would take most of a GPU's memory for itself.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    with _quiet_pymbar():
        from pymbar import MBAR

        solution = MBAR(relative, n_k, initial_f_k=start, solver_protocol="robust")
    free_energies = np.asarray(solution.f_k, dtype=np.float64)
    counts = n_k.astype(np.float64)
    residual = float(np.abs(_posterior(relative, counts, free_energies).sum(axis=1) / counts - 1).max())
    if not residual < 1e-3:
        raise RunFailedError(
            f"the MBAR equations were not solved (relative residual {residual:.1e}); put states between the others"
        )
    return free_energies - free_energies[0]


@contextmanager
def _quiet_pymbar() -> Iterator[None]:
    """Keep pymbar's banners and solver chatter out of the user's terminal."""
    logger = logging.getLogger("pymbar")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)


def _posterior(
    u_kn: Float[np.ndarray, "states samples"],
    counts: Float[np.ndarray, " states"],
    free_energies: Float[np.ndarray, " states"],
) -> Float[np.ndarray, "states samples"]:
    """Return the probability that state k drew sample n, ``N_k W_nk``."""
    logits = (np.log(counts) + free_energies)[:, None] - u_kn
    return np.exp(logits - logsumexp(logits, axis=0))


def _asymptotic_covariance(
    shared: Float[np.ndarray, "states states"],
    expected: Float[np.ndarray, " states"],
    counts: Float[np.ndarray, " states"],
) -> Float[np.ndarray, "states states"]:
    information = (np.diag(expected) - shared)[1:, 1:]
    covariance = np.zeros_like(shared)
    covariance[1:, 1:] = np.linalg.inv(information) - np.diag(1 / counts[1:]) - 1 / counts[0]
    np.fill_diagonal(covariance, np.maximum(np.diagonal(covariance), 0.0))
    return covariance


def mbar_influence(
    posterior: Float[np.ndarray, "states samples"],
    origin: Int[np.ndarray, " samples"],
    counts: Float[np.ndarray, " states"],
) -> Float[np.ndarray, "samples states"]:
    """Return the change of the free energies by every sample, the first state's kept at zero.

    The equations say that the posteriors of every state sum to its count; a sample moves the free energies by the
    inverse of their derivative times how far its posteriors are from the mean of its state.
    """
    information = (np.diag(posterior.sum(axis=1)) - posterior @ posterior.T)[1:, 1:]
    means = np.stack([np.bincount(origin, row, minlength=len(counts)) for row in posterior]) / counts
    influence = np.zeros_like(posterior)
    influence[1:] = np.linalg.solve(information, (means[:, origin] - posterior)[1:])
    return influence.T


def resample_groups(
    groups: Shaped[np.ndarray, " samples"],
    origin: Int[np.ndarray, " samples"],
    generator: np.random.Generator,
    n_bootstrap: int,
) -> Iterator[Float[np.ndarray, " samples"]]:
    """Yield multiplicities of the samples; groups of one state are resampled among those of that state."""
    index, n_groups = group_index(groups, len(origin))
    first, last = np.full(n_groups, len(origin)), np.full(n_groups, -1)
    np.minimum.at(first, index, origin)
    np.maximum.at(last, index, origin)
    stratum = np.where(first == last, first, -1)
    multiplicities = np.zeros((n_bootstrap, n_groups))
    for member in np.unique(stratum):
        inside = np.flatnonzero(stratum == member)
        if len(inside) < 2:
            raise InputError(f"state {member} holds one group, and an error bar needs two; use more walkers or blocks")
        multiplicities[:, inside] = resampled_multiplicities(len(inside), n_bootstrap, generator)
    return (replicate[index] for replicate in multiplicities)


def _bootstrap_covariance(
    density: Float[np.ndarray, "states samples"],
    origin: Int[np.ndarray, " samples"],
    weights: Iterator[Float[np.ndarray, " samples"]],
) -> Float[np.ndarray, "states states"]:
    shifts = np.stack([replicate_shift(density, origin, weight) for weight in weights])
    return np.cov(shifts.T) if np.isfinite(shifts).all() else _unknown(len(density))


def _unknown(n_states: int) -> Float[np.ndarray, "states states"]:
    """Return the covariance of free energies that nothing determines."""
    covariance = np.full((n_states, n_states), np.inf)
    covariance[0] = covariance[:, 0] = 0.0
    return covariance


def replicate_shift(
    density: Float[np.ndarray, "states samples"],
    origin: Int[np.ndarray, " samples"],
    weight: Float[np.ndarray, " samples"],
) -> Float[np.ndarray, " states"]:
    """Return the change of the free energies when samples count ``weight`` times, by Newton's method.

    Args:
        density: ``W_nk`` at the solution of the full sample; no exponential of an energy is needed again.
        origin: state of each sample.
        weight: multiplicity of each sample.
    """
    counts = np.bincount(origin, weight, minlength=len(density))
    shift = np.zeros(len(density))
    for iteration in range(60):
        scale = counts * np.exp(shift)
        mixture = scale @ density
        expected = scale * (density @ (weight / mixture))
        # The information changes little along the way and costs most of a step: one serves several.
        if iteration % 6 == 0:
            shared = (density * (weight / mixture**2)) @ density.T
            information = np.diag(expected) - scale[:, None] * shared * scale
        try:
            step = np.linalg.solve(information[1:, 1:], (counts - expected)[1:])
        except np.linalg.LinAlgError:
            break
        shift[1:] += np.clip(step, -2.0, 2.0)
        if np.abs(step).max() < 1e-6:
            return shift
    return np.full(len(density), np.nan)
