"""Markov kernels over a ladder, each walker at its own level: Langevin dynamics, MALA, Hamiltonian Monte Carlo.

A single target is a ladder of one level (:class:`boltzgen_diffclf.target.SingleLevel`).
"""

from __future__ import annotations

import dataclasses
import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from boltzgen_diffclf.compilation import repeat
from boltzgen_diffclf.samplers.state import AnyKernelState, KernelState, LangevinState
from boltzgen_diffclf.target import Ladder

State = TypeVar("State", bound=KernelState)


@dataclass(frozen=True, eq=False)
class KernelInfo:
    """What happened to each walker during one call.

    Attributes:
        acceptance: mean Metropolis acceptance probability; one where a kernel has no accept step.
        nonfinite: walkers that met a NaN or infinite energy, kept or proposed.
    """

    acceptance: Float[Tensor, " batch"]
    nonfinite: Bool[Tensor, " batch"]


class Kernel(ABC, Generic[State]):
    """A Markov kernel that leaves ``exp(-u(x; level))`` invariant, exactly or up to its time step."""

    @abstractmethod
    def init(
        self,
        ladder: Ladder,
        position: Float[Tensor, "batch *event"],
        level: Int[Tensor, " batch"],
        generator: torch.Generator,
    ) -> State:
        """Return the state of walkers that start at ``position``."""

    @abstractmethod
    def run(
        self, ladder: Ladder, state: State, level: Int[Tensor, " batch"], n_steps: int, generator: torch.Generator
    ) -> tuple[State, KernelInfo]:
        """Return the walkers after ``n_steps`` at their fixed levels, and what happened on the way."""

    def step(
        self, ladder: Ladder, state: State, level: Int[Tensor, " batch"], generator: torch.Generator
    ) -> tuple[State, KernelInfo]:
        """Return the walkers after one step, and what happened."""
        return self.run(ladder, state, level, 1, generator)


def relevel(
    ladder: Ladder, state: AnyKernelState, level: Int[Tensor, " batch"], new_level: Int[Tensor, " batch"]
) -> AnyKernelState:
    """Return the same walkers with energy and force at ``new_level``."""
    energy, force = ladder.relevel(state.position, level, new_level, state.energy, state.force)
    return dataclasses.replace(state, energy=energy, force=force)


def metropolis_accept(log_ratio: Float[Tensor, "*shape"], generator: torch.Generator) -> Bool[Tensor, "*shape"]:
    """Return True with probability ``min(1, exp(log_ratio))``; a NaN ratio is refused."""
    uniform = torch.rand(log_ratio.shape, generator=generator, dtype=log_ratio.dtype, device=log_ratio.device)
    return uniform.log() < log_ratio


def _per_walker(value: Float[Tensor, " batch"], like: Float[Tensor, "batch *event"]) -> Tensor:
    return value.view(-1, *[1] * (like.ndim - 1))


