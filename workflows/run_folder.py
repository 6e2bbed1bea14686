"""The folder of a run: its settings, its lock, and stage results that are either whole or absent.

Repeating a command finds the folder, skips the stages recorded there and goes on; a stage is recorded only after
all its files are on the disk, so a kill at any moment costs at most one stage.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import logging
import os
import re
import socket
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from boltzgen_diffclf.errors import BoltzgenError, InputError, RunFailedError
from boltzgen_diffclf.files import atomic_path
from workflows.progress import Progress, SilentProgress, logging_to_file
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

if TYPE_CHECKING:
    import numpy as np

FREE_SETTINGS = frozenset({"out"})
"""Settings that cannot change a number: the folder may be moved."""

_SETTINGS = ("config.toml", "run.json")
"""What a run was begun with."""

_OWN_FILES = frozenset({".lock", *_SETTINGS, "run.log", "status.json"})
"""What every run folder has before anything is computed."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class StageResult:
    """What one stage leaves for the later ones.

    Attributes:
        arrays: kept without loss in ``stages/NAME.npz``.
        facts: anything JSON can say, kept in ``stages/NAME.json``; floats survive exactly.
        files: further files of the stage, inside the run folder, that its record vouches for.
        seconds: time the stage took when it was computed, kept so that a resumed run reports true costs.
    """

    arrays: Mapping[str, np.ndarray] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)
    files: Sequence[Path] = ()
    seconds: float = 0.0


