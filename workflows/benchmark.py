"""``python -m workflows.benchmark``: every objective, judged where the answer is known."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass as plain_dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, field_validator, model_validator
from pydantic.dataclasses import dataclass

from boltzgen_diffclf.errors import InputError, nearest_name
from workflows.benchmark_suites import SUITES
from workflows.benchmark_suites.suite import RowSpec, Suite, TableRow
from workflows.command_line import run_command
from workflows.shared_settings import Threads

FREE_SETTINGS = frozenset({"out", "dims", "objectives", "seeds", "targets"})
"""Settings that change which rows a folder holds, and none of their numbers."""

PRESETS: Mapping[str, Mapping[str, Any]] = MappingProxyType({"quick": {}, "standard": {}})
"""The sizes of each preset are those of the suite."""


@dataclass(frozen=True, config=ConfigDict(extra="forbid", allow_inf_nan=False))
class BenchmarkConfig:
    """Train and measure objectives on targets whose answer is known, beside what others published.

    The same command resumes a run that was stopped, row by row; another choice of dimensions, objectives or seeds
    adds rows to the same folder. Leaves results.csv, report.html and the figures as PNG.
    """

    suite: Annotated[str, Field(description="What to compute: " + ", ".join(SUITES) + ".")] = "crossed"
    preset: Annotated[
        Literal["quick", "standard"], Field(description="Size of the run: minutes on a laptop, or what a table needs.")
    ] = "quick"
    dims: Annotated[
        tuple[int, ...], Field(description="Dimensions of the target (those of the preset where not given).")
    ] = ()
    targets: Annotated[
        tuple[str, ...], Field(description="Targets, by name (those of the preset where not given).")
    ] = ()
    objectives: Annotated[
        tuple[str, ...],
        Field(
            description="Rows to compute, by name (those of the preset where not given); suites of nce and cd take "
            "nce_RATIO and cd_STEPS of any size."
        ),
    ] = ()
    seeds: Annotated[
        tuple[Annotated[int, Field(ge=0)], ...],
        Field(description="Seeds, each with samples and a network of its own (those of the preset where not given)."),
    ] = ()
    steps: Annotated[
        int | None, Field(ge=1, description="Optimiser steps of each network (those of the preset where not given).")
    ] = None
    samples: Annotated[
        int | None, Field(ge=8, description="Samples of each density (those of the preset where not given).")
    ] = None
    out: Annotated[
        Path | None, Field(description="Folder of the run (runs/benchmark-SUITE-PRESET where not given).")
    ] = None
    device: Annotated[
        Literal["auto", "cpu", "cuda"],
        Field(
            description="Where to compute; in suites of one density: where noised energies are trained "
            "(classifiers and interpolants stay on the processor)."
        ),
    ] = "auto"
    threads: Threads = None

    @field_validator("suite")
    @classmethod
    def _known_suite(cls, suite: str) -> str:
        if suite not in SUITES:
            raise ValueError(f"unknown suite (valid: {', '.join(SUITES)}){nearest_name(suite, list(SUITES))}")
        return suite

    @model_validator(mode="after")
    def _known_rows(self) -> BenchmarkConfig:
        suite = SUITES[self.suite]
        for objective in self.objectives:
            if _place(suite, objective) is None:
                near = nearest_name(objective, list(suite.objectives))
                valid = ", ".join(suite.objectives)
                raise ValueError(f"--objectives {objective}: suite {suite.name} has none of that name ({valid}){near}")
        for target in self.targets:
            if target not in suite.targets:
                near, valid = nearest_name(target, list(suite.targets)), ", ".join(suite.targets)
                raise ValueError(f"--targets {target}: suite {suite.name} has none of that name ({valid}){near}")
        for dim in self.dims:
            if dim not in suite.dims:
                nearest = min(suite.dims, key=lambda one: abs(one - dim))
                valid = ", ".join(map(str, suite.dims))
                raise ValueError(f"--dims {dim}: suite {suite.name} has {valid}; did you mean {nearest}?")
        return self

    @property
    def folder(self) -> Path:
        """Folder of the run."""
        return self.out or Path("runs") / f"benchmark-{self.suite}-{self.preset}"

    @property
    def rows(self) -> list[RowSpec]:
        """The rows to compute."""
        return SUITES[self.suite].rows(self.preset, self.dims, self.objectives, self.seeds, self.targets)

    @property
    def sizes(self) -> dict[str, int]:
        """The sizes of the preset, with what was given in their place."""
        given = {"steps": self.steps, "samples": self.samples}
        return {
            **SUITES[self.suite].presets[self.preset].sizes,
            **{name: value for name, value in given.items() if value is not None},
        }

    @property
    def command(self) -> str:
        """What to type to get this result again."""
        words = ["python -m workflows.benchmark", f"--suite {self.suite}", f"--preset {self.preset}"]
        chosen = {
            name: getattr(self, name) for name in ("dims", "targets", "objectives", "seeds") if getattr(self, name)
        }
        chosen |= {name: (getattr(self, name),) for name in ("steps", "samples") if getattr(self, name) is not None}
        words += [f"--{name} {' '.join(map(str, values))}" for name, values in chosen.items()]
        return " ".join(words)


def _place(suite: Suite, objective: str) -> tuple[int, float] | None:
    """Return where a suite has an objective, in the errors of settings."""
    try:
        return suite.place(objective)
    except InputError as error:
        raise ValueError(f"--objectives {objective}: {error}") from error


@plain_dataclass(frozen=True)
class BenchmarkResult:
    """The table of a benchmark, as in ``results.csv``.

    Attributes:
        config: that it was asked with.
        rows: one number a line: single seeds, all seeds together, published.
        folder: of the run, with ``results.csv``, ``report.html`` and ``figures/``.
        seconds: that the rows took when they were computed.
    """

    config: BenchmarkConfig
    rows: tuple[TableRow, ...]
    folder: Path
    seconds: float

    @property
    def suite(self) -> Suite:
        """The suite that was run."""
        return SUITES[self.config.suite]

    @property
    def conclusion(self) -> str:
        """What the suite says of its table; empty where it says nothing."""
        return self.suite.conclusion(self.rows) if self.suite.conclusion else ""


def run(config: BenchmarkConfig) -> BenchmarkResult:
    """Return the table of a suite; the run folder keeps ``results.csv``, ``report.html``, figures and every row.

    Raises:
        InputError: a setting, a file or the folder is wrong.
        RunFailedError: the run could not go on.
    """
    from workflows.benchmark_pipeline import compute
    from workflows.report.benchmark_page import print_table, write_page
    from workflows.run_start import open_run_folder

    with open_run_folder(config.folder, config, FREE_SETTINGS) as folder:
        result = compute(config, folder)
        page = write_page(result)
        print_table(result, page)
    return result


def main() -> int:
    """Run the command line and return its exit code."""
    return run_command(BenchmarkConfig, run, program="python -m workflows.benchmark", presets=PRESETS)


if __name__ == "__main__":
    sys.exit(main())
