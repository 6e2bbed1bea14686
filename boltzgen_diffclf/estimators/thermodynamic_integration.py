"""Thermodynamic integration: the mean of dU/dt over levels, integrated on the levels' own nodes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float, Shaped
from scipy.integrate import cumulative_simpson, cumulative_trapezoid
from scipy.interpolate import CubicSpline
from scipy.linalg import block_diag

from boltzgen_diffclf.errors import InputError
from boltzgen_diffclf.estimators.estimate import Estimate
from boltzgen_diffclf.estimators.groups import (
    clustered_covariance,
    correlated_size,
    crossed_covariance,
    refuse_nan,
)

Rule = Literal["trapezoid", "simpson", "gauss-legendre", "arcsine"]


@dataclass(frozen=True)
class ThermodynamicIntegration:
    """An integrated free-energy curve with its error band.

    Attributes:
        estimate: F(end) - F(start); ``overlap`` is None, and ``stderr`` holds no quadrature error.
        nodes: levels t, ``(levels,)``.
        integrand: mean of dU/dt [kT] at each node, ``(levels,)``.
        integrand_stderr: its standard error [kT], ``(levels,)``.
        points: where the curve is given: the nodes, with 0 and 1 added for Gauss-Legendre.
        cumulative: F(point) - F(first point) [kT].
        cumulative_stderr: its standard error [kT].
        influence: change of F(end) - F(start) by each sample of each level [kT].
    """

    estimate: Estimate
    nodes: Float[np.ndarray, " levels"]
    integrand: Float[np.ndarray, " levels"]
    integrand_stderr: Float[np.ndarray, " levels"]
    points: Float[np.ndarray, " points"]
    cumulative: Float[np.ndarray, " points"]
    cumulative_stderr: Float[np.ndarray, " points"]
    influence: tuple[Float[np.ndarray, " _"], ...]


def thermodynamic_integration(
    nodes: Float[np.ndarray, " levels"],
    samples: Sequence[Float[np.ndarray, " _"]],
    *,
    groups: Sequence[Shaped[np.ndarray, "_ ..."]] | None = None,
    rule: Rule = "trapezoid",
) -> ThermodynamicIntegration:
    """Return the integral of the mean of dU/dt over t.

    Args:
        nodes: increasing levels t; for ``gauss-legendre`` those of :func:`gauss_legendre_nodes`.
        samples: dU/dt [kT] of each level's samples; the counts may differ.
        groups: walker of every sample, one array a level. A label that occurs at several levels is one walker
            whose samples serve them all, so the errors of those levels are correlated; distinct labels make them
            independent. Where two walkers made each sample, two columns name them, see
            :func:`~boltzgen_diffclf.estimators.groups.crossed_covariance`. Without
            groups every sample is independent.
        rule: quadrature; ``arcsine`` is a cubic spline in ``arcsin(sqrt(t))``, for integrands that are steep near both
            ends and nodes that are dense there.

    Raises:
        InputError: on NaN or infinite values, on levels without two groups, on nodes that do not fit the rule.

    References:
        Kirkwood 1935, J. Chem. Phys. 3:300; Davis & Rabinowitz 1984, Methods of Numerical
        Integration, sec. 2.7.
    """
    _check_samples(nodes, samples)
    points, matrix = integration_matrix(nodes, rule)
    integrand = np.array([values.mean() for values in samples])
    integrand_stderr, cumulative_stderr = (np.sqrt(variances) for variances in _variances(samples, groups, matrix))
    stderr = float(cumulative_stderr[-1])
    independent_stderr = float(np.sqrt(_variances(samples, None, matrix)[1][-1]))
    n_effective = correlated_size(float(sum(map(len, samples))), independent_stderr, stderr)
    cumulative = matrix @ integrand
    return ThermodynamicIntegration(
        Estimate(float(cumulative[-1]), stderr, None, n_effective, f"TI {rule}"),
        nodes,
        integrand,
        integrand_stderr,
        points,
        cumulative,
        cumulative_stderr,
        tuple(
            weight * (values - values.mean()) / len(values) for weight, values in zip(matrix[-1], samples, strict=True)
        ),
    )


def gauss_legendre_nodes(n_nodes: int) -> tuple[Float[np.ndarray, " levels"], Float[np.ndarray, " levels"]]:
    """Return nodes and weights of Gauss-Legendre quadrature on [0, 1].

    >>> gauss_legendre_nodes(1)[0].tolist()
    [0.5]
    """
    nodes, weights = np.polynomial.legendre.leggauss(n_nodes)
    return 0.5 * (nodes + 1), 0.5 * weights


def integration_matrix(
    nodes: Float[np.ndarray, " levels"], rule: Rule
) -> tuple[Float[np.ndarray, " points"], Float[np.ndarray, "points levels"]]:
    """Return the points of the curve and the matrix that turns the integrand into it; its last row is the rule.

    Raises:
        InputError: when the nodes do not fit the rule.
    """
    if len(nodes) < 1 or (np.diff(nodes) <= 0).any():
        raise InputError(f"nodes must increase, got {nodes.tolist()}; sort the levels")
    if rule == "gauss-legendre":
        return _gauss_legendre_matrix(nodes)
    if rule == "arcsine":
        return _arcsine_matrix(nodes)
    if len(nodes) < (2 if rule == "trapezoid" else 3):
        raise InputError(f"{len(nodes)} nodes are too few for the {rule} rule; use more levels")
    integrate = cumulative_trapezoid if rule == "trapezoid" else cumulative_simpson
    return nodes, integrate(np.eye(len(nodes)), x=nodes, axis=-1, initial=0).T


def _arcsine_matrix(
    nodes: Float[np.ndarray, " levels"],
) -> tuple[Float[np.ndarray, " points"], Float[np.ndarray, "points levels"]]:
    if nodes[0] < 0 or nodes[-1] > 1 or len(nodes) < 4:
        raise InputError(f"the arcsine rule takes four or more levels from 0 to 1, got {nodes.tolist()}")
    angle = np.arcsin(np.sqrt(nodes))
    # dt = sin(2 a) da; the spline of each unit vector, integrated up to every node.
    spline = CubicSpline(angle, np.diag(np.sin(2 * angle)))
    return nodes, spline.antiderivative()(angle)


def _gauss_legendre_matrix(
    nodes: Float[np.ndarray, " levels"],
) -> tuple[Float[np.ndarray, " points"], Float[np.ndarray, "points levels"]]:
    expected, weights = gauss_legendre_nodes(len(nodes))
    if np.abs(nodes - expected).max() > 1e-6:
        raise InputError(
            f"nodes {nodes.tolist()} are not the {len(nodes)} Gauss-Legendre nodes on [0, 1]; "
            "use gauss_legendre_nodes, or another rule"
        )
    points = np.concatenate([[0.0], nodes, [1.0]])
    legendre = np.polynomial.legendre
    # Expand in Legendre polynomials by the (exact) discrete orthogonality, then integrate those term by term.
    degree = len(nodes) - 1
    coefficients = legendre.legvander(2 * expected - 1, degree).T * weights * (2 * np.arange(degree + 1)[:, None] + 1)
    antiderivatives = 0.5 * legendre.legint(coefficients, lbnd=-1, axis=0)
    return points, legendre.legvander(2 * points - 1, degree + 1) @ antiderivatives


def _check_samples(nodes: Float[np.ndarray, " levels"], samples: Sequence[Float[np.ndarray, " _"]]) -> None:
    if len(samples) != len(nodes):
        raise InputError(f"{len(samples)} sets of samples for {len(nodes)} nodes; give one set a level")
    for t, values in zip(nodes, samples, strict=True):
        refuse_nan(values, f"dU/dt at t = {t:g}")
        if not np.isfinite(values).all():
            raise InputError(
                f"dU/dt at t = {t:g} holds {int(np.isinf(values).sum())} infinite values among {len(values)}; "
                "the path passes through clashes: soften it"
            )
        if len(values) < 2:
            raise InputError(f"dU/dt at t = {t:g} holds {len(values)} samples; at least two are needed")


def _variances(
    samples: Sequence[Float[np.ndarray, " _"]],
    groups: Sequence[Shaped[np.ndarray, "_ ..."]] | None,
    matrix: Float[np.ndarray, "points levels"],
) -> tuple[Float[np.ndarray, " levels"], Float[np.ndarray, " points"]]:
    """Return the variances of the levels' means and of the curve at its points."""
    if groups is None:
        covariance = np.diag([values.var(ddof=1) / len(values) for values in samples])
    else:
        influence, labels = _influence(samples), _labels(samples, groups)
        if labels.ndim == 2:
            of_means, of_curve = (crossed_covariance(one, labels) for one in (influence, influence @ matrix.T))
            return np.diagonal(of_means), np.diagonal(of_curve)
        covariance = _covariance(influence, labels, samples)
    return np.diagonal(covariance), np.maximum(np.einsum("pi,ij,pj->p", matrix, covariance, matrix), 0.0)