class RunFolder:
    """One run's directory; made by :func:`open_run_folder`, which holds its lock.

    Example::

        with open_run_folder(config.folder, config) as folder:
            folder.progress.plan({"reference": 3.0, "training": 1.0})
            threads = folder.remember("threads", fastest_thread_count)
            frames = folder.stage("reference", lambda: sample(config, folder.progress))
    """

    def __init__(self, path: Path, progress: Progress) -> None:
        self.path = path
        self.progress = progress
        self._stages = path / "stages"
        self._met: set[str] = set()
        self.seconds_found = 0.0
        """Time [s] of the stages that this process found finished, as they took it when they were computed."""

    def stage_done(self, name: str) -> bool:
        """Return whether the stage was finished, in this process or in an earlier one."""
        return self._record_path(name).exists()

    def finished_stages(self) -> list[str]:
        """Return the names of all finished stages, in alphabetical order."""
        return sorted(path.stem for path in self._stages.glob("*.json"))

    def stage(self, name: str, compute: Callable[[], StageResult], *, together: bool = False) -> StageResult:
        """Return the recorded result of a stage, or compute it, record it and return it.

        Args:
            name: of the stage.
            compute: does the work.
            together: under ``torchrun`` all processes compute; otherwise the first does and the others read.

        Raises:
            InputError: a recorded file is damaged; the line names it.
            RunFailedError: the disk refused the result.
        """
        from boltzgen_diffclf.training import parallel

        if parallel.first_says(self.stage_done(name)):
            result = self.load_stage(name)
            if name not in self._met:
                self.progress.skip(name)
                self.seconds_found += result.seconds
            self._met.add(name)
            return result
        self._met.add(name)
        if together or parallel.is_first():
            begun = time.monotonic()
            computed = compute()
            result = StageResult(computed.arrays, computed.facts, computed.files, time.monotonic() - begun)
            if parallel.is_first():
                self.save_stage(name, result)
        parallel.wait()
        return result if together or parallel.is_first() else self.load_stage(name)

    def save_stage(self, name: str, result: StageResult) -> None:
        """Write the files of a stage, then the record that declares it done."""
        import numpy as np

        files = list(result.files)
        if result.arrays:
            target = self._stages / f"{name}.npz"
            with atomic_path(target) as path, path.open("wb") as handle:
                np.savez(handle, allow_pickle=False, **result.arrays)
            files.append(target)
        checksums = {str(file.relative_to(self.path)): _sha256(file) for file in files}
        content = {"facts": dict(result.facts), "seconds": result.seconds, "files": checksums}
        record = {"content": content, "sha256": _sha256_text(content)}
        with atomic_path(self._record_path(name)) as path:
            path.write_text(json.dumps(record, indent=1), encoding="utf-8")

    def load_stage(self, name: str) -> StageResult:
        """Return the recorded result of a stage, after checking every file of it against its checksum.

        Raises:
            InputError: a file is missing, truncated or altered.
        """
        content = self._read_record(name)
        files = [self.path / file for file in content["files"]]
        for file, checksum in zip(files, content["files"].values(), strict=True):
            if not file.exists() or _sha256(file) != checksum:
                raise InputError(self._damage(file, name))
        own = self._stages / f"{name}.npz"
        arrays = _read_arrays(own) if own in files else {}
        others = [file for file in files if file != own]
        return StageResult(arrays, content["facts"], others, content["seconds"])

    def remember(self, name: str, choose: Callable[[], Any]) -> Any:
        """Return a choice that the whole run must share, such as the threads: made once, then read back."""
        from boltzgen_diffclf.training import parallel

        if not parallel.is_first():
            parallel.wait()
            return _read_json(self.path / "run.json")[name]
        value = _kept(self.path / "run.json", name, choose)
        parallel.wait()
        return value

    def _record_path(self, name: str) -> Path:
        if not re.fullmatch(r"[\w.-]+", name):
            raise ValueError(f"a stage name is one plain word, got {name!r}")
        return self._stages / f"{name}.json"

    def _read_record(self, name: str) -> dict[str, Any]:
        path = self._record_path(name)
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
            content: dict[str, Any] = record["content"]
            intact = record["sha256"] == _sha256_text(content)
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(self._damage(path, name)) from error
        if not intact:
            raise InputError(self._damage(path, name))
        return content

    def _damage(self, file: Path, stage: str) -> str:
        record = self._record_path(stage)
        return (
            f"{file} is missing, truncated or altered: delete {record} to compute that stage again, "
            "or choose another --out"
        )


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
    # A folder older than a setting was started with its default.
    kept = {**default_values(type(settings)), **dict.fromkeys(unset_settings(path)), **read_settings(path)}
    stored = {key: value for key, value in kept.items() if key not in free}
    asked = {key: value for key, value in settings_values(settings).items() if key not in free}
    difference = first_difference(stored, asked)
    if difference is not None:
        key, old, new = difference
        raise InputError(
            f"{path.parent} was started with {key} = {_shown(old)}, and now {key} = {_shown(new)}: "
            "repeat the first command to resume it, or choose another --out for the new settings"
        )
    _log.info("resuming %s", path.parent)


def _check_code(path: Path) -> None:
    """Say so where a run goes on with code that it was not begun with: what is finished is kept as it is."""
    code = source_digest()
    if _kept(path, "code", lambda: code) != code:
        _log.warning("%s was begun with other code: what it has finished is kept, the rest is by this", path.parent)


def _shown(value: object) -> str:
    return "(not set)" if value is None else toml_value(value)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(content, dict):
            raise ValueError("not an object")
    except ValueError as error:
        raise InputError(f"{path} is truncated or altered: delete it, or choose another --out") from error
    return content


def _kept(path: Path, name: str, choose: Callable[[], Any]) -> Any:
    """Return what a file of choices holds under a name, once chosen."""
    known = _read_json(path) if path.exists() else {}
    if name not in known:
        known[name] = choose()
        with atomic_path(path) as temporary:
            temporary.write_text(json.dumps(known, indent=1) + "\n", encoding="utf-8")
    return known[name]


def _read_arrays(path: Path) -> dict[str, np.ndarray]:
    import numpy as np

    try:
        with np.load(path, allow_pickle=False) as stored:
            return {name: stored[name] for name in stored.files}
    except (ValueError, zipfile.BadZipFile, EOFError) as error:
        raise RunFailedError(f"{path} passed its checksum and could not be read: {error}") from error


def _sha256(path: Path) -> str:
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def _sha256_text(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
