"""Targets: everything that can be sampled, and the ladders that join them.

A :class:`Target` gives a reduced energy ``u(x)`` [kT] and its force. A :class:`Ladder` is a family of them, one a
level (temperatures, alchemical states, noise levels), evaluated for a batch whose members sit at different levels.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from boltzgen_diffclf.compilation import fuse


class Target(ABC):
    """A reduced energy ``u(x)`` [kT] on ``(batch, *event_shape)`` and its force ``-grad u``.

    Attributes:
        event_shape: shape of one configuration, e.g. ``(atoms, 3)`` in nm.
        dimension: degrees of freedom that count in normalisers, e.g. ``3 (atoms - 1)``.
        dtype: of the positions it takes and the energies it gives.
        device: where it computes.
        recordable: whether its force launches the same kernels each time and looks at no value, see
            :func:`~boltzgen_diffclf.compilation.repeat`.
    """

    event_shape: tuple[int, ...]
    dimension: int
    dtype: torch.dtype = torch.float64
    device: torch.device = torch.device("cpu")
    recordable: bool = False

    @abstractmethod
    def energy(self, x: Float[Tensor, "batch *event"]) -> Float[Tensor, " batch"]:
        """Return ``u(x)`` [kT], differentiable where the target is."""

    def energy_and_force(
        self, x: Float[Tensor, "batch *event"]
    ) -> tuple[Float[Tensor, " batch"], Float[Tensor, "batch *event"]]:
        """Return ``u(x)`` [kT] and the force ``-grad u`` [kT per unit of x], both detached."""
        with torch.enable_grad():
            position = x.detach().requires_grad_(True)
            energy = self.energy(position)
            (gradient,) = torch.autograd.grad(energy.sum(), position)
        return energy.detach(), -gradient


class Ladder(ABC):
    """A family of targets on one space, one a level."""

    n_levels: int
    event_shape: tuple[int, ...]
    dimension: int
    dtype: torch.dtype = torch.float64
    device: torch.device = torch.device("cpu")
    recordable: bool = False

    @abstractmethod
    def energy(self, x: Float[Tensor, "batch *event"], level: Int[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        """Return ``u(x; level)`` [kT] of each member of the batch at its own level."""

    @abstractmethod
    def energy_and_force(
        self, x: Float[Tensor, "batch *event"], level: Int[Tensor, " batch"]
    ) -> tuple[Float[Tensor, " batch"], Float[Tensor, "batch *event"]]:
        """Return ``u(x; level)`` [kT] and its force, each member at its own level."""

    def energies(self, x: Float[Tensor, "batch *event"]) -> Float[Tensor, "batch levels"]:
        """Return ``u(x; k)`` [kT] of every member at every level, the rows of an MBAR matrix."""
        levels = [torch.full((len(x),), k, device=x.device) for k in range(self.n_levels)]
        return torch.stack([self.energy(x, level) for level in levels], dim=-1)

    def relevel(
        self,
        x: Float[Tensor, "batch *event"],
        level: Int[Tensor, " batch"],
        new_level: Int[Tensor, " batch"],
        energy: Float[Tensor, " batch"],
        force: Float[Tensor, "batch *event"],
    ) -> tuple[Float[Tensor, " batch"], Float[Tensor, "batch *event"]]:
        """Return energy [kT] and force at ``new_level`` of configurations whose own at ``level`` are known.

        A ladder that can reach them without an evaluation overrides this.
        """
        return self.energy_and_force(x, new_level)


class SingleLevel(Ladder):
    """One target as a ladder of one level, so that every sampler takes it."""

    n_levels = 1

    def __init__(self, target: Target) -> None:
        self.target = target
        self.event_shape, self.dimension = target.event_shape, target.dimension
        self.dtype, self.device, self.recordable = target.dtype, target.device, target.recordable

    def energy(self, x: Float[Tensor, "batch *event"], level: Int[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        """See :meth:`Ladder.energy`."""
        return self.target.energy(x)

    def energy_and_force(
        self, x: Float[Tensor, "batch *event"], level: Int[Tensor, " batch"]
    ) -> tuple[Float[Tensor, " batch"], Float[Tensor, "batch *event"]]:
        """See :meth:`Ladder.energy_and_force`."""
        return self.target.energy_and_force(x)


class TemperatureLadder(Ladder):
    """One target at several temperatures: ``u_k(x) = (T_0 / T_k) u(x)``, in units of the first kT.

    Args:
        target: the target at the first temperature.
        temperatures_kelvin: one a level.
    """

    def __init__(self, target: Target, temperatures_kelvin: Sequence[float]) -> None:
        self.target = target
        self.n_levels = len(temperatures_kelvin)
        self.event_shape, self.dimension = target.event_shape, target.dimension
        self.dtype, self.device = target.dtype, target.device
        temperatures = torch.tensor(temperatures_kelvin, dtype=target.dtype, device=target.device)
        self.scale = temperatures[0] / temperatures

    def energy(self, x: Float[Tensor, "batch *event"], level: Int[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        """See :meth:`Ladder.energy`."""
        return self.scale[level] * self.target.energy(x)

    def energy_and_force(
        self, x: Float[Tensor, "batch *event"], level: Int[Tensor, " batch"]
    ) -> tuple[Float[Tensor, " batch"], Float[Tensor, "batch *event"]]:
        """See :meth:`Ladder.energy_and_force`."""
        energy, force = self.target.energy_and_force(x)
        scale = self.scale[level]
        return scale * energy, scale.view(-1, *[1] * (x.ndim - 1)) * force

    def energies(self, x: Float[Tensor, "batch *event"]) -> Float[Tensor, "batch levels"]:
        """See :meth:`Ladder.energies`; one evaluation serves all levels."""
        return self.target.energy(x)[:, None] * self.scale

    def relevel(
        self,
        x: Float[Tensor, "batch *event"],
        level: Int[Tensor, " batch"],
        new_level: Int[Tensor, " batch"],
        energy: Float[Tensor, " batch"],
        force: Float[Tensor, "batch *event"],
    ) -> tuple[Float[Tensor, " batch"], Float[Tensor, "batch *event"]]:
        """See :meth:`Ladder.relevel`; temperatures only rescale, so nothing is evaluated."""
        ratio = self.scale[new_level] / self.scale[level]
        return ratio * energy, ratio.view(-1, *[1] * (x.ndim - 1)) * force


class LinearLadder(Ladder):
    """The straight line between two targets: ``u_k = (1 - lambda_k) u_A + lambda_k u_B``.

    Args:
        target_a: at ``lambda = 0``.
        target_b: at ``lambda = 1``.
        lambdas: one a level, from 0 to 1.
    """

    def __init__(self, target_a: Target, target_b: Target, lambdas: Sequence[float]) -> None:
        if target_a.event_shape != target_b.event_shape:
            raise ValueError(f"targets differ in shape: {target_a.event_shape} and {target_b.event_shape}")
        self.target_a, self.target_b = target_a, target_b
        self.n_levels = len(lambdas)
        self.event_shape, self.dimension = target_a.event_shape, target_a.dimension
        self.dtype, self.device = target_a.dtype, target_a.device
        self.lambdas = torch.tensor(lambdas, dtype=target_a.dtype, device=target_a.device)

    def energy(self, x: Float[Tensor, "batch *event"], level: Int[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        """See :meth:`Ladder.energy`."""
        return _mixed(self.target_a.energy(x), self.target_b.energy(x), self.lambdas[level])

    def energy_and_force(
        self, x: Float[Tensor, "batch *event"], level: Int[Tensor, " batch"]
    ) -> tuple[Float[Tensor, " batch"], Float[Tensor, "batch *event"]]:
        """See :meth:`Ladder.energy_and_force`."""
        energy_a, force_a = self.target_a.energy_and_force(x)
        energy_b, force_b = self.target_b.energy_and_force(x)
        weight = self.lambdas[level]
        wide = weight.view(-1, *[1] * (x.ndim - 1))
        return _mixed(energy_a, energy_b, weight), _mixed(force_a, force_b, wide)

    def energies(self, x: Float[Tensor, "batch *event"]) -> Float[Tensor, "batch levels"]:
        """See :meth:`Ladder.energies`; two evaluations serve all levels."""
        return _mixed(self.target_a.energy(x)[:, None], self.target_b.energy(x)[:, None], self.lambdas)


def _mixed(of_a: Tensor, of_b: Tensor, weight: Tensor) -> Tensor:
    """Return ``(1 - weight) of_a + weight of_b``; at either end the other counts nothing, also where it is infinite."""
    between = (1 - weight) * of_a + weight * of_b
    return torch.where(weight == 0, of_a, torch.where(weight == 1, of_b, between))


class CountingTarget(Target):
    """A target that counts the configurations it has evaluated, for the cost columns of a report."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self.event_shape, self.dimension = target.event_shape, target.dimension
        self.dtype, self.device = target.dtype, target.device
        self.evaluations = 0

    def energy(self, x: Float[Tensor, "batch *event"]) -> Float[Tensor, " batch"]:
        """See :meth:`Target.energy`."""
        self.evaluations += len(x)
        return self.target.energy(x)

    def energy_and_force(
        self, x: Float[Tensor, "batch *event"]
    ) -> tuple[Float[Tensor, " batch"], Float[Tensor, "batch *event"]]:
        """See :meth:`Target.energy_and_force`."""
        self.evaluations += len(x)
        return self.target.energy_and_force(x)


