"""What the settings of several workflows have in common."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import AfterValidator, Field
from pydantic_core import ArgsKwargs

STATES = "vacuum, nonpolar (surface term alone) or implicit; vacuum alone without a solvent"
"""What a state of a molecule is called, for the help: the molecule itself, once it is made, has the last word."""

MOST_THREADS = 64
"""On a machine of fewer processors: thousands of threads bring it to a standstill."""


def _few_enough(threads: int | None) -> int | None:
    processors = os.cpu_count() or 1
    if threads is not None and threads > max(MOST_THREADS, processors):
        raise ValueError(f"this machine has {processors} processors, and more threads than that only wait: take fewer")
    return threads


Threads = Annotated[
    int | None,
    Field(ge=1, description="CPU threads (those of this machine, kept with the run, where not given)."),
    AfterValidator(_few_enough),
]
"""The setting ``threads`` of every command."""


def filled_from_preset(given: ArgsKwargs, presets: Mapping[str, Mapping[str, Any]]) -> ArgsKwargs:
    """Return settings as they were given, and those of their preset where none was."""
    named = dict(given.kwargs or {})
    return ArgsKwargs(given.args, {**presets.get(str(named.get("preset", "quick")), {}), **named})


COMPILED_ALONE = ("exchange_temperatures", "highest_temperature_kelvin", "steps_per_sweep", "hydrogen_mass_amu")
"""Settings of the compiled engine: OpenMM's dynamics have one temperature, and hydrogens of their own mass."""


def refuse_what_openmm_ignores(settings: Any, presets: Mapping[str, Mapping[str, Any]]) -> None:
    """Raise a ValueError where the dynamics are OpenMM's, and a setting that they do not know is not as it comes."""
    if settings.engine != "openmm":
        return
    for name, default in usual_values(type(settings), presets[settings.preset]).items():
        is_none = name == "exchange_temperatures" and settings.exchange_temperatures == 1
        if name in COMPILED_ALONE and getattr(settings, name) != default and not is_none:
            option = "--" + name.replace("_", "-")
            raise ValueError(
                f"{option} {getattr(settings, name)} goes with --engine compiled, and OpenMM's dynamics do not know "
                "it: leave one of them out"
            )


def usual_values(kind: type, preset: Mapping[str, Any]) -> dict[str, Any]:
    """Return what each setting of a kind is where nobody gives it."""
    return {field.name: preset.get(field.name, field.default) for field in dataclasses.fields(kind)}