@dataclass(frozen=True, eq=False)
class Langevin(Kernel[LangevinState]):
    r"""Langevin dynamics in the BAOAB splitting, whose configurations are exact for a harmonic force.

    Attributes:
        timestep: [ps].
        friction: collision rate [1/ps].
        inverse_mass: broadcastable to one configuration, so that ``acceleration = force * inverse_mass``
            [nm^2/ps^2 per kT]: kT in kJ/mol of the ladder's reference temperature over the mass in amu.

    References:
        Leimkuhler & Matthews 2013, Appl. Math. Res. Express 2013, 34.
    """

    timestep: float
    friction: float
    inverse_mass: Float[Tensor, "*mass"]

    def __post_init__(self) -> None:
        """Refuse what cannot be integrated."""
        if not (self.timestep > 0 and self.friction >= 0):
            raise ValueError(f"Langevin needs timestep > 0 and friction >= 0, got {self.timestep}, {self.friction}")

    def init(
        self,
        ladder: Ladder,
        position: Float[Tensor, "batch *event"],
        level: Int[Tensor, " batch"],
        generator: torch.Generator,
    ) -> LangevinState:
        """See :meth:`Kernel.init`; velocities are drawn from the Maxwell distribution."""
        position = position.detach().clone()
        energy, force = ladder.energy_and_force(position, level)
        noise = torch.empty_like(position).normal_(generator=generator)
        return LangevinState(position, energy, force, self.inverse_mass.to(position).sqrt() * noise)

    def run(
        self,
        ladder: Ladder,
        state: LangevinState,
        level: Int[Tensor, " batch"],
        n_steps: int,
        generator: torch.Generator,
    ) -> tuple[LangevinState, KernelInfo]:
        """See :meth:`Kernel.run`; a walker with a non-finite energy goes on as it is and is reported."""
        position, velocity = state.position.clone(), state.velocity.clone()
        energy, force = state.energy.clone(), state.force.clone()
        inverse_mass = self.inverse_mass.to(position)
        half_kick, half_drift = 0.5 * self.timestep * inverse_mass, 0.5 * self.timestep
        decay = math.exp(-self.friction * self.timestep)
        thermal = inverse_mass.sqrt() * math.sqrt(-math.expm1(-2 * self.friction * self.timestep))
        noise = torch.empty_like(position)
        nonfinite = ~torch.isfinite(energy)

        def step() -> None:
            velocity.addcmul_(half_kick, force)
            position.add_(velocity, alpha=half_drift)
            noise.normal_(generator=generator)
            velocity.mul_(decay).addcmul_(thermal, noise)
            position.add_(velocity, alpha=half_drift)
            found = ladder.energy_and_force(position, level)
            energy.copy_(found[0])
            force.copy_(found[1])
            velocity.addcmul_(half_kick, force)
            nonfinite.logical_or_(~torch.isfinite(energy))

        repeat(step, n_steps, generator, recordable=ladder.recordable)
        return LangevinState(position, energy, force, velocity), KernelInfo(torch.ones_like(energy), nonfinite)


def _hamiltonian_step(
    ladder: Ladder,
    state: KernelState,
    level: Int[Tensor, " batch"],
    step_size: Float[Tensor, " batch"],
    n_leapfrog: int,
    inverse_mass: Float[Tensor, "*mass"],
    generator: torch.Generator,
) -> tuple[KernelState, KernelInfo]:
    """Return the outcome of one proposal: fresh momenta, ``n_leapfrog`` leapfrog steps, accept or refuse.

    Momenta are kept in units of the square root of their mass, so a fixed coordinate may have inverse mass zero.
    """
    position, force = state.position.clone(), state.force
    root = inverse_mass.to(position).sqrt()
    drift = _per_walker(step_size.to(position), position) * root
    momentum = torch.empty_like(position).normal_(generator=generator)
    kinetic = 0.5 * momentum.flatten(1).square().sum(1)
    energy = state.energy
    for _ in range(n_leapfrog):
        momentum = torch.addcmul(momentum, drift, force, value=0.5)
        position = torch.addcmul(position, drift, momentum)
        energy, force = ladder.energy_and_force(position, level)
        momentum = torch.addcmul(momentum, drift, force, value=0.5)
    log_ratio = (state.energy - energy) + (kinetic - 0.5 * momentum.flatten(1).square().sum(1))
    accepted = metropolis_accept(log_ratio, generator)
    wide = accepted.view(-1, *[1] * (position.ndim - 1))
    moved = KernelState(
        torch.where(wide, position, state.position),
        torch.where(accepted, energy, state.energy),
        torch.where(wide, force, state.force),
    )
    nonfinite = ~(torch.isfinite(energy) & torch.isfinite(state.energy))
    return moved, KernelInfo(log_ratio.clamp(max=0).exp().nan_to_num(nan=0.0), nonfinite)


class ForceKernel(Kernel[KernelState]):
    """A kernel whose walkers are positions with their energy and force, and carry no momentum."""

    def init(
        self,
        ladder: Ladder,
        position: Float[Tensor, "batch *event"],
        level: Int[Tensor, " batch"],
        generator: torch.Generator,
    ) -> KernelState:
        """See :meth:`Kernel.init`; draws nothing."""
        position = position.detach().clone()
        return KernelState(position, *ladder.energy_and_force(position, level))


