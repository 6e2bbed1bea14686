"""``python -m workflows.solvation``: the solvation free energy of a molecule by several independent estimators."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import ConfigDict, Field, field_validator, model_validator
from pydantic.dataclasses import dataclass
from pydantic_core import ArgsKwargs

from boltzgen_diffclf.errors import InputError, NotTrustworthyError, nearest_name
from systems.registry import names
from workflows.command_line import run_command

if TYPE_CHECKING:
    from workflows.results import SolvationResult

STATES = ("vacuum", "nonpolar", "implicit")
ESTIMATORS = (
    "mbar",
    "bar",
    "ais",
    "no_network",
    "dsm_only",
    "diffclf_only",
    "dsm_diffclf",
    "exact_ends",
    "relaxed_mbar",
    "learned_ais",
    "cartesian",
)
"""Rows that ``--estimators`` can name."""

PRESETS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "quick": {
            "walkers": 64,
            "exchange_temperatures": 4,
            "highest_temperature_kelvin": 800.0,
            "frames_per_walker": 480,
            "steps_per_frame": 200,
            "timestep_fs": 2.5,
            "equilibration_frames": 40,
            "path_levels": 33,
            "pool": 5000,
            "training_steps": 800,
            "batch_groups": 128,
            "levels_per_group": 4,
            "training_seeds": 3,
            "ablation_legs": ("total",),
            "hidden": (128, 128, 128),
            "anneal_levels": 17,
            "anneal_particles": 512,
            "cartesian_steps": 0,
        },
        "standard": {
            "walkers": 128,
            "exchange_temperatures": 4,
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
            "cartesian_steps": 600,
        },
        "paper": {
            "walkers": 250,
            "exchange_temperatures": 4,
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
            "cartesian_steps": 25000,
        },
    }
)
"""What each preset sets; ``paper`` is the published sizes, for a GPU.

