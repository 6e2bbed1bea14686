"""The time-dependent energy model ``U_theta(y, t)`` with level free energies ``F_theta(t)``.

``log p_t(y) = F(t) - U(y, t)``. Configurations are flat here, ``(batch, dim)``: internal path coordinates, or
centred positions of ``3 * atoms`` numbers.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from boltzgen_diffclf.target import Ladder, Target


@runtime_checkable
class TimeEnergy(Protocol):
    """A time-dependent energy that needs nothing but the configuration: what the objectives ask of a model.

    ``log p_t(y) = F(t) - U(y, t)``; everything is differentiable in the model's parameters.
    """

    def energy(self, y: Float[Tensor, "batch dim"], t: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        """Return ``U(y, t)`` [kT]."""
        ...

    def gradient(self, y: Float[Tensor, "batch dim"], t: Float[Tensor, " batch"]) -> Float[Tensor, "batch dim"]:
        """Return ``dU/dy`` [kT per unit of y]."""
        ...

    def time_derivative(self, y: Float[Tensor, "batch dim"], t: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        """Return ``dU/dt`` [kT]."""
        ...

    def free_energy(self, t: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
        """Return ``F(t)`` [kT], up to one constant."""
        ...


@runtime_checkable
class OnePassEnergy(Protocol):
    """A time-dependent energy that gives its gradient from the same pass."""

    def energy_and_gradient(
        self, y: Float[Tensor, "batch dim"], t: Float[Tensor, " batch"]
    ) -> tuple[Float[Tensor, " batch"], Float[Tensor, "batch dim"]]:
        """Return ``U(y, t)`` [kT] and ``dU/dy`` [kT per unit of y]."""
        ...


class Ends(NamedTuple):
    """The true energies of both end states at some configurations, computed once.

    Attributes:
        energy: ``[:, 0]`` is ``u_A(y)``, ``[:, 1]`` is ``u_B(y)`` [kT].
        gradient: their gradients in the coordinates of the path [kT per unit].
    """

    energy: Float[Tensor, "batch 2"]
    gradient: Float[Tensor, "batch 2 dim"]


def end_values(target_a: Target, target_b: Target, y: Float[Tensor, "batch dim"]) -> Ends:
    """Evaluate both end targets (on flat configurations) at ``y``."""
    energy_a, force_a = target_a.energy_and_force(y)
    energy_b, force_b = target_b.energy_and_force(y)
    return Ends(torch.stack([energy_a, energy_b], dim=1), -torch.stack([force_a, force_b], dim=1))


class FreeEnergyCurve(nn.Module):
    """``F_theta(t)`` [kT]: one learned value a level, straight lines between.

    Args:
        levels: growing times.
        gauge: index of the level where ``F`` is zero.

    References:
        OuYang et al. 2026, arXiv:2601.21025: one scalar a level, learned with the energy.
    """

    levels: Tensor

    def __init__(self, levels: Float[Tensor, " levels"], gauge: int = 0) -> None:
        super().__init__()
        self.gauge = gauge
        self.register_buffer("levels", levels)
        self.values = nn.Parameter(torch.zeros_like(levels))

    def forward(self, t: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
        """Return ``F_theta(t)``."""
        values, last = self.values - self.values[self.gauge], len(self.levels) - 1
        # At a level the slope is that of both sides: one alone is that of a time half a spacing away.
        lines, gaps = [], []
        for is_right in (False, True):
            upper = torch.searchsorted(self.levels, t.contiguous(), right=is_right).clamp(1, last)
            left, right = self.levels[upper - 1], self.levels[upper]
            lines.append(torch.lerp(values[upper - 1], values[upper], (t - left) / (right - left)))
            gaps.append(right - left)
        return torch.lerp(lines[0], lines[1], gaps[0] / (gaps[0] + gaps[1]))


class EnergyModel(nn.Module, ABC):
    """``U_theta(y, t)`` [kT], its gradient and time derivative, and ``F_theta(t)``.

    Args:
        net: ``(y, t) -> (batch,)`` [kT].
        levels: of the free-energy curve, from 0 to 1.
    """

    def __init__(self, net: nn.Module, levels: Float[Tensor, " levels"]) -> None:
        super().__init__()
        self.net = net
        self.curve = FreeEnergyCurve(levels)

    @abstractmethod
    def prior_energy(self, t: Float[Tensor, " batch"], end_energy: Float[Tensor, "batch 2"]) -> Float[Tensor, " batch"]:
        """Return what the two end energies alone give at ``t`` [kT], network left out."""

    @abstractmethod
    def net_weight(self, t: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        """Return the weight of the network at ``t``."""

    def energy(
        self, y: Float[Tensor, "batch dim"], t: Float[Tensor, " batch"], end_energy: Float[Tensor, "batch 2"]
    ) -> Float[Tensor, " batch"]:
        """Return ``U_theta(y, t)`` [kT], given ``u_A(y)`` and ``u_B(y)``."""
        return self.prior_energy(t, end_energy) + self.net_weight(t) * self.net(y, t).to(end_energy.dtype)

    def gradient(
        self, y: Float[Tensor, "batch dim"], t: Float[Tensor, " batch"], ends: Ends
    ) -> Float[Tensor, "batch dim"]:
        """Return ``dU_theta/dy`` [kT per unit], given those of the ends; differentiable in the parameters."""
        return self.energy_and_gradient(y, t, ends)[1]

    def prior_gradient(self, t: Float[Tensor, " batch"], ends: Ends) -> Float[Tensor, "batch dim"]:
        """Return the gradient of what the ends alone give [kT per unit], network left out."""
        energy, pullback = torch.func.vjp(lambda end_energy: self.prior_energy(t, end_energy), ends.energy)[:2]
        (slope,) = pullback(torch.ones_like(energy))
        # Where an end counts nothing neither does its gradient, also where that is infinite.
        return torch.where(slope[:, :, None] == 0, 0.0, slope[:, :, None] * ends.gradient).sum(1)

    def energy_and_gradient(
        self, y: Float[Tensor, "batch dim"], t: Float[Tensor, " batch"], ends: Ends
    ) -> tuple[Float[Tensor, " batch"], Float[Tensor, "batch dim"]]:
        """Return ``U_theta(y, t)`` [kT] and ``dU_theta/dy`` [kT per unit] from one pass through the network."""
        net_weight = self.net_weight(t)
        value, net_gradient = self._net_energy_and_gradient(y, t)
        energy = self.prior_energy(t, ends.energy) + net_weight * value.to(ends.energy.dtype)
        return energy, self.prior_gradient(t, ends) + net_weight[:, None] * net_gradient

    def _net_energy_and_gradient(self, y: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        pulled = torch.func.vjp(lambda point: self.net(point, t), y)
        value, pullback = pulled[0], pulled[1]
        return value, pullback(torch.ones_like(value))[0]

    def time_derivative(
        self, y: Float[Tensor, "batch dim"], t: Float[Tensor, " batch"], end_energy: Float[Tensor, "batch 2"]
    ) -> Float[Tensor, " batch"]:
        """Return ``dU_theta/dt`` [kT], the integrand of thermodynamic integration."""
        return torch.func.jvp(lambda time: self.energy(y, time, end_energy), (t,), (torch.ones_like(t),))[1]

    def free_energy(self, t: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
        """Return ``F_theta(t)`` [kT], relative to ``F_theta(0)``."""
        return self.curve(t)


class AnchoredEnergyModel(EnergyModel):
    r"""``U = s_t((1 - t) u_A + t u_B) + w(t) net``: the true energies at both ends whatever the net says.

    A path fills the barriers of its ends at once, however small the noise, so the network must be able to speak
    close to them: ``w = (1 + RISE) r / (r + RISE)`` with ``r = 4 t (1 - t)`` is half-way up where r is RISE.

    Half-way between two conformers atoms may overlap, and the mean of the end energies is hundreds of kT where path
    configurations are found all the same. ``s_t`` is the identity at both ends; between them it grows like a
    logarithm above the ceilings, ``s_t(u) = c + log(1 + k (u - c)) / k`` with ``k = r / SOFTNESS``.

    Args:
        net: see :class:`EnergyModel`.
        levels: see there.
        ceilings: energies ``c`` [kT] of the ends A and B above which the mean is softened; nothing is where None.
    """

    SOFTNESS = 5.0
    """Excess [kT] at which the slope has halved, half-way."""

    RISE = 0.1

    HIGHEST = 1e18
    """Energy [kT] above which atoms that overlap differ no more: single precision holds its square."""

    ceilings: Tensor | None

    def __init__(
        self, net: nn.Module, levels: Float[Tensor, " levels"], ceilings: tuple[float, float] | None = None
    ) -> None:
        super().__init__(net, levels)
        self.register_buffer("ceilings", None if ceilings is None else torch.tensor(ceilings).to(levels))

    def prior_energy(self, t: Float[Tensor, " batch"], end_energy: Float[Tensor, "batch 2"]) -> Float[Tensor, " batch"]:
        """See :meth:`EnergyModel.prior_energy`."""
        weight = torch.stack([1 - t, t], dim=-1)
        if self.ceilings is None:
            # At an end the other energy counts nothing, also where it is infinite.
            return torch.where(end_energy.isinf() & (weight == 0), 0.0, weight * end_energy).sum(-1)
        straight = (weight * end_energy.clamp_max(self.HIGHEST)).sum(-1)
        ceiling = (weight * self.ceilings).sum(-1)
        excess = (straight - ceiling).clamp_min(0)
        strength = 4 * t * (1 - t) / self.SOFTNESS
        bent = torch.log1p(strength * excess) / strength.clamp_min(1e-9)
        # Close to the ends by its expansion: the derivative in t is not zero there.
        above = torch.where(strength > 1e-9, bent, excess - 0.5 * strength * excess.square())
        return torch.where(excess > 0, ceiling + above, straight)

    def net_weight(self, t: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        """See :meth:`EnergyModel.net_weight`."""
        rise = 4 * t * (1 - t)
        return (1 + self.RISE) * rise / (rise + self.RISE)


class UnanchoredEnergyModel(EnergyModel):
    """``U = net``: learned everywhere, as in the paper; the ends are only as good as the training."""

    def prior_energy(self, t: Float[Tensor, " batch"], end_energy: Float[Tensor, "batch 2"]) -> Float[Tensor, " batch"]:
        """See :meth:`EnergyModel.prior_energy`."""
        return torch.zeros_like(end_energy[:, 0])

    def net_weight(self, t: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        """See :meth:`EnergyModel.net_weight`."""
        return torch.ones_like(t)


class LearnedLadder(Ladder):
    """The learned energies at chosen times as a ladder of targets, the true end energies evaluated where needed.

    Args:
        model: in evaluation state; its parameters are not trained through this.
        times: one a level.
        target_a: the true energy at t = 0, on flat configurations.
        target_b: the true energy at t = 1.

    Attributes:
        network_evaluations: energies and gradients of the network evaluated so far, each counted as one.
    """

    def __init__(self, model: EnergyModel, times: Float[Tensor, " levels"], target_a: Target, target_b: Target) -> None:
        self.model, self.target_a, self.target_b = model, target_a, target_b
        self.n_levels = len(times)
        self.event_shape, self.dimension = target_a.event_shape, target_a.dimension
        self.dtype, self.device = target_a.dtype, target_a.device
        self.times = times.to(dtype=target_a.dtype, device=target_a.device)
        self.network_evaluations = 0

    def energy(self, x: Float[Tensor, "batch *event"], level: Tensor) -> Float[Tensor, " batch"]:
        """See :meth:`~boltzgen_diffclf.target.Ladder.energy`."""
        end_energy = torch.stack([self.target_a.energy(x), self.target_b.energy(x)], dim=1)
        return self._blend(x, level, end_energy)

    def energies(self, x: Float[Tensor, "batch *event"]) -> Float[Tensor, "batch levels"]:
        """See :meth:`~boltzgen_diffclf.target.Ladder.energies`; the end energies are evaluated once."""
        end_energy = torch.stack([self.target_a.energy(x), self.target_b.energy(x)], dim=1)
        levels = [torch.full((len(x),), k, device=x.device) for k in range(self.n_levels)]
        return torch.stack([self._blend(x, level, end_energy) for level in levels], dim=1)

    def energy_and_force(
        self, x: Float[Tensor, "batch *event"], level: Tensor
    ) -> tuple[Float[Tensor, " batch"], Float[Tensor, "batch *event"]]:
        """See :meth:`~boltzgen_diffclf.target.Ladder.energy_and_force`."""
        ends = end_values(self.target_a, self.target_b, x)
        t = self.times[level]
        self.network_evaluations += 2 * len(x)
        with torch.no_grad():
            energy, gradient = self.model.energy_and_gradient(x, t, ends)
        return energy, -gradient

    def _blend(self, x: Tensor, level: Tensor, end_energy: Tensor) -> Tensor:
        self.network_evaluations += len(x)
        with torch.no_grad():
            return self.model.energy(x, self.times[level], end_energy)
