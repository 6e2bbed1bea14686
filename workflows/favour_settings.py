"""The options of commands that sample a state with a bias, so that a rare basin is a common one; nothing heavy here."""

from __future__ import annotations

import dataclasses
import hashlib
import re
from typing import Annotated

from pydantic import BeforeValidator, ConfigDict, Field, model_validator
from pydantic.dataclasses import dataclass

from systems.loading import FAVOURED, SystemSource
from workflows.shared_settings import STATES
from workflows.system_settings import SystemSettings

LONGEST_NAME = 100
"""Of a folder's part that tells what is favoured; what is longer ends in a fingerprint."""

FAVOUR_KT = 2.5
"""Depth of the bias where none is given: makes 2 % of the frames about 20 %."""


def _several(value: object) -> object:
    """Return one value as several, as a settings file may have it."""
    return (value,) if isinstance(value, str | int | float) else value


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid", allow_inf_nan=False))
class FavourSettings(SystemSettings):
    """A molecule, one of its states, and what of it a bias makes deeper."""

    state: Annotated[str, Field(description=f"Thermodynamic state: {STATES}.")] = "implicit"
    favour: Annotated[
        tuple[str, ...],
        BeforeValidator(_several),
        Field(
            description="What a bias makes deeper while sampling, for more frames of what is rare: basins, such as "
            "'phi > 0' or 'helical', or barriers, such as 'phi in 100..160' [degrees]; weights take the bias away "
            "again. The state sampled is then STATE-favoured."
        ),
    ] = ()
    favour_kt: Annotated[
        tuple[Annotated[float, Field(ge=-20, le=20)], ...],
        BeforeValidator(_several),
        Field(description="By how much the bias makes each of --favour deeper [kT]; one number for all, or one each."),
    ] = (FAVOUR_KT,)

    @model_validator(mode="after")
    def _a_depth(self) -> FavourSettings:
        if 0 in self.favour_kt:
            raise ValueError("--favour-kt 0 favours nothing: give another number, or leave --favour out")
        given = " ".join(f"{depth:g}" for depth in self.favour_kt)
        if not self.favour and self.favour_kt != (FAVOUR_KT,):
            raise ValueError(f"--favour-kt {given} is of a basin: name it with --favour")
        if self.favour and len(self.favour_kt) not in (1, len(self.favour)):
            raise ValueError(f"--favour-kt {given} is for {len(self.favour)} of --favour: give one number, or one each")
        if len(set(self.favour)) < len(self.favour):
            raise ValueError("--favour names the same twice: give it once")
        if self.favour and self.state.endswith(FAVOURED):
            raise ValueError(f"--favour adds the bias to --state {self.state}: name the state without {FAVOURED}")
        return self

    @property
    def favours(self) -> tuple[tuple[str, float], ...]:
        """What is made deeper, each with its depth [kT]."""
        return tuple(zip(self.favour, len(self.favour) * self.favour_kt, strict=False))

    @property
    def source(self) -> SystemSource:
        """Where the molecule comes from, its favoured states among it."""
        return dataclasses.replace(super().source, favour=self.favours)

    @property
    def sampled_state(self) -> str:
        """The state whose frames are sampled and learned from."""
        return f"{self.state}{FAVOURED}" if self.favour else self.state

    @property
    def sampled_name(self) -> str:
        """Name of that state in those of folders: what is favoured, and how much, is part of it.

        >>> FavourSettings(favour=("phi-ALA2 > 0", "psi in -170..-95"), favour_kt=(3.0, 4.0)).sampled_name
        'implicit-favoured-phi-ALA2-0-3-psi-m170-to-m95-4'
        """
        told = "-".join([self.sampled_state, *(f"{_of_a_folder(where)}-{depth:g}" for where, depth in self.favours)])
        if len(told) <= LONGEST_NAME:
            return told
        return f"{told[:LONGEST_NAME]}-{hashlib.sha256(repr(self.favours).encode()).hexdigest()[:8]}"


def _of_a_folder(where: str) -> str:
    degrees = re.sub(r"in\s+(.+?)\s*\.\.\s*(.+)", r"\1-to-\2", where)
    signed = re.sub(r"(?<![A-Za-z0-9])-(?=[0-9.])", "m", degrees)
    return re.sub("[^A-Za-z0-9.]+", "-", signed).strip("-")