def _influence(samples: Sequence[Float[np.ndarray, " _"]]) -> Float[np.ndarray, "samples levels"]:
    """Return the change of every level's mean by every sample of all levels, one level after the other."""
    return block_diag(*(((values - values.mean()) / len(values))[:, None] for values in samples))


def _labels(
    samples: Sequence[Float[np.ndarray, " _"]], groups: Sequence[Shaped[np.ndarray, "_ ..."]]
) -> Shaped[np.ndarray, "samples ..."]:
    if [len(labels) for labels in groups] != [len(values) for values in samples]:
        raise InputError(f"groups of sizes {[len(g) for g in groups]} do not match the samples; one label a sample")
    return np.concatenate(list(groups))


def _covariance(
    influence: Float[np.ndarray, "samples levels"],
    labels: Shaped[np.ndarray, " samples"],
    samples: Sequence[Float[np.ndarray, " _"]],
) -> Float[np.ndarray, "levels levels"]:
    """Return the covariance of the levels' means."""
    unique, index = np.unique(labels, return_inverse=True)
    ends = np.cumsum([len(values) for values in samples])[:-1]
    n_groups = np.array([len(np.unique(part)) for part in np.split(index, ends)])
    if n_groups.min() < 2:
        raise InputError(
            f"level {int(n_groups.argmin())} holds one group, and an error bar needs two; use more walkers"
        )
    # Each level has its own number of walkers, so the small-sample factor is a level's own.
    factor = np.sqrt(n_groups / (n_groups - 1))
    pooled = clustered_covariance(influence, index, len(unique)) * (len(unique) - 1) / len(unique)
    return pooled * np.outer(factor, factor)
