"""The page and the terminal table of a benchmark."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

from boltzgen_diffclf.files import atomic_path
from workflows.benchmark import BenchmarkResult
from workflows.benchmark_suites.suite import ALL_SEEDS, COSTS, TableRow
from workflows.report import rounding
from workflows.report.page import environment, picture


def write_page(result: BenchmarkResult) -> Path:
    """Write ``report.html`` and ``figures/*.png`` into the run folder and return the page's path.

    Raises:
        RunFailedError: the disk refused.
    """
    pictures = [picture(one.name, one.name, one.caption, one.figure) for one in result.suite.figures(result.rows)]
    for one in pictures:
        with atomic_path(result.folder / "figures" / f"{one.name}.png") as path:
            path.write_bytes(one.png)
    page = result.folder / "report.html"
    text = (
        environment()
        .get_template("benchmark.html")
        .render(
            result=result,
            suite=result.suite,
            pictures=pictures,
            tables=[pivot(rows) for rows in by_target(result.rows)],
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


def pivot(rows: Sequence[TableRow]) -> dict[str, object]:
    """Return one table of the page: a line an objective, a column a metric, the exact values as the last line.

    An objective that others published too has a line for each; points of curves are left to the figures.
    """
    rows = [row for row in rows if "@" not in row.metric]
    metrics = list(dict.fromkeys(row.metric for row in rows))
    cells: dict[tuple[str, str], dict[str, str]] = {}
    for row in rows:
        cells.setdefault((row.objective, row.published), {})[row.metric] = _cell(row)
    limits = {row.metric: rounding.plain(row.limit) for row in rows if row.limit is not None}
    return {
        "target": rows[0].target,
        "dim": rows[0].dim,
        "metrics": metrics,
        "cells": cells,
        "limits": limits,
    }


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
