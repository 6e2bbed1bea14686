"""Frames that come with the package: what takes hours to sample and is small enough to carry."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from systems.molecular import MolecularSystem
from systems.store import load_ensemble

ALL_ATOMS = "all_atom_system_hash"
"""Setting in the provenance of such frames: the fingerprint of the state of all atoms that was sampled."""


class _Sampled(NamedTuple):
    system: str
    beads: str
    state: str
    temperature_kelvin: float


_FILES: Mapping[_Sampled, str] = MappingProxyType(
    {_Sampled("chignolin", "ca", "implicit", 340.0): "chignolin-ca-implicit-340K.h5"}
)


def packaged_frames(system: MolecularSystem, beads: str, state: str, temperature_kelvin: float) -> Path | None:
    """Return the file of frames of a state that the package brings, or None where there is none.

    Each is what :func:`~systems.user_trajectory.read_frames` reads: positions of the beads alone, rounded to 1e-4 nm,
    and the simulation that each frame belongs to. Its provenance tells the command that sampled all atoms. Another
    molecule of the same name, or the same one with other parameters, has none.

    Args:
        system: all atoms.
        beads: one of :data:`~systems.beads.BEADS`.
        state: of the system.
        temperature_kelvin: [K].
    """
    name = _FILES.get(_Sampled(system.name, beads, state, temperature_kelvin))
    if name is None:
        return None
    file = Path(__file__).parent / "data" / name
    sampled = load_ensemble(file).provenance.settings[ALL_ATOMS]
    return file if sampled == system.system_hash(state) else None
