"""The planes of two coordinates that the maps of the Ramachandran page are drawn over."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from jaxtyping import Float

from boltzgen_diffclf.observables import (
    FreeEnergySurface,
    free_energy_surface,
    pooled_range_jensen_shannon,
    ramachandran_jensen_shannon,
    ramachandran_pmf_error,
    torsion_angles,
    unvisited_share,
)
from systems.conformers import residue_pairs
from systems.legs import Quadruple
from systems.molecular import MolecularSystem
from workflows.ramachandran_samples import Sample

BINS = 48
"""A side of the maps on the page, whose bins are counted."""

DIVERGENCES: Mapping[str, Callable[..., float]] = {
    "js": ramachandran_jensen_shannon,
    "js_pooled_range": pooled_range_jensen_shannon,
    "pmf_error": ramachandran_pmf_error,
}
"""Of two sets of (phi, psi), the first perhaps weighted, by name."""

Points = Float[np.ndarray, "frames 2"]


class Plane(Protocol):
    """Two coordinates of a configuration, and how samples are compared in them."""

    @property
    def divergences(self) -> Mapping[str, Callable[..., float]]:
        """Of two sets of points, the first perhaps weighted, by name."""

    def metric(self, name: str) -> str:
        """Return what a metric of this plane is called."""

    def points(self, positions: Float[np.ndarray, "frames beads 3"]) -> Points:
        """Return the coordinates of configurations [nm]."""

    def surface(self, sample: Sample, points: Points) -> FreeEnergySurface:
        """Return the free energy of a sample whose points these are."""

    def unvisited(self, sample: Points, reference: Points) -> float:
        """Return the share of the reference that lies where no point of a sample is."""


@dataclass(frozen=True)
class TorsionPlane:
    """phi and psi of one residue.

    Attributes:
        residue: its name; empty where it is the only one.
        phi: atoms of the torsion, in the numbers of the beads.
        psi: the same.
    """

    residue: str
    phi: Quadruple
    psi: Quadruple

    @property
    def divergences(self) -> Mapping[str, Callable[..., float]]:
        """See :class:`Plane`."""
        return DIVERGENCES

    def metric(self, name: str) -> str:
        """Return what a metric of this plane is called.

        >>> TorsionPlane("ALA2", (0, 1, 2, 3), (1, 2, 3, 4)).metric("js")
        'js[ALA2]'
        """
        return f"{name}[{self.residue}]" if self.residue else name

    def points(self, positions: Float[np.ndarray, "frames beads 3"]) -> Points:
        """Return phi and psi [rad] of configurations in any unit of length."""
        return torsion_angles(positions, np.array([self.phi, self.psi])).astype(np.float64)

    def surface(self, sample: Sample, points: Points) -> FreeEnergySurface:
        """Return the free energy of a sample whose points these are."""
        return free_energy_surface(*points.T, groups=sample.groups, log_w=sample.log_w, bins=BINS)

    def unvisited(self, sample: Points, reference: Points) -> float:
        """Return the share of the reference that lies where no point of a sample is."""
        return unvisited_share(sample, reference)


def torsion_planes(beads: MolecularSystem) -> tuple[TorsionPlane, ...]:
    """Return a plane for every residue whose phi and psi are among the beads, in the order of the chain."""
    return tuple(
        TorsionPlane(residue, beads.torsions[phi], beads.torsions[psi])
        for residue, (phi, psi) in residue_pairs(beads).items()
    )
