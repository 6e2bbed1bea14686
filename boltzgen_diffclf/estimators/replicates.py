"""Independent replicates: what their scatter says, and whether two estimates agree."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from scipy.stats import t as student_t

from boltzgen_diffclf.errors import InputError
from boltzgen_diffclf.estimators.estimate import Estimate

_ONE_SIGMA = math.erf(math.sqrt(0.5))


def combine_replicates(replicates: Sequence[Estimate], method: str) -> Estimate:
    """Return the mean of independent replicates, with the error that their scatter shows.

    A replicate is a whole repetition: its own training seed, and its own, disjoint group of walkers to learn from.
    Judged on the walkers that the next one learns from, replicates are not wholly independent, which the error does
    not know. It is ``sd / sqrt(S)`` times Student's factor, so that value +- stderr covers 68.27 % also for few
    replicates (S = 3: 1.32; S = 2: 1.84). The replicates' own error bars do not enter: training is outside them.

    Returns:
        ``overlap`` is the smallest of the replicates', ``n_effective`` their sum.

    Raises:
        InputError: with fewer than two replicates, or when one is not finite.

    References:
        Student 1908, Biometrika 6:1.
    """
    if len(replicates) < 2:
        raise InputError(f"{len(replicates)} replicate shows no scatter; run at least two, better four")
    values = np.array([replicate.value for replicate in replicates])
    if not np.isfinite(values).all():
        raise InputError(f"replicates gave {values.tolist()} kT; a run failed: look at its log, do not drop it")
    overlaps = [replicate.overlap for replicate in replicates if replicate.overlap is not None]
    return Estimate(
        value=float(values.mean()),
        stderr=float(values.std(ddof=1) / math.sqrt(len(values)) * student_factor(len(values))),
        overlap=min(overlaps) if overlaps else None,
        n_effective=float(sum(replicate.n_effective for replicate in replicates)),
        method=method,
    )


def widened_by_misfit(estimate: Estimate, other: Estimate) -> Estimate:
    """Return ``estimate`` with the distance to ``other`` added to its error in quadrature.

    Two estimators that take the same samples and the same learned energies agree where the energies are those of
    the samples; what they differ by is the misfit of the model, which the scatter of replicates does not show.
    """
    return replace(estimate, stderr=math.hypot(estimate.stderr, estimate.value - other.value))


def student_factor(n_replicates: int) -> float:
    """Return the half-width of the central 68.27 % of Student's t with ``n_replicates - 1`` degrees of freedom.

    >>> round(student_factor(3), 3)
    1.321
    """
    return float(student_t.ppf(0.5 * (1 + _ONE_SIGMA), n_replicates - 1))


def combined_errors_apart(a: Estimate, b: Estimate) -> float:
    """Return the distance of two independent estimates in units of their combined standard error."""
    combined = math.hypot(a.stderr, b.stderr)
    distance = abs(a.value - b.value)
    if combined == 0.0:
        return 0.0 if distance == 0.0 else math.inf
    return distance / combined


def agree(a: Estimate, b: Estimate, n_errors: float = 3.0) -> bool:
    """Return whether two independent estimates lie within ``n_errors`` combined standard errors.

    An estimate whose error bar is not finite agrees with nothing.
    """
    finite = all(math.isfinite(number) for number in (a.value, a.stderr, b.value, b.stderr))
    return finite and combined_errors_apart(a, b) <= n_errors
