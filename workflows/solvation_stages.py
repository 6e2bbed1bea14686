"""The stages of ``workflows.solvation``: each reads the run folder, does one thing, and leaves it there."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Collection, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from boltzgen_diffclf.coordinates import InternalCoordinates
from boltzgen_diffclf.errors import InputError
from boltzgen_diffclf.free_energy.annealed import AnnealingSettings, annealed_estimate
from boltzgen_diffclf.free_energy.annealed_ladders import linear_ladder_works
from boltzgen_diffclf.free_energy.classical import SampledState, energies_in
from boltzgen_diffclf.free_energy.internal_space import InternalSpace
from boltzgen_diffclf.free_energy.step_sizes import hmc_family
from boltzgen_diffclf.streams import named_generator, split_seed
from systems.bridges import polar_state, with_polar_state
from systems.ensemble import ReferenceEnsemble, resample
from systems.force_field_pair import FORCE_FIELD_LEG, mixed_state, with_mixed_state
from systems.internal import internal_coordinates
from systems.legs import Leg
from systems.molecular import MolecularSystem
from systems.openmm_engine import OpenMMSettings, generate_with_openmm
from systems.recording import Advance
from systems.reference import ReferenceSettings, generate
from systems.store import read_ensemble
from systems.temperature_ladder import ladder_for
from systems.user_trajectory import read_user_trajectory
from workflows.run_folder import RunFolder, StageResult
from workflows.solvation_bridges import SOLVATION, Bridged, Rung, Way, bridged

if TYPE_CHECKING:
    from workflows.solvation_settings import SolvationConfig


class SolvationStages:
    """One run: its settings, its system, its folder."""

    def __init__(self, config: SolvationConfig, folder: RunFolder, system: MolecularSystem, device: str) -> None:
        self.config, self.folder, self.system, self.device = config, folder, system, torch.device(device)

    def ensemble(self, state: str) -> ReferenceEnsemble:
        """Return the reference ensemble of a state: the user's, a sampled one, or one reached by reweighting."""
        if state not in self._ensembles:
            self._ensembles[state] = self._make_ensemble(state)
        return self._ensembles[state]

    @cached_property
    def _ensembles(self) -> dict[str, ReferenceEnsemble]:
        return {}

    def _make_ensemble(self, state: str) -> ReferenceEnsemble:
        config = self.config
        if state in config.trajectory_files:
            return self._read_user_trajectory(state, config.trajectory_files[state])
        if self.source(state) != state:
            source = self.ensemble(self.source(state))
            return resample(source, self.system, state, named_generator(config.seed, f"resample {state}"))
        return self._generated(self.system, state)

    def _generated(self, system: MolecularSystem, state: str) -> ReferenceEnsemble:
        """Return the ensemble of a state of the molecule, sampled where the folder does not hold it."""
        config = self.config
        path = self.folder.path / "reference" / f"{state}.h5"
        stage = f"reference-{state}"

        def sample() -> StageResult:
            total = config.equilibration_frames + config.frames_per_walker
            with self.folder.progress.stage(stage, total) as advance:
                self._sample(system, state, path, advance)
            return StageResult(files=[path])

        self.folder.stage(stage, sample)
        return read_ensemble(path, system, state, config.temperature_kelvin)

    def source(self, state: str) -> str:
        """Return the state whose frames stand for those of ``state``: itself, or the one that is reweighted to it."""
        return state if state in self.config.trajectory_files else self.system.reweighted.get(state, state)

    def sources(self, leg: Leg) -> tuple[str, ...]:
        """Return the states whose frames stand for the two ends of a leg, each once."""
        return tuple(sorted({self.source(state) for state in (leg.state_a, leg.state_b)}))

    def resampled(self, leg: Leg) -> list[str]:
        """Return a sentence for each end of the leg whose frames are those of another state."""
        return [
            f"the frames of {state} are those of {self.source(state)}, resampled by weight: the same frames, some twice"
            for state in (leg.state_a, leg.state_b)
            if self.source(state) != state
        ]

    def _sample(self, system: MolecularSystem, state: str, path: Path, advance: Advance) -> None:
        temperature = self.config.temperature_kelvin
        if self.config.engine == "openmm":
            generate_with_openmm(system, state, temperature, self._openmm_settings(), path, advance)
        else:
            generate(system, state, temperature, self._reference_settings(), path, advance, device=self.device)

    def _read_user_trajectory(self, state: str, file: Path) -> ReferenceEnsemble:
        ensemble = read_user_trajectory(file, self.system, state, self.config.temperature_kelvin)
        content = _fingerprint(file)
        if self.folder.remember(f"trajectory {state}", lambda: content) != content:
            raise InputError(
                f"{file} has changed since this run began, and stages in {self.folder.path} come from the old one: "
                "choose another --out"
            )
        return ensemble

    def _reference_settings(self) -> ReferenceSettings:
        config = self.config
        return ReferenceSettings(
            walkers=config.walkers,
            temperatures_kelvin=self._ladder,
            frames_per_walker=config.frames_per_walker,
            steps_per_frame=config.steps_per_frame,
            steps_per_sweep=_sweep(config.steps_per_frame),
            equilibration_frames=config.equilibration_frames,
            timestep_fs=config.timestep_fs,
            seed=config.seed,
        )

    def _openmm_settings(self) -> OpenMMSettings:
        config = self.config
        return OpenMMSettings(
            walkers=config.walkers,
            frames_per_walker=config.frames_per_walker,
            steps_per_frame=config.steps_per_frame,
            equilibration_frames=config.equilibration_frames,
            timestep_fs=config.timestep_fs,
            threads=torch.get_num_threads(),
            seed=config.seed,
        )

    def bridges(self, leg: Leg, sampled: Mapping[str, SampledState]) -> Bridged:
        """Return the sampled states of a leg with states between where they overlap too little.

        A leg with frames of one state alone has no way to walk, and stays as it is.
        """
        way = way_of(leg, sampled)
        if way is None:
            rungs = tuple(Rung(None, frames) for frames in sampled.values())
            return Bridged(None, self.system.states, self.system.states, rungs, 1.0)
        ends = sampled[way.first], sampled[way.high]
        return bridged(way, self.system.states, *ends, lambda fraction: self.between(way, fraction))

    def between(self, way: Way, fraction: float) -> SampledState:
        """Return frames of the state with a fraction of a way, with their energies in the states of the molecule."""
        state = way.name(fraction)
        if state not in self._ensembles:
            self.folder.progress.add(f"reference-{state}", self.reference_share)
            extend = with_polar_state if way.name is polar_state else with_mixed_state
            self._ensembles[state] = self._generated(extend(self.system, fraction), state)
        return self.sampled(state)

    @property
    def _ladder(self) -> tuple[float, ...]:
        config = self.config
        highest = config.highest_temperature_kelvin
        return ladder_for(self.system.n_atoms, config.temperature_kelvin, highest, config.exchange_temperatures)

    @property
    def reference_share(self) -> float:
        """Expected seconds of sampling one state on two cores."""
        config = self.config
        steps = config.walkers * len(self._ladder) * config.steps_per_frame
        return steps * (config.frames_per_walker + config.equilibration_frames) / 50_000

    def sampled(self, state: str) -> SampledState:
        """Return the frames of a state with their energies in every state of the system."""
        ensemble = self.ensemble(state)

        def evaluate() -> StageResult:
            rows = [energies_in(self.target(other), ensemble.positions.double()) for other in self.system.states]
            return StageResult({"energies": np.stack(rows)})

        energies = self.folder.stage(f"energies-{state}", evaluate).arrays["energies"]
        return SampledState(state, energies, ensemble.group.numpy())

    def n_effective(self, state: str) -> float:
        """Return the independent frames of a state, by its slowest watched quantity."""
        frames = self.ensemble(state).diagnostics.get("effective_frames", {})
        return float(min(frames.values())) if isinstance(frames, Mapping) and frames else float("nan")

    def independent_frames(self, leg: Leg) -> float:
        """Return the independent frames of both ends together, those that stand for both counted once."""
        ends = leg.state_a, leg.state_b
        return sum(
            min(self.n_effective(state) for state in ends if self.source(state) == source)
            for source in self.sources(leg)
        )

    def target(self, state: str) -> Any:
        """Return the true energy of a state in float64."""
        return self.system.target(state, self.config.temperature_kelvin, torch.float64, self.device)

    @cached_property
    def internal(self) -> InternalCoordinates:
        """The molecule's internal coordinates; the named torsions are columns of their own."""
        return internal_coordinates(self.system).to(self.device)

    def space(self, leg: Leg) -> InternalSpace:
        """Return the internal-coordinate path of a leg, whitened by as many frames of either end."""
        if leg.name not in self._spaces:
            a, b = (self.positions(self.ensemble(state)) for state in (leg.state_a, leg.state_b))
            size = min(len(a), len(b))
            # In the order of time, of which the first would be the least like the rest.
            a, b = (end[torch.linspace(0, len(end) - 1, size, dtype=torch.float64).long()] for end in (a, b))
            # On the path there are no walls: the energy model brings those that belong to each time.
            end_a, end_b = (self.target(self.system.unconfined(state)) for state in (leg.state_a, leg.state_b))
            self._spaces[leg.name] = InternalSpace(self.internal, end_a, end_b, a, b)
        return self._spaces[leg.name]

    @cached_property
    def _spaces(self) -> dict[str, InternalSpace]:
        return {}

    def annealed(self, leg: Leg) -> StageResult:
        """Return the works of annealing along the straight line of the true energies, both directions."""
        a, b = self.ensemble(leg.state_a), self.ensemble(leg.state_b)
        group_a, group_b = self.walkers(leg, a, b)

        def anneal() -> StageResult:
            with self.folder.progress.stage(f"annealed-{leg.name}", 1.0):
                works = linear_ladder_works(
                    self.target(leg.state_a),
                    self.target(leg.state_b),
                    a.positions.double(),
                    group_a,
                    b.positions.double(),
                    group_b,
                    hmc_family(1 / self.system.masses[:, None], n_leapfrog=1),
                    AnnealingSettings(levels=9, particles=8 * self.config.anneal_particles),
                    named_generator(self.config.seed, f"annealed {leg.name}"),
                )
                generator = np.random.default_rng(split_seed(self.config.seed, f"ais/{leg.name}"))
                estimate, cost = annealed_estimate(works, generator)
            facts = {**dataclasses.asdict(estimate), **dataclasses.asdict(cost)}
            return StageResult({"forward": works.forward, "reverse": works.reverse}, facts)

        return self.folder.stage(f"annealed-{leg.name}", anneal)

    def walkers(
        self, leg: Leg, a: ReferenceEnsemble, b: ReferenceEnsemble
    ) -> tuple[Int[Tensor, " frames_a"], Int[Tensor, " frames_b"]]:
        """Return the walkers of frames of both ends, the same ones where one end is the other, weighted otherwise."""
        apart = 0 if len(self.sources(leg)) == 1 else int(a.group.max()) + 1
        return a.group, b.group + apart

    def share(self, state: str, replicate: int) -> ReferenceEnsemble:
        """Return one replicate's own walkers of a state; replicates share none."""
        n = self.config.training_seeds
        return self.ensemble(state).disjoint_groups(n)[replicate % n]

    def positions(self, ensemble: ReferenceEnsemble) -> Float[Tensor, "frames atoms 3"]:
        """Return the positions [nm] of frames in float64, where the run computes."""
        return ensemble.positions.to(self.device, torch.float64)

    def identity(self, leg: Leg, replicate: int) -> dict[str, Any]:
        """Return what a checkpoint of this replicate must agree with: system, frames, coordinates."""
        frames = hashlib.sha256()
        for state in (leg.state_a, leg.state_b):
            frames.update(self.ensemble(state).positions.numpy().tobytes())
        return {
            "system": self.system.name,
            "leg": leg.name,
            "replicate": replicate,
            "temperature_kelvin": self.config.temperature_kelvin,
            "system_hashes": [self.system.system_hash(s) for s in (leg.state_a, leg.state_b)],
            "frames": frames.hexdigest(),
            "coordinates": "internal, whitened; energies in kT",
        }


def way_of(leg: Leg, sampled: Collection[str]) -> Way | None:
    """Return the line of states that joins the two sampled states of a leg, None where none does."""
    if leg.divides is not None:
        return None
    way = SOLVATION
    if leg.name == FORCE_FIELD_LEG:
        way = Way(leg.state_a, leg.state_b, None, f"the energy of {leg.state_b}", mixed_state)
    if set(sampled) == {way.low, way.high}:  # frames of where the line itself begins
        return dataclasses.replace(way, before=None)
    return way if set(sampled) == {way.first, way.high} else None


def _fingerprint(file: Path) -> str:
    """Return the SHA-256 of a file, or of all files of a trajectory that is a folder (dtr)."""
    content = hashlib.sha256()
    for part in sorted(file.rglob("*")) if file.is_dir() else [file]:
        if part.is_file():
            content.update(part.read_bytes())
    return content.hexdigest()


def _sweep(steps_per_frame: int) -> int:
    """Return the steps between rounds of swaps: about 100, as faster ones heat the cold walkers by their time step."""
    return next(steps for steps in range(min(100, steps_per_frame), 0, -1) if steps_per_frame % steps == 0)
