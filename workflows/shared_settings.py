"""What the settings of several workflows have in common."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic_core import ArgsKwargs


def filled_from_preset(given: ArgsKwargs, presets: Mapping[str, Mapping[str, Any]]) -> ArgsKwargs:
    """Return settings as they were given, and those of their preset where none was."""
    named = dict(given.kwargs or {})
    return ArgsKwargs(given.args, {**presets.get(str(named.get("preset", "quick")), {}), **named})
