"""The stages of a molecule's generator: frames, a trained energy, samples of it; each left in the run folder."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from functools import cached_property
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from boltzgen_diffclf.coordinates import CentredCoordinates, remove_mean
from boltzgen_diffclf.errors import InputError
from boltzgen_diffclf.noised_energy import NoisedEnergyModel
from boltzgen_diffclf.streams import named_generator, split_seed
from boltzgen_diffclf.training.clean_data import FixedPool
from boltzgen_diffclf.training.molecule_model import (
    FORMAT,
    MoleculeModel,
    MoleculeSpec,
    MoleculeStatistics,
    build_molecule_model,
    coordinates_of,
    load_molecule_model,
    measure_molecule,
    molecule_pool,
)
from boltzgen_diffclf.training.noised_losses import BEYOND, BY_FORCE
from boltzgen_diffclf.training.noised_problem import NoisedObjective
from boltzgen_diffclf.training.noised_training import NoisedSizes, NoisedTraining, train_noised
from boltzgen_diffclf.training.objectives import named_objective
from systems.beads import are_beads_alone, bead_atoms, bead_system, bead_types
from systems.ensemble import ReferenceEnsemble
from systems.molecular import MolecularSystem
from workflows.hotter_frames import BeadEnsemble, Beyond, HotterFrames, hotter_frames
from workflows.molecule_settings import MoleculeSettings
from workflows.run_folder import RunFolder, StageResult
from workflows.system_settings import keep_system


def layout(settings: MoleculeSettings, system: MolecularSystem) -> MoleculeSpec:
    """Return the layout of a model of some atoms of a molecule."""
    return MoleculeSpec(
        types=bead_types(system, settings.beads),
        bonds=bead_system(system, settings.beads).bonds,
        path=settings.path,
        levels=settings.levels,
        network=settings.network,
        hidden=settings.hidden,
        layers=settings.layers,
    )


def earlier_model(settings: MoleculeSettings) -> MoleculeModel | None:
    """Return the model of ``--begin-with``, where there is one.

    Raises:
        InputError: it cannot be read, or is laid out for other atoms, another noising or another network.
    """
    file = settings.begin_with
    if file is None:
        return None
    model = load_molecule_model(file)
    for name, wanted in asdict(layout(settings, settings.source.load())).items():
        found = asdict(model.spec)[name]
        if found != wanted and name in ("types", "bonds"):
            raise InputError(f"--begin-with {file} is of other atoms or bonds: give a model of these --beads of it")
        if found != wanted:
            raise InputError(f"--begin-with {file} has --{name} {found}, not {wanted}: give --{name} {found}")
    return model


FORCE_BATCH = 4096
"""Frames whose forces are computed at once."""


class MoleculeStages:
    """One run: its settings, its frames, its folder.

    Frames are halved by whole groups: what is learned from, and what is held out.
    """

    def __init__(self, settings: MoleculeSettings, folder: RunFolder, frames: ReferenceEnsemble, device: str) -> None:
        self.settings, self.folder, self.device = settings, folder, torch.device(device)
        self.system: MolecularSystem = settings.source.load()
        keep_system(folder, self.system)
        self.beads = bead_system(self.system, settings.beads)
        if frames.n_groups < 2:
            raise InputError("frames of one group cannot be halved into what is learned and what is held out")
        self.training, self.held_out = frames.disjoint_groups(2)
        content = hashlib.sha256(frames.positions.numpy().tobytes()).hexdigest()
        if folder.remember("reference frames", lambda: content) != content:
            raise InputError(f"{folder.path} was begun with other reference frames: choose another --out")
        self._content = content

    def system_of(self, frames: ReferenceEnsemble) -> MolecularSystem:
        """Return what frames are of: all atoms, or the beads alone."""
        return self.beads if are_beads_alone(frames, self.system) else self.system

    def positions(self, frames: ReferenceEnsemble) -> Float[Tensor, "frames beads 3"]:
        """Return the centred positions [nm] of the beads of frames."""
        if are_beads_alone(frames, self.system):
            return remove_mean(frames.positions.double())
        atoms = list(bead_atoms(self.system, self.settings.beads))
        return remove_mean(frames.positions[:, atoms].double())

    @cached_property
    def spec(self) -> MoleculeSpec:
        """The layout of the model."""
        return layout(self.settings, self.system)

    @cached_property
    def earlier(self) -> MoleculeModel | None:
        """The model to go on from, where there is one."""
        return earlier_model(self.settings)

    def trained(self, objective: str, seed: int, file: Path) -> tuple[MoleculeModel, StageResult]:
        """Return the energy that an objective learns, from the folder or by training, and the stage's record."""
        stage = stage_of_training(objective, seed)
        hotter = HotterFrames()
        if looks_beyond(objective) and not self.folder.stage_done(stage):
            hotter = self._hotter(seed)
        result = self.folder.stage(stage, lambda: self._train(objective, seed, file, hotter))
        return load_molecule_model(file), result

    def _hotter(self, seed: int) -> HotterFrames:
        settings, atoms = self.settings, bead_atoms(self.system, self.settings.beads)
        ensemble = BeadEnsemble(self.system, settings.sampled_state, settings.temperature_kelvin, atoms)
        halves = self.training.positions.double(), self.held_out.positions.double()
        return hotter_frames(self.folder, ensemble, halves, seed, self.device)

    def _train(self, objective: str, seed: int, file: Path, hotter: HotterFrames) -> StageResult:
        settings = self.settings
        model, statistics = self._begun(seed, self.positions(self.training))
        coordinates, origin = coordinates_of(model), self._origin(objective, seed)
        chosen = named_objective(objective)
        if not isinstance(chosen, NoisedObjective):
            raise InputError(f"objective {objective} learns no noised energy, and a molecule needs one")
        if chosen.pretraining > 0:
            chosen = replace(chosen, pretraining=settings.pretraining)
        with self.folder.progress.stage(stage_of_training(objective, seed), settings.steps) as advance:
            told = 0

            def progress(step: int, steps: int, record: Mapping[str, float]) -> None:
                nonlocal told
                advance(step - told)
                told = step

            result, _ = train_noised(
                model,
                NoisedTraining(
                    chosen,
                    model.path,  # type: ignore[arg-type]
                    self._pool(self.training, coordinates, chosen, hotter.learned),
                    self._pool(self.held_out, coordinates, chosen, hotter.held_out),
                    coordinates.dimension,
                    split_seed(seed, "training"),
                    NoisedSizes(
                        settings.steps,
                        settings.groups,
                        settings.group_size,
                        settings.learning_rate,
                        later_rate=settings.later_rate,
                    ),
                    is_prepared=self.earlier is not None,
                    identity={**origin, "frames": self._content, "model_format": FORMAT},
                    checkpoint=file.with_name(f"{file.stem}-training{file.suffix}"),
                    progress=progress,
                ),
            )
        MoleculeModel(result.model.cpu(), self.spec, statistics, origin).save(file)
        facts = {"network_evaluations": result.network_evaluations, "last": result.history[-1]}
        return StageResult(facts=facts, files=[file])

    def _begun(
        self, seed: int, training: Float[Tensor, "frames beads 3"]
    ) -> tuple[NoisedEnergyModel, MoleculeStatistics]:
        """Return a model to train, fresh or the earlier one in the units of its own frames, and its statistics."""
        if self.earlier is not None:
            content = self.earlier.fingerprint
            if self.folder.remember("begun with", lambda: content) != content:
                raise InputError(f"{self.folder.path} was begun with another model: choose another --out")
            model = copy.deepcopy(self.earlier.model).float().requires_grad_(True).train()
            return model.to(self.device), self.earlier.statistics
        statistics = measure_molecule(training, self.beads.bonds, named_generator(seed, "resolution"))
        return build_molecule_model(self.spec, statistics, named_generator(seed, "weights")).to(self.device), statistics

    def _pool(
        self,
        frames: ReferenceEnsemble,
        coordinates: CentredCoordinates,
        objective: NoisedObjective,
        hotter: Beyond | None,
    ) -> FixedPool:
        """Return what is learned from some of the frames, with forces where the objective asks, and hotter frames."""
        forces = None if BY_FORCE.isdisjoint(objective.weights) else self._forces(frames.positions)
        return molecule_pool(self.positions(frames), coordinates, forces, hotter)

    def _forces(self, positions: Float[Tensor, "frames atoms 3"]) -> Float[Tensor, "frames beads 3"]:
        """Return the forces on the beads [kT/nm] of frames of all atoms."""
        settings = self.settings
        target = self.system.target(
            settings.sampled_state,
            temperature_kelvin=settings.temperature_kelvin,
            dtype=torch.float64,
            device=self.device,
        )
        atoms = list(bead_atoms(self.system, settings.beads))
        parts = positions.split(FORCE_BATCH)
        with torch.no_grad():
            forces = [target.energy_and_force(part.to(self.device, target.dtype))[1][:, atoms] for part in parts]
        return torch.cat(forces)

    def _origin(self, objective: str, seed: int) -> dict[str, object]:
        settings = self.settings
        return {
            "system": settings.system_name,
            "source": settings.source.as_plain(),
            "state": settings.sampled_state,
            "beads": settings.beads,
            "temperature_kelvin": settings.temperature_kelvin,
            **self.system.identity(settings.sampled_state),
            "objective": objective,
            "seed": seed,
            **({} if self.earlier is None else {"begun_with": self.earlier.fingerprint}),
        }


