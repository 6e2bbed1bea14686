"""Langevin chains on any target of positions, a learned one for example, as a source of frames."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from boltzgen_diffclf.samplers.kernels import Langevin
from boltzgen_diffclf.samplers.state import LangevinState
from boltzgen_diffclf.streams import named_generator
from boltzgen_diffclf.target import SingleLevel, Target
from boltzgen_diffclf.units import thermal_energy_kj_per_mol
from systems.ensemble import evaluate
from systems.recording import FrameSource


@dataclass(frozen=True)
class ChainSettings:
    """How chains run.

    Attributes:
        chains: that run in parallel.
        frames_per_chain: frames kept of each.
        steps_per_frame: time steps between frames.
        equilibration_frames: discarded at the start of each.
        timestep_fs: [fs].
        friction_per_ps: [1/ps].
        seed: of the velocities and the noise.
    """

    chains: int
    frames_per_chain: int
    steps_per_frame: int
    equilibration_frames: int = 0
    timestep_fs: float = 2.0
    friction_per_ps: float = 1.0
    seed: int = 0


class ChainDynamics(FrameSource):
    """BAOAB Langevin chains, each a group of its own.

    A learned energy may have holes that a chain falls into. One that meets an energy that is not finite, or falls
    apart, begins again where it began, and is counted: leaving it out would hide what is wrong with the energy.

    Args:
        target: in the precision of the dynamics.
        exact_target: the same in double precision, for the energies that are stored.
        start: where the chains begin [nm].
        masses: [amu].
        temperature_kelvin: [K].
        reach_nm: a chain has fallen apart where an atom is farther from the centroid [nm].
        settings: see there.
    """

    def __init__(
        self,
        target: Target,
        exact_target: Target,
        start: Float[Tensor, "chains atoms 3"],
        masses: Float[Tensor, " atoms"],
        temperature_kelvin: float,
        reach_nm: float,
        settings: ChainSettings,
    ) -> None:
        self.n_groups, self.n_frames = settings.chains, settings.frames_per_chain
        self.n_discarded = settings.equilibration_frames
        self.frame_interval_ps = settings.steps_per_frame * settings.timestep_fs * 1e-3
        self.device_type = target.device.type
        self._settings, self._exact_target, self._ladder = settings, exact_target, SingleLevel(target)
        self._start = start.to(target.device, target.dtype)
        inverse_mass = thermal_energy_kj_per_mol(temperature_kelvin) / masses[:, None]
        self._kernel = Langevin(settings.timestep_fs * 1e-3, settings.friction_per_ps, inverse_mass.to(target.dtype))
        self._generator = named_generator(settings.seed, "chains", target.device)
        self._level = torch.zeros(settings.chains, dtype=torch.long, device=target.device)
        self._reach_nm = reach_nm
        self._exploded = torch.zeros(settings.chains, dtype=torch.long, device=target.device)
        self._state: LangevinState | None = None

    def start(self) -> None:
        """See :meth:`FrameSource.start`."""
        self._state = self._kernel.init(self._ladder, self._start, self._level, self._generator)

    def advance(self) -> Float[Tensor, "groups atoms 3"]:
        """See :meth:`FrameSource.advance`."""
        if self._state is None:
            raise ValueError("call start() or restore() first")
        steps = self._settings.steps_per_frame
        state, info = self._kernel.run(self._ladder, self._state, self._level, steps, self._generator)
        lost = info.nonfinite | ~(radius(state.position) < self._reach_nm)
        if bool(lost.any()):
            state = self._begun_again(state, lost)
        # A drifting centroid would eat the digits of single precision.
        self._state = replace(state, position=state.position - state.position.mean(1, keepdim=True))
        return self._state.position

    def energies(self, positions: Float[Tensor, "frames atoms 3"]) -> Float[Tensor, " frames"]:
        """See :meth:`FrameSource.energies`."""
        return evaluate(self._exact_target, positions)

    def tensors(self) -> dict[str, Tensor]:
        """See :meth:`FrameSource.tensors`."""
        if self._state is None:
            raise ValueError("call start() or restore() first")
        return {**self._state.tensors(), "exploded": self._exploded, "generator": self._generator.get_state()}

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """See :meth:`FrameSource.restore`."""
        saved = dict(tensors)
        generator_state, self._exploded = saved.pop("generator"), saved.pop("exploded").to(self._level.device)
        blank = self._kernel.init(self._ladder, self._start, self._level, self._generator)
        self._state = blank.with_tensors(saved)
        self._generator.set_state(generator_state)

    def diagnostics(self) -> dict[str, object]:
        """Return how many chains had to begin again."""
        return {"chains": self.n_groups, "exploded_chains": int((self._exploded > 0).sum())}

    def _begun_again(self, state: LangevinState, lost: Bool[Tensor, " chains"]) -> LangevinState:
        self._exploded += lost
        fresh = self._kernel.init(self._ladder, self._start, self._level, self._generator)
        return fresh.where(lost, state)


def radius(x: Float[Tensor, "chains atoms 3"]) -> Float[Tensor, " chains"]:
    """Return how far the outermost atom is from the centroid [unit of x]."""
    return (x - x.mean(1, keepdim=True)).norm(dim=-1).amax(1)
