"""The time-dependent energy model ``U_theta(y, t)`` with level free energies ``F_theta(t)``.

``log p_t(y) = F(t) - U(y, t)``. Configurations are flat here, ``(batch, dim)``: internal path coordinates, or
centred positions of ``3 * atoms`` numbers.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple, Protocol

import torch
from jaxtyping import Float
from torch import Tensor, nn

from boltzgen_diffclf.target import Ladder, Target


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
        values = self.values - self.values[self.gauge]
        upper = torch.searchsorted(self.levels, t.contiguous()).clamp(1, len(self.levels) - 1)
        left, right = self.levels[upper - 1], self.levels[upper]
        return torch.lerp(values[upper - 1], values[upper], (t - left) / (right - left))


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
    def blend(self, t: Float[Tensor, " batch"]) -> tuple[Float[Tensor, "batch 2"], Float[Tensor, " batch"]]:
        """Return the weights of the two end energies and of the network at ``t``."""

    def energy(
        self, y: Float[Tensor, "batch dim"], t: Float[Tensor, " batch"], end_energy: Float[Tensor, "batch 2"]
    ) -> Float[Tensor, " batch"]:
        """Return ``U_theta(y, t)`` [kT], given ``u_A(y)`` and ``u_B(y)``."""
        end_weight, net_weight = self.blend(t)
        return (end_weight * end_energy).sum(-1) + net_weight * self.net(y, t).to(end_energy.dtype)

    def gradient(
        self, y: Float[Tensor, "batch dim"], t: Float[Tensor, " batch"], end_gradient: Float[Tensor, "batch 2 dim"]
    ) -> Float[Tensor, "batch dim"]:
        """Return ``dU_theta/dy`` [kT per unit], given those of the ends; differentiable in the parameters."""
        _, net_weight = self.blend(t)
        _, net_gradient = self._net_energy_and_gradient(y, t)
        return self.prior_gradient(t, end_gradient) + net_weight[:, None] * net_gradient

    def prior_gradient(
        self, t: Float[Tensor, " batch"], end_gradient: Float[Tensor, "batch 2 dim"]
    ) -> Float[Tensor, "batch dim"]:
        """Return the gradient of what the ends alone give [kT per unit], network left out."""
        return (self.blend(t)[0][:, :, None] * end_gradient).sum(1)

    def energy_and_gradient(
        self, y: Float[Tensor, "batch dim"], t: Float[Tensor, " batch"], ends: Ends
    ) -> tuple[Float[Tensor, " batch"], Float[Tensor, "batch dim"]]:
        """Return ``U_theta(y, t)`` [kT] and ``dU_theta/dy`` [kT per unit] from one pass through the network."""
        end_weight, net_weight = self.blend(t)
        value, net_gradient = self._net_energy_and_gradient(y, t)
        energy = (end_weight * ends.energy).sum(-1) + net_weight * value.to(ends.energy.dtype)
        return energy, (end_weight[:, :, None] * ends.gradient).sum(1) + net_weight[:, None] * net_gradient

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
    r"""``U = (1 - t) u_A + t u_B + 4 t (1 - t) net``: the true energies at both ends whatever the net says."""

    def blend(self, t: Float[Tensor, " batch"]) -> tuple[Float[Tensor, "batch 2"], Float[Tensor, " batch"]]:
        """See :meth:`EnergyModel.blend`."""
        return torch.stack([1 - t, t], dim=-1), 4 * t * (1 - t)


class UnanchoredEnergyModel(EnergyModel):
    """``U = net``: learned everywhere, as in the paper; the ends are only as good as the training."""

    def blend(self, t: Float[Tensor, " batch"]) -> tuple[Float[Tensor, "batch 2"], Float[Tensor, " batch"]]:
        """See :meth:`EnergyModel.blend`."""
        return t.new_zeros(len(t), 2), torch.ones_like(t)


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
