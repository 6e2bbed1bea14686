"""States of samplers: frozen dataclasses of tensors that can be saved, restored and re-indexed."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

AnyState = TypeVar("AnyState", bound="TensorState")
AnyKernelState = TypeVar("AnyKernelState", bound="KernelState")


@dataclass(frozen=True, eq=False)
class TensorState:
    """A dataclass whose fields are tensors or other such dataclasses.

    Saving :meth:`tensors` and the state of the generator is enough to go on bit for bit.
    """

    def tensors(self) -> dict[str, Tensor]:
        """Return every tensor under its dotted field name, ready for a safetensors file."""
        named: dict[str, Tensor] = {}
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if isinstance(value, TensorState):
                named |= {f"{field.name}.{inner}": tensor for inner, tensor in value.tensors().items()}
            else:
                named[field.name] = value
        return named

    def where(self: AnyState, mask: Bool[Tensor, " batch"], other: AnyState) -> AnyState:
        """Return the walkers of this state where the mask says so, of the other elsewhere."""
        others = other.tensors()
        return self.with_tensors(
            {
                name: torch.where(mask.view(-1, *[1] * (tensor.ndim - 1)), tensor, others[name])
                for name, tensor in self.tensors().items()
            }
        )

    def with_tensors(self: AnyState, tensors: dict[str, Tensor]) -> AnyState:
        """Return a state of this kind that holds ``tensors``, on the devices of this one.

        Args:
            tensors: what :meth:`tensors` gave for a state of the same kind.

        Raises:
            ValueError: when names, shapes or dtypes are not those of this state.
        """
        mine = self.tensors()
        if mine.keys() != tensors.keys():
            raise ValueError(f"a saved state holds {sorted(tensors)} where {sorted(mine)} are needed")
        for name, tensor in tensors.items():
            if (tensor.shape, tensor.dtype) != (mine[name].shape, mine[name].dtype):
                raise ValueError(
                    f"saved {name} is {tensor.dtype}{list(tensor.shape)} where "
                    f"{mine[name].dtype}{list(mine[name].shape)} is needed"
                )
        changes: dict[str, Any] = {}
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if isinstance(value, TensorState):
                prefix = f"{field.name}."
                inner = {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}
                changes[field.name] = value.with_tensors(inner)
            else:
                changes[field.name] = tensors[field.name].to(value.device)
        return dataclasses.replace(self, **changes)


@dataclass(frozen=True, eq=False)
class KernelState(TensorState):
    """Walkers with the energy and force at their own levels, so that no move evaluates twice.

    Attributes:
        position: configurations.
        energy: ``u(x; level)`` [kT].
        force: ``-grad u`` [kT per unit of x].
    """

    position: Float[Tensor, "batch *event"]
    energy: Float[Tensor, " batch"]
    force: Float[Tensor, "batch *event"]

    def select(self: AnyKernelState, index: Int[Tensor, " chosen"]) -> AnyKernelState:
        """Return the walkers ``index``, repeated or dropped as it says."""
        return dataclasses.replace(self, **{name: tensor[index] for name, tensor in self.tensors().items()})


@dataclass(frozen=True, eq=False)
class LangevinState(KernelState):
    """Walkers of Langevin dynamics.

    Attributes:
        velocity: at the reference temperature on every level, for ladders scale the energy instead [nm/ps].
    """

    velocity: Float[Tensor, "batch *event"]
