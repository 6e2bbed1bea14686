"""Fusing with ``torch.compile`` where a compiler is there, and saying so once where it is not."""

from __future__ import annotations

import functools
import logging
import os
import shutil
import warnings
from collections.abc import Callable
from typing import TypeVar

import torch

Function = TypeVar("Function", bound=Callable[..., object])
_log = logging.getLogger(__name__)


@functools.cache
def can_fuse(device_type: str) -> bool:
    """Return whether ``torch.compile`` can generate code for this device; log one line when it cannot."""
    if os.environ.get("BOLTZGEN_EAGER"):
        _log.info("running eagerly: BOLTZGEN_EAGER is set")
        return False
    if device_type == "cpu" and not any(shutil.which(name) for name in ("g++", "clang++", "c++", "cl")):
        _log.warning("no C++ compiler found: energies run eagerly, several times slower (install g++)")
        return False
    return True


def fuse(function: Function, device: torch.device | str, *, dynamic: bool = False) -> Function:
    """Return ``function`` fused by ``torch.compile`` for ``device``, or unchanged where that is impossible."""
    if not can_fuse(torch.device(device).type):
        return function
    # torch warns about its own internals while it generates code; a user can do nothing about it.
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"torch\._inductor")
    return torch.compile(function, dynamic=dynamic)  # type: ignore[return-value]