Walkers times temperatures fill whole blocks of the compiled force field, 256 configurations on two threads: 72 walkers
at four temperatures would cost as much as 128.
"""


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid", allow_inf_nan=False))
class SolvationConfig:
    """Solvation free energy of a molecule by classical and learned estimators, with error bars that hold.

    The same command resumes a run that was stopped. Every value is F_B - F_A: total = vacuum to implicit,
    nonpolar = vacuum to nonpolar, polar = nonpolar to implicit.
    """

    # A preset fills what is not given when the object is made: dataclasses.replace keeps the numbers it had.

    system: Annotated[str, Field(description="Molecular system, by name.")] = "aldp"
    preset: Annotated[
        Literal["quick", "standard", "paper"],
        Field(description="Size of the run: minutes on a laptop, larger, or the published sizes on a GPU."),
    ] = "quick"
    temperature_kelvin: Annotated[float, Field(ge=100, le=1000, description="Temperature [K].")] = 300.0
    leg: Annotated[
        Literal["all", "total", "polar", "nonpolar"], Field(description="Which free-energy difference to compute.")
    ] = "all"
    out: Annotated[
        Path | None,
        Field(description="Folder of the run (runs/solvation-SYSTEM-PRESET-seedSEED where not given)."),
    ] = None
    seed: Annotated[int, Field(ge=0, description="Root seed of every random stream.")] = 0
    device: Annotated[Literal["auto", "cpu", "cuda"], Field(description="Where to compute.")] = "auto"
    threads: Annotated[
        int | None,
        Field(ge=1, description="CPU threads (all cores, kept with the run, where not given)."),
    ] = None
    estimators: Annotated[
        tuple[str, ...],
        Field(min_length=1, description="Estimators to run, by name: " + ", ".join(ESTIMATORS) + "."),
    ] = ("all",)
    trajectory: Annotated[
        tuple[str, ...],
        Field(description="Your own frames of a state, as STATE=FILE (h5, dcd, nc, trr, dtr or binpos)."),
    ] = ()
    walkers: Annotated[int, Field(ge=2, description="Walkers at each temperature.")] = PRESETS["quick"]["walkers"]
    exchange_temperatures: Annotated[
        int, Field(ge=1, description="Temperatures of replica exchange, geometric from --temperature-kelvin up.")
    ] = PRESETS["quick"]["exchange_temperatures"]
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
        tuple[Literal["total", "polar", "nonpolar"], ...],
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
    cartesian_steps: Annotated[
        int, Field(ge=0, description="Optimiser steps of the Cartesian network; 0 leaves that route out.")
    ] = PRESETS["quick"]["cartesian_steps"]

    @model_validator(mode="before")
    @classmethod
    def _fill_from_preset(cls, given: ArgsKwargs) -> ArgsKwargs:
        named = dict(given.kwargs or {})
        preset = PRESETS.get(str(named.get("preset", "quick")), {})
        return ArgsKwargs(given.args, {**preset, **named})

    @field_validator("system")
    @classmethod
    def _known_system(cls, system: str) -> str:
        if system not in names():
            raise ValueError(f"unknown system (valid: {', '.join(names())}){nearest_name(system, list(names()))}")
        return system

    @field_validator("estimators")
    @classmethod
    def _known_estimators(cls, estimators: tuple[str, ...]) -> tuple[str, ...]:
        valid = ["all", *ESTIMATORS]
        for name in estimators:
            if name not in valid:
                raise ValueError(f"unknown estimator '{name}'{nearest_name(name, valid)}")
        return estimators

    @field_validator("trajectory")
    @classmethod
    def _known_states(cls, trajectory: tuple[str, ...]) -> tuple[str, ...]:
        for entry in trajectory:
            state, equals, file = entry.partition("=")
            if not equals or not file:
                raise ValueError(f"'{entry}' is not written STATE=FILE")
            if state not in STATES:
                raise ValueError(
                    f"unknown state '{state}' (valid: {', '.join(STATES)}){nearest_name(state, list(STATES))}"
                )
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
        if self.training_seeds > self.walkers:
            raise ValueError(
                f"--training-seeds {self.training_seeds} is more than --walkers {self.walkers}: each replicate needs "
                "walkers of its own"
            )
        if self.levels_per_group > self.path_levels:
            raise ValueError(
                f"--levels-per-group {self.levels_per_group} is more than --path-levels {self.path_levels}: lower it"
            )
        return self

    @model_validator(mode="after")
    def _ladder_goes_up(self) -> SolvationConfig:
        if self.exchange_temperatures > 1 and self.highest_temperature_kelvin <= self.temperature_kelvin:
            raise ValueError(
                f"--highest-temperature-kelvin {self.highest_temperature_kelvin} is not above "
                f"--temperature-kelvin {self.temperature_kelvin}: raise it, or set --exchange-temperatures 1"
            )
        return self

    @property
    def command(self) -> str:
        """What to type to get this result again."""
        from workflows.settings_file import settings_values

        default = settings_values(SolvationConfig(preset=self.preset))
        changed = {key: value for key, value in settings_values(self).items() if value != default.get(key)}
        words = [f"--preset {self.preset}", f"--system {self.system}"]
        for key, value in changed.items():
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
        return self.out or Path("runs") / f"solvation-{self.system}-{self.preset}-seed{self.seed}"

    @property
    def legs(self) -> tuple[str, ...]:
        """Names of the legs to compute."""
        return ("total", "polar", "nonpolar") if self.leg == "all" else (self.leg,)

    @property
    def temperatures_kelvin(self) -> tuple[float, ...]:
        """Temperatures of replica exchange [K], geometric, coldest first."""
        ratio = self.highest_temperature_kelvin / self.temperature_kelvin
        last = max(self.exchange_temperatures - 1, 1)
        return tuple(self.temperature_kelvin * ratio ** (k / last) for k in range(self.exchange_temperatures))

    @property
    def trajectory_files(self) -> dict[str, Path]:
        """The user's own trajectory of each state that has one."""
        pairs = (entry.partition("=") for entry in self.trajectory)
        return {state: Path(file) for state, _, file in pairs}

    def wants(self, estimator: str) -> bool:
        """Return whether a row is to be computed."""
        return "all" in self.estimators or estimator in self.estimators


def run(config: SolvationConfig) -> SolvationResult:
    """Return the solvation free energies; the run folder keeps ``results.json``, ``report.html`` and all stages.

    Raises:
        InputError: a setting, a file or the folder is wrong.
        NotTrustworthyError: raised after everything has been written; ``results.json`` says why.
        RunFailedError: the run could not go on.
    """
    for state, file in config.trajectory_files.items():
        if not file.exists():
            raise InputError(f"--trajectory {state}={file}: there is no such file; check its name")
        from systems.user_trajectory import require_lossless

        require_lossless(file)  # before the folder keeps these settings

    from boltzgen_diffclf.training import parallel
    from workflows.report.page import write_report
    from workflows.report.summary import print_summary
    from workflows.run_folder import open_run_folder
    from workflows.solvation_pipeline import choose_device, solve

    device = choose_device(config.device)
    with parallel.joined(device), open_run_folder(config.folder, config) as folder:
        report = solve(config, folder, device)
        if parallel.is_first():
            report.result.save(folder.path / "results.json")
            page = write_report(report, folder.path)
            print_summary(report.result, page)
            if not report.result.trustworthy:
                raise NotTrustworthyError(_verdict(report.result, page))
    return report.result


def _verdict(result: SolvationResult, page: Path) -> str:
    more = f" (and {len(result.reasons) - 1} more)" if len(result.reasons) > 1 else ""
    return f"the result is not trustworthy: {result.reasons[0]}{more}; all is written in {page}"


def main() -> int:
    """Run the command line and return its exit code."""
    return run_command(SolvationConfig, run, program="python -m workflows.solvation", presets=PRESETS)


if __name__ == "__main__":
    sys.exit(main())
