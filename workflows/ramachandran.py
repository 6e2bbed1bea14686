"""``python -m workflows.ramachandran``: how well learned energies of a molecule reproduce its Ramachandran map."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass as plain_dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any

from pydantic import AfterValidator, ConfigDict, Field, model_validator
from pydantic.dataclasses import dataclass
from pydantic_core import ArgsKwargs

from workflows.command_line import run_command
from workflows.molecule_settings import (
    FREE_SETTINGS,
    OBJECTIVES,
    TRAINING_PRESETS,
    MoleculeSettings,
    known_objective,
)
from workflows.sampling_settings import SAMPLING_PRESETS, SamplingSettings
from workflows.shared_settings import filled_from_preset

OVERWEIGHT_FACTOR = 10.0
"""How many times too likely a basin is made, where nothing else is said."""

PRESETS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "quick": {**TRAINING_PRESETS["quick"], **SAMPLING_PRESETS["quick"], "seeds": (0,), "particles": 2000},
        "standard": {
            **TRAINING_PRESETS["standard"],
            **SAMPLING_PRESETS["standard"],
            "seeds": (0, 1, 2),
            "particles": 20_000,
        },
    }
)
"""What each preset sets."""

ALL_SEEDS = "all"
"""The seed of a line that is the mean over the seeds."""

REFERENCE = "reference"
"""The objective of a line that is of the reference itself."""

LEARNED_FROM = "learned_from"
"""What the metrics of frames that were learned from begin with; they stand beside those of the reference."""


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid", allow_inf_nan=False))
class RamachandranConfig(MoleculeSettings, SamplingSettings):
    """Train, sample and judge energies of a molecule: phi and psi of samples and of dynamics against held-out frames.

    With --beads all the samples are carried to the true energy and weighted; where the weights are not to be believed,
    the command says why and exits 3. The same command resumes a run that was stopped; other objectives or seeds are
    added to the same folder, and with more --frames-per-chain its chains go on. Leaves results.csv, report.html, the
    figures as PNG, the models and their samples.
    """

    objectives: Annotated[
        tuple[Annotated[str, AfterValidator(known_objective)], ...],
        Field(min_length=1, description="Objectives to compare: " + ", ".join(OBJECTIVES) + "."),
    ] = ("dsm", "fokker_planck", "dsm_diffclf")
    seeds: Annotated[
        tuple[Annotated[int, Field(ge=0)], ...],
        Field(min_length=1, description="Seeds, each with a network and samples of its own."),
    ] = PRESETS["quick"]["seeds"]
    reference: Annotated[
        Path | None,
        Field(
            description="Frames of the state (h5, dcd, ...) to judge by, of all atoms or of the --beads alone (xtc "
            "too); where not given, those that come with the package (chignolin, ca, 340 K, for objectives without "
            "forces), else of workflows.reference, below runs/, or, with --favour, half of the frames with the bias, "
            "by the weights that take it away."
        ),
    ] = None
    frames: Annotated[
        Path | None,
        Field(
            description="Frames to learn from, of any distribution, of all atoms or of the --beads alone, with "
            "--favour those of the favoured state; half of the reference where not given, or of favoured frames "
            "sampled as the reference is."
        ),
    ] = None
    overweight: Annotated[
        str | None,
        Field(
            description="Basin made too likely in the frames to learn from, to see the weights mend it: 'phi > 0' or "
            "'helical'; of one residue among several 'phi-ALA2 > 0' or 'helical-ALA2'."
        ),
    ] = None
    overweight_factor: Annotated[float, Field(gt=0, description="How many times too likely it is made.")] = (
        OVERWEIGHT_FACTOR
    )
    particles: Annotated[int, Field(ge=2, description="Weighted samples, of all atoms.")] = PRESETS["quick"][
        "particles"
    ]
    tica_lag_frames: Annotated[
        int | None,
        Field(ge=1, description="Lag of TICA [frames] (a fortieth of a walker's frames where not given)."),
    ] = None

    @model_validator(mode="before")
    @classmethod
    def _fill_from_preset(cls, given: ArgsKwargs) -> ArgsKwargs:
        return filled_from_preset(given, PRESETS)

    @model_validator(mode="after")
    def _one_change_of_weights(self) -> RamachandranConfig:
        if self.favour and self.overweight is not None:
            raise ValueError(
                "--favour samples a basin more often and --overweight repeats its frames: give one of them"
            )
        return self

    @model_validator(mode="after")
    def _every_setting_has_a_use(self) -> RamachandranConfig:
        usual = PRESETS[self.preset]["particles"]
        if self.overweight is None and self.overweight_factor != OVERWEIGHT_FACTOR:
            raise ValueError(f"--overweight-factor {self.overweight_factor:g} is of a basin: name it with --overweight")
        particles = () if self.particles == usual else (f"--particles {self.particles}",)
        for chosen in (*particles, *self.chosen_of_weighting) if self.beads != "all" else ():
            raise ValueError(f"{chosen} is of all atoms: add --beads all, or leave it out")
        return self

    @property
    def folder(self) -> Path:
        """Folder of the run."""
        name = f"ramachandran-{self.system_name}-{self.sampled_name}-{self.beads}-{self.path}-{self.preset}"
        if self.overweight is not None:
            name += "-overweight"
        return self.out or Path("runs") / name

    @property
    def command(self) -> str:
        """What to type to get this result again."""
        import shlex

        from workflows.settings_file import settings_values

        default = settings_values(RamachandranConfig(preset=self.preset))
        changed = {key: value for key, value in settings_values(self).items() if value != default[key]}
        words = [f"--preset {self.preset}"]
        for key, value in changed.items():
            if value is None:
                continue
            words.append(
                f"--{key.replace('_', '-')} {shlex.join(map(str, value if isinstance(value, list) else [value]))}"
            )
        return " ".join(["python -m workflows.ramachandran", *words])


@plain_dataclass(frozen=True)
class RamachandranRow:
    """One line of ``results.csv``.

    Attributes:
        system: name of the molecule.
        beads: that were learned.
        objective: that they were learned by.
        seed: of training and samples, or ``all`` for the mean over the seeds.
        metric: what was measured; divergences are against frames that were not learned from.
        value: the number; a largest deviation is infinite where a bin was never visited.
        noise_floor: what frames of the reference score in place of samples, as many of them.
        published: what others print for this metric and objective; divergences are of other frames of aldp-ildn.
        stderr: standard error of the value, or of what it is above its floor where it has one. What a network says of
            conformers and of a fold has that of the frames which it learned from in it.
        n_seeds: how many seeds have the metric, of which ``all`` is the mean; None for the reference.
    """

    system: str
    beads: str
    objective: str
    seed: str
    metric: str
    value: float
    noise_floor: float | None
    published: float | None
    stderr: float | None
    n_seeds: int | None


@plain_dataclass(frozen=True)
class RamachandranResult:
    """The table of a run, how far to believe it, and where it lies.

    Attributes:
        config: that it was asked with.
        rows: as in ``results.csv``.
        folder: of the run.
        reasons: why the weights are not to be believed, one sentence each; empty where they are.
        warnings: what else a reader should know first.
        unconverged: why the reference is not what others can be held against; empty where it is.
    """

    config: RamachandranConfig
    rows: tuple[RamachandranRow, ...]
    folder: Path
    reasons: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    unconverged: str = ""


def run(config: RamachandranConfig) -> RamachandranResult:
    """Return the table; the run folder keeps ``results.csv``, ``report.html``, figures, models and samples.

    Raises:
        InputError: a setting, a file or the folder is wrong.
        NotTrustworthyError: the weights are not to be believed, or the reference has not converged; the folder keeps
            everything all the same.
        RunFailedError: the run could not go on.
    """
    import os

    from boltzgen_diffclf.errors import NotTrustworthyError
    from workflows.molecule_frames import check_frames
    from workflows.molecule_stages import MoleculeStages, check_training
    from workflows.processor import processor_settings
    from workflows.ramachandran_pipeline import compute, frames_of, frames_to_learn, judging
    from workflows.report.ramachandran_page import print_table, write_page
    from workflows.run_start import check_run_folder, open_run_folder
    from workflows.solvation_pipeline import choose_device

    check_training(config, config.objectives)
    device = choose_device(config.device)
    free = FREE_SETTINGS | {"objectives", "seeds", "frames_per_chain", "tica_lag_frames"}
    check_run_folder(config.folder, config, free)
    frames, reference = frames_of(config)
    check_frames(config, frames, config.objectives)
    learned = frames_to_learn(config, frames)
    with open_run_folder(config.folder, config, free) as folder:
        with processor_settings(folder.remember_threads(lambda: config.threads or os.cpu_count() or 1)):
            stages = MoleculeStages(config, folder, learned, device)
            by = judging(stages, config.state, frames, reference)
            require_groups(stages.training.n_groups, by.frames.n_groups)
            result, shown = compute(config, stages, by)
        page = write_page(result, shown)
        print_table(result, page)
        reasons = (*([f"not converged: {result.unconverged}"] if result.unconverged else []), *result.reasons)
        if reasons:
            more = f" (and {len(reasons) - 1} more)" if len(reasons) > 1 else ""
            raise NotTrustworthyError(f"{reasons[0]}{more}; all is written in {page}")
    return result


def require_groups(learned: int, judged: int) -> None:
    """Refuse frames of fewer independent walkers than an error bar can be drawn from, on either side.

    Raises:
        InputError: naming how many there are.
    """
    from boltzgen_diffclf.errors import InputError

    if min(learned, judged) < 2:
        raise InputError(
            f"an error bar needs two walkers of each, and there are {learned} independent walkers to learn from, and "
            f"{judged} to judge by: give frames of more"
        )


def main() -> int:
    """Run the command line and return its exit code."""
    return run_command(RamachandranConfig, run, program="python -m workflows.ramachandran", presets=PRESETS)


if __name__ == "__main__":
    sys.exit(main())
