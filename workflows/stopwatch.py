"""Time that a piece of work takes, all of its starts together."""

from __future__ import annotations

import math
import time
from pathlib import Path

from boltzgen_diffclf.files import atomic_path

INTERVAL = 5.0
"""Time [s] that a start may lose when it is killed: what is kept has to reach the disk, which takes milliseconds."""


class Stopwatch:
    """Goes on from what earlier starts have kept.

    Args:
        file: where the time is kept until the work is done.
    """

    def __init__(self, file: Path) -> None:
        self._file, self._begun = file, time.monotonic()
        self.earlier = float(file.read_text(encoding="utf-8")) if file.exists() else 0.0
        """Time [s] of the starts before this one."""
        self._kept = -math.inf

    @property
    def seconds(self) -> float:
        """Time [s] so far; what passed between the last :meth:`keep` of an earlier start and its end is not in it."""
        return self.earlier + time.monotonic() - self._begun

    def keep(self) -> None:
        """Keep the time for a later start, where :data:`INTERVAL` has passed since it was kept last."""
        if self.seconds < self._kept + INTERVAL:
            return
        self._kept = self.seconds
        with atomic_path(self._file) as path:
            path.write_text(repr(self.seconds), encoding="utf-8")

    def done(self) -> float:
        """Return the time, and forget it."""
        self._file.unlink(missing_ok=True)
        return self.seconds
