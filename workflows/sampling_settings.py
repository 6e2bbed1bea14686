"""How many samples a trained energy of a molecule is asked for; nothing heavy is imported here."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

SAMPLING_PRESETS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "quick": {"samples": 10_000, "chains": 500, "frames_per_chain": 20, "equilibration_frames": 20},
        "standard": {"samples": 50_000, "chains": 1000, "frames_per_chain": 100, "equilibration_frames": 100},
    }
)
"""Sizes of both samplers."""

BRIDGE_KEEPS = 0.9
"""Conditional effective fraction that each step to the true energy keeps, where nothing else is asked for."""

END_MOVES = 50
"""Proposals of each particle at the true energy, where nothing else is asked for."""

TIMESTEPS_FS: Mapping[str, float] = MappingProxyType({"all": 1.0, "heavy": 2.0, "backbone": 3.0, "ca": 3.0})
"""Time steps of Langevin chains by what is learned: bonds of hydrogens are fast, and beyond the width of the data a
learned energy is stiffer than the bonds."""


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid", allow_inf_nan=False))
class SamplingSettings:
    """Samples of the reversed noising, and Langevin chains on the energy at the least noise."""

    samples: Annotated[
        int, Field(ge=2, description="Independent samples of the reversed noising; also particles that energies weigh.")
    ] = SAMPLING_PRESETS["quick"]["samples"]
    reverse_levels: Annotated[int, Field(ge=2, description="Noise levels that they pass through.")] = 256
    solver: Annotated[
        Literal["ddpm", "ddim", "heun", "euler_maruyama"],
        Field(
            description="Of the reversed noising: exact given the denoised sample, with or without fresh noise; of "
            "second order without; or Euler's rule, which wants many levels."
        ),
    ] = "ddpm"
    resampling: Annotated[
        Literal["systematic", "stratified", "residual", "multinomial"],
        Field(description="Scheme by which particles live on."),
    ] = "systematic"
    resample_below: Annotated[
        float, Field(ge=0, le=1, description="Effective fraction of the particles below which they are resampled.")
    ] = 0.5
    bridge_keeps: Annotated[
        float,
        Field(
            gt=0,
            lt=1,
            description="Share of effective samples that each step towards the true energy keeps, of all atoms.",
        ),
    ] = BRIDGE_KEEPS
    end_moves: Annotated[
        int,
        Field(ge=0, description="Proposals of Hamiltonian Monte Carlo of each of them at the true energy, at the end."),
    ] = END_MOVES
    chains: Annotated[int, Field(ge=2, description="Langevin chains.")] = SAMPLING_PRESETS["quick"]["chains"]
    chains_begin: Annotated[
        Literal["one", "samples"],
        Field(
            description="Where they begin: all at one configuration, so that they have to find the other basins, or "
            "each at an independent sample of the reversed noising, so that they have to stay in the right ones."
        ),
    ] = "one"
    frames_per_chain: Annotated[int, Field(ge=1, description="Frames kept of each chain.")] = SAMPLING_PRESETS["quick"][
        "frames_per_chain"
    ]
    equilibration_frames: Annotated[int, Field(ge=0, description="Frames thrown away at the start of each chain.")] = (
        SAMPLING_PRESETS["quick"]["equilibration_frames"]
    )
    steps_per_frame: Annotated[int, Field(ge=1, description="Langevin steps between frames.")] = 500
    timestep_fs: Annotated[
        float | None,
        Field(
            gt=0,
            le=10,
            description="Langevin time step [fs]; where not given, "
            + ", ".join(f"{step:g} of {beads}" for beads, step in TIMESTEPS_FS.items())
            + ".",
        ),
    ] = None
    friction_per_ps: Annotated[float, Field(gt=0, description="Langevin friction [1/ps].")] = 1.0

    @property
    def chosen_of_weighting(self) -> tuple[str, ...]:
        """Options of carrying samples to the true energy that are not as usual, each with its value."""
        several = (
            ("--bridge-keeps", self.bridge_keeps, BRIDGE_KEEPS),
            ("--end-moves", self.end_moves, END_MOVES),
        )
        return tuple(f"{option} {value}" for option, value, usual in several if value != usual)
