"""Energy networks of molecules on flat positions, with or without a part that knows bonds and angles."""

from __future__ import annotations

from copy import deepcopy

import torch
from jaxtyping import Float
from torch import Tensor, nn

from boltzgen_diffclf.coordinates import CentredCoordinates, ScaledInternal
from boltzgen_diffclf.nets.invariants import InvariantEnergyNet

SLICE = 256
"""Molecules that go through the message-passing network at once: its features of all pairs must fit in memory."""

PAIRS = 500
"""Pairs of atoms of a molecule of which :data:`SLICE` fit."""


class FlatMoleculeNet(nn.Module):
    """A network of positions ``(batch, atoms, 3)`` that takes them flat, ``(batch, 3 * atoms)``.

    Args:
        molecule: ``(x, t) -> (batch,)`` [kT].
    """

    def __init__(self, molecule: nn.Module) -> None:
        super().__init__()
        self.molecule = molecule

    def forward(self, y: Float[Tensor, "batch dim"], t: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        """Return the energy [kT]; a large batch is taken in slices."""
        x = y.unflatten(1, (-1, 3))
        slices = zip(x.split(SLICE), t.split(SLICE), strict=True)
        return torch.cat([self.molecule(part, time) for part, time in slices])


class PreconditionedMoleculeNet(FlatMoleculeNet):
    r"""The same, plus a network of the whitened internal coordinates of the same positions.

    Bonds vary by three thousandths of a nanometre, a hundredth of the length that a message-passing network
    resolves; in whitened coordinates they vary by one, and the stiff part of an energy is a sum of quadratics.

    Args:
        molecule: see :class:`FlatMoleculeNet`.
        internal: ``(y, t) -> (batch,)`` [kT] of scaled internal coordinates.
        scaled: from positions to those.
    """

    def __init__(self, molecule: nn.Module, internal: nn.Module, scaled: ScaledInternal) -> None:
        super().__init__(molecule)
        # A copy, because casting a model to single precision casts its modules in place.
        self.internal, self.scaled = internal, deepcopy(scaled)

    def forward(self, y: Float[Tensor, "batch dim"], t: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        """Return the energy [kT]."""
        bonded: Tensor = self.internal(self.scaled.from_cartesian(y.unflatten(1, (-1, 3))), t)
        return super().forward(y, t) + bonded


class CentredMoleculeNet(nn.Module):
    """The same of centred coordinates, ``(batch, 3 * (atoms - 1))``: message passing, invariants, or their sum.

    Args:
        coordinates: see there.
        molecule: ``(x, t) -> (batch,)`` [kT] of positions [nm].
        invariants: the same of positions in the unit of the coordinates, damped near the data, which messages are not.

    Raises:
        ValueError: neither network is given.
    """

    def __init__(
        self, coordinates: CentredCoordinates, molecule: nn.Module | None, invariants: InvariantEnergyNet | None
    ) -> None:
        super().__init__()
        if molecule is None and invariants is None:
            raise ValueError("an energy needs a network of positions, one of invariants, or both")
        self.coordinates, self.molecule, self.invariants = coordinates, molecule, invariants
        # As many pairs of atoms at once as a slice of the larger molecules has.
        self.rows = max(1, SLICE * PAIRS // coordinates.n_atoms**2)

    def forward(self, y: Float[Tensor, "batch dim"], t: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        """Return the energy [kT]."""
        x = self.coordinates.positions(y)
        energy = y.new_zeros(len(y))
        if self.molecule is not None:
            slices = zip(x.split(self.rows), t.split(self.rows), strict=True)
            energy = energy + torch.cat([self.molecule(part, time) for part, time in slices])
        if self.invariants is not None:
            energy = energy + self.invariants(x / self.coordinates.length_nm, t)
        return energy
