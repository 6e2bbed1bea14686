"""How a run uses the processor, and how it leaves it to whoever called."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch


@contextlib.contextmanager
def processor_settings(threads: int) -> Iterator[None]:
    """Compute with so many threads and denormal numbers as zeros, and leave the process as it was.

    Denormals are rare and slow; but a program that calls :func:`run` of a workflow may need them.
    """
    before, flushed = torch.get_num_threads(), flushes_denormals()
    torch.set_num_threads(threads)
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_num_threads(before)
        torch.set_flush_denormal(flushed)


def flushes_denormals() -> bool:
    """Return whether this thread takes denormal numbers as zeros."""
    return torch.full((), 1e-310, dtype=torch.float64).mul(0.5).item() == 0.0
