"""Figures that every benchmark suite may use: plain table rows in, a matplotlib Figure out."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from workflows.benchmark_suites.suite import ALL_SEEDS, TableRow
from workflows.report.figures import BLUE, GREY, INK, ORANGE, STYLE

CLASSICAL = ("bar", "ais", "ais_slow")
"""Objectives that learn nothing, drawn in their own colour."""


FAR = 100.0
"""Estimates beyond [kT] make the axis logarithmic, else nothing of the others were seen."""

LINEAR = 10.0
"""Where it is linear all the same [kT]."""


@mpl.rc_context(STYLE)
def estimates_figure(rows: Sequence[TableRow], metric: str = "delta_f") -> Figure:
    """Return one panel a dimension: every estimate with its error, single seeds as ticks, the exact answer dashed."""
    dims = list(dict.fromkeys(row.dim for row in rows))
    tallest = max(len(shown(rows, dim, metric)) for dim in dims)
    figure = Figure(figsize=(4.4 * len(dims) + 1.4, 1.3 + 0.32 * tallest), layout="constrained")
    for axis, dim in zip(figure.subplots(1, len(dims), squeeze=False)[0], dims, strict=True):
        draw_estimates(axis, rows, dim, metric)
        axis.set_title(f"{dim} dimensions")
    return figure


def shown(rows: Sequence[TableRow], dim: int, metric: str) -> list[TableRow]:
    """Return the lines to draw for one dimension: all seeds together, and published numbers."""
    return [row for row in rows if row.dim == dim and row.metric == metric and row.seed in (ALL_SEEDS, "")]


def draw_estimates(axis: Axes, rows: Sequence[TableRow], dim: int, metric: str) -> None:
    """Draw the estimates of one dimension into a panel, first at the top."""
    drawn = shown(rows, dim, metric)
    for place, row in enumerate(drawn):
        colour = INK if row.published else BLUE if row.objective in CLASSICAL else ORANGE
        axis.errorbar(
            row.value,
            place,
            xerr=row.stderr,
            fmt="D" if row.published else "o",
            color=colour,
            markersize=5,
            capsize=3,
        )
        seeds = [one.value for one in rows if _is_seed_of(one, row)]
        axis.plot(seeds, [place] * len(seeds), "|", color=colour, alpha=0.55, markersize=8)
    limits = [row.limit for row in drawn if row.limit is not None]
    if limits:
        axis.axvline(limits[0], color=GREY, linewidth=1.1, linestyle=(0, (4, 2)), zorder=0)
    if max((abs(row.value) for row in drawn), default=0.0) > FAR:
        axis.set_xscale("symlog", linthresh=LINEAR)
        axis.margins(x=0.08)
    axis.set_yticks(range(len(drawn)), [row.objective for row in drawn])
    axis.set_ylim(len(drawn) - 0.4, -0.6)
    axis.tick_params(axis="y", length=0)
    axis.set_xlabel("$F_B − F_A$ [kT]" if metric.startswith("delta_f") else metric.replace("_", " "))


def _is_seed_of(one: TableRow, row: TableRow) -> bool:
    same = (one.target, one.dim, one.objective, one.metric) == (row.target, row.dim, row.objective, row.metric)
    return same and one.seed not in (ALL_SEEDS, "")
