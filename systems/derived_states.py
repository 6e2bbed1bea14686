"""States made of the energies of others: a mixture of two energies, and a state confined to an arc of a torsion."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from boltzgen_diffclf.composition import ComposedTarget, Product
from boltzgen_diffclf.confinement import ConfinedTarget, Region
from boltzgen_diffclf.coordinates import TorsionArc
from boltzgen_diffclf.coordinates.arc import EDGE
from boltzgen_diffclf.favouring import EDGE_WIDTH, ArcBias, FavouredTarget, sum_of
from boltzgen_diffclf.target import Target


class DerivedState(ABC):
    """A state whose energy is made of those of others of the same molecule.

    Attributes:
        sources: names of those.
        start: a configuration of it [nm]; None where that of the molecule is one.
        region: what it is confined to; None where it is everywhere.
    """

    sources: tuple[str, ...]
    start: Float[Tensor, "atoms 3"] | None = None
    region: Region | None = None

    @abstractmethod
    def target(self, sources: Sequence[Target]) -> Target:
        """Return its reduced energy, given those of :attr:`sources`."""

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """What makes it this state, besides its sources."""


@dataclass(frozen=True)
class MixedState(DerivedState):
    """``(1 - fraction) u_A + fraction u_B``.

    Attributes:
        sources: A and B.
        fraction: of B, above 0 and below 1.
    """

    sources: tuple[str, str]
    fraction: float

    def target(self, sources: Sequence[Target]) -> Target:
        """See :meth:`DerivedState.target`."""
        shares = torch.tensor([1 - self.fraction, self.fraction], dtype=sources[0].dtype, device=sources[0].device)
        return ComposedTarget(sources, Product(shares))

    @property
    def fingerprint(self) -> str:
        """See :attr:`DerivedState.fingerprint`."""
        return f"mixed {self.fraction!r}"


@dataclass(frozen=True, eq=False)
class ConfinedState(DerivedState):
    """A state within an arc of a torsion: the same energy inside, infinite outside.

    Attributes:
        sources: the one state.
        region: where it is.
        start: a configuration inside [nm].
    """

    sources: tuple[str]
    region: TorsionArc
    start: Float[Tensor, "atoms 3"]

    def target(self, sources: Sequence[Target]) -> Target:
        """See :meth:`DerivedState.target`; frames that were rounded across an edge are inside."""
        return ConfinedTarget(sources[0], replace(self.region, margin=EDGE))

    @property
    def fingerprint(self) -> str:
        """See :attr:`DerivedState.fingerprint`."""
        return f"confined {self.region.atoms} {self.region.arc.low!r} {self.region.arc.high!r}"


@dataclass(frozen=True)
class FavouredState(DerivedState):
    """A state with a bias on torsions, so that walkers spend more of their time in some arcs.

    Attributes:
        sources: the one state.
        biases: where it is deeper, and by how much.
    """

    sources: tuple[str]
    biases: tuple[ArcBias, ...]

    def target(self, sources: Sequence[Target]) -> Target:
        """See :meth:`DerivedState.target`."""
        return FavouredTarget(sources[0], self.biases)

    def log_weights_without(self, x: Float[Tensor, "frames atoms 3"]) -> Float[Tensor, " frames"]:
        """Return the log weights that make frames of this state, in any unit of length, frames without the bias."""
        return sum_of(self.biases, x)

    @property
    def fingerprint(self) -> str:
        """See :attr:`DerivedState.fingerprint`."""
        several = [
            f"{bias.region.atoms} {bias.region.arc.low!r} {bias.region.arc.high!r} {bias.depth!r} {EDGE_WIDTH!r}"
            for bias in self.biases
        ]
        return f"favoured {' '.join(several)}"
