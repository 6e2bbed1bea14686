r"""The classification loss of frozen energies, and the level free energies that make it least.

For frozen energies the loss is convex in ``F``, and ``dL/dF_k`` is the mean posterior of level k minus ``1 / levels``:
at the minimum every level is expected as often as it was drawn, which are the equations of MBAR.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy.special import logsumexp

from boltzgen_diffclf.errors import InputError, RunFailedError
from boltzgen_diffclf.estimators.bar import bar
from boltzgen_diffclf.estimators.estimate import Measurement

_TOLERANCE = 1e-9
"""Largest relative error of a level's expected count at the solution."""

_COOLING = 4.0
"""Factor between the temperatures on the way to the solution."""


class ProfiledFreeEnergies(NamedTuple):
    """Free energies [kT] of the levels, the first zero, and the classification loss [nats] there."""

    free_energies: Float[np.ndarray, " levels"]
    loss: Measurement


def classification_loss(
    energies: Float[np.ndarray, "levels pool levels"], free_energies: Float[np.ndarray, " levels"]
) -> Measurement:
    r"""Return the mean cross-entropy [nats] of naming the level, among all of them, that drew each sample.

    Args:
        energies: ``[i, n, j]`` is ``U(y_n, t_j)`` [kT] of the n-th draw of level i; a constant per sample is free.
        free_energies: ``F(t_j)`` [kT], defined up to one constant.

    Returns:
        ``log(levels)`` when the model cannot tell the levels apart. The standard error takes the draws as
        independent, each level a stratum of its own.

    References:
        OuYang, Grenioux & Hernandez-Lobato 2026, arXiv:2601.21025, eq. 10.

    >>> round(classification_loss(np.zeros((3, 2, 3)), np.zeros(3)).value, 4)
    1.0986
    """
    return stratified_mean(sample_losses(energies, free_energies))


def sample_losses(
    energies: Float[np.ndarray, "levels pool levels"], free_energies: Float[np.ndarray, " levels"]
) -> Float[np.ndarray, "levels pool"]:
    """Return the cross-entropy [nats] of each sample: what two models on the same samples are compared by.

    Args:
        energies: see :func:`classification_loss`.
        free_energies: see there.
    """
    logits = free_energies - energies.astype(np.float64)
    own = np.take_along_axis(logits, np.arange(len(logits))[:, None, None], axis=-1)[..., 0]
    return logsumexp(logits, axis=-1) - own


def stratified_mean(values: Float[np.ndarray, "levels pool"]) -> Measurement:
    """Return the mean of independent samples, as many of every level, each level a stratum of its own."""
    levels, pool = values.shape
    if pool < 2:
        raise InputError(f"each level has {pool} sample, and an error bar needs two; draw a larger pool")
    stderr = np.sqrt(values.var(axis=1, ddof=1).sum() / pool) / levels
    return Measurement(float(values.mean()), float(stderr))


def profile_free_energies(energies: Float[np.ndarray, "levels pool levels"]) -> ProfiledFreeEnergies:
    r"""Return the ``F`` that minimises the classification loss of these energies, and the loss there.

    The minimum exists and is unique up to the gauge for any finite energies. Energies wrong by thousands of kT make
    the loss all but piecewise linear; the problem is therefore solved for ``U / T`` first and T is lowered to one.

    The loss is that of the pool that ``F`` was fitted to, lower than on fresh samples by up to ``1 / pool``; for a
    held-out value give :func:`classification_loss` another pool.

    Args:
        energies: ``[i, n, j]`` is ``U(y_n, t_j)`` [kT] of the n-th draw of level i.

    Raises:
        InputError: energies that are not finite, or fewer than two levels.
        RunFailedError: when the minimum is not reached.

    References:
        Shirts & Chodera 2008, J. Chem. Phys. 129:124105, eq. 11.
    """
    levels = energies.shape[0]
    if levels < 2 or not np.isfinite(energies).all():
        broken = int((~np.isfinite(energies)).sum())
        raise InputError(f"profiling needs two levels and finite energies, got {levels} levels and {broken} not finite")
    energies = energies.astype(np.float64)
    rows = energies.reshape(-1, levels)
    rows = rows - rows.min(axis=1, keepdims=True)
    free_energies = _mean_work_chain(energies)
    temperature = max(1.0, classification_loss(energies, free_energies).value / np.log(levels))
    while temperature > 1.0:
        free_energies = temperature * _newton(rows / temperature, free_energies / temperature, 1e-3)
        temperature = max(1.0, temperature / _COOLING)
    free_energies = _newton(rows, free_energies, _TOLERANCE)
    free_energies = free_energies - free_energies[0]
    return ProfiledFreeEnergies(free_energies, classification_loss(energies, free_energies))


