"""Which code a run was made with."""

from __future__ import annotations

import functools
import hashlib
from pathlib import Path

PACKAGES = ("boltzgen_diffclf", "systems", "workflows")
"""Folders whose modules can change a number."""


@functools.cache
def source_digest() -> str:
    """Return a checksum of all modules of the :data:`PACKAGES`, the same wherever they are installed."""
    root, digest = Path(__file__).parents[1], hashlib.sha256()
    for path in sorted(path for package in PACKAGES for path in (root / package).rglob("*.py")):
        digest.update(f"{path.relative_to(root).as_posix()}\n".encode() + path.read_bytes())
    return digest.hexdigest()
