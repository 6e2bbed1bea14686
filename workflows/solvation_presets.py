"""The presets of ``workflows.solvation``: what each size of a run sets."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

PRESETS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "quick": {
            "walkers": 64,
            "highest_temperature_kelvin": 800.0,
            "frames_per_walker": 440,
            "steps_per_frame": 200,
            "timestep_fs": 2.5,
            "equilibration_frames": 40,
            "path_levels": 33,
            "pool": 5000,
            "training_steps": 700,
            "batch_groups": 128,
            "levels_per_group": 4,
            "training_seeds": 3,
            "ablation_legs": ("total",),
            "hidden": (128, 128, 128),
            "anneal_levels": 17,
            "anneal_particles": 512,
            "relaxation_steps": 0,
            "cartesian_steps": 0,
        },
        "standard": {
            "walkers": 128,
            "highest_temperature_kelvin": 800.0,
            "frames_per_walker": 500,
            "steps_per_frame": 200,
            "timestep_fs": 2.5,
            "equilibration_frames": 50,
            "path_levels": 33,
            "pool": 15000,
            "training_steps": 1500,
            "batch_groups": 256,
            "levels_per_group": 4,
            "training_seeds": 4,
            "ablation_legs": ("total", "polar"),
            "hidden": (128, 128, 128),
            "anneal_levels": 17,
            "anneal_particles": 2048,
            "relaxation_steps": 30,
            "cartesian_steps": 600,
        },
        "paper": {
            "walkers": 250,
            "highest_temperature_kelvin": 800.0,
            "frames_per_walker": 1000,
            "steps_per_frame": 1000,
            "timestep_fs": 2.5,
            "equilibration_frames": 100,
            "path_levels": 65,
            "pool": 20000,
            "training_steps": 25000,
            "batch_groups": 256,
            "levels_per_group": 4,
            "training_seeds": 5,
            "ablation_legs": ("total", "polar", "nonpolar"),
            "hidden": (128, 128, 128),
            "anneal_levels": 129,
            "anneal_particles": 8192,
            "relaxation_steps": 30,
            "cartesian_steps": 25000,
        },
    }
)
"""What each preset sets; ``paper`` is the published sizes, for a GPU.

Walkers times temperatures, four for a small molecule, fill whole blocks of the compiled force field, 256 configurations
on two threads: 72 walkers at four temperatures would cost as much as 128.
"""
