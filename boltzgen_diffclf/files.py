"""Files that are either whole or absent: write beside, then rename."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from boltzgen_diffclf.errors import RunFailedError


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; it replaces ``path`` when the block ends without an error.

    A kill at any moment leaves the old file, or none.

    Raises:
        RunFailedError: when the disk refuses (full, read-only, a folder of that name); nothing is destroyed.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        with temporary.open("rb+") as handle:
            os.fsync(handle.fileno())
        os.replace(temporary, path)
    except OSError as error:
        if isinstance(error, IsADirectoryError):
            reason, advice = "it is a folder", "move it away"
        else:
            reason, advice = error.strerror or str(error), "free space or choose another --out"
        raise RunFailedError(
            f"could not write {path}: {reason}; {advice}, then repeat the command: it resumes"
        ) from error
    finally:
        temporary.unlink(missing_ok=True)
