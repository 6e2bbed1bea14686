"""A Boltzmann generator: samples of a learned density carried to the true energy, and what their weights are worth.

First the noising is reversed by sequential Monte Carlo, whose particles stand for the learned energy at the least
noise, then a bridge leads them to the true one. Whatever the network has learned, the weighted particles stand for the
true energy in the limit of many: a poor network leaves fewer families of them, and those tell the errors.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from boltzgen_diffclf.compilation import fuse
from boltzgen_diffclf.estimators.reweighting import WeightDiagnostics, diagnose_weights, family_log_weights
from boltzgen_diffclf.free_energy.guarded import energy_floors, guarded
from boltzgen_diffclf.noised_energy import NoisedEnergyModel
from boltzgen_diffclf.paths import DiffusionPath
from boltzgen_diffclf.samplers import Bridge, BridgeInfo, BridgeState, MarginalProposal, ReverseSmc, ReverseSmcState
from boltzgen_diffclf.samplers.diffusion_smc import EnergyAndGradient, ReverseSmcInfo
from boltzgen_diffclf.samplers.resampling import Resampling, systematic
from boltzgen_diffclf.target import Target

ROWS = 1024
"""Configurations whose energies are computed at once."""


@dataclass(frozen=True, eq=False)
class WeightedParticles:
    """Particles that stand for a density.

    Attributes:
        position: flat.
        log_weights: unnormalised, of each.
        root: which independent particle at the start each descends from.
        n_roots: number of these.
    """

    position: Float[Tensor, "batch dim"]
    log_weights: Float[Tensor, " batch"]
    root: Int[Tensor, " batch"]
    n_roots: int

    @property
    def families(self) -> Float[np.ndarray, " roots"]:
        """Log weight of each family; see :func:`~boltzgen_diffclf.estimators.reweighting.family_log_weights`."""
        return family_log_weights(self.log_weights.cpu().numpy(), self.root.cpu().numpy(), self.n_roots)

    @property
    def diagnostics(self) -> WeightDiagnostics:
        """What the weights are worth: those of families, so that copies of one particle count once.

        Raises:
            NotTrustworthyError: all weights are zero.
        """
        return diagnose_weights(self.families)


LARGEST_GAIN = 3.0
"""Of a particle at a level, see :class:`~boltzgen_diffclf.samplers.ReverseSmc`."""


@dataclass(frozen=True, eq=False)
class Descent:
    """The noising reversed, down to the learned energy at the least noise.

    Attributes:
        energy_and_gradient: ``U(y, t)`` [kT] and its gradient; called on all particles at once.
        path: the noising.
        times: growing; the particles begin at the last.
        resolution: width of the modes of the data, see :class:`~boltzgen_diffclf.samplers.MarginalProposal`.
        resample_below: resample when the effective sample size falls below this fraction.
        resampling: the scheme.
    """

    energy_and_gradient: EnergyAndGradient
    path: DiffusionPath
    times: Float[Tensor, " levels"]
    resolution: float = 0.0
    resample_below: float = 0.5
    resampling: Resampling = systematic

    def init(self, n: int, dimension: int, generator: torch.Generator) -> ReverseSmcState:
        """Return particles of the noise of data of unit variance, weighed by the model's own energy there."""
        last = self.times[-1:]
        spread = torch.hypot(self.path.alpha(last), self.path.sigma(last))
        noise = torch.randn(n, dimension, generator=generator, dtype=last.dtype, device=last.device)
        state = self._smc.init(self.energy_and_gradient, spread * noise)
        log_density = -0.5 * noise.double().square().sum(1) - dimension * (
            spread.double().log() + 0.5 * math.log(2 * math.pi)
        )
        return replace(state, log_weights=-state.energy.double() - log_density)

    def step(self, state: ReverseSmcState, generator: torch.Generator) -> tuple[ReverseSmcState, ReverseSmcInfo]:
        """Return the particles one level down, and what happened; see :meth:`ReverseSmc.step`."""
        return self._smc.step(self.energy_and_gradient, state, generator)

    def arrived(self, state: ReverseSmcState) -> bool:
        """Whether the particles stand for the energy at the least noise."""
        return int(state.stage) == len(self.times) - 1

    def particles(self, state: ReverseSmcState, origin: Target) -> WeightedParticles:
        """Return the particles of the end as those of ``origin``, the same energy in double precision.

        What rounding has left between the two goes into the weights.

        Args:
            state: arrived.
            origin: on flat configurations.
        """
        position = state.position.to(origin.dtype)
        with torch.no_grad():
            rounding = state.energy.double() - origin.energy(position).double()
        return WeightedParticles(position, state.whole_log_weights + rounding, state.root, len(state.root))

    @property
    def _smc(self) -> ReverseSmc:
        return ReverseSmc(
            self.path,
            self.times,
            proposal=MarginalProposal(self.resolution),
            resample_below=self.resample_below,
            resampling=self.resampling,
            largest_gain=LARGEST_GAIN,
        )


@dataclass(frozen=True, eq=False)
class Crossing:
    """The bridge from the learned energy to the true one.

    Attributes:
        bridge: between them.
        start: particles of the learned energy.
    """

    bridge: Bridge
    start: WeightedParticles

    def init(self, generator: torch.Generator) -> BridgeState:
        """Return the particles at the start; see :meth:`Bridge.init`."""
        return self.bridge.init(self.start.position, self.start.log_weights, generator)

    def step(self, state: BridgeState, generator: torch.Generator) -> tuple[BridgeState, BridgeInfo]:
        """Return the particles farther on, and what happened; see :meth:`Bridge.step`."""
        return self.bridge.step(state, generator)

    def arrived(self, state: BridgeState) -> bool:
        """Whether the particles stand for the true energy."""
        return state.arrived

    def without_bridge(self) -> WeightedParticles:
        """Return the same particles weighed by the true energy at one stroke: importance sampling."""
        return replace(self.start, log_weights=self.start.log_weights - self.bridge.difference(self.start.position))

    def particles(self, state: BridgeState) -> WeightedParticles:
        """Return the particles of the end, with the roots that they had before the bridge."""
        return WeightedParticles(state.position, state.log_weights, self.start.root[state.root], self.start.n_roots)


def guarded_descent(
    model: NoisedEnergyModel,
    path: DiffusionPath,
    times: Float[Tensor, " levels"],
    data: Float[Tensor, "frames dim"],
    generator: torch.Generator,
) -> tuple[Descent, Float[Tensor, " levels"]]:
    """Return the descent of a model that has no weight in holes, and the floors [kT] of its energies at ``times``.

    Args:
        model: trained.
        path: its noising.
        times: growing; those of levels that the model knows.
        data: clean samples, a few hundred, see :func:`~boltzgen_diffclf.free_energy.guarded.energy_floors`.
        generator: of their noise; on the device of ``data``.
    """
    unguarded = in_batches(fuse(model.energy_and_gradient, times.device), ROWS)
    floors = energy_floors(unguarded, path, times, data, generator)
    return Descent(guarded(unguarded, times, floors), path, times, float(model.resolution)), floors


def in_batches(function: EnergyAndGradient, rows: int) -> EnergyAndGradient:
    """Return the same function of ``(y, t)``, evaluated so many configurations at a time."""

    def evaluate(y: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        parts = [function(part, time) for part, time in zip(y.split(rows), t.split(rows), strict=True)]
        energies, gradients = zip(*parts, strict=True)
        return torch.cat(energies), torch.cat(gradients)

    return evaluate
