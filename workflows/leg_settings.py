"""Which free-energy difference of a molecule is asked for; nothing heavy is imported here."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import ConfigDict, Field, model_validator
from pydantic.dataclasses import dataclass

from workflows.system_settings import SystemSettings

if TYPE_CHECKING:
    from systems.molecular import MolecularSystem

PAIR_LEGS = ("conformers", "forcefield")
"""Legs that are computed where they are asked for by name, alone; each divides or changes one ``--state``."""

LegName = Literal["total", "polar", "nonpolar", "conformers", "forcefield"]


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid", allow_inf_nan=False))
class LegSettings(SystemSettings):
    """A molecule, and between which of its states the free-energy difference is wanted."""

    leg: Annotated[
        Literal["all", LegName],
        Field(description="Which free-energy difference to compute; all: total, polar and nonpolar."),
    ] = "all"
    state: Annotated[
        Literal["vacuum", "nonpolar", "implicit"] | None,
        Field(description="State of --leg conformers or forcefield (implicit, or vacuum without a solvent)."),
    ] = None
    conformer: Annotated[
        str | None,
        Field(
            description="Basin of --leg conformers: one of the molecule by name, or TORSION:LOW,HIGH in radians "
            "(phi > 0 where not given)."
        ),
    ] = None
    to_forcefield: Annotated[
        str | None,
        Field(description="Second force field of --leg forcefield: amber99sb-ildn, ff14sb, ff96, charmm36."),
    ] = None

    @model_validator(mode="after")
    def _pair_is_whole(self) -> LegSettings:
        for option, value, legs in (
            ("--state", self.state, PAIR_LEGS),
            ("--conformer", self.conformer, PAIR_LEGS[:1]),
            ("--to-forcefield", self.to_forcefield, PAIR_LEGS[1:]),
        ):
            if value is not None and self.leg not in legs:
                raise ValueError(f"{option} {value} goes with --leg {' or '.join(legs)}: add that, or leave it out")
        if self.leg == "forcefield" and self.to_forcefield is None:
            raise ValueError("--leg forcefield is from one force field to another: add --to-forcefield ff14sb")
        return self

    @property
    def pair_words(self) -> tuple[str, ...]:
        """What names a leg of :data:`PAIR_LEGS` in folders; nothing for the others."""
        if self.leg not in PAIR_LEGS:
            return ()
        conformer = re.sub(r"[^\w.+-]+", "_", self.conformer or "").strip("_")
        return tuple(filter(None, (self.leg, self.state, conformer, self.to_forcefield)))

    @property
    def legs(self) -> tuple[str, ...]:
        """Names of the legs to compute."""
        return ("total", "polar", "nonpolar") if self.leg == "all" else (self.leg,)

    def load(self) -> MolecularSystem:
        """Return the molecule with the states and legs that are asked for.

        Raises:
            InputError: it cannot be made, or has no such state, basin or force field.
        """
        system = self.source.load()
        if self.leg not in PAIR_LEGS:
            return system
        state = self.state or ("implicit" if "implicit" in system.states else "vacuum")
        if self.to_forcefield is not None:
            from systems.force_field_pair import force_field_pair

            return force_field_pair(system, state, self.to_forcefield.lower())
        from systems.conformer_pair import conformer_pair

        return conformer_pair(system, state, self.conformer)
