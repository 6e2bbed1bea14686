"""The settings of ``workflows.solvation``, judged as they are made; nothing heavy is imported here."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, field_validator, model_validator
from pydantic.dataclasses import dataclass
from pydantic_core import ArgsKwargs

from boltzgen_diffclf.errors import nearest_name
from workflows.leg_settings import PAIR_LEGS, LegName, LegSettings
from workflows.shared_settings import (
    ExchangeTemperatures,
    Threads,
    filled_from_preset,
    refuse_falling_ladder,
    refuse_what_openmm_ignores,
)
from workflows.solvation_estimators import ESTIMATORS, what_is_missing
from workflows.solvation_presets import PRESETS

STATES = ("vacuum", "nonpolar", "implicit")
"""States that a molecule may have, and of which ``--trajectory`` can give frames."""


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid", allow_inf_nan=False))
class SolvationConfig(LegSettings):
    """Solvation free energy of a molecule by classical and learned estimators, with error bars that hold.

    The same command resumes a run that was stopped. Every value is F_B - F_A: total = vacuum to implicit,
    nonpolar = vacuum to nonpolar, polar = nonpolar to implicit. Two more legs are computed alone, each in one state:
    conformers = the rest of it to a basin of it, forcefield = the molecule's own force field to another.
    """

    # A preset fills what is not given when the object is made: dataclasses.replace keeps the numbers it had.

    preset: Annotated[
        Literal["quick", "standard", "paper"],
        Field(description="Size of the run: minutes on a laptop, larger, or the published sizes on a GPU."),
    ] = "quick"
    temperature_kelvin: Annotated[float, Field(ge=100, le=1000, description="Temperature [K].")] = 300.0
    out: Annotated[
        Path | None,
        Field(description="Folder of the run (runs/solvation-SYSTEM-PRESET-seedSEED where not given)."),
    ] = None
    engine: Annotated[
        Literal["compiled", "openmm"],
        Field(
            description="What samples the states: the batched compiled force field, or OpenMM's own dynamics, slower "
            "and without replica exchange."
        ),
    ] = "compiled"
    seed: Annotated[int, Field(ge=0, description="Root seed of every random stream.")] = 0
    device: Annotated[Literal["auto", "cpu", "cuda"], Field(description="Where to compute.")] = "auto"
    threads: Threads = None
    estimators: Annotated[
        tuple[str, ...],
        Field(
            min_length=1,
            description="Estimators to run, by name: all, "
            + ", ".join(ESTIMATORS)
            + "; rows that they rest on come along.",
        ),
    ] = ("all",)
    trajectory: Annotated[
        tuple[str, ...],
        Field(description="Your own frames of a state, as STATE=FILE (h5, dcd, nc, trr or dtr)."),
    ] = ()
    walkers: Annotated[int, Field(ge=2, description="Walkers at each temperature.")] = PRESETS["quick"]["walkers"]
    exchange_temperatures: ExchangeTemperatures = None
    highest_temperature_kelvin: Annotated[
        float, Field(ge=100, le=5000, description="Hottest temperature of replica exchange [K].")
    ] = PRESETS["quick"]["highest_temperature_kelvin"]
    frames_per_walker: Annotated[int, Field(ge=2, description="Frames kept of each walker and state.")] = PRESETS[
        "quick"
    ]["frames_per_walker"]
    steps_per_frame: Annotated[int, Field(ge=1, description="Langevin steps between frames.")] = PRESETS["quick"][
        "steps_per_frame"
    ]
    timestep_fs: Annotated[float, Field(gt=0, le=4, description="Langevin time step [fs].")] = PRESETS["quick"][
        "timestep_fs"
    ]
    equilibration_frames: Annotated[int, Field(ge=0, description="Frames thrown away at the start.")] = PRESETS[
        "quick"
    ]["equilibration_frames"]
    training_steps: Annotated[int, Field(ge=1, description="Optimiser steps of each internal-coordinate network.")] = (
        PRESETS["quick"]["training_steps"]
    )
    batch_groups: Annotated[int, Field(ge=1, description="Groups of levels in a training batch.")] = PRESETS["quick"][
        "batch_groups"
    ]
    levels_per_group: Annotated[
        int, Field(ge=2, description="Levels a group: N of the N-level classification loss.")
    ] = PRESETS["quick"]["levels_per_group"]
    path_levels: Annotated[
        int, Field(ge=5, description="Levels of the learned path, both exact ends included; 4 n + 1.")
    ] = PRESETS["quick"]["path_levels"]
    pool: Annotated[
        int,
        Field(ge=100, description="Path configurations at each level for training, and half as many for estimates."),
    ] = PRESETS["quick"]["pool"]
    ablation_legs: Annotated[
        tuple[LegName, ...],
        Field(description="Legs on which the ablation rows are trained too."),
    ] = PRESETS["quick"]["ablation_legs"]
    training_seeds: Annotated[
        int, Field(ge=2, description="Replicates: training seeds, each on its own share of the walkers.")
    ] = PRESETS["quick"]["training_seeds"]
    hidden: Annotated[tuple[int, ...], Field(min_length=1, description="Widths of the hidden layers.")] = PRESETS[
        "quick"
    ]["hidden"]
    anneal_levels: Annotated[int, Field(ge=3, description="Levels of annealing along the learned path.")] = PRESETS[
        "quick"
    ]["anneal_levels"]
    anneal_particles: Annotated[
        int,
        Field(
            ge=2,
            description="Particles a replicate and direction on the learned path; 8 times as many on the straight one.",
        ),
    ] = PRESETS["quick"]["anneal_particles"]
    relaxation_steps: Annotated[
        int, Field(ge=0, description="MALA steps on the learned energies before MBAR; 0 leaves that row out.")
    ] = PRESETS["quick"]["relaxation_steps"]
    cartesian_steps: Annotated[
        int, Field(ge=0, description="Optimiser steps of the Cartesian network; 0 leaves that route out.")
    ] = PRESETS["quick"]["cartesian_steps"]

    @model_validator(mode="before")
    @classmethod
    def _fill_from_preset(cls, given: ArgsKwargs) -> ArgsKwargs:
        return filled_from_preset(given, PRESETS)

    @field_validator("estimators")
    @classmethod
    def _known_estimators(cls, estimators: tuple[str, ...]) -> tuple[str, ...]:
        valid = ["all", *ESTIMATORS]
        for name in estimators:
            if name not in valid:
                raise ValueError(f"unknown estimator '{name}' (valid: {', '.join(valid)}){nearest_name(name, valid)}")
        return estimators

    @field_validator("trajectory")
    @classmethod
    def _known_states(cls, trajectory: tuple[str, ...]) -> tuple[str, ...]:
        seen: dict[str, str] = {}
        for entry in trajectory:
            state, equals, file = entry.partition("=")
            if not equals or not file:
                raise ValueError(f"'{entry}' is not written STATE=FILE")
            if state not in STATES:
                raise ValueError(
                    f"unknown state '{state}' (valid: {', '.join(STATES)}){nearest_name(state, list(STATES))}"
                )
            if state in seen:
                raise ValueError(f"two trajectories of '{state}', {seen[state]} and {file}: give one of them")
            seen[state] = file
        return trajectory

    @field_validator("path_levels")
    @classmethod
    def _levels_in_fours(cls, levels: int) -> int:
        if (levels - 1) % 4:
            raise ValueError(f"{levels} is not 4 n + 1: take {levels - (levels - 1) % 4}")
        return levels

    @field_validator("hidden")
    @classmethod
    def _one_width(cls, hidden: tuple[int, ...]) -> tuple[int, ...]:
        if min(hidden) < 1 or len(set(hidden)) > 1:
            raise ValueError(f"all layers have one width of 1 or more, got {' '.join(map(str, hidden))}")
        return hidden

    @model_validator(mode="after")
    def _sizes_fit(self) -> SolvationConfig:
        if self.walkers < self.walkers_wanted:
            raise ValueError(
                f"--walkers {self.walkers} leaves some of --training-seeds {self.training_seeds} replicates one "
                f"walker, and an error bar needs two: raise --walkers to {self.walkers_wanted}"
            )
        if self.levels_per_group > self.path_levels:
            raise ValueError(
                f"--levels-per-group {self.levels_per_group} is more than --path-levels {self.path_levels}: lower it"
            )
        return self

    @model_validator(mode="after")
    def _ladder_goes_up(self) -> SolvationConfig:
        refuse_falling_ladder(self)
        return self

    @model_validator(mode="after")
    def _pair_is_compiled(self) -> SolvationConfig:
        if self.leg in PAIR_LEGS and self.engine == "openmm":
            raise ValueError(
                f"--leg {self.leg} samples states that have no OpenMM System: leave --engine openmm out, or take "
                "another leg"
            )
        return self

    @model_validator(mode="after")
    def _rows_come_about(self) -> SolvationConfig:
        for name in self.estimators:
            if name != "all" and (missing := what_is_missing(name, self)):
                raise ValueError(f"--estimators {name} would give no row: {missing}")
        return self

    @model_validator(mode="after")
    def _engine_knows_them(self) -> SolvationConfig:
        refuse_what_openmm_ignores(self, PRESETS)
        return self

    @property
    def command(self) -> str:
        """What to type to get this result again."""
        from workflows.settings_file import settings_values

        default = settings_values(SolvationConfig(preset=self.preset))
        changed = {key: value for key, value in settings_values(self).items() if value != default.get(key)}
        words = [f"--preset {self.preset}"]
        words += [] if self.system is None else [f"--system {self.system}"]
        for key, value in changed.items():
            if key == "system":
                continue
            several = value if isinstance(value, list | tuple) else [value]
            words.append(f"--{key.replace('_', '-')} {shlex.join(map(str, several))}")
        return " ".join(["python -m workflows.solvation", *words])

    @property
    def shown_settings(self) -> dict[str, Any]:
        """The effective settings as plain values."""
        from workflows.settings_file import settings_values

        return settings_values(self)

    @property
    def folder(self) -> Path:
        """Folder of the run."""
        words = ["solvation", self.system_name, *self.pair_words, self.preset, f"seed{self.seed}"]
        return self.out or Path("runs") / "-".join(words)

    @property
    def walkers_wanted(self) -> int:
        """How many walkers the replicates want, two each: one shows no scatter."""
        return 2 * self.training_seeds

    @property
    def trajectory_files(self) -> dict[str, Path]:
        """The user's own trajectory of each state that has one."""
        pairs = (entry.partition("=") for entry in self.trajectory)
        return {state: Path(file) for state, _, file in pairs}

    def wants(self, estimator: str) -> bool:
        """Return whether a row is to be computed."""
        return "all" in self.estimators or estimator in self.estimators
