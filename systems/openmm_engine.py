"""Reference ensembles by OpenMM's own dynamics, for states that the force-field compiler refuses."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import openmm
import torch
from jaxtyping import Float
from openmm import unit
from torch import Tensor

from boltzgen_diffclf.errors import InputError, RunFailedError
from boltzgen_diffclf.streams import split_seed
from boltzgen_diffclf.units import thermal_energy_kj_per_mol
from systems.ensemble import Provenance, ReferenceEnsemble
from systems.hydrogen_mass import keeps_its_masses, with_hydrogen_mass
from systems.molecular import MolecularSystem, require_temperature
from systems.recording import Advance, FrameSource, record
from systems.starts import begun_at

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class OpenMMSettings:
    """How an ensemble is sampled with OpenMM: independent walkers at one temperature, one after another.

    Attributes:
        walkers: independent simulations.
        frames_per_walker: frames stored of each.
        steps_per_frame: time steps between frames.
        equilibration_frames: discarded at the start of each walker.
        timestep_fs: [fs].
        friction_per_ps: [1/ps].
        hydrogen_mass_amu: of hydrogens in the dynamics [amu]; None leaves them their own.
        platform: OpenMM platform, ``CPU`` or ``Reference`` where runs have to be repeatable.
        threads: of the CPU platform.
        seed: root seed.
    """

    walkers: int = 8
    frames_per_walker: int = 1000
    steps_per_frame: int = 500
    equilibration_frames: int = 20
    timestep_fs: float = 2.5
    friction_per_ps: float = 1.0
    hydrogen_mass_amu: float | None = 4.0
    platform: str = "CPU"
    threads: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("walkers", "frames_per_walker", "steps_per_frame", "threads"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)}: give at least 1")
        for name in ("timestep_fs", "friction_per_ps", "hydrogen_mass_amu"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise InputError(f"{name} is {value}: give a positive number")
        known = [openmm.Platform.getPlatform(index).getName() for index in range(openmm.Platform.getNumPlatforms())]
        if self.platform not in known:
            raise InputError(f"OpenMM has no platform '{self.platform}' here: choose one of {', '.join(known)}")


def generate_with_openmm(
    system: MolecularSystem,
    state: str,
    temperature_kelvin: float,
    settings: OpenMMSettings,
    path: Path,
    progress: Advance = lambda frames: None,
) -> ReferenceEnsemble:
    """Return the reference ensemble of a state, sampling what is missing in ``path``; resumes like ``generate``.

    Constraints of the System are kept, and then its masses too: the frames are samples of the constrained molecule.

    Args:
        system: the system.
        state: one of its states.
        temperature_kelvin: of the ensemble [K].
        settings: how to sample.
        path: the trajectory file; unfinished work lies beside it.
        progress: told of every frame done (of ``equilibration_frames + frames_per_walker``).

    Raises:
        InputError: unknown state, impossible temperature, or a file of another run.
        RunFailedError: energies are not finite, or the disk refuses.
    """
    temperature = require_temperature(temperature_kelvin)
    if settings.hydrogen_mass_amu is not None and keeps_its_masses(system.openmm_system(state)):
        _log.info("hydrogens keep their own mass: %s has constraints, whose ensemble depends on the masses", state)
        settings = replace(settings, hydrogen_mass_amu=None)
    provenance = Provenance(
        system=system.name,
        state=state,
        temperature_kelvin=temperature,
        system_hash=system.system_hash(state),
        seed=settings.seed,
        settings={"engine": "openmm", **asdict(settings), **begun_at(system, state)},
    )
    source = OpenMMDynamics(system, state, temperature, settings)
    return record(source, system, provenance, path, progress)


class OpenMMDynamics(FrameSource):
    """Langevin-middle walkers that share one context.

    Every stretch between two frames has a seed of its own, drawn from the root seed, the walker and the frame, so
    that positions and velocities are all there is to save.

    Attributes:
        dynamics_system: what moves.

    Args:
        system: the system.
        state: one of its states.
        temperature_kelvin: [K].
        settings: of the run.
    """

    def __init__(
        self, system: MolecularSystem, state: str, temperature_kelvin: float, settings: OpenMMSettings
    ) -> None:
        self.n_groups, self.n_frames = settings.walkers, settings.frames_per_walker
        self.n_discarded = settings.equilibration_frames
        self.frame_interval_ps = settings.steps_per_frame * settings.timestep_fs * 1e-3
        self._settings, self._temperature = settings, temperature_kelvin
        self._stream = f"openmm/{system.name}/{state}"
        self._starts = system.starts(state).numpy()
        self._integrator = openmm.LangevinMiddleIntegrator(
            temperature_kelvin, settings.friction_per_ps, settings.timestep_fs * 1e-3
        )
        self.dynamics_system = system.openmm_system(state)
        if settings.hydrogen_mass_amu is not None:
            self.dynamics_system = with_hydrogen_mass(system, state, settings.hydrogen_mass_amu)
        self._context = self._make_context(self.dynamics_system)
        self._exact_context = openmm.Context(
            system.openmm_system(state),
            openmm.VerletIntegrator(1e-3),
            openmm.Platform.getPlatformByName("Reference"),
        )
        self._positions = np.zeros((self.n_groups, system.n_atoms, 3))
        self._velocities = np.zeros_like(self._positions)
        self._frame = 0

    def start(self) -> None:
        """Minimise the energy from every start, then give each walker one in turn, and velocities of its own."""
        with _one_line():
            minima = [self._minimised(start) for start in self._starts]
        for walker in range(self.n_groups):
            self._context.setPositions(minima[walker % len(minima)])
            self._context.setVelocitiesToTemperature(self._temperature, self._seed("velocities", walker))
            self._keep(walker)

    def advance(self) -> Float[Tensor, "groups atoms 3"]:
        """See :meth:`FrameSource.advance`."""
        for walker in range(self.n_groups):
            self._integrator.setRandomNumberSeed(self._seed(f"frame {self._frame}", walker))
            self._context.reinitialize()
            self._context.setPositions(self._positions[walker])
            self._context.setVelocities(self._velocities[walker])
            with _one_line():
                self._integrator.step(self._settings.steps_per_frame)
            self._keep(walker)
        self._frame += 1
        return torch.from_numpy(self._positions.copy())

    def energies(self, positions: Float[Tensor, "frames atoms 3"]) -> Float[Tensor, " frames"]:
        """See :meth:`FrameSource.energies`; OpenMM's Reference platform computes in double precision."""
        energies = [self._reference_energy(frame.double().numpy()) for frame in positions]
        return torch.tensor(energies, dtype=torch.float64)

    def tensors(self) -> dict[str, Tensor]:
        """See :meth:`FrameSource.tensors`."""
        return {
            "positions": torch.from_numpy(self._positions),
            "velocities": torch.from_numpy(self._velocities),
            "frame": torch.tensor(self._frame),
        }

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """See :meth:`FrameSource.restore`."""
        self._positions = tensors["positions"].numpy().copy()
        self._velocities = tensors["velocities"].numpy().copy()
        self._frame = int(tensors["frame"])

    def _make_context(self, openmm_system: openmm.System) -> openmm.Context:
        platform = openmm.Platform.getPlatformByName(self._settings.platform)
        properties = {}
        if self._settings.platform == "CPU":
            properties = {"Threads": str(self._settings.threads), "DeterministicForces": "true"}
        return openmm.Context(openmm_system, self._integrator, platform, properties)

    def _reference_energy(self, positions: Float[np.ndarray, "atoms 3"]) -> float:
        self._exact_context.setPositions(positions)
        energy = self._exact_context.getState(getEnergy=True).getPotentialEnergy()
        return energy.value_in_unit(unit.kilojoule_per_mole) / thermal_energy_kj_per_mol(self._temperature)

    def _seed(self, purpose: str, walker: int) -> int:
        # OpenMM takes 31 bits and reads 0 as "choose one".
        return split_seed(self._settings.seed, f"{self._stream}/{purpose}/{walker}") % (2**31 - 2) + 1

    def _minimised(self, start: Float[np.ndarray, "atoms 3"]) -> Float[np.ndarray, "atoms 3"]:
        self._context.setPositions(start)
        openmm.LocalEnergyMinimizer.minimize(self._context, 1.0, 200)
        state = self._context.getState(getPositions=True)
        return np.asarray(state.getPositions(asNumpy=True).value_in_unit(unit.nanometer))

    def _keep(self, walker: int) -> None:
        state = self._context.getState(getPositions=True, getVelocities=True)
        self._positions[walker] = state.getPositions(asNumpy=True).value_in_unit(unit.nanometer)
        velocities = state.getVelocities(asNumpy=True)
        self._velocities[walker] = velocities.value_in_unit(unit.nanometer / unit.picosecond)


@contextmanager
def _one_line() -> Iterator[None]:
    """Turn what OpenMM says of dynamics that cannot go on into one line."""
    try:
        yield
    except openmm.OpenMMException as error:
        raise RunFailedError(
            f"OpenMM's dynamics stopped ({str(error).split('. ')[0]}): where the simulation blew up, choose a smaller "
            "timestep and another file"
        ) from error
