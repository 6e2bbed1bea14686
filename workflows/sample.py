"""``python -m workflows.sample``: samples of a trained energy of a molecule, and dynamics on it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass as plain_dataclass
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
    from workflows.trust import Check

SMC = "smc"
"""The sampler of particles that the energies weigh."""

REWEIGHTED = "reweighted"
"""The sampler that carries particles to the true energy."""

LENGTH = "frames_per_chain"
"""What says how long chains are."""

FREE_SETTINGS = frozenset({"out", "device", "model", "samplers", "bridge_keeps", "end_moves", LENGTH})
"""Settings that may be others when a run goes on: the folder keeps the model's fingerprint and how it was reweighted,
and chains get longer."""


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid", allow_inf_nan=False))
class SampleConfig(SamplingSettings):
    """Sample a trained energy of a molecule: the noising reversed, Langevin dynamics at the least noise, particles.

    The same command resumes a run that was stopped; other samplers are added to the same folder, and with more
    --frames-per-chain its chains go on. Leaves reverse.h5, langevin.h5 and smc.h5, which mdtraj opens; their energies
    are the learned ones. With --samplers reweighted a model of all atoms gives reweighted.h5, samples
    that were carried to the true energy of the state, and u_kn.npz, their weights as pymbar takes them.
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
        tuple[Literal["reverse", "langevin", "smc", "reweighted"], ...],
        Field(
            min_length=1,
            description="What to run: the noising reversed by scores, chains on the energy, particles down the "
            "noise that the energies weigh, or these carried to the true energy, of all atoms.",
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

    @model_validator(mode="after")
    def _every_setting_has_a_use(self) -> SampleConfig:
        for chosen in self.chosen_of_weighting if REWEIGHTED not in self.samplers else ():
            raise ValueError(f"{chosen} is of --samplers {REWEIGHTED}: name it, or leave the option out")
        return self

    @property
    def folder(self) -> Path:
        """Folder of the run."""
        return self.out or self.model.parent / f"samples-{self.preset}-seed{self.seed}"


@plain_dataclass(frozen=True, eq=False)
class Drawn:
    """What a run leaves, whatever was lost.

    Attributes:
        samples: by name of the sampler; those of :data:`REWEIGHTED` are to be weighed.
        checks: whether enough of each is left, and whether the weights can be believed.
    """

    samples: dict[str, ReferenceEnsemble]
    checks: list[Check]


def run(config: SampleConfig) -> dict[str, ReferenceEnsemble]:
    """Return the samples by name of the sampler; the run folder keeps each as ``NAME.h5``.

    Those of :data:`REWEIGHTED` stand for the true energy only with their weights, in ``u_kn.npz`` row by row.

    Raises:
        InputError: a setting, the model or the folder is wrong.
        RunFailedError: the run could not go on.
        NotTrustworthyError: too many chains exploded, samples were broken or descend from one particle, or weights are
            not to be believed; the folder keeps them all.
    """
    from boltzgen_diffclf.errors import NotTrustworthyError
    from workflows.trust import failures

    def believe(drawn: Drawn) -> None:
        reasons = failures(drawn.checks)
        if reasons:
            raise NotTrustworthyError(f"{'; '.join(reasons)}; the samples are kept in {config.folder}")

    return drawn_of(config, believe).samples


def drawn_of(config: SampleConfig, judge: Callable[[Drawn], None] = lambda drawn: None) -> Drawn:
    """Return the samples, whatever was lost; the run folder keeps each as ``NAME.h5``.

    Args:
        config: see there.
        judge: what it raises of the samples is how the run ends, in ``status.json`` too.

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
    from workflows.sample_reweighted import reweighted
    from workflows.solvation_pipeline import choose_device
    from workflows.trust_generators import check_families, check_intact
    from workflows.weighted_sampling import shares_of

    model = load_molecule_model(config.model)
    model.require(system=config.system, state=config.state, beads=config.beads)
    if REWEIGHTED in config.samplers and model.origin["beads"] != "all":
        raise InputError(
            f"{config.model} is of the {model.origin['beads']} beads, which have no true energy to be weighed by: "
            f"leave {REWEIGHTED} out of --samplers, or train with --beads all"
        )
    device = torch.device(choose_device(config.device))
    with open_run_folder(config.folder, config, FREE_SETTINGS) as folder:
        content = model.fingerprint
        if folder.remember("model", lambda: content) != content:
            raise InputError(f"{folder.path} holds samples of another model: choose another --out")
        with processor_settings(folder.remember_threads(lambda: config.threads or os.cpu_count() or 1)):
            plain = [name for name in config.samplers if name != REWEIGHTED]
            shares = shares_of(REWEIGHTED) if REWEIGHTED in config.samplers else {}
            folder.progress.plan(dict.fromkeys(plain, 1.0) | shares)
            files: dict[str, Path] = {name: folder.path / f"{name}.h5" for name in plain}
            for name, file in files.items():
                sampled(folder, name, name, file, model, config, config.seed, device)
            samples = {name: load_ensemble(file) for name, file in files.items()}
            checks = [check_intact(name, *lost_of(one.diagnostics)) for name, one in samples.items()]
            if SMC in samples:
                checks.append(check_families(SMC, samples[SMC].largest_group_share, len(samples[SMC])))
            lines = [line for name, file in files.items() for line in summary(samples[name], file)]
            if REWEIGHTED in config.samplers:
                found, told, check = reweighted(folder, REWEIGHTED, model, config, config.seed, device)
                samples[REWEIGHTED] = found
                lines += told
                checks.append(check)
        print("\n".join(lines))
        drawn = Drawn(samples, checks)
        judge(drawn)
    return drawn


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

    from systems.store import load_ensemble
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
                if sampler == SMC:
                    ensemble = smc_samples(
                        model,
                        settings.samples,
                        seed,
                        where,
                        unfinished,
                        advance,
                        resampling=settings.resampling,
                        resample_below=settings.resample_below,
                    )
                else:
                    ensemble = reverse_samples(
                        model,
                        settings.samples,
                        settings.reverse_levels,
                        seed,
                        where,
                        unfinished,
                        advance,
                        solver=settings.solver,
                    )
            save_samples(file, model, ensemble)
            unfinished.unlink(missing_ok=True)
        length = {LENGTH: settings.frames_per_chain} if sampler == "langevin" else {}
        return StageResult(facts=plain_counts(ensemble.diagnostics) | length, files=[file])

    def is_enough(facts: Mapping[str, Any]) -> bool:
        if sampler != "langevin":
            return True
        # Older records do not tell the length of their chains, whose file does.
        there = facts[LENGTH] if LENGTH in facts else load_ensemble(file).provenance.settings[LENGTH]
        return bool(there == settings.frames_per_chain)

    return folder.stage(stage, make, is_enough=is_enough)


def plain_counts(diagnostics: Mapping[str, object]) -> dict[str, int]:
    """Return how many were made and how many of them were broken, of either sampler."""
    return {name: value for name, value in diagnostics.items() if isinstance(value, int)}


def summary(ensemble: ReferenceEnsemble, file: Path) -> list[str]:
    """Return the lines that tell what was sampled and how far to believe it."""
    from systems.loading import FAVOURED
    from workflows.mixing import mixing_lines

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
    return lines + mixing_lines(ensemble)


def main() -> int:
    """Run the command line and return its exit code."""
    return run_command(SampleConfig, run, program="python -m workflows.sample", presets=SAMPLING_PRESETS)


if __name__ == "__main__":
    sys.exit(main())
