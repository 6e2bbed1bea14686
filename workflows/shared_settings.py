"""What the settings of several workflows have in common."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic_core import ArgsKwargs

from boltzgen_diffclf.errors import nearest_name
from systems.registry import names


def known_system(system: str) -> str:
    """Return the name of a system as it is; refuse one that is not registered, with the nearest."""
    if system not in names():
        raise ValueError(f"unknown system (valid: {', '.join(names())}){nearest_name(system, list(names()))}")
    return system


def filled_from_preset(given: ArgsKwargs, presets: Mapping[str, Mapping[str, Any]]) -> ArgsKwargs:
    """Return settings as they were given, and those of their preset where none was."""
    named = dict(given.kwargs or {})
    return ArgsKwargs(given.args, {**presets.get(str(named.get("preset", "quick")), {}), **named})
