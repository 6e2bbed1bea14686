"""Time-lagged independent components: where the slow motions of a molecule go, and how far a model follows them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int, Shaped

from boltzgen_diffclf.errors import InputError
from boltzgen_diffclf.estimators.groups import refuse_nan
from boltzgen_diffclf.estimators.reweighting import sample_weights
from boltzgen_diffclf.observables.divergences import jensen_shannon
from boltzgen_diffclf.observables.geometry import distances
from boltzgen_diffclf.observables.ramachandran import FreeEnergySurface, binned_free_energy

Limits = tuple[tuple[float, float], tuple[float, float]]
"""Lowest and highest value of each of two coordinates."""

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


def lagged_pairs(
    group: Int[np.ndarray, " frames"], frame: Int[np.ndarray, " frames"], lag_frames: int
) -> tuple[Int[np.ndarray, " pairs"], Int[np.ndarray, " pairs"]]:
    """Return the indices of frames, and of the frames of the same group that come so much later.

    Frames drawn with replacement count as often as they were drawn; what came later, once.

    Args:
        group: simulation of every frame.
        frame: place of every frame within its group.
        lag_frames: how much later.

    Raises:
        InputError: no group holds two frames so far apart.

    >>> [found.tolist() for found in lagged_pairs(np.array([0, 0, 0, 1, 1]), np.array([0, 1, 2, 0, 1]), 1)]
    [[0, 1, 3], [1, 2, 4]]
    """
    # One number a frame, between the groups a gap that no lag leaps over.
    place = group * (int(frame.max()) + 1 + lag_frames) + frame
    known, first = np.unique(place, return_index=True)
    found = np.minimum(np.searchsorted(known, place + lag_frames), len(known) - 1)
    now = np.flatnonzero((known[found] == place + lag_frames) & (lag_frames > 0))
    if len(now) == 0:
        raise InputError(
            f"no two frames of a group are {lag_frames} frames apart, for slow coordinates: choose another lag"
        )
    return now, first[found[now]]


def fit_slow_coordinates(
    now: Float[np.ndarray, "pairs features"],
    later: Float[np.ndarray, "pairs features"],
    lag_frames: int,
    n_coordinates: int = 2,
) -> SlowCoordinates:
    """Return the slow coordinates of frames under their own dynamics, taken as reversible.

    Under replica exchange that dynamics includes the swaps: the coordinates are slow ones of the ensemble, and the
    timescales no times of the molecule.

    Args:
        now: features of frames.
        later: the same of those that :func:`lagged_pairs` found for them.
        lag_frames: between the two [frames].
        n_coordinates: how many to keep.

    Raises:
        InputError: NaN, or fewer features that vary than coordinates.

    References:
        Molgedey & Schuster 1994, Phys. Rev. Lett. 72:3634; Perez-Hernandez et al. 2013, J. Chem. Phys. 139:015102.
    """
    from deeptime.decomposition import TICA

    refuse_nan(now, "features")
    refuse_nan(later, "features")
    model = TICA(lagtime=lag_frames, dim=n_coordinates, scaling=None).fit_fetch(
        (now.astype(np.float64), later.astype(np.float64))
    )
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


def plane_limits(reference: Float[np.ndarray, "references 2"]) -> Limits:
    """Return the range of a reference and 5 % on either side of it, of each coordinate."""
    low, high = reference.min(axis=0), reference.max(axis=0)
    margin = _MARGIN * (high - low)
    (left, bottom), (right, top) = (low - margin).tolist(), (high + margin).tolist()
    return (left, right), (bottom, top)


def plane_divergence(
    sample: Float[np.ndarray, "samples 2"],
    reference: Float[np.ndarray, "references 2"],
    log_w: Float[np.ndarray, " samples"] | None = None,
    *,
    limits: Limits,
) -> float:
    """Return the Jensen-Shannon divergence [nats] in a plane of two coordinates.

    100 bins a side between the limits, and one outlier bin at each end.

    Args:
        sample: of the model; infinite ones are outliers.
        reference: to compare with.
        log_w: unnormalised log weights of the sample.
        limits: of each coordinate; a sample must not decide them.
    """
    refuse_nan(sample, "sample")
    p, q = (_shares(points, limits, _BINS, weights) for points, weights in ((sample, log_w), (reference, None)))
    return jensen_shannon(p, q)


def plane_free_energy(
    points: Float[np.ndarray, "samples 2"],
    limits: Limits,
    *,
    groups: Shaped[np.ndarray, " samples"] | None = None,
    log_w: Float[np.ndarray, " samples"] | None = None,
    bins: int = 64,
) -> FreeEnergySurface:
    """Return the (weighted) free energy over a plane; what lies beyond the limits has its share and no bin.

    Args:
        points: infinite ones lie beyond.
        limits: of each coordinate.
        groups: as in :func:`~boltzgen_diffclf.observables.ramachandran.free_energy_surface`.
        log_w: unnormalised log weights.
        bins: a side.

    Raises:
        InputError: on NaN.
    """
    refuse_nan(points, "points")
    cell = _cells(points, limits, bins)
    inner = np.arange((bins + 2) ** 2).reshape(bins + 2, bins + 2)[1:-1, 1:-1]
    probability, stderr = binned_free_energy(cell, (bins + 2) ** 2, groups, log_w)
    return FreeEnergySurface(probability[inner], stderr[inner])


def unvisited_in_plane(
    sample: Float[np.ndarray, "samples 2"], reference: Float[np.ndarray, "references 2"], limits: Limits, bins: int = 12
) -> float:
    """Return the share of a reference that lies where no sample is, in wide bins: what no weight can make good."""
    known = np.zeros((bins + 2) ** 2, dtype=np.bool_)
    known[_cells(sample, limits, bins)] = True
    return float((~known[_cells(reference, limits, bins)]).mean())


def _shares(
    points: Float[np.ndarray, "samples 2"],
    limits: Limits,
    bins: int,
    log_w: Float[np.ndarray, " samples"] | None,
) -> Float[np.ndarray, " bins"]:
    weights = sample_weights(log_w, len(points))
    return np.bincount(_cells(points, limits, bins), weights, minlength=(bins + 2) ** 2)


def _cells(points: Float[np.ndarray, "samples 2"], limits: Limits, bins: int) -> Int[np.ndarray, " samples"]:
    """Return the flat bin of every point, of so many between the limits and one beyond each."""
    edges = (np.linspace(*ends, bins + 1) for ends in limits)
    first, second = (np.searchsorted(line, values) for line, values in zip(edges, points.T, strict=True))
    return np.asarray(first * (bins + 2) + second)
