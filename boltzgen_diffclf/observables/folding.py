"""How far configurations of a chain are from its native one: deviations, contacts, and who is folded."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float, Int

from boltzgen_diffclf.errors import InputError
from boltzgen_diffclf.estimators.reweighting import sample_weights
from boltzgen_diffclf.observables.geometry import distances

CONTACT_NM = 0.8
"""Two CA nearer than this are in contact."""

CONTACT_SEPARATION = 3
"""Places along the chain that two beads in contact are apart at least: nearer ones always touch."""


def native_deviation(
    positions: Float[np.ndarray, "frames atoms 3"], native: Float[np.ndarray, "atoms 3"]
) -> Float[np.ndarray, " frames"]:
    """Return the root-mean-square deviation of each configuration from the native one, laid on it without a mirror.

    Args:
        positions: in any unit of length.
        native: in the same.

    References:
        Kabsch 1976, Acta Cryst. A32:922; the deviation from the singular values alone, Coutsias et al. 2004,
        J. Comput. Chem. 25:1849.
    """
    here = positions.astype(np.float64) - positions.mean(axis=1, keepdims=True, dtype=np.float64)
    there = native.astype(np.float64) - native.mean(axis=0, dtype=np.float64)
    covariance = np.einsum("fai,aj->fij", here, there)
    singular = np.linalg.svd(covariance, compute_uv=False)
    singular[:, 2] *= np.sign(np.linalg.det(covariance))
    squares = np.square(here).sum(axis=(1, 2)) + np.square(there).sum() - 2 * singular.sum(axis=1)
    return np.sqrt(np.maximum(squares, 0.0) / len(native))


def contact_pairs(n_beads: int) -> Int[np.ndarray, "pairs 2"]:
    """Return the pairs of beads of a chain that are far enough along it for a contact to mean something.

    >>> contact_pairs(5).tolist()
    [[0, 3], [0, 4], [1, 4]]
    """
    return np.stack(np.triu_indices(n_beads, k=CONTACT_SEPARATION), axis=1)


def contacts(positions: Float[np.ndarray, "frames beads 3"]) -> Bool[np.ndarray, "frames pairs"]:
    """Return which of :func:`contact_pairs` are nearer than :data:`CONTACT_NM`; positions in nm."""
    return distances(positions, contact_pairs(positions.shape[1])) < CONTACT_NM


def contact_shares(
    found: Bool[np.ndarray, "frames pairs"], log_w: Float[np.ndarray, " frames"] | None = None
) -> Float[np.ndarray, " pairs"]:
    """Return the (weighted) share of configurations that have each contact."""
    return sample_weights(log_w, len(found)) @ found


def contact_difference(
    sample: Bool[np.ndarray, "samples pairs"],
    reference: Bool[np.ndarray, "references pairs"],
    log_w: Float[np.ndarray, " samples"] | None = None,
) -> float:
    """Return the mean difference of two contact maps over their pairs, without sign, 0 to 1."""
    return float(np.abs(contact_shares(sample, log_w) - contact_shares(reference)).mean())


def fractions_by_start(
    folded: Bool[np.ndarray, "walkers frames"],
) -> tuple[Float[np.ndarray, " folded"], Float[np.ndarray, " unfolded"]]:
    """Return the share of its frames that each walker is folded: of those whose first frame is, and of the others.

    Raises:
        InputError: walkers without frames.
    """
    if folded.size == 0:
        raise InputError("walkers without frames have not begun anywhere; sample some")
    begun = folded[:, 0]
    share = folded.mean(axis=1)
    return share[begun], share[~begun]
