"""What the one training loop asks of a problem: batches, losses by name, and what has to survive a kill."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, Generic, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

Model = TypeVar("Model", bound=nn.Module)
Batch = TypeVar("Batch", bound=tuple[Any, ...])


class Problem(ABC, Generic[Model, Batch]):
    """A model's losses and where their batches come from.

    A model keeps its network in ``net``; parameters elsewhere are free energies, which must move by kT. A batch is a
    named tuple of tensors that begin with the groups, so that processes can share it.

    Attributes:
        names: of the losses.
        weights: of the losses, in that order; a loss of weight zero is recorded and not learned.
        undivided: names of the tensors of a batch that do not begin with the groups, and that every process has whole.
    """

    undivided: frozenset[str] = frozenset()
    names: tuple[str, ...]
    weights: Float[Tensor, " losses"]

    @abstractmethod
    def draw(self, model: Model, generator: torch.Generator) -> Batch:
        """Return a batch; the model is there for negative samples, and for nothing else.

        Args:
            model: as it is now.
            generator: a CPU stream, the same on every process of a distributed run.
        """

    @abstractmethod
    def draw_held_out(self, model: Model, generator: torch.Generator) -> Batch:
        """Return a batch of data that is never learned from; leaves :meth:`state` alone."""

    @abstractmethod
    def losses(self, model: Model, batch: Batch) -> Float[Tensor, " losses"]:
        """Return the mean of every loss over the batch."""

    @abstractmethod
    def free_energies(self, model: Model) -> Float[Tensor, " levels"]:
        """Return the free energies [kT] whose drift is recorded."""

    @abstractmethod
    def evaluations(self, model: Model) -> int:
        """Return the network evaluations of one step, energies and derivatives alike."""

    @property
    def identity(self) -> Mapping[str, Any]:
        """What must be the same when resuming, beyond the settings of the loop; for JSON."""
        return {}

    @property
    def state(self) -> Mapping[str, Tensor]:
        """What :meth:`draw` has changed, by name, in tensors whose shapes stay."""
        return {}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Go back to what :attr:`state` was."""