class InBatches(Target):
    """A target that is evaluated so many configurations at a time.

    Args:
        target: of any space.
        rows: configurations at once.
    """

    def __init__(self, target: Target, rows: int) -> None:
        self.target, self.rows = target, rows
        self.event_shape, self.dimension = target.event_shape, target.dimension
        self.dtype, self.device = target.dtype, target.device

    def energy(self, x: Float[Tensor, "batch *event"]) -> Float[Tensor, " batch"]:
        """See :meth:`Target.energy`."""
        return torch.cat([self.target.energy(part) for part in x.split(self.rows)])

    def energy_and_force(
        self, x: Float[Tensor, "batch *event"]
    ) -> tuple[Float[Tensor, " batch"], Float[Tensor, "batch *event"]]:
        """See :meth:`Target.energy_and_force`."""
        energies, forces = zip(*(self.target.energy_and_force(part) for part in x.split(self.rows)), strict=True)
        return torch.cat(energies), torch.cat(forces)


class GaussianTarget(Target):
    """An isotropic normal, the simplest oracle: ``u = |x - mean|^2 / (2 sigma^2)``, unnormalised.

    >>> round(GaussianTarget(dimension=2, sigma=2.0).log_normaliser, 4)
    3.2242
    """

    def __init__(self, dimension: int, sigma: float = 1.0, mean: float = 0.0) -> None:
        self.event_shape, self.dimension = (dimension,), dimension
        self.sigma, self.mean = sigma, mean
        self.log_normaliser = 0.5 * dimension * math.log(2 * math.pi * sigma**2)

    def energy(self, x: Float[Tensor, "batch dim"]) -> Float[Tensor, " batch"]:
        """See :meth:`Target.energy`."""
        return 0.5 * ((x - self.mean) / self.sigma).square().sum(-1)

    def sample(self, n: int, generator: torch.Generator) -> Float[Tensor, "{n} dim"]:
        """Return independent samples."""
        noise = torch.randn(n, self.dimension, generator=generator, dtype=self.dtype, device=self.device)
        return self.mean + self.sigma * noise


