"""Settings as TOML, read and written: the ``--config`` file, ``--print-config`` and the copy in each run."""

from __future__ import annotations

import dataclasses
import json
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from boltzgen_diffclf.errors import InputError


def read_settings(path: Path) -> dict[str, object]:
    """Return the keys and values of a TOML file.

    Raises:
        InputError: the file is missing, unreadable or not TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"could not read the settings file {path}: {error.strerror}; check its name") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not TOML: {error}; `--print-config` prints a valid one") from error


def settings_as_toml(settings: Any) -> str:
    """Return a settings dataclass as TOML, each key under its description; unset keys stand as comments."""
    fields = type(settings).__pydantic_fields__
    lines: list[str] = []
    for name, value in settings_values(settings).items():
        lines.append(f"# {fields[name].description}")
        lines.append(f"# {name} is not set" if value is None else f"{name} = {toml_value(value)}")
    return "\n".join(lines) + "\n"


def unset_settings(path: Path) -> list[str]:
    """Return the keys that :func:`settings_as_toml` wrote as comments, because they had no value."""
    return re.findall(r"^# (\w+) is not set$", path.read_text(encoding="utf-8"), re.MULTILINE)


def default_values(settings: type) -> dict[str, object]:
    """Return the defaults of settings as values that TOML knows, those of fields that have one."""
    fields = dataclasses.fields(settings)
    return {field.name: _plain(field.default) for field in fields if field.default is not dataclasses.MISSING}


def settings_values(settings: Any) -> dict[str, object]:
    """Return the settings as values that TOML knows, in the order of the fields; None where unset."""
    return {field.name: _plain(getattr(settings, field.name)) for field in dataclasses.fields(settings)}


def _plain(value: object) -> object:
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def toml_value(value: object) -> str:
    r"""Return one value as TOML writes it.

    >>> toml_value([1.0, 2.5]), toml_value(True), toml_value('a "b"')
    ('[1.0, 2.5]', 'true', '"a \\"b\\""')
    """
    if isinstance(value, list):
        return "[" + ", ".join(toml_value(item) for item in value) + "]"
    if isinstance(value, bool | str):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, int | float):
        return repr(value)
    raise ValueError(f"a setting of type {type(value).__name__} has no TOML form: {value!r}")


def first_difference(stored: Mapping[str, object], asked: Mapping[str, object]) -> tuple[str, object, object] | None:
    """Return ``(key, stored value, asked value)`` of the first setting that differs, or None."""
    for key in [*asked, *(key for key in stored if key not in asked)]:
        if stored.get(key) != asked.get(key):
            return key, stored.get(key), asked.get(key)
    return None