def looks_beyond(objective: str) -> bool:
    """Return whether an objective asks for forces at frames beyond the ensemble."""
    chosen = named_objective(objective)
    return isinstance(chosen, NoisedObjective) and not BEYOND.isdisjoint(chosen.weights)


def check_training(settings: MoleculeSettings, objectives: Sequence[str]) -> None:
    """Check, before anything is sampled, beads, what a training begins with, and that its later rate has a use.

    Raises:
        InputError: the molecule has no such ``--beads``, the model of ``--begin-with`` cannot be gone on from, or
            ``--later-rate`` has no steps after a preparation.
    """
    layout(settings, settings.source.load())
    earlier_model(settings)
    chosen = [named_objective(name) for name in objectives]
    prepared = any(isinstance(one, NoisedObjective) and one.pretraining for one in chosen) and settings.pretraining
    if settings.later_rate != 1 and (settings.begin_with or not prepared):
        without = "--begin-with" if settings.begin_with else f"--pretraining {settings.pretraining:g}"
        raise InputError(
            f"--later-rate {settings.later_rate} is of the steps after a preparation, and {', '.join(objectives)} with "
            f"{without} has none: leave --later-rate out"
        )


def stage_of_training(objective: str, seed: int) -> str:
    """Return the name of the stage in the run folder."""
    return f"training-{objective}-seed{seed}"
