"""The path between two densities of plain vectors: straight lines and noise, no symmetry to heed."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

from boltzgen_diffclf.coordinates import pair_by_transport
from boltzgen_diffclf.energy import Ends, end_values
from boltzgen_diffclf.free_energy.ceilings import ceiling_of
from boltzgen_diffclf.free_energy.path_pool import PathSpace
from boltzgen_diffclf.paths import StochasticInterpolant
from boltzgen_diffclf.target import Target

_CHUNK = 8192


class VectorSpace(PathSpace):
    r"""Vectors as they are, joined by ``(1 - t) x_0 + t x_1 + noise sd sqrt(t (1 - t)) z``.

    ``sd`` is the standard deviation within the states, the same for every coordinate (standardise what has unequal
    ones), so that ``noise = sqrt(2)`` keeps the variance of independent pairs at every t: a single mode travels from
    one state to the other without changing width.
    With many modes an end, transport joins each mode to few others: a path of tens of tubes instead of hundreds.

    Args:
        target_a: the reduced energy of state A, float64.
        target_b: of state B.
        samples_a: vectors of state A that fix the scale of the noise, together with
        samples_b: those of state B.
        noise: in units of the standard deviation within the states.
        transport: pair by minibatch optimal transport; False leaves the pairs independent.
        anchored: give the true energies along the path; False gives zeros, for a model that learns them.

    Attributes:
        ceilings: energies [kT] that few samples of each end exceed.
    """

    def __init__(
        self,
        target_a: Target,
        target_b: Target,
        samples_a: Float[Tensor, "samples_a dim"],
        samples_b: Float[Tensor, "samples_b dim"],
        *,
        noise: float = math.sqrt(2),
        transport: bool = False,
        anchored: bool = True,
    ) -> None:
        within = (0.5 * (samples_a.var(0) + samples_b.var(0))).mean().sqrt()
        self.dimension = samples_a.shape[1]
        self.path = StochasticInterpolant((noise * within).repeat(self.dimension), self.dimension)
        self.target_a, self.target_b = target_a, target_b
        self.transport, self.anchored = transport, anchored
        self.ceilings = ceiling_of(target_a, samples_a), ceiling_of(target_b, samples_b)

    def pair(
        self, x_0: Float[Tensor, "n dim"], x_1: Float[Tensor, "n dim"]
    ) -> tuple[Float[Tensor, "n dim"], Int[Tensor, " n"]]:
        """See :meth:`PathSpace.pair`; the cost is the squared distance."""
        if not self.transport:
            return x_1, torch.arange(len(x_1))
        permutation = pair_by_transport(torch.cdist(x_0, x_1).square())
        return x_1[permutation], permutation

    def encode(self, x: Float[Tensor, "n dim"]) -> Float[Tensor, "n dim"]:
        """See :meth:`PathSpace.encode`."""
        return x

    def displacement(self, y_0: Float[Tensor, "n dim"], y_1: Float[Tensor, "n dim"]) -> Float[Tensor, "n dim"]:
        """See :meth:`PathSpace.displacement`."""
        return y_1 - y_0

    def noise(self, n: int, generator: torch.Generator) -> Float[Tensor, "n dim"]:
        """See :meth:`PathSpace.noise`."""
        scale = self.path.noise_scale
        return torch.randn(n, self.dimension, generator=generator, dtype=scale.dtype).to(scale.device)

    def end_values(self, y: Float[Tensor, "n dim"]) -> Ends:
        """See :meth:`PathSpace.end_values`; zeros without memory where the model is not anchored."""
        if not self.anchored:
            zero = y.new_zeros(1)
            return Ends(zero.expand(len(y), 2), zero.expand(len(y), 2, self.dimension))
        parts = [end_values(self.target_a, self.target_b, part) for part in y.split(_CHUNK)]
        return Ends(torch.cat([part.energy for part in parts]), torch.cat([part.gradient for part in parts]))

    def pair_forces(self, x_0: Float[Tensor, "n dim"], x_1: Float[Tensor, "n dim"]) -> Float[Tensor, "n 2 dim"]:
        """See :meth:`PathSpace.pair_forces`; zeros: no objective asks for them."""
        return x_0.new_zeros(1).expand(len(x_0), 2, self.dimension)
