"""Biases that favour the molecules one of whose torsions lies in an arc: the energies of umbrella sampling."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from boltzgen_diffclf.compilation import fuse
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


class FavouredTarget(Target):
    """The reduced energy of a target and of biases together.

    Args:
        source: on positions of a molecule.
        biases: in units of kT, like it.
    """

    def __init__(self, source: Target, biases: Sequence[ArcBias]) -> None:
        self.source, self.biases = source, tuple(biases)
        self.event_shape, self.dimension = source.event_shape, source.dimension
        self.dtype, self.device = source.dtype, source.device
        # A bias is a few numbers a molecule, and dozens of kernels where they are not fused.
        self._of_biases = fuse(self._bias_and_gradient, source.device, dynamic=True)

    def energy(self, x: Float[Tensor, "batch atoms 3"]) -> Float[Tensor, " batch"]:
        """See :meth:`Target.energy`."""
        return self.source.energy(x) + sum_of(self.biases, x)

    def energy_and_force(
        self, x: Float[Tensor, "batch atoms 3"]
    ) -> tuple[Float[Tensor, " batch"], Float[Tensor, "batch atoms 3"]]:
        """See :meth:`Target.energy_and_force`."""
        energy, force = self.source.energy_and_force(x)
        bias, gradient = self._of_biases(x.detach())
        return energy + bias, force - gradient

    def _bias_and_gradient(
        self, x: Float[Tensor, "batch atoms 3"]
    ) -> tuple[Float[Tensor, " batch"], Float[Tensor, "batch atoms 3"]]:
        bias, pull_back = torch.func.vjp(lambda position: sum_of(self.biases, position), x)[:2]
        (gradient,) = pull_back(torch.ones_like(bias))
        return bias, gradient
