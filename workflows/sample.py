"""``python -m workflows.sample``: samples of a trained energy of a molecule, and dynamics on it."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import ConfigDict, Field, model_validator
from pydantic.dataclasses import dataclass
from pydantic_core import ArgsKwargs

from workflows.command_line import run_command
from workflows.sampling_settings import SAMPLING_PRESETS, SamplingSettings
from workflows.shared_settings import STATES, Threads, filled_from_preset

if TYPE_CHECKING:
    from boltzgen_diffclf.training.molecule_model import MoleculeModel
    from systems.ensemble import ReferenceEnsemble
    from workflows.run_folder import RunFolder, StageResult

FREE_SETTINGS = frozenset({"out", "device", "model"})
"""Settings that may be written otherwise when a run goes on: the folder keeps the model's fingerprint."""


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid", allow_inf_nan=False))
class SampleConfig(SamplingSettings):
    """Sample a trained energy of a molecule: the noising reversed, Langevin dynamics at the least noise, particles.

    The same command resumes a run that was stopped. Leaves reverse.h5, langevin.h5 and smc.h5, which mdtraj opens;
    their energies are the learned ones.
    """

    model: Annotated[
        Path, Field(description="Trained model: workflows.train leaves model.safetensors in its folder below runs/.")
    ]
    system: Annotated[str | None, Field(description="Refuse a model of another system.")] = None
    state: Annotated[str | None, Field(description=f"Refuse a model of another state: {STATES}.")] = None
    beads: Annotated[
        Literal["all", "heavy", "backbone", "ca"] | None, Field(description="Refuse a model of other beads.")
    ] = None
    samplers: Annotated[
        tuple[Literal["reverse", "langevin", "smc"], ...],
        Field(
            min_length=1,
            description="What to run: the noising reversed by scores, chains on the energy, or particles down the "
            "noise that the energies weigh.",
        ),
    ] = ("reverse", "langevin")
    preset: Annotated[
        Literal["quick", "standard"], Field(description="Size of the run: minutes, or what a table needs.")
    ] = "quick"
    out: Annotated[Path | None, Field(description="Folder of the run (samples beside the model).")] = None
    seed: Annotated[int, Field(ge=0, description="Root seed of every random stream.")] = 0
    device: Annotated[Literal["auto", "cpu", "cuda"], Field(description="Where to compute.")] = "auto"
    threads: Threads = None

    @model_validator(mode="before")
    @classmethod
    def _fill_from_preset(cls, given: ArgsKwargs) -> ArgsKwargs:
        return filled_from_preset(given, SAMPLING_PRESETS)

    @property
    def folder(self) -> Path:
        """Folder of the run."""
        return self.out or self.model.parent / f"samples-{self.preset}-seed{self.seed}"


def run(config: SampleConfig) -> dict[str, ReferenceEnsemble]:
    """Return the samples by name of the sampler; the run folder keeps each as ``NAME.h5``.

    Raises:
        InputError: a setting, the model or the folder is wrong.
        RunFailedError: the run could not go on.
        NotTrustworthyError: too many chains exploded, or samples were broken; the folder keeps them all.
    """
    from boltzgen_diffclf.errors import NotTrustworthyError
    from workflows.trust import check_intact, failures

    samples = samples_of(config)
    reasons = failures([check_intact(name, *lost_of(ensemble.diagnostics)) for name, ensemble in samples.items()])
    if reasons:
        raise NotTrustworthyError(f"{'; '.join(reasons)}; the samples are kept in {config.folder}")
    return samples


