"""Whether configurations are still the molecule: bonds, clashes and chirality, counted and never dropped."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from jaxtyping import Bool, Float, Int

from boltzgen_diffclf.errors import InputError
from boltzgen_diffclf.estimators.groups import refuse_nan
from boltzgen_diffclf.observables.chirality import handedness, reference_handedness, stereocentres
from boltzgen_diffclf.observables.geometry import distances

LARGEST_STRETCH = 0.25
"""Change of a bond's length, as a share of it, that breaks it: nine standard deviations of a C-H bond at 300 K."""

BONDING_TOLERANCE_NM = 0.045
"""Added to two covalent radii, it is the distance below which two atoms are drawn as bonded [nm]."""

COVALENT_RADII_NM: Mapping[str, float] = MappingProxyType(
    {
        "H": 0.031,
        "B": 0.084,
        "C": 0.076,
        "N": 0.071,
        "O": 0.066,
        "F": 0.057,
        "Si": 0.111,
        "P": 0.107,
        "S": 0.105,
        "Cl": 0.102,
        "Br": 0.120,
        "I": 0.139,
    }
)
"""Covalent radii [nm] (Cordero et al. 2008, Dalton Trans. 2832)."""

_FRAMES_AT_ONCE = 4096


@dataclass(frozen=True)
class Integrity:
    """Which configurations are not the molecule.

    Attributes:
        stretched: a bond's length is off by more than :data:`LARGEST_STRETCH`.
        clashing: two atoms without a bond are so close that they would be drawn as bonded.
        mirrored: a stereocentre has the other hand.
    """

    stretched: Bool[np.ndarray, " frames"]
    clashing: Bool[np.ndarray, " frames"]
    mirrored: Bool[np.ndarray, " frames"]

    @property
    def n_frames(self) -> int:
        """Number of configurations."""
        return len(self.stretched)

    @property
    def broken(self) -> Bool[np.ndarray, " frames"]:
        """Which configurations have any fault."""
        return self.stretched | self.clashing | self.mirrored

    @property
    def broken_share(self) -> float:
        """Share of configurations with any fault."""
        return float(self.broken.mean())


def integrity(
    positions: Float[np.ndarray, "frames atoms 3"],
    reference: Float[np.ndarray, "atoms 3"],
    elements: Sequence[str],
    bonds: Sequence[tuple[int, int]],
    centres: Int[np.ndarray, "centres 4"] | None = None,
) -> Integrity:
    """Return which configurations are broken, clashing or mirrored.

    Args:
        positions: [nm].
        reference: one configuration with the right bonds and the right hand [nm].
        elements: symbol of each atom, or of each bead's own atom.
        bonds: index pairs.
        centres: stereocentre and three of its neighbours, a row each; those of the topology when None, which has none
            where hydrogens are missing.

    Raises:
        InputError: NaN, no configuration, an element without a radius, a reference that is broken or flat.

    References:
        Meng & Lewis 1991, J. Comput. Chem. 12:891 (bonds from covalent radii).
    """
    refuse_nan(positions, "positions")
    if len(positions) == 0:
        raise InputError("no configurations to look at; the sampler returned nothing")
    if centres is None:
        centres = stereocentres(elements, bonds)
    bonded = np.array(bonds, dtype=np.int64).reshape(-1, 2)
    lengths = distances(reference[None], bonded)[0]
    hands = reference_handedness(reference, centres)
    pairs, limits = _contact_limits(elements, bonds)
    if (distances(reference[None], pairs)[0] < limits).any():
        raise InputError("the reference configuration has a clash; give one that is a molecule")
    parts = np.array_split(positions, -(-len(positions) // _FRAMES_AT_ONCE))
    return Integrity(
        np.concatenate([_is_stretched(part, bonded, lengths) for part in parts]),
        np.concatenate([(distances(part, pairs) < limits).any(axis=1) for part in parts]),
        np.concatenate([(handedness(part, centres) != hands).any(axis=1) for part in parts]),
    )


def _is_stretched(
    positions: Float[np.ndarray, "frames atoms 3"],
    bonds: Int[np.ndarray, "bonds 2"],
    lengths: Float[np.ndarray, " bonds"],
) -> Bool[np.ndarray, " frames"]:
    change = np.abs(distances(positions, bonds) / lengths - 1)
    return np.asarray((change > LARGEST_STRETCH).any(axis=1))


def _contact_limits(
    elements: Sequence[str], bonds: Sequence[tuple[int, int]]
) -> tuple[Int[np.ndarray, "pairs 2"], Float[np.ndarray, " pairs"]]:
    """Return the pairs without a bond and the distance [nm] below which they clash."""
    unknown = sorted(set(elements) - set(COVALENT_RADII_NM))
    if unknown:
        raise InputError(f"no covalent radius for {', '.join(unknown)} (known: {', '.join(COVALENT_RADII_NM)})")
    radii = np.array([COVALENT_RADII_NM[element] for element in elements])
    bonded = {(min(bond), max(bond)) for bond in bonds}
    apart = [pair for pair in itertools.combinations(range(len(elements)), 2) if pair not in bonded]
    pairs = np.array(apart, dtype=np.int64).reshape(-1, 2)
    return pairs, radii[pairs].sum(axis=1) + BONDING_TOLERANCE_NM