@runtime_checkable
class CoordinateMap(Protocol):
    """Coordinates ``y`` with positions and a log-Jacobian."""

    def to_cartesian(
        self, y: Float[Tensor, "batch dim"]
    ) -> tuple[Float[Tensor, "batch atoms 3"], Float[Tensor, " batch"]]:
        """Return positions [nm] and ``log |dx/dy|``."""
        ...


class TransformedTarget(Target):
    """A molecular target in other coordinates: ``u(x(y)) - log |dx/dy|``, the reduced energy of y.

    Args:
        target: in positions.
        coordinates: the map; its tensors have the target's dtype and device.
        dimension: number of coordinates.
    """

    def __init__(self, target: Target, coordinates: CoordinateMap, dimension: int) -> None:
        self.target, self.coordinates = target, coordinates
        self.event_shape, self.dimension = (dimension,), dimension
        self.dtype, self.device = target.dtype, target.device
        self._place = fuse(coordinates.to_cartesian, target.device, dynamic=True)
        self._pull = fuse(self._pull_back, target.device, dynamic=True)

    def energy(self, x: Float[Tensor, "batch dim"]) -> Float[Tensor, " batch"]:
        """See :meth:`Target.energy`."""
        position, log_jacobian = self._place(x)
        return self.target.energy(position) - log_jacobian

    def energy_and_force(
        self, x: Float[Tensor, "batch dim"]
    ) -> tuple[Float[Tensor, " batch"], Float[Tensor, "batch dim"]]:
        """See :meth:`Target.energy_and_force`; the force field is evaluated once, its force pulled back."""
        position, log_jacobian = self._place(x)
        energy, force = self.target.energy_and_force(position)
        return energy - log_jacobian, self._pull(x, force)

    def _pull_back(
        self, y: Float[Tensor, "batch dim"], force: Float[Tensor, "batch atoms 3"]
    ) -> Float[Tensor, "batch dim"]:
        pullback = torch.func.vjp(self.coordinates.to_cartesian, y)[1]
        (pulled,) = pullback((force, torch.ones_like(force[:, 0, 0])))
        return pulled
