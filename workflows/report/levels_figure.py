"""The figure of the suite ``levels``: plain table rows in, a matplotlib Figure out."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from workflows.benchmark_suites.levels import LOSS, MODES, NUMBERS, ONE_PASS, PLACED
from workflows.benchmark_suites.suite import ALL_SEEDS, TableRow
from workflows.report.benchmark_figures import draw_estimates
from workflows.report.figures import GREY, SERIES, STYLE

TITLES = {LOSS: "Excess classification loss [nats]", MODES: "Error of the energy's mode weights"}
TICKS = {**{name: str(one.group_size) for name, one in NUMBERS.items()}, ONE_PASS: "all, one pass"}
SPACING = 0.08
"""Between the dimensions, so that their error bars do not hide each other."""


@mpl.rc_context(STYLE)
def levels_figure(rows: Sequence[TableRow]) -> Figure:
    """Return two metrics over the number of levels a group, and the loss by how the levels are chosen."""
    placed = [row for row in rows if row.objective in PLACED]
    chosen = {row.dim for row in placed if row.objective not in TICKS}
    dims = sorted({row.dim for row in rows})
    panels = len(TITLES) + len(chosen)
    figure = Figure(figsize=(4.0 * panels + 0.6, 3.5), layout="constrained")
    axes = figure.subplots(1, panels)
    for axis, (metric, title) in zip(axes, TITLES.items(), strict=False):
        _draw_numbers(axis, rows, dims, metric)
        axis.set_title(title)
    axes[0].legend(title="dimensions")
    for axis, dim in zip(axes[len(TITLES) :], sorted(chosen), strict=True):
        draw_estimates(axis, placed, dim, LOSS)
        axis.set(title=f"By the choice of levels, {dim} dimensions", xlabel="excess classification loss [nats]")
    return figure


def _draw_numbers(axis: Axes, rows: Sequence[TableRow], dims: Sequence[int], metric: str) -> None:
    places = {name: place for place, name in enumerate(TICKS)}
    for k, dim in enumerate(dims):
        line = {
            row.objective: row
            for row in rows
            if (row.dim, row.metric, row.seed) == (dim, metric, ALL_SEEDS) and row.objective in places
        }
        numbers = [line[name] for name in NUMBERS if name in line]
        # One pass is another network: a point beside the line.
        for part in (numbers, [line[ONE_PASS]] if ONE_PASS in line else []):
            axis.errorbar(
                [places[row.objective] + SPACING * (k - (len(dims) - 1) / 2) for row in part],
                [row.value for row in part],
                yerr=[row.stderr or 0.0 for row in part],
                color=SERIES[k % len(SERIES)],
                marker="o",
                markersize=4,
                capsize=2,
                label=str(dim) if part is numbers else None,
            )
    limits = [row.limit for row in rows if row.metric == metric and row.seed == ALL_SEEDS and row.limit]
    if limits:
        axis.axhline(sum(limits) / len(limits), color=GREY, linewidth=1.1, linestyle=(0, (4, 2)), zorder=0)
    axis.set_yscale("symlog", linthresh=0.01)
    axis.set_ylim(bottom=min(0.0, axis.get_ylim()[0]))
    axis.set_xticks(range(len(places)), list(TICKS.values()))
    axis.set_xlabel("levels a group, N")
