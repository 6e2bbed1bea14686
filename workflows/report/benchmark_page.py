"""The page and the terminal table of a benchmark."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from boltzgen_diffclf.files import atomic_path
from workflows.benchmark import BenchmarkResult
from workflows.benchmark_suites.definitions import definitions
from workflows.benchmark_suites.suite import ALL_SEEDS, COSTS, TableRow
from workflows.progress import duration
from workflows.report import rounding
from workflows.report.page import environment, picture, save_pictures
from workflows.report.tables import Line, Table

CAPTION = "All seeds together; errors are one standard error, from the scatter of the seeds where there are several"
MEANINGS = (
    "By their names in results.csv. The line “exact” of a table is the exact answer or, where even exact samples miss "
    "it, what as many of them score"
)


def write_page(result: BenchmarkResult) -> Path:
    """Write ``report.html`` and ``figures/*.png`` into the run folder and return the page's path.

    Raises:
        RunFailedError: the disk refused.
    """
    pictures = [picture(one.name, one.name, one.caption, one.figure) for one in result.suite.figures(result.rows)]
    save_pictures(pictures, result.folder)
    page = result.folder / "report.html"
    text = (
        environment()
        .get_template("benchmark.html")
        .render(
            result=result,
            suite=result.suite,
            pictures=pictures,
            facts={
                "time of the rows": duration(result.seconds),
                **{name.replace("_", " "): value for name, value in result.config.sizes.items()},
            },
            tables=dict(_table(rows) for rows in by_target(result.rows)),
            meanings=_meanings(result.rows),
        )
    )
    with atomic_path(page) as path:
        path.write_text(text, encoding="utf-8")
    return page


def by_target(rows: Sequence[TableRow]) -> list[list[TableRow]]:
    """Return the lines to show, one list a target and dimension: all seeds together, then published numbers."""
    groups: dict[tuple[str, int], list[TableRow]] = {}
    for row in rows:
        if row.seed in (ALL_SEEDS, ""):
            groups.setdefault((row.target, row.dim), []).append(row)
    return list(groups.values())


@dataclass(frozen=True)
class Pivot:
    """The lines of one target, by objective and who printed them.

    Attributes:
        target: its name.
        dim: its dimension.
        metrics: columns.
        cells: texts by objective and source, then by metric.
        limits: exact values by metric.
    """

    target: str
    dim: int
    metrics: Sequence[str]
    cells: Mapping[tuple[str, str], Mapping[str, str]]
    limits: Mapping[str, str]


def pivot(rows: Sequence[TableRow]) -> Pivot:
    """Return one table of the page: a line an objective, a column a metric, the exact values as the last line.

    An objective that others published too has a line for each; points of curves are left to the figures.
    """
    rows = [row for row in rows if "@" not in row.metric]
    metrics = list(dict.fromkeys(row.metric for row in rows))
    cells: dict[tuple[str, str], dict[str, str]] = {}
    for row in rows:
        cells.setdefault((row.objective, row.published), {})[row.metric] = _cell(row)
    limits = {row.metric: rounding.plain(row.limit) for row in rows if row.limit is not None}
    return Pivot(rows[0].target, rows[0].dim, metrics, cells, limits)


def _table(rows: Sequence[TableRow]) -> tuple[str, Table]:
    """Return the heading of one table and the table."""
    found = pivot(rows)
    metrics = found.metrics
    lines = [
        Line((objective, *(cells.get(metric, rounding.UNKNOWN) for metric in metrics)), source and "published", source)
        for (objective, source), cells in found.cells.items()
    ]
    if found.limits:
        lines.append(Line(("exact", *(found.limits.get(metric, "") for metric in metrics)), "headline"))
    columns = ("objective", *(metric.replace("_", " ") for metric in metrics))
    return f"{found.target}, {found.dim} dimensions", Table(CAPTION, columns, lines)


def _meanings(rows: Sequence[TableRow]) -> Table:
    """Return the table of what the metrics of these lines are, points of curves included."""
    lines = [Line((name, about)) for name, about in definitions(row.metric for row in rows).items()]
    return Table(MEANINGS, ("metric", "what it is"), lines, words=2)


def print_table(result: BenchmarkResult, page: Path, stream: TextIO | None = None) -> None:
    """Print the headline metric of every row, its exact value, what they say together, and where the page lies.

    Args:
        result: what to say.
        page: path of the HTML page.
        stream: standard output where None.
    """
    out = stream or sys.stdout
    headline = result.suite.headline
    lines = [("target", "dim", "objective", headline, "exact", "seconds")]
    for rows in by_target(result.rows):
        seconds = {row.objective: f"{row.value:.1f}" for row in rows if row.metric == "seconds"}
        measured = {row.objective for row in rows if row.metric == headline}
        lines += [
            (
                row.target,
                str(row.dim),
                row.objective,
                rounding.with_error(row.value, row.stderr).replace("±", "+-").replace("–", "-"),
                rounding.plain(row.limit).replace("–", "-"),
                seconds.get(row.objective, "published" if row.published else "-"),
            )
            for row in rows
            if row.metric == headline
        ]
        # What has no such metric, an energy without levels for one, is still known to be there.
        lines += [
            (rows[0].target, str(rows[0].dim), objective, "-", "-", seconds[objective])
            for objective in seconds
            if objective not in measured
        ]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip(), file=out)
    if result.conclusion:
        print("\n" + result.conclusion.replace("±", "+-").replace("–", "-"), file=out)
    print(f"\n{page}", file=out)


def _cell(row: TableRow) -> str:
    if row.metric in COSTS:
        return rounding.plain(row.value)
    return rounding.plain(row.value) if row.stderr is None else rounding.with_error(row.value, row.stderr)
