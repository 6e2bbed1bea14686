"""Frames that come with the package: what takes hours to sample and is small enough to carry."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

_FILES: Mapping[tuple[str, str, str, float], str] = MappingProxyType(
    {("chignolin", "ca", "implicit", 340.0): "chignolin-ca-implicit-340K.h5"}
)
"""By system, beads, state and temperature [K]."""


def packaged_frames(system: str, beads: str, state: str, temperature_kelvin: float) -> Path | None:
    """Return the file of frames of a state that the package brings, or None where there is none.

    Each is what :func:`~systems.user_trajectory.read_frames` reads: positions of the beads alone, rounded to 1e-4 nm,
    and the simulation that each frame belongs to. Its provenance tells the command that sampled it.

    Args:
        system: name of the system.
        beads: one of :data:`~systems.beads.BEADS`.
        state: of the system.
        temperature_kelvin: [K].

    >>> packaged_frames("aldp", "all", "implicit", 300.0) is None
    True
    """
    name = _FILES.get((system, beads, state, temperature_kelvin))
    return None if name is None else Path(__file__).parent / "data" / name
