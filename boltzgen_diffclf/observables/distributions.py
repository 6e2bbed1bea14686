"""Histograms of energies, bond lengths and angles on bins that only the reference decides, and their distances.

Jensen-Shannon divergences of histograms are positive between two samples of one law: quote that floor beside.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from boltzgen_diffclf.errors import InputError
from boltzgen_diffclf.estimators.groups import refuse_nan
from boltzgen_diffclf.estimators.reweighting import sample_weights
from boltzgen_diffclf.observables.divergences import jensen_shannon

TAIL = 0.0005
"""Share of the reference's values that bins leave out at either end, none of fewer than 2000: a frame far out would
widen all of them."""


@dataclass(frozen=True)
class Histogram:
    """Shares of the bins of one quantity; nothing falls beside them.

    Attributes:
        edges: of the inner bins, in the unit of the quantity.
        probability: share of what lies below the first edge, of the inner bins, and of what lies above the last edge;
            sums to one.
    """

    edges: Float[np.ndarray, " edges"]
    probability: Float[np.ndarray, " bins"]

    @property
    def density(self) -> Float[np.ndarray, " inner"]:
        """Density in the inner bins, per unit of the quantity."""
        return self.probability[1:-1] / np.diff(self.edges)

    @property
    def outside(self) -> float:
        """Share of what lies below the first edge or above the last."""
        return float(self.probability[0] + self.probability[-1])


def reference_edges(reference: Float[np.ndarray, " samples"], bins: int = 100) -> Float[np.ndarray, " edges"]:
    """Return the edges of equal bins over the values of the reference but :data:`TAIL` on either side.

    Raises:
        InputError: values that are not finite, or all the same but for those left out.
    """
    if broken := int((~np.isfinite(reference)).sum()):
        raise InputError(f"a reference of {len(reference)} values has {broken} of them not finite; check it")
    cut = int(TAIL * len(reference))
    inner = np.sort(reference)[cut : len(reference) - cut]
    if not np.ptp(inner) > 0:
        raise InputError(f"a reference of {len(reference)} values has all but {2 * cut} at one place; check it")
    return np.linspace(inner[0], inner[-1], bins + 1, dtype=np.float64)


def histogram(
    values: Float[np.ndarray, " samples"],
    edges: Float[np.ndarray, " edges"],
    log_w: Float[np.ndarray, " samples"] | None = None,
) -> Histogram:
    """Return the (weighted) shares of the bins; the last inner bin holds its upper edge.

    Args:
        values: infinite ones, of broken configurations, count as outside.
        edges: rising.
        log_w: unnormalised log weights.

    Raises:
        InputError: on NaN.
    """
    refuse_nan(values, "values")
    weights = sample_weights(log_w, len(values))
    cell = np.searchsorted(edges, values, side="right")
    cell[values == edges[-1]] = len(edges) - 1
    return Histogram(edges, np.bincount(cell, weights, minlength=len(edges) + 1))


def histogram_overlap(p: Histogram, q: Histogram) -> float:
    """Return the mass that two histograms share, ``sum_b min(p_b, q_b)``: 1 where they are the same.

    Raises:
        InputError: when the edges differ.
    """
    _require_one_grid(p, q)
    return float(np.minimum(p.probability, q.probability).sum())


def histogram_divergence(p: Histogram, q: Histogram) -> float:
    """Return the Jensen-Shannon divergence [nats] of two histograms, what lies outside included.

    Raises:
        InputError: when the edges differ.
    """
    _require_one_grid(p, q)
    return jensen_shannon(p.probability, q.probability)


def marginal_divergences(
    values: Float[np.ndarray, "samples quantities"],
    reference: Float[np.ndarray, "references quantities"],
    log_w: Float[np.ndarray, " samples"] | None = None,
    bins: int = 100,
) -> Float[np.ndarray, " quantities"]:
    """Return the Jensen-Shannon divergence [nats] of each bond length, angle or other coordinate.

    Args:
        values: of the model.
        reference: decides the bins.
        log_w: unnormalised log weights of the model's samples.
        bins: inner bins of each quantity.
    """
    divergences = []
    for ours, theirs in zip(values.T, reference.T, strict=True):
        edges = reference_edges(theirs, bins)
        divergences.append(histogram_divergence(histogram(ours, edges, log_w), histogram(theirs, edges)))
    return np.array(divergences)


def _require_one_grid(p: Histogram, q: Histogram) -> None:
    if not np.array_equal(p.edges, q.edges):
        raise InputError(
            f"histograms from {p.edges[0]:g} to {p.edges[-1]:g} and from {q.edges[0]:g} to {q.edges[-1]:g} have "
            "different bins; take the edges of the reference for both"
        )
