"""Fusing with ``torch.compile`` where a compiler is there, and saying so once where it is not."""

from __future__ import annotations

import functools
import logging
import os
import shutil
import struct
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import torch
from torch._inductor.runtime.cache_dir_utils import cache_dir

Function = TypeVar("Function", bound=Callable[..., object])
_log = logging.getLogger(__name__)

_WORTH_RECORDING = 16
"""Calls of a step below which recording it takes longer than it spares."""


@functools.cache
def can_fuse(device_type: str) -> bool:
    """Return whether ``torch.compile`` can generate code for this device; log one line when it cannot."""
    if os.environ.get("BOLTZGEN_EAGER"):
        _log.info("running eagerly: BOLTZGEN_EAGER is set")
        return False
    if device_type == "cpu" and not any(shutil.which(name) for name in ("g++", "clang++", "c++", "cl")):
        _log.warning("no C++ compiler found: energies run eagerly, several times slower (install g++)")
        return False
    removed = remove_truncated_libraries(Path(cache_dir()))
    if removed:
        _log.info("removed %d half-written libraries of a killed compilation", removed)
    return True


def remove_truncated_libraries(folder: Path) -> int:
    """Remove shared libraries below ``folder`` that a killed compiler left half written; return how many.

    torch takes a library that exists for a finished one, so every later run would fail to load it.
    """
    # A library that is still growing belongs to another process, which is alive.
    settled = time.time() - 2.0
    truncated = [path for path in folder.glob("**/*.so") if path.stat().st_mtime < settled and not _is_whole(path)]
    for path in truncated:
        path.unlink(missing_ok=True)
    return len(truncated)


def _is_whole(path: Path) -> bool:
    """Return whether an ELF file reaches to the end of its section table; other formats only have to be non-empty."""
    size = path.stat().st_size
    with path.open("rb") as handle:
        header = handle.read(64)
    if size == 0 or (header.startswith(b"\x7fELF") and len(header) < 64):
        return False
    if header[:5] != b"\x7fELF\x02":
        return True
    (sections_begin,) = struct.unpack_from("<Q", header, 40)
    entry_size, entries = struct.unpack_from("<HH", header, 58)
    return sections_begin > 0 and size >= sections_begin + entry_size * entries


def fuse(function: Function, device: torch.device | str, *, dynamic: bool = False, recorded: bool = False) -> Function:
    """Return ``function`` fused by ``torch.compile`` for ``device``, or unchanged where that is impossible.

    Args:
        function: of tensors and modules.
        device: of these.
        dynamic: whether shapes change from call to call.
        recorded: whether a GPU is to record its kernels and launch them at once. The next call then writes over what
            the last one returned. Not for what is called where :func:`repeat` records.
    """
    if not can_fuse(torch.device(device).type):
        return function
    # torch warns about its own internals while it generates code; a user can do nothing about it.
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"torch\._inductor")
    mode = "reduce-overhead" if recorded and torch.device(device).type == "cuda" else None
    return torch.compile(function, dynamic=dynamic, mode=mode)  # type: ignore[return-value]


def repeat(step: Callable[[], None], times: int, generator: torch.Generator, *, recordable: bool) -> None:
    """Call ``step`` so many times; on a GPU as one recorded graph, which spares the launches of its kernels.

    Args:
        step: changes tensors in place.
        times: that it is called.
        generator: that it draws from, on the device of its tensors.
        recordable: whether it launches the same kernels each time, and looks at no value.
    """
    if not recordable or generator.device.type != "cuda" or times < _WORTH_RECORDING:
        for _ in range(times):
            step()
        return
    with torch.cuda.device(generator.device):
        aside = torch.cuda.Stream()
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):  # What is compiled or reserved at the first call must not be recorded.
            step()
        torch.cuda.current_stream().wait_stream(aside)
        graph = torch.cuda.CUDAGraph()
        graph.register_generator_state(generator)
        with torch.cuda.graph(graph):
            step()
        for _ in range(times - 1):
            graph.replay()
        torch.cuda.synchronize()
