"""The result of a solvation run, and the rule that decides whether to believe it.

``results.json``, schema version 1. Every free energy is F_B - F_A in kT; null stands for a number that is not
finite or has no meaning.

=================================== ============== ==========================================================
key                                 type           meaning
=================================== ============== ==========================================================
schema_version                      integer        1; raised when a key changes its meaning or goes away
system                              string         name of the molecular system
temperature_kelvin                  number         temperature [K] that sets kT
seed                                integer        root seed of every random stream
preset                              string         quick, standard or paper
trustworthy                         boolean        every leg names a headline
reasons                             [string]       why not, one sentence each; empty when trustworthy
legs                                object         leg name (total, polar, nonpolar; conformers; forcefield) to leg
legs.*.states                       [string]       A and B: every value of the leg is F_B - F_A
legs.*.description                  string         the leg in words
legs.*.published                    [object]       figures to compare with
legs.*.published.*.label            string         who and how
legs.*.published.*.value_kT         number         in our sign
legs.*.published.*.stderr_kT        number|null    its standard error
legs.*.published.*.source           string         where it was printed
legs.*.headline                     object|null    the answer, where it may be named
legs.*.headline.value_kT            number         F_B - F_A
legs.*.headline.stderr_kT           number         its standard error
legs.*.headline.estimator           string         key in estimators that gave it
legs.*.reasons                      [string]       why this leg names no headline
legs.*.estimators                   object         estimator name to row
legs.*.estimators.*.value_kT        number|null    F_B - F_A
legs.*.estimators.*.stderr_kT       number|null    standard error over seeds and groups of walkers
legs.*.estimators.*.overlap         number|null    of neighbours that share least, ½ where they are the same; null: TI
legs.*.estimators.*.n_effective     number|null    effective samples, as this family of rows counts them (page)
legs.*.estimators.*.energy_evaluations integer     configurations whose true energy was computed
legs.*.estimators.*.network_evaluations integer    configurations passed through a network
legs.*.estimators.*.seconds         number         time it took
legs.*.estimators.*.role            string         classical, learned or ablation (ablations do not vote)
legs.*.estimators.*.replicates      [number|null]  values of the training seeds or groups [kT]
legs.*.estimators.*.note            string         what a reader should know about the row
versions                            object         package name to version
command                             string         what to type to get this result again
settings                            object         the effective settings
seconds_total                       number         time of all stages as they were computed, and of the rest
=================================== ============== ==========================================================
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, TypeAdapter, ValidationError

from boltzgen_diffclf.errors import InputError
from boltzgen_diffclf.files import atomic_path

SCHEMA_VERSION = 1
Role = Literal["classical", "learned", "ablation"]


def _nan_for_null(value: object) -> object:
    return math.nan if value is None else value


Number = Annotated[float, BeforeValidator(_nan_for_null)]
"""A float that JSON writes as null when it is not finite."""


@dataclasses.dataclass(frozen=True)
class EstimatorRow:
    """One estimator's answer to one leg, with what is needed to believe it and what it cost (module table)."""

    value_kT: Number  # noqa: N815 - the schema's name
    stderr_kT: Number  # noqa: N815 - the schema's name
    overlap: float | None
    n_effective: Number
    energy_evaluations: int
    network_evaluations: int
    seconds: float
    role: Role
    replicates: tuple[Number, ...] = ()
    note: str = ""


@dataclasses.dataclass(frozen=True)
class Headline:
    """The answer of one leg, and the estimator that gave it."""

    value_kT: float  # noqa: N815 - the schema's name
    stderr_kT: float  # noqa: N815 - the schema's name
    estimator: str


@dataclasses.dataclass(frozen=True)
class Published:
    """A figure from the literature, turned into our sign."""

    label: str
    value_kT: float  # noqa: N815 - the schema's name
    stderr_kT: float | None  # noqa: N815 - the schema's name
    source: str


@dataclasses.dataclass(frozen=True)
class LegResult:
    """All estimates of one free-energy difference F_B - F_A."""

    states: tuple[str, str]
    description: str
    estimators: Mapping[str, EstimatorRow]
    headline: Headline | None = None
    reasons: tuple[str, ...] = ()
    published: tuple[Published, ...] = ()


@dataclasses.dataclass(frozen=True)
class SolvationResult:
    """Everything that a solvation run has to say; ``results.json`` is this, field by field."""

    system: str
    temperature_kelvin: float
    seed: int
    preset: str
    trustworthy: bool
    reasons: tuple[str, ...]
    legs: Mapping[str, LegResult]
    versions: Mapping[str, str]
    command: str
    settings: Mapping[str, Any]
    seconds_total: float
    schema_version: int = SCHEMA_VERSION

    def to_json(self) -> str:
        """Return the result as JSON text, floats exact, null where a number is not finite."""
        return json.dumps(_finite(dataclasses.asdict(self)), indent=1, allow_nan=False, ensure_ascii=False) + "\n"

    def save(self, path: Path) -> None:
        """Write the JSON text, whole or not at all."""
        with atomic_path(path) as temporary:
            temporary.write_text(self.to_json(), encoding="utf-8")

    @classmethod
    def from_json(cls, text: str) -> SolvationResult:
        """Return the result that :meth:`to_json` wrote.

        Raises:
            InputError: the text is no result, or one of another schema version.
        """
        try:
            content = json.loads(text)
            version = content["schema_version"]
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(f"this is no results.json: {error}; repeat the run that wrote it") from error
        if version != SCHEMA_VERSION:
            raise InputError(
                f"results.json has schema version {version}, this program reads {SCHEMA_VERSION}; "
                "read it with the version named inside"
            )
        try:
            return TypeAdapter(cls).validate_python(content)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"]))
            raise InputError(f"results.json is damaged at {where}: {first['msg']}; repeat the run") from error


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return str(value) if isinstance(value, Path) else value


def most_precise(estimators: Mapping[str, EstimatorRow], role: Role) -> str | None:
    """Return the name of the row of that role with the smallest finite standard error, or None."""
    usable = {name: row for name, row in estimators.items() if row.role == role and is_finite(row)}
    return min(usable, key=lambda name: usable[name].stderr_kT) if usable else None


def is_finite(row: EstimatorRow) -> bool:
    """Return whether a row gives a value and an error bar at all."""
    return math.isfinite(row.value_kT) and math.isfinite(row.stderr_kT) and row.stderr_kT > 0


def judged(leg: LegResult, classical: str, learned: str, reasons: Sequence[str]) -> LegResult:
    """Return the leg with its headline, the classical value, where ``reasons`` is empty; else with the reasons."""
    if reasons:
        return dataclasses.replace(leg, headline=None, reasons=tuple(reasons))
    row = leg.estimators[classical]
    return dataclasses.replace(leg, headline=Headline(row.value_kT, row.stderr_kT, classical), reasons=())
