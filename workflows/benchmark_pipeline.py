"""``workflows.benchmark`` from its rows to its table: each row a stage of the run folder."""

from __future__ import annotations

import csv
import dataclasses
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from boltzgen_diffclf.errors import InputError
from boltzgen_diffclf.files import atomic_path
from workflows.benchmark import BenchmarkConfig, BenchmarkResult
from workflows.benchmark_suites import SUITES
from workflows.benchmark_suites.suite import ALL_SEEDS, Metric, RowContext, RowSpec, Suite, TableRow
from workflows.processor import processor_settings
from workflows.run_folder import RunFolder, StageResult
from workflows.solvation_pipeline import choose_device


def compute(config: BenchmarkConfig, folder: RunFolder) -> BenchmarkResult:
    """Return the table of all rows that the folder holds once those asked for are computed, and write it as CSV."""
    with processor_settings(folder.remember_threads(lambda: config.threads or os.cpu_count() or 1)):
        return _compute(config, folder)


def _compute(config: BenchmarkConfig, folder: RunFolder) -> BenchmarkResult:
    suite, device = SUITES[config.suite], choose_device(config.device)
    _require_same_sizes(config, folder)
    folder.progress.plan({spec.stage: 1.0 for spec in config.rows})
    measured: dict[RowSpec, list[Metric]] = {}
    seconds = 0.0
    for spec in config.rows:
        folder.stage(spec.stage, partial(_compute_row, suite, spec, config, folder, device))
    for spec in finished_rows(suite, folder):
        result = folder.load_stage(spec.stage)
        found = [Metric(**fact) for fact in result.facts["metrics"]]
        measured[spec] = [*found, Metric("seconds", result.seconds)]
        seconds += result.seconds
    rows = tuple(table(suite, measured))
    rows += tuple(suite.findings(rows)) if suite.findings else ()
    write_csv(rows, folder.path / "results.csv")
    return BenchmarkResult(config, rows, folder.path, seconds)


def _require_same_sizes(config: BenchmarkConfig, folder: RunFolder) -> None:
    """Refuse a folder whose rows have other sizes: presets may change between versions, and rows stand side by side."""
    here = config.sizes
    there = folder.remember("sizes", lambda: here, lambda kept: isinstance(kept, dict))
    for name in sorted(there.keys() | here.keys()):
        if there.get(name) != here.get(name):
            raise InputError(
                f"{folder.path} has rows of {name} = {there.get(name)}, now {here.get(name)} is asked for: choose "
                "another --out, or delete the folder"
            )


def finished_rows(suite: Suite, folder: RunFolder) -> list[RowSpec]:
    """Return the rows of a suite that the folder holds, asked for now or before, in the order of the suite.

    Stages named after what the suite does not have are left out.
    """
    named = [RowSpec.from_stage(suite.name, stage) for stage in folder.finished_stages()]
    found = [spec for spec in named if spec and spec.dim in suite.dims and spec.target in suite.targets]
    places = {spec: place for spec in found if (place := suite.place(spec.objective)) is not None}
    return sorted(places, key=lambda spec: (spec.target, spec.dim, places[spec], spec.seed))


def _compute_row(suite: Suite, spec: RowSpec, config: BenchmarkConfig, folder: RunFolder, device: str) -> StageResult:
    import torch

    # Rows compile functions of their own: past the limit on recompilations later rows would run eagerly.
    torch.compiler.reset()
    checkpoints = folder.path / "checkpoints"
    checkpoints.mkdir(exist_ok=True)
    with folder.progress.stage(spec.stage, total=1.0) as advance:
        metrics = suite.run_row(spec, RowContext(config.sizes, checkpoints, advance, device))
    return StageResult(facts={"metrics": [dataclasses.asdict(metric) for metric in metrics]})


def table(suite: Suite, measured: Mapping[RowSpec, Sequence[Metric]]) -> Iterator[TableRow]:
    """Yield the lines of the table: each seed, all seeds together, then the published numbers of the same targets.

    Args:
        suite: says how seeds are combined, and what was published.
        measured: what each row measured, the seeds of one row behind each other.
    """
    for spec, metrics in measured.items():
        yield from (_line(spec, str(spec.seed), metric) for metric in metrics)
    together: dict[RowSpec, list[Sequence[Metric]]] = {}
    for spec, metrics in measured.items():
        together.setdefault(replace(spec, seed=0), []).append(metrics)
    combined = {spec: suite.combine(seeds) for spec, seeds in together.items()}
    for spec, metrics in combined.items():
        yield from (_line(spec, ALL_SEEDS, metric) for metric in metrics)
    shown = {(spec.target, spec.dim) for spec in measured}
    limits = {(spec.target, spec.dim, metric.name): metric.limit for spec in combined for metric in combined[spec]}
    for one in suite.published:
        if (one.target, one.dim) in shown:
            limit = limits.get((one.target, one.dim, one.metric))
            yield TableRow(
                suite.name, one.target, one.dim, one.objective, "", one.metric, one.value, one.stderr, limit, one.source
            )


def _line(spec: RowSpec, seed: str, metric: Metric) -> TableRow:
    return TableRow(
        spec.suite,
        spec.target,
        spec.dim,
        spec.objective,
        seed,
        metric.name,
        metric.value,
        metric.stderr,
        metric.limit,
        published="",
    )


def write_csv(rows: Sequence[TableRow], path: Path) -> None:
    """Write the table in long form, one number a line; a number that is not known is an empty cell."""
    with atomic_path(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as handle:
        writer = csv.DictWriter(handle, [field.name for field in dataclasses.fields(TableRow)])
        writer.writeheader()
        writer.writerows(dataclasses.asdict(row) for row in rows)
