"""A bias that favours the molecules one of whose torsions lies in an arc: the energy of umbrella sampling."""

from __future__ import annotations

import math

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


def arc_bias(region: TorsionArc, depth: float, x: Float[Tensor, "batch atoms 3"]) -> Float[Tensor, " batch"]:
    """Return ``-depth s(x)`` [kT], where ``s`` is :func:`share_of_arc`.

    It is the energy of the bias, and the log weight that takes the bias away again.
    """
    return -depth * share_of_arc(region, x)


class ArcBias(Target):
    """``u(x)`` of :func:`arc_bias`.

    Args:
        region: the arc and its torsion.
        depth: [kT]; a negative one disfavours.
        space: a target on the same positions, whose shape, precision and device it takes.
    """

    def __init__(self, region: TorsionArc, depth: float, space: Target) -> None:
        self.region, self.depth = region, depth
        self.event_shape, self.dimension = space.event_shape, space.dimension
        self.dtype, self.device = space.dtype, space.device

    def energy(self, x: Float[Tensor, "batch atoms 3"]) -> Float[Tensor, " batch"]:
        """See :meth:`Target.energy`."""
        return arc_bias(self.region, self.depth, x)
