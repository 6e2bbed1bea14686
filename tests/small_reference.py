"""A reference ensemble in seconds: far from equilibrium, and right in everything else."""

from __future__ import annotations

import os
from pathlib import Path

import systems
from systems.molecular import MolecularSystem
from systems.reference import ReferenceSettings, generate


def small_reference(folder: Path, state: str, system: MolecularSystem | None = None) -> Path:
    """Return the file of 96 frames of alanine dipeptide, or of another molecule, six walkers, sampled eagerly."""
    os.environ["BOLTZGEN_EAGER"] = "1"
    path = folder / f"{state}.h5"
    settings = ReferenceSettings(
        walkers=6,
        temperatures_kelvin=(300.0,),
        frames_per_walker=16,
        steps_per_frame=10,
        steps_per_sweep=10,
        equilibration_frames=2,
        hot_start_steps=10,
    )
    generate(system or systems.load("aldp"), state, 300.0, settings, path)
    return path
