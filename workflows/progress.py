"""How a run tells where it stands: bars on a terminal, plain lines in a log, ``status.json`` for a job queue."""

from __future__ import annotations

import contextlib
import functools
import json
import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Self

from boltzgen_diffclf.errors import BoltzgenError, NotTrustworthyError, RunFailedError
from boltzgen_diffclf.files import atomic_path
from workflows.pace import Pace

if TYPE_CHECKING:
    from rich.console import Console

PACKAGES = ("boltzgen_diffclf", "systems", "workflows")
STATUS_SECONDS = 1.0
LOG_SECONDS = 30.0
_log = logging.getLogger(__name__)


@contextlib.contextmanager
def logging_to_stderr(*, debug: bool) -> Iterator[None]:
    """Send the log of our packages to stderr: through rich on a terminal, as plain lines otherwise."""
    handler: logging.Handler
    if sys.stderr.isatty():
        from rich.logging import RichHandler

        handler = RichHandler(console=_console(), show_path=False, show_level=False, highlighter=None)
    else:
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(_plain_lines())
    with _handling(handler, logging.DEBUG if debug else logging.INFO):
        yield


@contextlib.contextmanager
def logging_to_file(path: Path) -> Iterator[None]:
    """Append the log of our packages to ``path`` while the block runs."""
    handler = _LogFile(path, encoding="utf-8")
    handler.setFormatter(_plain_lines())
    with _handling(handler, logging.INFO):
        yield


