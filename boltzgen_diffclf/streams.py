"""Random streams: one root seed, named generators split from it."""

from __future__ import annotations

import hashlib

import torch


def split_seed(seed: int, name: str) -> int:
    """Return a 63-bit seed that depends on the root ``seed`` and on ``name`` alone.

    >>> split_seed(0, "noise") == split_seed(0, "noise") != split_seed(0, "levels")
    True
    """
    digest = hashlib.sha256(f"{seed}/{name}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def named_generator(seed: int, name: str, device: torch.device | str = "cpu") -> torch.Generator:
    """Return a generator for the stream ``name`` of the root ``seed`` on ``device``."""
    generator = torch.Generator(device=device)
    generator.manual_seed(split_seed(seed, name))
    return generator


def device_stream(generator: torch.Generator, device: torch.device) -> torch.Generator:
    """Return a stream on ``device`` that follows from a CPU stream, and so from its checkpoint; there that stream."""
    if device.type == "cpu":
        return generator
    return torch.Generator(device=device).manual_seed(int(torch.randint(2**62, (), generator=generator)))
