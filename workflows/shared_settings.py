"""What the settings of several workflows have in common."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import AfterValidator, Field
from pydantic_core import ArgsKwargs

from workflows.settings_file import default_values

STATES = "vacuum, nonpolar (surface term alone) or implicit; vacuum alone without a solvent"
"""What a state of a molecule is called, for the help: the molecule itself, once it is made, has the last word."""

MOST_THREADS = 64
"""On a machine of fewer processors: thousands of threads bring it to a standstill."""


def _few_enough(threads: int | None) -> int | None:
    most = max(MOST_THREADS, os.cpu_count() or 1)
    if threads is not None and threads > most:
        raise ValueError(f"this machine has {os.cpu_count()} processors, and more threads only wait: at most {most}")
    return threads


Threads = Annotated[
    int | None,
    Field(ge=1, description="CPU threads (those of this machine, kept with the run, where not given)."),
    AfterValidator(_few_enough),
]
"""The setting ``threads`` of every command."""

ExchangeTemperatures = Annotated[
    int | None,
    Field(
        ge=1,
        description="Temperatures of replica exchange, geometric from --temperature-kelvin up (where not given, 4, "
        "or as many as a molecule of its size trades a fifth of the time).",
    ),
]
"""The setting ``exchange_temperatures`` of commands that sample, see ``systems.temperature_ladder.ladder_for``."""


def filled_from_preset(given: ArgsKwargs, presets: Mapping[str, Mapping[str, Any]]) -> ArgsKwargs:
    """Return settings as they were given, and those of their preset where none was."""
    named = dict(given.kwargs or {})
    return ArgsKwargs(given.args, {**presets.get(str(named.get("preset", "quick")), {}), **named})


COMPILED_ALONE = frozenset({"exchange_temperatures", "highest_temperature_kelvin", "steps_per_sweep"})
"""Settings of the compiled engine: OpenMM's dynamics have one temperature."""


def refuse_falling_ladder(settings: Any) -> None:
    """Raise a ValueError where replica exchange would go to no higher temperature."""
    hottest, wanted = settings.highest_temperature_kelvin, settings.temperature_kelvin
    if settings.engine != "openmm" and settings.exchange_temperatures != 1 and hottest <= wanted:
        raise ValueError(
            f"--highest-temperature-kelvin {hottest} is not above --temperature-kelvin {wanted}: raise it, or set "
            "--exchange-temperatures 1"
        )


def refuse_what_openmm_ignores(settings: Any, presets: Mapping[str, Mapping[str, Any]]) -> None:
    """Raise a ValueError where the dynamics are OpenMM's, and a setting that they do not know is not as it comes."""
    if settings.engine != "openmm":
        return
    usual = {**default_values(type(settings)), **presets[settings.preset]}
    for name in sorted(COMPILED_ALONE & usual.keys()):
        is_none = name == "exchange_temperatures" and settings.exchange_temperatures == 1
        if getattr(settings, name) != usual[name] and not is_none:
            option = "--" + name.replace("_", "-")
            raise ValueError(
                f"{option} {getattr(settings, name)} goes with --engine compiled, and OpenMM's dynamics do not know "
                "it: leave one of them out"
            )
