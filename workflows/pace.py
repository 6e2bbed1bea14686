"""How fast a stage of a run goes, and how long it still takes."""

from __future__ import annotations

from collections import deque

WINDOW = 120.0
"""Time [s] that a pace is taken over: a training whose later steps cost more tells so within two minutes."""
INTERVAL = 1.0
"""Time [s] between reports that are remembered one by one."""


class Pace:
    """The reports of one stage, from the first on, with which comes what an earlier start had done."""

    def __init__(self) -> None:
        self._first: float | None = None
        self._recent: deque[tuple[float, float]] = deque()

    def tell(self, now: float, done: float) -> None:
        """Note that the fraction ``done`` of the stage is reached at the time ``now`` [s]."""
        if self._first is None:
            self._first = done
        if len(self._recent) > 1 and now < self._recent[-2][0] + INTERVAL:
            self._recent.pop()
        self._recent.append((now, done))
        while len(self._recent) > 2 and self._recent[1][0] < now - WINDOW:
            self._recent.popleft()

    @property
    def done_here(self) -> float:
        """Fraction of the stage that was done since its first report; all of it where there is no second."""
        if not self._recent or self._first is None:
            return 0.0
        last = self._recent[-1][1]
        return last - self._first if len(self._recent) > 1 else last

    @property
    def seconds_left(self) -> float | None:
        """Time [s] to the end of the stage as fast as it went lately, or None while that is not known."""
        if len(self._recent) < 2:
            return None
        (begun, before), (now, done) = self._recent[0], self._recent[-1]
        return (1.0 - done) * (now - begun) / (done - before) if done > before else None