def chained_free_energies(
    own: Float[np.ndarray, "levels pool"],
    above: Float[np.ndarray, "gaps pool"],
    below: Float[np.ndarray, "gaps pool"],
) -> Float[np.ndarray, " levels"]:
    """Return F [kT] of the levels, the first zero, by BAR between neighbours.

    Of frozen energies that are right up to a constant a level this finds the same as :func:`profile_free_energies`,
    at three energies a sample.

    Args:
        own: energies of the samples of each level there.
        above: of those of all but the last level, one level up.
        below: of those of all but the first level, one level down.

    Raises:
        InputError: energies that are not finite.
    """
    gaps = [
        bar(up - here, down - there).value
        for here, up, there, down in zip(own[:-1], above, own[1:], below, strict=True)
    ]
    return np.concatenate([[0.0], np.cumsum(gaps)])


def _mean_work_chain(energies: Float[np.ndarray, "levels pool levels"]) -> Float[np.ndarray, " levels"]:
    """Return F by the mean work between neighbours, both directions averaged: right to second order."""
    mean = energies.mean(axis=1)
    up = np.diagonal(mean, 1) - np.diagonal(mean)[:-1]
    down = np.diagonal(mean, -1) - np.diagonal(mean)[1:]
    return np.concatenate([[0.0], np.cumsum(0.5 * (up - down))])


def _newton(
    rows: Float[np.ndarray, "samples levels"], free_energies: Float[np.ndarray, " levels"], tolerance: float
) -> Float[np.ndarray, " levels"]:
    """Return the minimiser by Newton's method with Levenberg's damping, the first free energy held."""
    levels = rows.shape[1]
    loss, posterior = _loss_and_posterior(rows, free_energies)
    damping = 1e-6 / levels
    for _ in range(500):
        expected = posterior.mean(axis=0)
        gradient = expected - 1 / levels
        if np.abs(gradient).max() * levels < tolerance:
            return free_energies
        information = np.diag(expected) - posterior.T @ posterior / len(rows)
        # A damping of one exceeds any curvature of this loss, so a step is found.
        while True:
            damped = information[1:, 1:] + damping * np.eye(levels - 1)
            step = np.concatenate([[0.0], -np.linalg.solve(damped, gradient[1:])])
            trial = _loss_and_posterior(rows, free_energies + step)
            # Close to the minimum the decrease drowns in rounding, which must not refuse the step.
            if trial[0] <= loss + 0.1 * (step @ gradient) + 1e-13 * (1 + abs(loss)):
                break
            damping *= 8
        free_energies, (loss, posterior) = free_energies + step, trial
        damping = max(damping / 8, 1e-14)
    raise RunFailedError(
        f"free energies of {levels} levels were not found: counts are off by {np.abs(gradient).max() * levels:.1e} "
        "after 500 steps; check the energies for values beyond double precision"
    )


def _loss_and_posterior(
    rows: Float[np.ndarray, "samples levels"], free_energies: Float[np.ndarray, " levels"]
) -> tuple[float, Float[np.ndarray, "samples levels"]]:
    """Return the loss but for the energies of the samples in their own levels, and the posteriors."""
    logits = free_energies - rows
    top = logits.max(axis=1, keepdims=True)
    posterior = np.exp(logits - top)
    total = posterior.sum(axis=1, keepdims=True)
    posterior /= total
    return float((top + np.log(total)).mean() - free_energies.mean()), posterior
