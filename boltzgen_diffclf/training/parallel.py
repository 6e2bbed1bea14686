"""Data parallelism under ``torchrun``: each process takes its share of a batch, gradients are averaged."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed as distributed
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from boltzgen_diffclf.errors import InputError


@contextmanager
def joined(device: torch.device | str) -> Iterator[None]:
    """Join the processes that ``torchrun`` started, if it did, while the block runs."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield
        return
    if torch.device(device).type == "cuda":
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        distributed.init_process_group("nccl")
    else:
        distributed.init_process_group("gloo")
    try:
        yield
    finally:
        distributed.destroy_process_group()


def first_says(value: bool) -> bool:
    """Return what the first process found, on every process; all have to call it."""
    if size() == 1:
        return value
    answer = [value]
    distributed.broadcast_object_list(answer, src=0)
    return answer[0]


def wait() -> None:
    """Return when every process has come here."""
    if size() > 1:
        distributed.barrier()


def size() -> int:
    """Return the number of processes that train together."""
    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1


def is_first() -> bool:
    """Return whether this process writes the files."""
    return size() == 1 or distributed.get_rank() == 0


def share(tensor: Shaped[Tensor, "groups *rest"]) -> Shaped[Tensor, "share *rest"]:
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
