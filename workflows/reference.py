"""``python -m workflows.reference``: a reference ensemble of one state of a molecule."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import ConfigDict, Field, model_validator
from pydantic.dataclasses import dataclass
from pydantic_core import ArgsKwargs

from workflows.command_line import run_command
from workflows.favour_settings import FavourSettings
from workflows.shared_settings import (
    ExchangeTemperatures,
    Threads,
    filled_from_preset,
    refuse_falling_ladder,
    refuse_what_openmm_ignores,
)
from workflows.system_settings import keep_system

if TYPE_CHECKING:
    from systems.ensemble import ReferenceEnsemble
    from systems.molecular import MolecularSystem
    from systems.recording import Advance

PRESETS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "quick": {"walkers": 64, "frames_per_walker": 400, "steps_per_frame": 200, "equilibration_frames": 40},
        "standard": {"walkers": 250, "frames_per_walker": 800, "steps_per_frame": 400, "equilibration_frames": 40},
        "paper": {"walkers": 250, "frames_per_walker": 1000, "steps_per_frame": 2000, "equilibration_frames": 40},
    }
)
"""What each preset sets: ``standard`` 200,000 frames 1 ps apart, ``paper`` the published 250,000, 5 ps apart."""


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid", allow_inf_nan=False))
class ReferenceConfig(FavourSettings):
    """Sample one state of a molecule by Langevin dynamics under temperature replica exchange.

    The same command resumes a run that was stopped, and with more --frames-per-walker goes on with one that is done.
    The trajectory, STATE.h5, opens in mdtraj; it holds energies, units, seed and the fingerprint of the force field.
    With --favour it is STATE-favoured.h5, and its energies are those with the bias.
    """

    preset: Annotated[
        Literal["quick", "standard", "paper"],
        Field(description="Size of the run: minutes on a laptop, larger, or the published sizes."),
    ] = "quick"
    temperature_kelvin: Annotated[float, Field(ge=100, le=1000, description="Temperature [K].")] = 300.0
    out: Annotated[
        Path | None,
        Field(description="Folder of the run (runs/reference-SYSTEM-STATE-PRESET-seedSEED where not given)."),
    ] = None
    seed: Annotated[int, Field(ge=0, description="Root seed of every random stream.")] = 0
    engine: Annotated[
        Literal["compiled", "openmm"],
        Field(description="Batched compiled force field, or OpenMM's own dynamics (any System, no replica exchange)."),
    ] = "compiled"
    device: Annotated[Literal["auto", "cpu", "cuda"], Field(description="Where to compute.")] = "auto"
    threads: Threads = None
    walkers: Annotated[int, Field(ge=2, description="Walkers at each temperature.")] = PRESETS["quick"]["walkers"]
    exchange_temperatures: ExchangeTemperatures = None
    highest_temperature_kelvin: Annotated[
        float, Field(ge=100, le=5000, description="Hottest temperature of replica exchange [K].")
    ] = 800.0
    frames_per_walker: Annotated[int, Field(ge=2, description="Frames kept of each walker.")] = PRESETS["quick"][
        "frames_per_walker"
    ]
    steps_per_frame: Annotated[int, Field(ge=1, description="Langevin steps between frames.")] = PRESETS["quick"][
        "steps_per_frame"
    ]
    steps_per_sweep: Annotated[int, Field(ge=1, description="Langevin steps between rounds of swaps.")] = 100
    equilibration_frames: Annotated[int, Field(ge=0, description="Frames thrown away at the start.")] = PRESETS[
        "quick"
    ]["equilibration_frames"]
    timestep_fs: Annotated[float, Field(gt=0, le=5, description="Langevin time step [fs].")] = 2.5
    friction_per_ps: Annotated[float, Field(gt=0, description="Langevin friction [1/ps].")] = 10.0
    hydrogen_mass_amu: Annotated[
        float,
        Field(
            ge=1,
            le=12,
            description="Mass of hydrogens in the dynamics [amu]; averages do not depend on it, "
            "and a System with constraints keeps its own.",
        ),
    ] = 4.0

    @model_validator(mode="before")
    @classmethod
    def _fill_from_preset(cls, given: ArgsKwargs) -> ArgsKwargs:
        return filled_from_preset(given, PRESETS)

    @model_validator(mode="after")
    def _ladder_goes_up(self) -> ReferenceConfig:
        refuse_falling_ladder(self)
        return self

    @model_validator(mode="after")
    def _sweeps_fill_a_frame(self) -> ReferenceConfig:
        if self.engine != "openmm" and self.steps_per_frame % self.steps_per_sweep:
            raise ValueError(
                f"--steps-per-frame {self.steps_per_frame} is not a multiple of --steps-per-sweep "
                f"{self.steps_per_sweep}: change one of them"
            )
        return self

    @model_validator(mode="after")
    def _engine_knows_them(self) -> ReferenceConfig:
        refuse_what_openmm_ignores(self, PRESETS)
        if self.engine == "openmm" and self.device == "cuda":
            raise ValueError("--engine openmm computes on the processors: leave --device cuda out")
        return self

    @property
    def folder(self) -> Path:
        """Folder of the run."""
        return (
            self.out or Path("runs") / f"reference-{self.system_name}-{self.sampled_name}-{self.preset}-seed{self.seed}"
        )


def run(config: ReferenceConfig) -> ReferenceEnsemble:
    """Return the ensemble; the run folder keeps it as ``STATE.h5``.

    Raises:
        InputError: a setting, a file or the folder is wrong.
        RunFailedError: the run could not go on.
        NotTrustworthyError: walkers do not agree; the folder keeps the ensemble, and more frames may be added.
    """
    from boltzgen_diffclf.errors import NotTrustworthyError

    def agree(ensemble: ReferenceEnsemble) -> None:
        reason = disagreement(ensemble)
        if reason:
            raise NotTrustworthyError(
                f"{reason}; the same command goes on from the frames that are kept{_or(ensemble, config)}"
            )

    return ensemble_of(config, agree)


def _or(ensemble: ReferenceEnsemble, config: ReferenceConfig) -> str:
    """Return which bias would let walkers cross, where the slowest basin has a barrier that its frames show."""
    from systems.barriers import advice
    from systems.favoured import Favour
    from workflows.mixing import slowest_relaxation_ps

    system, slowest = config.source.load(), slowest_relaxation_ps(ensemble)
    if config.engine == "openmm" or slowest is None or slowest[0] not in system.basins:
        return ""
    options = advice(system, ensemble, slowest[0], [Favour(*one) for one in config.favours])
    return f", or, in another folder, walkers that cross sooner with {options}" if options else ""


def disagreement(ensemble: ReferenceEnsemble) -> str:
    """Return what walkers disagree about most, or why nobody can tell; an empty string where they agree."""
    from workflows.trust import check_slowest, check_walkers, failures

    r_hat, state = ensemble.diagnostics.get("split_r_hat"), ensemble.provenance.state
    if not r_hat:
        return (
            f"the frames of {state} are too few to tell whether walkers agree: sample longer with --frames-per-walker"
        )
    checks = [check_walkers(state, r_hat), check_slowest(state, ensemble.diagnostics["effective_frames"])]
    return next(iter(failures(checks)), "")


def ensemble_of(
    config: ReferenceConfig, judge: Callable[[ReferenceEnsemble], None] = lambda ensemble: None
) -> ReferenceEnsemble:
    """Return the ensemble, whether or not walkers agree; the run folder keeps it as ``STATE.h5``.

    Args:
        config: see there.
        judge: what it raises of the ensemble is how the run ends, in ``status.json`` too.

    Raises:
        InputError: a setting, a file or the folder is wrong.
        RunFailedError: the run could not go on.
    """
    import torch

    from systems.recording import LENGTHS
    from workflows.processor import processor_settings
    from workflows.run_start import FREE_SETTINGS, open_run_folder

    system = config.source.load()
    system.require_state(config.state)
    with open_run_folder(config.folder, config, FREE_SETTINGS | LENGTHS | {"device"}) as folder:
        keep_system(folder, system)
        threads = folder.remember_threads(lambda: config.threads or torch.get_num_threads())
        path, stage = folder.path / f"{config.sampled_state}.h5", f"reference {config.sampled_state}"
        folder.progress.plan({stage: 1.0})
        frames = config.equilibration_frames + config.frames_per_walker
        with processor_settings(threads), folder.progress.stage(stage, total=frames) as advance:
            ensemble = _sample(config, system, path, threads, advance)
        print("\n".join(summary(ensemble, path)))
        judge(ensemble)
    return ensemble


def _sample(
    config: ReferenceConfig, system: MolecularSystem, path: Path, threads: int, advance: Advance
) -> ReferenceEnsemble:
    if config.engine == "openmm":
        from systems.openmm_engine import OpenMMSettings, generate_with_openmm

        openmm_settings = OpenMMSettings(
            walkers=config.walkers,
            frames_per_walker=config.frames_per_walker,
            steps_per_frame=config.steps_per_frame,
            equilibration_frames=config.equilibration_frames,
            timestep_fs=config.timestep_fs,
            friction_per_ps=config.friction_per_ps,
            hydrogen_mass_amu=config.hydrogen_mass_amu,
            threads=threads,
            seed=config.seed,
        )
        return generate_with_openmm(
            system, config.sampled_state, config.temperature_kelvin, openmm_settings, path, advance
        )
    from systems.reference import ReferenceSettings, generate
    from systems.temperature_ladder import ladder_for
    from workflows.solvation_pipeline import choose_device

    settings = ReferenceSettings(
        walkers=config.walkers,
        temperatures_kelvin=ladder_for(
            system.n_atoms,
            config.temperature_kelvin,
            config.highest_temperature_kelvin,
            config.exchange_temperatures,
        ),
        frames_per_walker=config.frames_per_walker,
        steps_per_frame=config.steps_per_frame,
        steps_per_sweep=config.steps_per_sweep,
        equilibration_frames=config.equilibration_frames,
        timestep_fs=config.timestep_fs,
        friction_per_ps=config.friction_per_ps,
        hydrogen_mass_amu=config.hydrogen_mass_amu,
        seed=config.seed,
    )
    device = choose_device(config.device)
    return generate(system, config.sampled_state, config.temperature_kelvin, settings, path, advance, device)


def summary(ensemble: ReferenceEnsemble, path: Path) -> list[str]:
    """Return the lines that tell what was sampled and how far to believe it."""
    from systems.loading import FAVOURED
    from workflows.mixing import mixing_lines

    made, measured = ensemble.provenance, ensemble.diagnostics
    bias = " with the bias" if made.state.endswith(FAVOURED) else ""
    lines = [
        f"{path}: {len(ensemble)} frames of {made.system}, state {made.state}, {made.temperature_kelvin:g} K, "
        f"{ensemble.frame_interval_ps:g} ps apart, from {ensemble.n_groups} independent groups, seed {made.seed}"
    ]
    if measured.get("exchange_acceptance"):
        rates = " ".join(f"{rate:.2f}" for rate in measured["exchange_acceptance"])
        lines.append(
            f"replica exchange: acceptance {rates}, {measured['round_trips']} round trips, "
            f"{measured['groups_without_round_trip']} groups without one"
        )
    for name, found in measured.get("populations", {}).items():
        lines.append(
            f"population of {name}{bias}: {found['population']:.4f} ± {found['stderr']:.4f} "
            f"(groups from {found['smallest']:.4f} to {found['largest']:.4f})"
            if found["largest"] > 0
            else f"population of {name}: no walker has been there, which says little of how large it is"
        )
    if "effective_frames" in measured:
        slowest = min(sorted(measured["effective_frames"]), key=measured["effective_frames"].get)
        lines.append(
            f"independent frames: {measured['effective_frames']['reduced_energy']:.0f} by energy, "
            f"{measured['effective_frames'][slowest]:.0f} by {slowest}, the slowest"
        )
    return lines + mixing_lines(ensemble)


def main() -> int:
    """Run the command line and return its exit code."""
    return run_command(ReferenceConfig, run, program="python -m workflows.reference", presets=PRESETS)


if __name__ == "__main__":
    sys.exit(main())
