"""``python -m workflows.train``: an energy of a molecule under noise, learned from frames of one state."""

from __future__ import annotations

import logging
import sys
from dataclasses import dataclass as plain_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

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
from workflows.shared_settings import filled_from_preset

if TYPE_CHECKING:
    from boltzgen_diffclf.training.molecule_model import MoleculeModel

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid", allow_inf_nan=False))
class TrainConfig(MoleculeSettings):
    """Learn the density of a molecule, or of some of its atoms, at every noise level from Gaussian to data.

    The same command resumes a run that was stopped. Leaves model.safetensors, which workflows.sample reads.
    """

    objective: Annotated[
        str, AfterValidator(known_objective), Field(description="What is minimised: " + ", ".join(OBJECTIVES) + ".")
    ] = "dsm_diffclf"
    seed: Annotated[int, Field(ge=0, description="Root seed of every random stream.")] = 0

    @model_validator(mode="before")
    @classmethod
    def _fill_from_preset(cls, given: ArgsKwargs) -> ArgsKwargs:
        return filled_from_preset(given, TRAINING_PRESETS)

    @property
    def folder(self) -> Path:
        """Folder of the run."""
        name = f"train-{self.system_name}-{self.sampled_name}-{self.beads}-{self.objective}-{self.path}-{self.preset}"
        return self.out or Path("runs") / f"{name}-seed{self.seed}"


@plain_dataclass(frozen=True, eq=False)
class TrainResult:
    """A trained model and where it lies.

    Attributes:
        model: see there.
        file: that ``workflows.sample`` reads.
        seconds: that the training took, all of its starts together.
        losses: the last record of the training: losses in training and held out.
    """

    model: MoleculeModel
    file: Path
    seconds: float
    losses: dict[str, float]


def run(config: TrainConfig) -> TrainResult:
    """Return the trained model; the run folder keeps it as ``model.safetensors``.

    Raises:
        InputError: a setting, a file or the folder is wrong.
        RunFailedError: the run could not go on.
    """
    import os

    from workflows.molecule_frames import check_frames, sampled_frames
    from workflows.molecule_stages import MoleculeStages, check_training, stage_of_training
    from workflows.processor import processor_settings
    from workflows.reference import disagreement
    from workflows.run_start import check_run_folder, open_run_folder
    from workflows.solvation_pipeline import choose_device

    check_training(config, [config.objective])
    device = choose_device(config.device)
    check_run_folder(config.folder, config, FREE_SETTINGS)
    frames = sampled_frames(config, config.reference, [config.objective])
    check_frames(config, frames, [config.objective])
    reason = disagreement(frames)
    if reason:
        _log.warning("%s; the model learns from what is there", reason)
    with open_run_folder(config.folder, config, FREE_SETTINGS) as folder:
        threads = folder.remember_threads(lambda: config.threads or os.cpu_count() or 1)
        with processor_settings(threads):
            stages = MoleculeStages(config, folder, frames, device)
            folder.progress.plan({stage_of_training(config.objective, config.seed): 1.0})
            file = folder.path / "model.safetensors"
            model, stage = stages.trained(config.objective, config.seed, file)
    result = TrainResult(model, file, stage.seconds, stage.facts["last"])
    print("\n".join(summary(result)))
    return result


def summary(result: TrainResult) -> list[str]:
    """Return the lines that tell what was trained and how well it fits."""
    made, measured = result.model.origin, result.model.statistics
    losses = {name.removeprefix("held_out."): value for name, value in result.losses.items() if "held_out" in name}
    return [
        f"{result.file}: {made['objective']} of the {made['beads']} atoms of {made['system']}, state {made['state']}, "
        f"seed {made['seed']}, {result.seconds:.0f} s",
        f"unit of length {measured.length_nm:.4f} nm, resolution {measured.resolution * measured.length_nm:.5f} nm",
        "held-out losses: " + ", ".join(f"{name} {value:.4f}" for name, value in losses.items()),
    ]


def main() -> int:
    """Run the command line and return its exit code."""
    return run_command(TrainConfig, run, program="python -m workflows.train", presets=TRAINING_PRESETS)


if __name__ == "__main__":
    sys.exit(main())
