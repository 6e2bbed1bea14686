"""Batched Langevin walkers under temperature replica exchange, as a source of frames."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from boltzgen_diffclf.confinement import Region
from boltzgen_diffclf.errors import InputError, RunFailedError
from boltzgen_diffclf.samplers.confined import ConfinedLangevin
from boltzgen_diffclf.samplers.kernels import Langevin
from boltzgen_diffclf.samplers.replica_exchange import ReplicaExchange, ReplicaExchangeState
from boltzgen_diffclf.samplers.state import LangevinState
from boltzgen_diffclf.streams import named_generator
from boltzgen_diffclf.target import Target, TemperatureLadder
from boltzgen_diffclf.units import thermal_energy_kj_per_mol
from systems.ensemble import evaluate
from systems.recording import FrameSource


@dataclass(frozen=True)
class ReferenceSettings:
    """How an ensemble is sampled.

    At a finite time step BAOAB keeps stiff modes right in position and colder than Maxwell's law in velocity, by a
    share ``(omega dt)^2 / 4`` that differs between levels: every swap therefore disturbs the coldest walkers for a
    time ``1 / friction``. Swaps spaced by more than that keep the mean energy right, which the defaults do.

    Attributes:
        walkers: walkers at each temperature, so many independent ladders (groups).
        temperatures_kelvin: the ladder [K]; frames of the first temperature are stored.
        frames_per_walker: frames stored of each ladder.
        steps_per_frame: time steps between frames.
        steps_per_sweep: time steps between rounds of swaps; divides ``steps_per_frame``.
        equilibration_frames: discarded at the start of each ladder.
        hot_start_steps: time steps of all walkers at the highest temperature before that, to spread them out.
        timestep_fs: [fs].
        friction_per_ps: [1/ps].
        hydrogen_mass_amu: of hydrogens in the dynamics [amu]; configurational averages do not depend on it.
        precision: of the dynamics; stored energies are always float64.
        seed: root seed.
    """

    walkers: int = 64
    temperatures_kelvin: tuple[float, ...] = (300.0, 416.0, 577.0, 800.0)
    frames_per_walker: int = 400
    steps_per_frame: int = 200
    steps_per_sweep: int = 100
    equilibration_frames: int = 40
    hot_start_steps: int = 2000
    timestep_fs: float = 2.5
    friction_per_ps: float = 10.0
    hydrogen_mass_amu: float = 4.0
    precision: Literal["float32", "float64"] = "float32"
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("walkers", "frames_per_walker", "steps_per_frame", "steps_per_sweep"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)}: give at least 1")
        for name in ("timestep_fs", "friction_per_ps", "hydrogen_mass_amu"):
            if not getattr(self, name) > 0:
                raise InputError(f"{name} is {getattr(self, name)}: give a positive number")
        for name in ("equilibration_frames", "hot_start_steps"):
            if getattr(self, name) < 0:
                raise InputError(f"{name} is {getattr(self, name)}: give 0 or more")
        if self.steps_per_frame % self.steps_per_sweep:
            raise InputError(
                f"steps_per_frame is {self.steps_per_frame}: give a multiple of steps_per_sweep, {self.steps_per_sweep}"
            )
        ladder = self.temperatures_kelvin
        if not ladder or any(cold >= hot for cold, hot in itertools.pairwise(ladder)):
            raise InputError(f"temperatures_kelvin is {ladder}: give rising temperatures, coldest first")

    @property
    def walker_steps(self) -> int:
        """Force evaluations of the whole run."""
        frames = self.frames_per_walker + self.equilibration_frames
        steps = self.hot_start_steps + frames * self.steps_per_frame
        return self.walkers * len(self.temperatures_kelvin) * steps


class ReplicaExchangeDynamics(FrameSource):
    """BAOAB Langevin walkers on a ladder of temperatures; the coldest of every group is the frame.

    Args:
        target: the state at the first temperature of the ladder, in the precision of the dynamics.
        exact_target: the same in double precision, for the energies that are stored.
        starts: where the walkers begin [nm]: those of the first group at the first of them, and so on in turn.
        masses: [amu].
        settings: of the run.
        stream: name of the random stream.
        region: that walkers do not leave, their start inside; None where they go everywhere.
    """

    def __init__(
        self,
        target: Target,
        exact_target: Target,
        starts: Float[Tensor, "starts atoms 3"],
        masses: Float[Tensor, " atoms"],
        settings: ReferenceSettings,
        stream: str,
        region: Region | None = None,
    ) -> None:
        self.n_groups, self.n_frames = settings.walkers, settings.frames_per_walker
        self.n_discarded, self.device_type = settings.equilibration_frames, target.device.type
        self.frame_interval_ps = settings.steps_per_frame * settings.timestep_fs * 1e-3
        self._settings, self._starts, self._exact_target = settings, starts, exact_target
        self._ladder = TemperatureLadder(target, settings.temperatures_kelvin)
        inverse_mass = thermal_energy_kj_per_mol(settings.temperatures_kelvin[0]) / masses[:, None]
        motion = settings.timestep_fs * 1e-3, settings.friction_per_ps, inverse_mass.to(target.dtype)
        kernel = Langevin(*motion) if region is None else ConfinedLangevin(*motion, region)
        self._exchange: ReplicaExchange[LangevinState] = ReplicaExchange(kernel, settings.steps_per_sweep)
        self._generator = named_generator(settings.seed, stream, target.device)
        self._state: ReplicaExchangeState[LangevinState] | None = None

    def start(self) -> None:
        """Spread the walkers out at the highest temperature, then put them on the ladder."""
        position = self._initial_positions()
        hottest = torch.full((len(position),), self._ladder.n_levels - 1, device=position.device)
        kernel = self._exchange.kernel
        walkers = kernel.init(self._ladder, position, hottest, self._generator)
        walkers, info = kernel.run(self._ladder, walkers, hottest, self._settings.hot_start_steps, self._generator)
        self._require_finite(info.nonfinite)
        self._state = self._exchange.init(self._ladder, _recentred(walkers).position, self._generator)

    def advance(self) -> Float[Tensor, "groups atoms 3"]:
        """See :meth:`FrameSource.advance`."""
        state = self._current()
        for _ in range(self._settings.steps_per_frame // self._settings.steps_per_sweep):
            state, info = self._exchange.step(self._ladder, state, self._generator)
            self._require_finite(info.kernel.nonfinite)
        # A drifting centre of mass would eat the digits of single precision.
        self._state = replace(state, walkers=_recentred(state.walkers))
        return self._state.walkers.position[self._state.level == 0]

    def energies(self, positions: Float[Tensor, "frames atoms 3"]) -> Float[Tensor, " frames"]:
        """See :meth:`FrameSource.energies`."""
        return evaluate(self._exact_target, positions)

    def tensors(self) -> dict[str, Tensor]:
        """See :meth:`FrameSource.tensors`."""
        return {**self._current().tensors(), "generator": self._generator.get_state()}

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """See :meth:`FrameSource.restore`."""
        saved = dict(tensors)
        generator_state = saved.pop("generator")
        blank = self._exchange.init(self._ladder, self._initial_positions(), self._generator)
        self._state = blank.with_tensors(saved)
        self._generator.set_state(generator_state)

    def diagnostics(self) -> dict[str, object]:
        """Return how the walkers travelled along the ladder."""
        counters = self._current().counters
        trips = counters.round_trips.view(self.n_groups, -1).sum(1)
        return {
            "temperatures_kelvin": list(self._settings.temperatures_kelvin),
            "exchange_acceptance": counters.acceptance.tolist(),
            "round_trips": int(trips.sum()),
            "groups_without_round_trip": int((trips == 0).sum()),
            "nonfinite_walkers": 0,
        }

    def _initial_positions(self) -> Float[Tensor, "walkers atoms 3"]:
        start = (self._starts - self._starts.mean(1, keepdim=True)).to(self._ladder.device, self._ladder.dtype)
        of_group = torch.arange(self.n_groups, device=start.device) % len(start)
        return start[of_group.repeat_interleave(self._ladder.n_levels)]

    def _current(self) -> ReplicaExchangeState[LangevinState]:
        if self._state is None:
            raise ValueError("call start() or restore() first")
        return self._state

    def _require_finite(self, nonfinite: Tensor) -> None:
        if bool(nonfinite.any()):
            raise RunFailedError(
                f"{int(nonfinite.sum())} of {len(nonfinite)} walkers met an energy that is not finite: choose a "
                f"timestep below {self._settings.timestep_fs:g} fs or a cooler ladder, and another file"
            )


def _recentred(walkers: LangevinState) -> LangevinState:
    return replace(walkers, position=walkers.position - walkers.position.mean(1, keepdim=True))
