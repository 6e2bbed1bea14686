"""Learned energies without holes: where no data lies a network may fall without bound, and particles fall after it.

An energy below a floor that no frame of the data comes near is mirrored at the floor, so that a hole becomes a hill.
Particles that stand for a true energy at the end may pass through any energies on the way: a guard costs nothing.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from boltzgen_diffclf.paths import DiffusionPath
from boltzgen_diffclf.samplers.diffusion_smc import EnergyAndGradient
from boltzgen_diffclf.samplers.resampling import robust_moments
from boltzgen_diffclf.target import Target

BELOW = 6.0
"""Standard deviations below the median energy of the data at which the floor lies."""

HIGHEST = 1e6
"""Above the floor [kT]: an energy that lies higher, or is no number, counts as this and has no slope."""


def energy_floors(
    energy_and_gradient: EnergyAndGradient,
    path: DiffusionPath,
    times: Float[Tensor, " levels"],
    data: Float[Tensor, "frames dim"],
    generator: torch.Generator,
) -> Float[Tensor, " levels"]:
    """Return for each time an energy [kT] that data noised up to there does not come near.

    Args:
        energy_and_gradient: of the model.
        path: the noising.
        times: of the levels.
        data: clean samples, a few hundred.
        generator: of the noise; on the device of ``data``.
    """
    floors = []
    with torch.no_grad():
        for t in times.split(1):
            noise = torch.randn(data.shape, generator=generator, dtype=data.dtype, device=data.device)
            y = path.alpha(t) * data + path.sigma(t) * noise
            energy = energy_and_gradient(y, t.expand(len(y)))[0].double()
            # A single sample that has fallen into a hole would sink a floor of mean and deviation there.
            middle, deviation = robust_moments(energy)
            floors.append(middle - BELOW * deviation)
    return torch.stack(floors)


def guarded(
    energy_and_gradient: EnergyAndGradient, times: Float[Tensor, " levels"], floors: Float[Tensor, " levels"]
) -> EnergyAndGradient:
    """Return the same function mirrored at the floor of its time; called with one time of ``times`` for all."""

    def evaluate(y: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        level = int(torch.searchsorted(times, t[0]).clamp(max=len(times) - 1))
        return mirrored(*energy_and_gradient(y, t), float(floors[level]))

    return evaluate


def mirrored(
    energy: Float[Tensor, " batch"], gradient: Float[Tensor, "batch *event"], floor: float
) -> tuple[Float[Tensor, " batch"], Float[Tensor, "batch *event"]]:
    """Return energies [kT] and gradients mirrored at a floor, and finite.

    The energy alone decides what is a hill, so that moves, which see gradients, and weights, which do not, agree. A
    gradient that is not finite, as at a distance of zero, is no slope there: moves need none to be right.

    >>> energy, gradient = mirrored(torch.tensor([3.0, -5.0]), torch.ones(2, 1), floor=-1.0)
    >>> energy.tolist(), gradient.flatten().tolist()
    ([3.0, 3.0], [1.0, -1.0])
    """
    sloped = _bounded(energy, floor) & gradient.flatten(1).isfinite().all(1)
    sign = torch.where(sloped, (energy - floor).sign(), 0.0)
    wide = sign.view(-1, *[1] * (gradient.ndim - 1))
    return mirrored_energy(energy, floor), torch.where(wide == 0, 0.0, wide * gradient)


def mirrored_energy(energy: Float[Tensor, " batch"], floor: float) -> Float[Tensor, " batch"]:
    """Return the energies [kT] of :func:`mirrored`, which no gradient changes."""
    return torch.where(_bounded(energy, floor), floor + (energy - floor).abs(), floor + HIGHEST)


def _bounded(energy: Tensor, floor: float) -> Tensor:
    # A comparison with what is no number is false.
    return (energy - floor).abs() < HIGHEST


class GuardedTarget(Target):
    """A target whose energy is mirrored at a floor.

    Args:
        target: of any space.
        floor: [kT].
    """

    def __init__(self, target: Target, floor: float) -> None:
        self.target, self.floor = target, floor
        self.event_shape, self.dimension = target.event_shape, target.dimension
        self.dtype, self.device = target.dtype, target.device

    def energy(self, x: Float[Tensor, "batch *event"]) -> Float[Tensor, " batch"]:
        """See :meth:`Target.energy`."""
        return mirrored_energy(self.target.energy(x), self.floor)

    def energy_and_force(
        self, x: Float[Tensor, "batch *event"]
    ) -> tuple[Float[Tensor, " batch"], Float[Tensor, "batch *event"]]:
        """See :meth:`Target.energy_and_force`."""
        energy, force = self.target.energy_and_force(x)
        return mirrored(energy, force, self.floor)
