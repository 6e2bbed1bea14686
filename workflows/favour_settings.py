"""The options of commands that sample a state with a bias, so that a rare basin is a common one; nothing heavy here."""

from __future__ import annotations

import dataclasses
import re
from typing import Annotated

from pydantic import ConfigDict, Field, model_validator
from pydantic.dataclasses import dataclass

from systems.loading import FAVOURED, SystemSource
from workflows.shared_settings import STATES
from workflows.system_settings import SystemSettings

FAVOUR_KT = 2.5
"""Depth of the bias where none is given: makes 2 % of the frames about 20 %."""


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid", allow_inf_nan=False))
class FavourSettings(SystemSettings):
    """A molecule, one of its states, and a basin of it that a bias makes deeper."""

    state: Annotated[str, Field(description=f"Thermodynamic state: {STATES}.")] = "implicit"
    favour: Annotated[
        str | None,
        Field(
            description="Basin that a bias makes deeper while sampling, for more frames of what is rare: 'phi > 0' or "
            "'helical'; weights take the bias away again. The state sampled is then STATE-favoured."
        ),
    ] = None
    favour_kt: Annotated[
        float, Field(ge=-20, le=20, description="By how much the bias of --favour makes it deeper [kT].")
    ] = FAVOUR_KT

    @model_validator(mode="after")
    def _a_depth(self) -> FavourSettings:
        if self.favour_kt == 0:
            raise ValueError("--favour-kt 0 favours nothing: give another number, or leave --favour out")
        if self.favour is None and self.favour_kt != FAVOUR_KT:
            raise ValueError(f"--favour-kt {self.favour_kt:g} is of a basin: name it with --favour")
        if self.favour is not None and self.state.endswith(FAVOURED):
            raise ValueError(f"--favour adds the bias to --state {self.state}: name the state without {FAVOURED}")
        return self

    @property
    def source(self) -> SystemSource:
        """Where the molecule comes from, its favoured states among it."""
        plain = super().source
        return plain if self.favour is None else dataclasses.replace(plain, favour=(self.favour, self.favour_kt))

    @property
    def sampled_state(self) -> str:
        """The state whose frames are sampled and learned from."""
        return self.state if self.favour is None else f"{self.state}{FAVOURED}"

    @property
    def sampled_name(self) -> str:
        """Name of that state in those of folders: what is favoured, and how much, is part of it.

        >>> FavourSettings(favour="phi-ALA2 > 0", favour_kt=3.0).sampled_name
        'implicit-favoured-phi-ALA2-0-3'
        """
        if self.favour is None:
            return self.state
        basin = re.sub(r"[^A-Za-z0-9]+", "-", self.favour).strip("-")
        return f"{self.sampled_state}-{basin}-{self.favour_kt:g}"