@dataclass(frozen=True, eq=False)
class HamiltonianMonteCarlo(ForceKernel):
    r"""Hamiltonian Monte Carlo: exact whatever the step size.

    Attributes:
        step_size: of one leapfrog step, one a level.
        n_leapfrog: leapfrog steps, each one force evaluation, of one proposal.
        inverse_mass: broadcastable to one configuration.

    References:
        Duane et al. 1987, Phys. Lett. B 195, 216; Neal 2011, Handbook of MCMC, chapter 5.
    """

    step_size: Float[Tensor, " levels"]
    n_leapfrog: int
    inverse_mass: Float[Tensor, "*mass"]

    def __post_init__(self) -> None:
        """Refuse a trajectory of no steps."""
        if self.n_leapfrog < 1:
            raise ValueError(f"n_leapfrog is {self.n_leapfrog}; at least one leapfrog step is needed")

    def run(
        self,
        ladder: Ladder,
        state: KernelState,
        level: Int[Tensor, " batch"],
        n_steps: int,
        generator: torch.Generator,
    ) -> tuple[KernelState, KernelInfo]:
        """See :meth:`Kernel.run`; a step is one proposal, and a proposal of non-finite energy is refused."""
        step_size = self.step_size[level]
        acceptance, nonfinite = torch.zeros_like(state.energy), ~torch.isfinite(state.energy)
        for _ in range(n_steps):
            state, info = _hamiltonian_step(
                ladder, state, level, step_size, self.n_leapfrog, self.inverse_mass, generator
            )
            acceptance += info.acceptance / n_steps
            nonfinite |= info.nonfinite
        return state, KernelInfo(acceptance, nonfinite)


@dataclass(frozen=True, eq=False)
class Mala(ForceKernel):
    r"""Metropolis-adjusted Langevin: ``x' = x + tau P force + sqrt(2 tau P) z``, exact whatever ``tau``.

    The proposal and its acceptance are those of Hamiltonian Monte Carlo with one leapfrog step of ``sqrt(2 tau)``.

    Attributes:
        step_size: ``tau``, one a level.
        preconditioner: diagonal of ``P``, broadcastable to one configuration.

    References:
        Roberts & Tweedie 1996, Bernoulli 2, 341; Neal 2011, Handbook of MCMC, section 5.5.2.
    """

    step_size: Float[Tensor, " levels"]
    preconditioner: Float[Tensor, "*mass"]

    def run(
        self,
        ladder: Ladder,
        state: KernelState,
        level: Int[Tensor, " batch"],
        n_steps: int,
        generator: torch.Generator,
    ) -> tuple[KernelState, KernelInfo]:
        """See :meth:`Kernel.run`; a proposal of non-finite energy is refused."""
        return self._hamiltonian().run(ladder, state, level, n_steps, generator)

    def _hamiltonian(self) -> HamiltonianMonteCarlo:
        return HamiltonianMonteCarlo((2 * self.step_size).sqrt(), 1, self.preconditioner)


def tune_step_size(
    step_size: Float[Tensor, " levels"],
    acceptance: Float[Tensor, " batch"],
    level: Int[Tensor, " batch"],
    *,
    target_acceptance: float = 0.574,
    rate: float = 0.2,
) -> Float[Tensor, " levels"]:
    """Return step sizes nearer to the wanted acceptance; levels without walkers keep theirs.

    Steps that follow the walkers they move no longer leave the target quite invariant: for the burn-in, or between the
    levels of many particles, where they follow the level before.

    Args:
        step_size: one a level.
        acceptance: of each walker, from :class:`KernelInfo`.
        level: of each walker.
        target_acceptance: 0.574 is best for MALA in many dimensions, 0.65 for Hamiltonian Monte Carlo.
        rate: change of the logarithm per unit of missing acceptance.

    References:
        Roberts & Rosenthal 1998, J. R. Stat. Soc. B 60, 255; Andrieu & Thoms 2008, Stat. Comput. 18, 343.
    """
    # Sums in a fixed order, which additions at an index are not on a GPU: processes that train together must agree.
    here = level == torch.arange(len(step_size), device=level.device)[:, None]
    excess = torch.where(here, (acceptance - target_acceptance).to(step_size), 0.0).sum(1)
    return step_size * torch.exp(rate * excess / here.sum(1).clamp(min=1))
