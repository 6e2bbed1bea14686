"""Figures of the suite ``paths``: plain table rows in, a matplotlib Figure out."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from workflows.benchmark_suites.paths import ABOUT, DSM, INTERPOLANT
from workflows.benchmark_suites.suite import ALL_SEEDS, TableRow
from workflows.report.benchmark_figures import draw_estimates
from workflows.report.figures import SERIES, STYLE

SHOWN = {
    "excess_classification.profiled_f": ("excess classification loss [nats]", 0.01),
    "energy_mode_total_variation": ("error of the energy's mode weights", 0.01),
    "gradient_burst.denoising": ("largest over median gradient norm", 1.0),
}
"""Metrics, their names, and where their axis becomes logarithmic, if it goes on for more than ten times that."""


@mpl.rc_context(STYLE)
def summary_figure(rows: Sequence[TableRow]) -> Figure:
    """Return three metrics of every row, a line of panels a target."""
    targets = list(dict.fromkeys((row.target, row.dim) for row in rows))
    tallest = max(len({row.objective for row in rows if (row.target, row.dim) == one}) for one in targets)
    figure = Figure(figsize=(12.0, (1.2 + 0.26 * tallest) * len(targets)), layout="constrained")
    lines = figure.subplots(len(targets), len(SHOWN), squeeze=False)
    for axes, (target, dim) in zip(lines, targets, strict=True):
        own = [row for row in rows if row.target == target]
        for axis, (metric, (name, threshold)) in zip(axes, SHOWN.items(), strict=True):
            draw_estimates(axis, own, dim, metric)
            if axis.get_xlim()[1] > 10 * threshold:
                axis.set_xscale("symlog", linthresh=threshold)
            # Nothing is below zero but the noise of a loss at its best.
            axis.set_xlim(left=max(axis.get_xlim()[0], -threshold))
            axis.set_xlabel(name)
        axes[0].set_title(f"{target}, {dim} dimensions")
    return figure


@mpl.rc_context(STYLE)
def scores_figure(rows: Sequence[TableRow]) -> Figure:
    """Return the Fisher divergence of every row over its levels, a panel a target."""
    targets = list(dict.fromkeys((row.target, row.dim) for row in rows))
    figure = Figure(figsize=(4.4 * len(targets) + 1.6, 3.5), layout="constrained")
    axes = figure.subplots(1, len(targets), squeeze=False)[0]
    for axis, one in zip(axes, targets, strict=True):
        _draw_scores(axis, [row for row in rows if (row.target, row.dim, row.seed) == (*one, ALL_SEEDS)])
        axis.set(title=f"{one[0]}, {one[1]} dimensions", xlabel="level, from the data on", yscale="log")
    axes[0].set_ylabel("Fisher divergence")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside right upper")
    return figure


def _draw_scores(axis: Axes, rows: Sequence[TableRow]) -> None:
    for name in dict.fromkeys(row.objective for row in rows):
        line = sorted(_points(rows, name))
        # The data of the interpolant is at its end.
        values = [value for _, value in (line[::-1] if name.startswith(INTERPOLANT) else line)]
        axis.plot(
            range(1, len(values) + 1),
            values,
            color=SERIES[list(ABOUT).index(name.removesuffix(DSM))],
            linestyle="--" if name.endswith(DSM) else "-",
            marker="o",
            markersize=3,
            label=name,
        )


def _points(rows: Sequence[TableRow], objective: str) -> list[tuple[float, float]]:
    return [
        (float(row.metric.partition("@")[2]), row.value)
        for row in rows
        if row.objective == objective and row.metric.startswith("fisher@")
    ]
