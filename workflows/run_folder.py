"""The folder of a run: choices made once, and stage results that are either whole or absent.

Repeating a command finds the folder, skips the stages recorded there and goes on; a stage is recorded only after
all its files are on the disk, so a kill at any moment costs at most one stage.
"""

from __future__ import annotations

import hashlib
import json
import re
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from boltzgen_diffclf.errors import InputError, RunFailedError
from boltzgen_diffclf.files import atomic_path
from workflows.progress import Progress
from workflows.stopwatch import Stopwatch

if TYPE_CHECKING:
    import numpy as np

MANY_THREADS = 2**15
"""No machine computes with so many."""


@dataclass(frozen=True)
class StageResult:
    """What one stage leaves for the later ones.

    Attributes:
        arrays: kept without loss in ``stages/NAME.npz``.
        facts: anything JSON can say, kept in ``stages/NAME.json``; floats survive exactly.
        files: further files of the stage, inside the run folder, that its record vouches for.
        seconds: time [s] that the stage took when it was computed, all starts together.
    """

    arrays: Mapping[str, np.ndarray] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)
    files: Sequence[Path] = ()
    seconds: float = 0.0


class RunFolder:
    """One run's directory; made by :func:`~workflows.run_start.open_run_folder`, which holds its lock.

    Example::

        with open_run_folder(config.folder, config) as folder:
            folder.progress.plan({"reference": 3.0, "training": 1.0})
            threads = folder.remember_threads(fastest_thread_count)
            frames = folder.stage("reference", lambda: sample(config, folder.progress))
    """

    def __init__(self, path: Path, progress: Progress) -> None:
        self.path = path
        self.progress = progress
        self._stages = path / "stages"
        self._met: set[str] = set()
        self.seconds_found = 0.0
        """Time [s] that earlier starts spent on the stages that they finished or that this one went on with."""

    def stage_done(self, name: str) -> bool:
        """Return whether the stage was finished, in this process or in an earlier one."""
        return self._record_path(name).exists()

    def finished_stages(self) -> list[str]:
        """Return the names of all finished stages, in alphabetical order."""
        return sorted(path.stem for path in self._stages.glob("*.json"))

    def stage(
        self,
        name: str,
        compute: Callable[[], StageResult],
        *,
        together: bool = False,
        is_enough: Callable[[Mapping[str, Any]], bool] = lambda facts: True,
    ) -> StageResult:
        """Return the recorded result of a stage, or compute it, record it and return it.

        Args:
            name: of the stage.
            compute: does the work.
            together: under ``torchrun`` all processes compute; otherwise the first does and the others read.
            is_enough: says of the recorded facts whether they are all that is wanted; else the stage goes on.

        Raises:
            InputError: a recorded file is damaged; the line names it.
            RunFailedError: the disk refused the result.
        """
        from boltzgen_diffclf.training import parallel

        record = self._read_record(name) if self.stage_done(name) else None
        if parallel.first_says(record is not None and is_enough(record["facts"])):
            result = self.load_stage(name)
            if name not in self._met:
                self.progress.skip(name)
                self.seconds_found += result.seconds
            self._met.add(name)
            return result
        self._met.add(name)
        if together or parallel.is_first():
            watch, recorded = Stopwatch(self._stages / f"{name}.seconds"), record["seconds"] if record else 0.0
            self.seconds_found += recorded + watch.earlier
            with self.progress.beating(watch.keep):
                computed = compute()
            result = StageResult(computed.arrays, computed.facts, computed.files, recorded + watch.seconds)
            if parallel.is_first():
                self.save_stage(name, result)
                watch.done()
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
        content = {"stage": name, "facts": dict(result.facts), "seconds": result.seconds, "files": checksums}
        record = {"content": content, "sha256": _sha256_text(content)}
        with atomic_path(self._record_path(name)) as path:
            path.write_text(json.dumps(record, indent=1), encoding="utf-8")

    def load_stage(self, name: str) -> StageResult:
        """Return the recorded result of a stage, after checking every file of it against its checksum.

        Raises:
            InputError: a file is missing, truncated or altered, or the record is that of another stage.
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

    def remember(
        self, name: str, choose: Callable[[], Any], is_valid: Callable[[Any], bool] = lambda kept: True
    ) -> Any:
        """Return a choice that the whole run must share, such as the device: made once, then read back.

        Args:
            name: of the choice.
            choose: makes it.
            is_valid: says whether what was read back can be such a choice; a damaged file may hold anything.

        Raises:
            InputError: the file of choices is damaged; the line names it.
        """
        from boltzgen_diffclf.training import parallel

        path = self.path / "run.json"
        if parallel.is_first():
            value = kept_choice(path, name, choose)
            parallel.wait()
        else:
            parallel.wait()
            value = _read_json(path)[name]
        if not is_valid(value):
            found = json.dumps(value)[:40]
            raise InputError(f"{path} is altered, {name} = {found}: delete it, or choose another --out")
        return value

    def remember_threads(self, choose: Callable[[], int]) -> int:
        """Return how many threads the whole run computes with: chosen once, then read back.

        Raises:
            InputError: the file of choices is damaged; the line names it.
        """
        return int(self.remember("threads", choose, lambda kept: type(kept) is int and 0 < kept < MANY_THREADS))

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
        # Records written before they said of which stage they are do not say it.
        if (stage := content.get("stage", name)) != name:
            raise InputError(f"{path} is a copy of the record of stage {stage}: delete it, or choose another --out")
        return content

    def _damage(self, file: Path, stage: str) -> str:
        record = self._record_path(stage)
        return (
            f"{file} is missing, truncated or altered: delete {record} to compute that stage again, "
            "or choose another --out"
        )


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(content, dict):
            raise ValueError("not an object")
    except ValueError as error:
        raise InputError(f"{path} is truncated or altered: delete it, or choose another --out") from error
    return content


def kept_choice(path: Path, name: str, choose: Callable[[], Any]) -> Any:
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
