"""Data parallelism under ``torchrun``: each process takes its share of a batch, gradients are averaged."""

from __future__ import annotations

import torch
import torch.distributed as distributed
from jaxtyping import Float
from torch import Tensor, nn

from boltzgen_diffclf.errors import InputError


def size() -> int:
    """Return the number of processes that train together."""
    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1


def is_first() -> bool:
    """Return whether this process writes the files."""
    return size() == 1 or distributed.get_rank() == 0


def share(tensor: Float[Tensor, "groups *rest"]) -> Float[Tensor, "share *rest"]:
    """Return this process's equal share of the groups.

    Raises:
        InputError: the groups cannot be divided equally.
    """
    n = size()
    if n == 1:
        return tensor
    if len(tensor) % n:
        raise InputError(f"{len(tensor)} groups a step cannot be shared by {n} processes: choose a multiple")
    return tensor.chunk(n)[distributed.get_rank()]


def average(values: Float[Tensor, "*any"]) -> Float[Tensor, "*any"]:
    """Return the mean of ``values`` over the processes."""
    if size() > 1:
        distributed.all_reduce(values)
        values = values / size()
    return values


def average_gradients(model: nn.Module) -> None:
    """Replace each gradient by its mean over the processes, in one message."""
    if size() == 1:
        return
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    flat = average(torch.cat([gradient.flatten() for gradient in gradients]))
    for gradient, piece in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
        gradient.copy_(piece.view_as(gradient))
