"""Arcs of a circle of torsion angles, and the configurations whose torsion lies in one."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from boltzgen_diffclf.coordinates.internal import signed_torsion

EDGE = 1e-5
"""Angle [rad] beyond the end of an arc at which what was inside may be found after rounding to single precision."""


@dataclass(frozen=True)
class Arc:
    """The angles [rad] from ``low`` up to ``high``, through pi where low > high.

    >>> Arc(0.0, 2.15).rest.contains(torch.tensor([-1.0, 1.0, 3.0])).tolist()
    [True, False, True]
    """

    low: float
    high: float

    def __post_init__(self) -> None:
        """Refuse an arc without length."""
        if not 0 < self.length < 2 * math.pi:
            raise ValueError(f"an arc has a beginning and another end, got {self.low} and {self.high} rad")

    @property
    def length(self) -> float:
        """How long it is [rad]."""
        return (self.high - self.low) % (2 * math.pi)

    @property
    def middle(self) -> float:
        """The angle half-way [rad]."""
        return self.low + 0.5 * self.length

    @property
    def rest(self) -> Arc:
        """The rest of the circle."""
        return Arc(self.high, self.low)

    def distance(self, angle: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
        """Return how far each angle [rad] is from the arc, the shorter way [rad]; zero inside."""
        from_middle = (torch.remainder(angle - self.middle + math.pi, 2 * math.pi) - math.pi).abs()
        return (from_middle - 0.5 * self.length).clamp_min(0.0)

    def covers(self, other: Arc) -> bool:
        """Return whether all of another arc lies in this one.

        >>> Arc(3.0, -1.0).covers(Arc(-3.0, -2.0)), Arc(3.0, -1.0).covers(Arc(-3.0, 0.0))
        (True, False)
        """
        apart = abs(math.remainder(other.middle - self.middle, 2 * math.pi))
        return apart + 0.5 * other.length <= 0.5 * self.length + EDGE

    def contains(self, angle: Float[Tensor, "*batch"], margin: float = 0.0) -> Bool[Tensor, "*batch"]:
        """Return which angles [rad] lie in the arc or within a margin [rad] of it, its two ends included."""
        return self.distance(angle) <= margin


@dataclass(frozen=True)
class TorsionArc:
    """The molecules one of whose torsions lies in an arc.

    Attributes:
        atoms: of the torsion.
        arc: its angles [rad].
        margin: angle [rad] beyond its ends that counts as inside.
    """

    atoms: tuple[int, int, int, int]
    arc: Arc
    margin: float = 0.0

    def __call__(self, x: Float[Tensor, "batch atoms 3"]) -> Bool[Tensor, " batch"]:
        """Return which configurations, in any unit of length, are inside."""
        return self.arc.contains(self.angle(x), self.margin)

    def angle(self, x: Float[Tensor, "batch atoms 3"]) -> Float[Tensor, " batch"]:
        """Return the torsion [rad] of configurations in any unit of length."""
        first, near, far, last = x[:, list(self.atoms)].unbind(1)
        return signed_torsion(last - far, near - far, first - near)
