"""Biases that favour the molecules one of whose torsions lies in an arc: the energies of umbrella sampling."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from boltzgen_diffclf.coordinates import TorsionArc
from boltzgen_diffclf.target import Target

EDGE_WIDTH = 0.1
"""Angle [rad] over which the bias rises at either end of the arc."""


def share_of_arc(region: TorsionArc, x: Float[Tensor, "batch atoms 3"]) -> Float[Tensor, " batch"]:
    r"""Return one where the torsion lies in the arc and zero where it does not, smooth between.

    With ``d`` the angle from the middle of the arc and ``h`` half of its length, it is
    ``1 / (1 + exp((cos h - cos d) / (w sin h)))``, so that both edges are ``w`` wide (:data:`EDGE_WIDTH`).

    Args:
        region: the arc and its torsion.
        x: positions, in any unit of length.
    """
    half = 0.5 * region.arc.length
    from_middle = torch.cos(region.angle(x) - region.arc.middle)
    return ((from_middle - math.cos(half)) / (EDGE_WIDTH * math.sin(half))).sigmoid()


@dataclass(frozen=True)
class ArcBias:
    """A bias that makes molecules in an arc of a torsion likelier.

    Attributes:
        region: the arc and its torsion.
        depth: of the bias [kT]; a negative one disfavours.
    """

    region: TorsionArc
    depth: float

    def energy(self, x: Float[Tensor, "batch atoms 3"]) -> Float[Tensor, " batch"]:
        """Return ``-depth s(x)`` [kT], where ``s`` is :func:`share_of_arc`."""
        return -self.depth * share_of_arc(self.region, x)


def sum_of(biases: Sequence[ArcBias], x: Float[Tensor, "batch atoms 3"]) -> Float[Tensor, " batch"]:
    """Return the energy of biases together [kT]: the log weight that takes them away again."""
    return torch.stack([bias.energy(x) for bias in biases]).sum(0)


class BiasTarget(Target):
    """``u(x)`` of an :class:`ArcBias`.

    Args:
        bias: see there.
        space: a target on the same positions, whose shape, precision and device it takes.
    """

    def __init__(self, bias: ArcBias, space: Target) -> None:
        self.bias = bias
        self.event_shape, self.dimension = space.event_shape, space.dimension
        self.dtype, self.device = space.dtype, space.device

    def energy(self, x: Float[Tensor, "batch atoms 3"]) -> Float[Tensor, " batch"]:
        """See :meth:`Target.energy`."""
        return self.bias.energy(x)
