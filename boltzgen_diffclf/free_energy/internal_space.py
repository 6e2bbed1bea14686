"""The path in internal coordinates: variance preserving, anchored, every configuration a whole molecule."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

from boltzgen_diffclf.coordinates import (
    InternalCoordinates,
    ScaledInternal,
    match_rotors,
    pair_by_transport,
    torsion_cost,
)
from boltzgen_diffclf.energy import Ends, end_values
from boltzgen_diffclf.free_energy.ceilings import ceiling_of
from boltzgen_diffclf.free_energy.path_pool import PathSpace
from boltzgen_diffclf.paths import StochasticInterpolant
from boltzgen_diffclf.target import Target, TransformedTarget

TORSION_NOISE = 0.4
"""Noise scale of soft torsions [rad]: a standard deviation of 0.2 rad half-way."""

ROTATABLE = 0.4
"""Circular standard deviation [rad] of both ends together above which a torsion is paired by transport."""


class InternalSpace(PathSpace):
    r"""Whitened bonds, angles and stiff torsions, and soft torsions along shortest arcs.

    Stiff coordinates take the noise scale sqrt(2), which keeps their unit variance at every t; the rotatable bonds,
    whose torsions may jump between basins, are paired by minibatch optimal transport and take a small noise.

    Args:
        internal: the molecule's internal coordinates.
        target_a: the reduced energy of state A in positions, float64.
        target_b: of state B.
        frames_a: positions [nm] that fix the whitening, together with
        frames_b: those of the other end, equally many.

    Attributes:
        ceilings: energies [kT], in path coordinates, that few frames of each end exceed.
    """

    def __init__(
        self,
        internal: InternalCoordinates,
        target_a: Target,
        target_b: Target,
        frames_a: Float[Tensor, "frames atoms 3"],
        frames_b: Float[Tensor, "frames atoms 3"],
    ) -> None:
        self.internal = internal
        pooled = internal.from_cartesian(torch.cat([frames_a, frames_b]))
        self.scaled = ScaledInternal.fit(internal, pooled)
        self.dimension = internal.dimension
        scale = torch.where(self.scaled.is_periodic, TORSION_NOISE, math.sqrt(2))
        self.path = StochasticInterpolant(scale.to(frames_a), self.dimension)
        # Rotors of identical hydrogens are matched by relabelling; a torsion of one narrow basin needs no matching,
        # and would take precision from those that do.
        self.transported = self.scaled.is_periodic & (internal.symmetry == 1) & (_circular_spread(pooled) > ROTATABLE)
        self.target_a = TransformedTarget(target_a, self.scaled, self.dimension)
        self.target_b = TransformedTarget(target_b, self.scaled, self.dimension)
        self.ceilings = (
            ceiling_of(self.target_a, self.encode(frames_a)),
            ceiling_of(self.target_b, self.encode(frames_b)),
        )

    def pair(
        self, x_0: Float[Tensor, "n atoms 3"], x_1: Float[Tensor, "n atoms 3"]
    ) -> tuple[Float[Tensor, "n atoms 3"], Int[Tensor, " n"]]:
        """See :meth:`PathSpace.pair`; the cost is that of the rotatable bonds' torsions."""
        q_0, q_1 = self.internal.from_cartesian(x_0), self.internal.from_cartesian(x_1)
        permutation = pair_by_transport(torsion_cost(q_0[:, self.transported], q_1[:, self.transported]))
        return match_rotors(self.internal, x_1[permutation], x_0), permutation

    def encode(self, x: Float[Tensor, "n atoms 3"]) -> Float[Tensor, "n dim"]:
        """See :meth:`PathSpace.encode`."""
        return self.scaled.from_cartesian(x)

    def displacement(self, y_0: Float[Tensor, "n dim"], y_1: Float[Tensor, "n dim"]) -> Float[Tensor, "n dim"]:
        """See :meth:`PathSpace.displacement`."""
        difference = y_1 - y_0
        arc = torch.remainder(difference + math.pi, 2 * math.pi) - math.pi
        return torch.where(self.scaled.is_periodic, arc, difference)

    def noise(self, n: int, generator: torch.Generator) -> Float[Tensor, "n dim"]:
        """See :meth:`PathSpace.noise`."""
        scale = self.path.noise_scale
        return torch.randn(n, self.dimension, generator=generator, dtype=scale.dtype).to(scale.device)

    def end_values(self, y: Float[Tensor, "n dim"]) -> Ends:
        """See :meth:`PathSpace.end_values`."""
        return end_values(self.target_a, self.target_b, y)

    def pair_forces(self, x_0: Float[Tensor, "n atoms 3"], x_1: Float[Tensor, "n atoms 3"]) -> Float[Tensor, "n 2 dim"]:
        """See :meth:`PathSpace.pair_forces`; zeros: the anchored energy has the right ends already."""
        return x_0.new_zeros(1).expand(len(x_0), 2, self.dimension)


def _circular_spread(angle: Float[Tensor, "frames dof"]) -> Float[Tensor, " dof"]:
    """Return the circular standard deviation [rad], ``sqrt(-2 log |mean exp(i angle)|)``."""
    resultant = torch.hypot(angle.cos().mean(0), angle.sin().mean(0))
    return torch.sqrt(-2 * resultant.clamp(1e-12, 1.0).log())
