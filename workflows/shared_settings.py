"""What the settings of several workflows have in common."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic_core import ArgsKwargs

STATES = "vacuum, nonpolar (surface term alone) or implicit; vacuum alone without a solvent"
"""What a state of a molecule is called, for the help: the molecule itself, once it is made, has the last word."""


def filled_from_preset(given: ArgsKwargs, presets: Mapping[str, Mapping[str, Any]]) -> ArgsKwargs:
    """Return settings as they were given, and those of their preset where none was."""
    named = dict(given.kwargs or {})
    return ArgsKwargs(given.args, {**presets.get(str(named.get("preset", "quick")), {}), **named})