def samples_of(config: SampleConfig) -> dict[str, ReferenceEnsemble]:
    """Return the samples by name of the sampler, whatever was lost; the run folder keeps each as ``NAME.h5``.

    Raises:
        InputError: a setting, the model or the folder is wrong.
        RunFailedError: the run could not go on.
    """
    import os

    import torch

    from boltzgen_diffclf.errors import InputError
    from boltzgen_diffclf.training.molecule_model import load_molecule_model
    from systems.store import load_ensemble
    from workflows.processor import processor_settings
    from workflows.run_start import open_run_folder
    from workflows.solvation_pipeline import choose_device

    model = load_molecule_model(config.model)
    model.require(system=config.system, state=config.state, beads=config.beads)
    device = torch.device(choose_device(config.device))
    with open_run_folder(config.folder, config, FREE_SETTINGS) as folder:
        content = model.fingerprint
        if folder.remember("model", lambda: content) != content:
            raise InputError(f"{folder.path} holds samples of another model: choose another --out")
        with processor_settings(int(folder.remember("threads", lambda: config.threads or os.cpu_count() or 1))):
            folder.progress.plan(dict.fromkeys(config.samplers, 1.0))
            files: dict[str, Path] = {name: folder.path / f"{name}.h5" for name in config.samplers}
            for name, file in files.items():
                sampled(folder, name, name, file, model, config, config.seed, device)
            samples = {name: load_ensemble(file) for name, file in files.items()}
    print("\n".join(line for name, file in files.items() for line in summary(samples[name], file)))
    return samples


def lost_of(measured: Mapping[str, Any]) -> tuple[str, int, int]:
    """Return what a sampler makes, how many of them it has lost, and of how many; from its diagnostics."""
    if "chains" in measured:
        return "chains", measured["exploded_chains"], measured["chains"]
    return "samples", measured["broken_samples"], measured["samples"]


def sampled(
    folder: RunFolder,
    stage: str,
    sampler: str,
    file: Path,
    model: MoleculeModel,
    settings: SamplingSettings,
    seed: int,
    device: object,
) -> StageResult:
    """Return the record of a stage that leaves the samples of one sampler in a file."""
    import torch

    from workflows.molecule_sampling import langevin_samples, reverse_samples, save_samples, smc_samples
    from workflows.run_folder import StageResult

    where = torch.device(str(device))

    def make() -> StageResult:
        if sampler == "langevin":
            total = settings.equilibration_frames + settings.frames_per_chain
            with folder.progress.stage(stage, total) as advance:
                ensemble = langevin_samples(model, settings, seed, where, file, advance)
        else:
            unfinished = file.with_name(f"{file.stem}-unfinished.safetensors")
            with folder.progress.stage(stage, settings.samples) as advance:
                if sampler == "smc":
                    ensemble = smc_samples(model, settings.samples, seed, where, unfinished, advance)
                else:
                    ensemble = reverse_samples(
                        model, settings.samples, settings.reverse_levels, seed, where, unfinished, advance
                    )
            save_samples(file, model, ensemble)
            unfinished.unlink(missing_ok=True)
        return StageResult(facts=plain_counts(ensemble.diagnostics), files=[file])

    return folder.stage(stage, make)


def plain_counts(diagnostics: Mapping[str, object]) -> dict[str, int]:
    """Return how many were made and how many of them were broken, of either sampler."""
    return {name: value for name, value in diagnostics.items() if isinstance(value, int)}


def summary(ensemble: ReferenceEnsemble, file: Path) -> list[str]:
    """Return the lines that tell what was sampled and how far to believe it."""
    from systems.loading import FAVOURED
    from workflows.trust import worst

    made, measured = ensemble.provenance, ensemble.diagnostics
    bias = " with the bias" if made.state.endswith(FAVOURED) else ""
    lines = [
        f"{file}: {len(ensemble)} frames of {made.system}, state {made.state}, {made.settings['sampler']}, "
        f"seed {made.seed}"
    ]
    if "chains" in measured:
        each_ps = len(ensemble) / measured["chains"] * ensemble.frame_interval_ps
        lines.append(
            f"chains: {measured['chains']} of {each_ps:g} ps, {1e-3 * each_ps * measured['chains']:.3g} ns in all, "
            f"of which {measured['exploded_chains']} exploded and began again"
        )
    else:
        lines.append(f"samples: {measured['samples']}, of which {measured['broken_samples']} are broken and left out")
    for name, found in measured.get("populations", {}).items():
        lines.append(f"population of {name}{bias}: {found['population']:.4f} ± {found['stderr']:.4f}")
    if "split_r_hat" in measured:
        strange = worst(measured["split_r_hat"])
        lines.append(f"largest split R-hat: {measured['split_r_hat'][strange]:.3f} ({strange}); below 1.01 is mixed")
    return lines


def main() -> int:
    """Run the command line and return its exit code."""
    return run_command(SampleConfig, run, program="python -m workflows.sample", presets=SAMPLING_PRESETS)


if __name__ == "__main__":
    sys.exit(main())
