"""Time-lagged independent components: where the slow motions of a molecule go, and how far a model follows them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from boltzgen_diffclf.errors import InputError
from boltzgen_diffclf.estimators.groups import refuse_nan
from boltzgen_diffclf.estimators.reweighting import normalised_weights
from boltzgen_diffclf.observables.divergences import jensen_shannon
from boltzgen_diffclf.observables.geometry import distances

_BINS = 100
_MARGIN = 0.05
"""Of the reference's range, added on either side of the plane's limits."""


@dataclass(frozen=True)
class SlowCoordinates:
    """Linear combinations of features that decorrelate slowest, slowest first.

    Attributes:
        mean: of each feature.
        components: weight of each feature, a column a coordinate; the reference has unit variance along each.
        timescales: decay time of each coordinate's autocorrelation, in frames.
    """

    mean: Float[np.ndarray, " features"]
    components: Float[np.ndarray, "features coordinates"]
    timescales: Float[np.ndarray, " coordinates"]

    def project(self, features: Float[np.ndarray, "*batch features"]) -> Float[np.ndarray, "*batch coordinates"]:
        """Return the slow coordinates of any configurations, by the same features in the same order."""
        return (features - self.mean) @ self.components


def fit_slow_coordinates(
    trajectories: Float[np.ndarray, "walkers frames features"], lag_frames: int, n_coordinates: int = 2
) -> SlowCoordinates:
    """Return the slow coordinates of trajectories under their own dynamics, taken as reversible.

    Under replica exchange that dynamics includes the swaps: the coordinates are slow ones of the ensemble, and the
    timescales no times of the molecule.

    Args:
        trajectories: features of every frame in the order of time.
        lag_frames: lag of the correlation [frames].
        n_coordinates: how many to keep.

    Raises:
        InputError: NaN, a lag that the trajectories do not hold, or fewer features that vary than coordinates.

    References:
        Molgedey & Schuster 1994, Phys. Rev. Lett. 72:3634; Perez-Hernandez et al. 2013, J. Chem. Phys. 139:015102.
    """
    from deeptime.decomposition import TICA

    refuse_nan(trajectories, "trajectories")
    if not 1 <= lag_frames < trajectories.shape[1]:
        raise InputError(
            f"a lag of {lag_frames} frames does not fit into trajectories of {trajectories.shape[1]} frames: "
            "choose another one"
        )
    model = TICA(lagtime=lag_frames, dim=n_coordinates, scaling=None).fit_fetch(list(trajectories.astype(np.float64)))
    components = np.asarray(model.instantaneous_coefficients)[:, :n_coordinates]
    if components.shape[1] < n_coordinates:
        raise InputError(
            f"{n_coordinates} slow coordinates are asked of {components.shape[1]} features that vary; ask for fewer"
        )
    return SlowCoordinates(np.asarray(model.mean_0), components, np.asarray(model.timescales(k=n_coordinates)))


def torsion_features(torsions: Float[np.ndarray, "*batch torsions"]) -> Float[np.ndarray, "*batch features"]:
    """Return cosines, then sines, of torsions [rad]: features without a jump at pi."""
    return np.concatenate([np.cos(torsions), np.sin(torsions)], axis=-1)


def distance_features(positions: Float[np.ndarray, "frames atoms 3"]) -> Float[np.ndarray, "frames features"]:
    """Return the distances of all pairs of atoms, first atoms first."""
    return distances(positions, np.stack(np.triu_indices(positions.shape[1], k=1), axis=1))


def plane_divergence(
    sample: Float[np.ndarray, "samples 2"],
    reference: Float[np.ndarray, "references 2"],
    log_w: Float[np.ndarray, " samples"] | None = None,
) -> float:
    """Return the Jensen-Shannon divergence [nats] in a plane of two slow coordinates.

    100 bins a side over the range of the reference and 5 % on either side of it, and one outlier bin at each end.

    Args:
        sample: of the model; infinite ones are outliers.
        reference: decides the limits.
        log_w: unnormalised log weights of the sample.
    """
    refuse_nan(sample, "sample")
    low, high = reference.min(axis=0), reference.max(axis=0)
    margin = _MARGIN * (high - low)
    edges = np.linspace(low - margin, high + margin, _BINS + 1).T
    weights = normalised_weights(np.zeros(len(sample)) if log_w is None else log_w)
    return jensen_shannon(_in_plane(sample, edges, weights), _in_plane(reference, edges, np.ones(len(reference))))


def _in_plane(
    points: Float[np.ndarray, "samples 2"],
    edges: Float[np.ndarray, "2 edges"],
    weights: Float[np.ndarray, " samples"],
) -> Float[np.ndarray, " bins"]:
    bins = edges.shape[1] + 1
    first, second = (np.searchsorted(line, values) for line, values in zip(edges, points.T, strict=True))
    return np.bincount(first * bins + second, weights, minlength=bins**2)
