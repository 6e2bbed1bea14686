"""The plane of the two slowest coordinates of a molecule, which the reference alone decides."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
from jaxtyping import Float

from boltzgen_diffclf.errors import InputError
from boltzgen_diffclf.observables import (
    FreeEnergySurface,
    Limits,
    SlowCoordinates,
    distance_features,
    fit_slow_coordinates,
    lagged_pairs,
    plane_divergence,
    plane_free_energy,
    plane_limits,
    torsion_angles,
    torsion_features,
    unvisited_in_plane,
)
from systems.ensemble import ReferenceEnsemble
from systems.legs import Quadruple
from systems.molecular import MolecularSystem
from workflows.ramachandran_planes import BINS, Points
from workflows.ramachandran_samples import Sample

LAGS_IN_A_WALKER = 40
"""The lag is this part of the frames of a walker, where none is given."""

MOST_BEADS = 40
"""Beads whose distances of all pairs are still few enough to be features."""


@dataclass(frozen=True)
class Features:
    """What slow coordinates are made of: sines and cosines of torsions, else distances of all pairs and dihedrals.

    Attributes:
        torsions: atoms of each torsion, or of each dihedral of four beads along the chain.
        distances: whether the distances of all pairs go with them.
    """

    torsions: tuple[Quadruple, ...]
    distances: bool

    def __call__(self, positions: Float[np.ndarray, "frames beads 3"]) -> Float[np.ndarray, "frames features"]:
        """Return the features of configurations [nm]."""
        quadruples = np.array(self.torsions, dtype=np.int64).reshape(-1, 4)
        found = torsion_features(torsion_angles(positions, quadruples).astype(np.float64))
        return np.concatenate([found, distance_features(positions)], axis=1) if self.distances else found

    @property
    def about(self) -> str:
        """What they are, in words."""
        if self.distances:
            return f"distances of all pairs of beads, cosines and sines of {len(self.torsions)} dihedrals of the chain"
        return f"cosines and sines of {len(self.torsions)} named torsions"


@dataclass(frozen=True, eq=False)
class SlowPlane:
    """The two slowest coordinates of the reference.

    Attributes:
        features: of a configuration.
        slow: their combinations.
        limits: of both, the range of the reference and a margin.
        lag_frames: of the correlation.
        lag_ps: the same [ps]; 0 where unknown.
    """

    features: Features
    slow: SlowCoordinates
    limits: Limits
    lag_frames: int
    lag_ps: float

    @property
    def divergences(self) -> Mapping[str, Callable[..., float]]:
        """See :class:`~workflows.ramachandran_planes.Plane`."""
        return {"js": partial(plane_divergence, limits=self.limits)}

    @property
    def about(self) -> str:
        """How the coordinates were found, in a sentence."""
        lag = f"{self.lag_frames} frame{'s' if self.lag_frames > 1 else ''}" + (
            f" ({self.lag_ps:g} ps)" if self.lag_ps else ""
        )
        times = " and ".join(f"{time:.3g}" for time in self.slow.timescales)
        return (
            f"TICA of {self.features.about}, fitted on the reference at a lag of {lag}; under the dynamics of its "
            f"walkers, with their swaps and any bias, the two coordinates decay within {times} frames."
        )

    def metric(self, name: str) -> str:
        """Return what a metric of this plane is called."""
        return f"tica_{name}"

    def points(self, positions: Float[np.ndarray, "frames beads 3"]) -> Points:
        """Return the coordinates of configurations [nm]."""
        return self.slow.project(self.features(positions))

    def surface(self, sample: Sample, points: Points) -> FreeEnergySurface:
        """Return the free energy of a sample whose points these are."""
        return plane_free_energy(points, self.limits, groups=sample.groups, log_w=sample.log_w, bins=BINS)

    def unvisited(self, sample: Points, reference: Points) -> float:
        """Return the share of the reference that lies where no point of a sample is."""
        return unvisited_in_plane(sample, reference, self.limits)


def features_of(beads: MolecularSystem) -> Features:
    """Return the features of beads.

    Raises:
        InputError: beads without torsions that are too many for the distances of all pairs.
    """
    if beads.torsions:
        return Features(tuple(beads.torsions.values()), distances=False)
    if beads.n_atoms > MOST_BEADS:
        raise InputError(
            f"slow coordinates of {beads.n_atoms} beads without named torsions would be made of "
            f"{beads.n_atoms * (beads.n_atoms - 1) // 2} distances (at most {MOST_BEADS} beads)"
        )
    bonds = set(beads.bonds)
    chains = [(start, start + 1, start + 2, start + 3) for start in range(beads.n_atoms - 3)]
    return Features(tuple(chain for chain in chains if set(itertools.pairwise(chain)) <= bonds), distances=True)


def slow_plane(beads: MolecularSystem, frames: ReferenceEnsemble, lag_frames: int | None) -> SlowPlane:
    """Return the plane of the two slowest coordinates of a reference.

    Args:
        beads: what the frames are of.
        frames: of the reference, which decides coordinates and limits.
        lag_frames: of the correlation; where not given, a fortieth of a walker's frames.

    Raises:
        InputError: fewer than two features that vary, too many beads, or walkers shorter than the lag.
    """
    features = features_of(beads)
    lag = lag_frames or max(1, int(frames.frame.max() - frames.frame.min() + 1) // LAGS_IN_A_WALKER)
    found = features(frames.positions.numpy())
    now, later = lagged_pairs(frames.group.numpy(), frames.frame.numpy(), lag)
    slow = fit_slow_coordinates(found[now], found[later], lag)
    return SlowPlane(features, slow, plane_limits(slow.project(found)), lag, lag * frames.frame_interval_ps)
