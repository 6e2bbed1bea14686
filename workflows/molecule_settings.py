"""The settings that ``workflows.train`` and ``workflows.ramachandran`` share; nothing heavy is imported here."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, model_validator
from pydantic.dataclasses import dataclass

from boltzgen_diffclf.errors import nearest_name
from workflows.benchmark_suites.one_sided_objectives import NOISED
from workflows.favour_settings import FavourSettings
from workflows.shared_settings import Threads

OBJECTIVES: Mapping[str, str] = {
    name: about for name, about in NOISED.items() if name != "tsm" and not name.endswith("_all")
}
"""What a molecule can be learned by: the variance of target scores alone is without bound under much noise, and no
network here gives all levels at once."""

TRAINING_PRESETS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {"quick": {"steps": 4000}, "standard": {"steps": 30_000}}
)
"""Sizes of a training: minutes, or a quarter of an hour for five beads."""

FREE_SETTINGS = frozenset({"out", "device"})
"""Settings that may be written otherwise when a run goes on."""


def known_objective(name: str) -> str:
    """Return the name of an objective as it is; refuse one that is not there, with the nearest."""
    if name not in OBJECTIVES:
        raise ValueError(f"unknown objective (valid: {', '.join(OBJECTIVES)}){nearest_name(name, list(OBJECTIVES))}")
    return name


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid", allow_inf_nan=False))
class MoleculeSettings(FavourSettings):
    """A molecule, what is seen of it, and how its energy is learned."""

    beads: Annotated[
        Literal["all", "heavy", "backbone", "ca"],
        Field(
            description="Atoms that are learned: all, those that are no hydrogens, those of the named torsions, or the "
            "CA of every residue."
        ),
    ] = "backbone"
    preset: Annotated[
        Literal["quick", "standard"], Field(description="Size of the run: minutes, or what a table needs.")
    ] = "quick"
    temperature_kelvin: Annotated[float, Field(ge=100, le=1000, description="Temperature [K].")] = 300.0
    reference: Annotated[
        Path | None,
        Field(
            description="Frames of the state (h5, dcd, ...), of all atoms or of the --beads alone (xtc too); where not "
            "given, those that come with the package (chignolin, ca, 340 K, for objectives without forces), else of "
            "workflows.reference, below runs/."
        ),
    ] = None
    out: Annotated[Path | None, Field(description="Folder of the run (below runs/, where not given).")] = None
    device: Annotated[Literal["auto", "cpu", "cuda"], Field(description="Where to compute.")] = "auto"
    threads: Threads = None
    path: Annotated[
        Literal["vp", "ve", "edm"], Field(description="Noising: variance preserving, exploding, or that of EDM.")
    ] = "vp"
    network: Annotated[
        Literal["invariants", "equivariant", "both", "harmonic"],
        Field(
            description="Standardised distances and volumes; message passing on positions; their sum; or the first "
            "beside a quadratic form of them, for many stiff bonds."
        ),
    ] = "invariants"
    hidden: Annotated[int, Field(ge=1, description="Width of the network of invariants.")] = 128
    layers: Annotated[int, Field(ge=1, description="Its hidden layers.")] = 3
    levels: Annotated[
        int,
        Field(
            ge=4, description="Noise levels, evenly spaced in log signal-to-noise; more are added between distant ones."
        ),
    ] = 128
    steps: Annotated[int, Field(ge=1, description="Optimiser steps.")] = TRAINING_PRESETS["quick"]["steps"]
    groups: Annotated[int, Field(ge=1, description="Groups of noise levels a step.")] = 128
    group_size: Annotated[
        int, Field(ge=2, description="Levels a group, each with a frame of its own: N of the N-level classification.")
    ] = 4
    learning_rate: Annotated[float, Field(gt=0, description="Peak, of the network.")] = 2e-3
    pretraining: Annotated[
        float,
        Field(ge=0, lt=1, description="Share of the steps in which denoising alone prepares a classification."),
    ] = 0.75
    begin_with: Annotated[
        Path | None,
        Field(
            description="Trained model to go on from, of the same atoms and size, perhaps of another state or "
            "objective; there is then no preparation."
        ),
    ] = None
    later_rate: Annotated[
        float,
        Field(
            gt=0,
            description="Learning rate of the steps after such a preparation, in that of the preparation: less than "
            "one keeps more of what the network has learned.",
        ),
    ] = 1.0

    @model_validator(mode="after")
    def _levels_for_a_group(self) -> MoleculeSettings:
        if self.group_size > self.levels:
            raise ValueError(f"--group-size {self.group_size} is more than --levels {self.levels}: lower it")
        return self
