"""Where a run begins or goes on: its folder locked, its settings and code those that it was begun with."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import socket
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from boltzgen_diffclf.errors import BoltzgenError, InputError, OtherRunError
from boltzgen_diffclf.files import atomic_path
from workflows.progress import Progress, SilentProgress, logging_to_file
from workflows.run_folder import RunFolder, kept_choice
from workflows.settings_file import (
    default_values,
    first_difference,
    read_settings,
    settings_as_toml,
    settings_values,
    toml_value,
    unset_settings,
)
from workflows.source_code import source_digest

FREE_SETTINGS = frozenset({"out"})
"""Settings that cannot change a number: the folder may be moved."""

_SETTINGS = ("config.toml", "run.json")
"""What a run was begun with."""

_NO_LONGER_FIXED: dict[str, object] = {"exchange_temperatures": 4}
"""What settings were begun with that nobody gave, and that follow from the molecule now."""

_OWN_FILES = frozenset({".lock", *_SETTINGS, "run.log", "status.json"})
"""What every run folder has before anything is computed."""

_log = logging.getLogger(__name__)


@contextlib.contextmanager
def open_run_folder(path: Path, settings: Any, free: frozenset[str] = FREE_SETTINGS) -> Iterator[RunFolder]:
    """Yield the run folder at ``path``, locked, with ``settings`` checked against those it was started with.

    Under ``torchrun`` the first process holds the lock, writes and reports; the others compute along in silence.
    The log of the block is appended to ``run.log`` there, and ``status.json`` follows ``folder.progress``.

    Args:
        path: made when it is not there.
        settings: a pydantic dataclass; kept as ``config.toml`` at the first start.
        free: names of settings that may differ from those at the first start.

    Raises:
        InputError: the folder cannot be made, is in use, or was started with other settings.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"could not make the folder {path}: {error.strerror}; choose another --out") from error
    from boltzgen_diffclf.training import parallel

    if not parallel.is_first():
        yield RunFolder(path, SilentProgress(path / "status.json"))
        return
    with _lock(path):
        is_first_start = not any((path / name).exists() for name in _SETTINGS)
        _check_settings(path / "config.toml", settings, free)
        _check_code(path / "run.json")
        try:
            with logging_to_file(path / "run.log"), Progress(path / "status.json") as progress:
                yield RunFolder(path, progress)
        except BoltzgenError:
            if is_first_start and parallel.size() == 1:  # others may be reading them
                _forget_if_nothing_came(path)
            raise


def check_run_folder(path: Path, settings: Any, free: frozenset[str] = FREE_SETTINGS) -> None:
    """Refuse a folder that :func:`open_run_folder` would, before long work that comes first; makes nothing.

    Raises:
        InputError: the folder is in use, was started with other settings, is a file, or cannot be made or written.
    """
    try:
        there = next(folder for folder in (path, *path.absolute().parents) if folder.exists())
        can_be = there.is_dir() and os.access(there, os.W_OK)
    except OSError as error:
        raise InputError(f"could not make the folder {path}: {error.strerror}; choose another --out") from error
    if not can_be:
        raise InputError(f"could not make the folder {path}: {there} is no folder to write in; choose another --out")
    if (path / "config.toml").exists():
        with _lock(path):
            _require_same_settings(path / "config.toml", settings, free)


def _forget_if_nothing_came(path: Path) -> None:
    """Drop the settings of a run that failed before it left a file: the corrected command may have the folder."""
    if {file.name for file in path.iterdir()} <= _OWN_FILES:
        for kept in _SETTINGS:
            (path / kept).unlink(missing_ok=True)


@contextlib.contextmanager
def _lock(folder: Path) -> Iterator[None]:
    """Hold the folder's lock; the system drops the lock of a dead process, so none is ever stale."""
    try:
        handle = (folder / ".lock").open("a+", encoding="utf-8")
    except OSError as error:
        raise InputError(f"could not write in {folder}: {error.strerror}; choose another --out") from error
    with handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            handle.seek(0)
            owner = handle.read().strip() or "another process"
            raise InputError(f"{folder} is in use by {owner}: wait for it, or choose another --out") from error
        handle.truncate(0)
        now = datetime.now(UTC).isoformat(timespec="seconds")
        handle.write(f"process {os.getpid()} on {socket.gethostname()} since {now}\n")
        handle.flush()
        yield


def _check_settings(path: Path, settings: Any, free: frozenset[str]) -> None:
    if not path.exists():
        with atomic_path(path) as temporary:
            temporary.write_text(settings_as_toml(settings), encoding="utf-8")
        return
    _require_same_settings(path, settings, free)
    _log.info("resuming %s", path.parent)


def _require_same_settings(path: Path, settings: Any, free: frozenset[str]) -> None:
    # A folder older than a setting was started with its default.
    kept = {**default_values(type(settings)), **dict.fromkeys(unset_settings(path)), **read_settings(path)}
    stored = {key: value for key, value in kept.items() if key not in free}
    asked = {key: value for key, value in settings_values(settings).items() if key not in free}
    # Nor has one that was begun when a setting took one value, and now takes several, another setting.
    stored |= {key: _several(stored[key]) for key, value in asked.items() if isinstance(value, list) and key in stored}
    stored |= {key: None for key, old in _NO_LONGER_FIXED.items() if asked.get(key, old) is None and stored[key] == old}
    difference = first_difference(stored, asked)
    if difference is not None:
        key, old, new = difference
        raise OtherRunError(
            f"{path.parent} was started with {key} = {_shown(old)}, and now {key} = {_shown(new)}: "
            "repeat the first command to resume it, or choose another --out for the new settings"
        )


def _check_code(path: Path) -> None:
    """Say so where a run goes on with code that it was not begun with: what is finished is kept as it is."""
    code = source_digest()
    if kept_choice(path, "code", lambda: code) != code:
        _log.warning("%s was begun with other code: what it has finished is kept, the rest is by this", path.parent)


def _several(value: object) -> object:
    return value if isinstance(value, list) else [] if value is None else [value]


def _shown(value: object) -> str:
    return "(not set)" if value is None else toml_value(value)