class _LogFile(logging.FileHandler):
    """A log file whose full disk ends the run like any other full disk, instead of printing tracebacks."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - the name of the base class
        error = sys.exc_info()[1]
        if isinstance(error, OSError):
            raise error
        super().handleError(record)


def _plain_lines() -> logging.Formatter:
    return logging.Formatter("%(asctime)s %(message)s", datefmt="%Y-%m-%d %H:%M:%S")


@contextlib.contextmanager
def _handling(handler: logging.Handler, level: int) -> Iterator[None]:
    loggers = [logging.getLogger(name) for name in PACKAGES]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.addHandler(handler)
        logger.setLevel(level)
    try:
        yield
    finally:
        for logger, old in zip(loggers, before, strict=True):
            logger.removeHandler(handler)
            logger.setLevel(old)
        handler.close()


_asked_to_stop = threading.Event()
"""Python drops an exception that a signal raises inside a destructor or a weak reference's callback: work that goes on
all the same stops when it next tells how far it is."""


@contextlib.contextmanager
def terminating_politely() -> Iterator[None]:
    """Treat SIGTERM, which job queues send before they kill, like Ctrl-C while the block runs, and lose neither."""

    def interrupt(signum: int, frame: FrameType | None) -> None:
        _asked_to_stop.set()
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        _asked_to_stop.clear()


class Progress:
    """Where a run stands, told to the terminal, the log and ``status.json``.

    Args:
        status_file: rewritten whole at most once a second; a job queue may read it at any moment.

    Example::

        with Progress(folder.path / "status.json") as progress:
            progress.plan({"reference": 3.0, "training": 1.0})
            with progress.stage("reference", total=n_steps) as advance:
                for _ in range(n_steps):
                    advance(1)
    """

    def __init__(self, status_file: Path) -> None:
        self._status_file = status_file
        self._plan: dict[str, float] = {}
        self._done: dict[str, float] = {}
        self._paces: dict[str, Pace] = {}
        self._stage: str | None = None
        self._started = time.monotonic()
        self._last_status = self._last_line = -float("inf")
        self._beat: Callable[[], None] = lambda: None

    def __enter__(self) -> Self:
        self._write_status("running")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # A full disk ended the run: it must not be replaced by the failure to say so.
        with contextlib.suppress(RunFailedError):
            self._write_status(*_ending(error))

    def plan(self, shares: Mapping[str, float]) -> None:
        """Name the stages to come, each with its expected share of the work in any unit."""
        self._plan = dict(shares)

    def add(self, name: str, share: float) -> None:
        """Name a stage more, that only the stages before it showed to be needed."""
        self._plan.setdefault(name, share)

    @contextlib.contextmanager
    def stage(self, name: str, total: float) -> Iterator[Callable[[float], None]]:
        """Yield ``advance(amount)`` for one stage of the plan, of size ``total`` in any unit."""
        if name not in self._plan:
            raise ValueError(f"stage '{name}' is not in the plan: {list(self._plan)}")
        self._stage, self._done[name], self._paces[name] = name, 0.0, Pace()
        self._write_status("running")
        _log.info("%s: started", name)
        begun = self._last_line = time.monotonic()
        with _bar(name) as show:

            def advance(amount: float) -> None:
                if _asked_to_stop.is_set():
                    raise KeyboardInterrupt
                self._done[name] = min(1.0, self._done[name] + amount / max(total, 1e-300))
                self._paces[name].tell(time.monotonic(), self._done[name])
                show(self._done[name])
                self._tell(name)
                self._beat()

            yield advance
            advance(total)
        _log.info("%s: done in %s", name, duration(time.monotonic() - begun))

    @contextlib.contextmanager
    def beating(self, beat: Callable[[], None]) -> Iterator[None]:
        """Call ``beat`` whenever a stage of the block tells how far it is."""
        before, self._beat = self._beat, beat
        try:
            yield
        finally:
            self._beat = before

    def skip(self, name: str) -> None:
        """Count a stage as done whose result was found in the run folder."""
        self._done[name] = 1.0
        self._write_status("running")
        _log.info("%s: found in the run folder", name)

    @property
    def fraction(self) -> float:
        """Share of the planned work that is done, stages found in the folder included."""
        return self._share(self._done) / max(sum(self._plan.values()), 1e-300)

    @property
    def seconds_left(self) -> float | None:
        """Expected seconds to the end, or None while too little is known.

        The stage at work goes on as it went lately, the others as this process did on the whole.
        """
        planned = sum(self._plan.values())
        here = self._share({name: pace.done_here for name, pace in self._paces.items()})
        if here <= 0.005 * planned:
            return None
        pace = (time.monotonic() - self._started) / here
        left = planned - self._share(self._done)
        at_work = self._paces[self._stage].seconds_left if self._stage in self._paces else None
        if self._stage is None or at_work is None:
            return pace * left
        return at_work + pace * (left - self._plan[self._stage] * (1.0 - self._done[self._stage]))

    def _share(self, done: Mapping[str, float]) -> float:
        return sum(self._plan.get(name, 0.0) * part for name, part in done.items())

    def _tell(self, name: str) -> None:
        now = time.monotonic()
        if now - self._last_status >= STATUS_SECONDS:
            self._last_status = now
            self._write_status("running")
        if now - self._last_line >= LOG_SECONDS:
            self._last_line = now
            left = self.seconds_left
            ending = "" if left is None else f", about {duration(left)} left in all"
            _log.info("%s: %.0f %%%s", name, 100 * self._done[name], ending)

    def _write_status(self, state: str, exit_code: int | None = None, message: str | None = None) -> None:
        left = self.seconds_left
        status = {
            "state": state,
            "stage": self._stage,
            "stage_fraction": round(self._done.get(self._stage or "", 0.0), 4),
            "fraction": round(self.fraction, 4),
            "seconds_left": None if left is None else round(left, 1),
            "exit_code": exit_code,
            "message": message,
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "updated": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        with atomic_path(self._status_file) as path:
            path.write_text(json.dumps(status, indent=1) + "\n", encoding="utf-8")


class SilentProgress(Progress):
    """Tells nobody: for the processes of a parallel run beside the first."""

    @contextlib.contextmanager
    def stage(self, name: str, total: float) -> Iterator[Callable[[float], None]]:
        """See :meth:`Progress.stage`."""
        yield lambda amount: None

    def skip(self, name: str) -> None:
        """See :meth:`Progress.skip`."""


def _ending(error: BaseException | None) -> tuple[str, int, str | None]:
    if error is None:
        return "done", 0, None
    if isinstance(error, KeyboardInterrupt):
        return "interrupted", 130, "repeat the command to resume"
    code = error.exit_code if isinstance(error, BoltzgenError) else 4
    return ("not trustworthy" if isinstance(error, NotTrustworthyError) else "failed"), code, str(error)


@functools.cache
def _console() -> Console:
    """Return the one console that log lines and bars share, so that neither tears the other."""
    from rich.console import Console

    return Console(stderr=True)


@contextlib.contextmanager
def _bar(name: str) -> Iterator[Callable[[float], object]]:
    """Yield a function that shows a fraction as a bar on a terminal, and does nothing elsewhere."""
    if not sys.stderr.isatty():
        yield lambda fraction: None
        return
    from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    text, bar = TextColumn("{task.description}"), BarColumn(bar_width=24)
    times = (TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn())
    # Standard output belongs to the summary, which may be piped elsewhere.
    with Bars(text, bar, TaskProgressColumn(), *times, console=_console(), redirect_stdout=False) as bars:
        task = bars.add_task(name, total=1.0)
        yield lambda fraction: bars.update(task, completed=fraction)


def duration(seconds: float) -> str:
    """Return a time span in words.

    >>> duration(0.42), duration(75), duration(7500)
    ('0.4 s', '1 min 15 s', '2 h 5 min')
    """
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 9.95 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
