"""Figures of the suites that learn one density: plain table rows in, a matplotlib Figure out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from workflows.benchmark_suites.one_sided_objectives import NOISED, NOISELESS
from workflows.benchmark_suites.suite import ALL_SEEDS, TableRow
from workflows.report.figures import BLUE, GREY, INK, ORANGE, SERIES, STYLE

DASHES = ("-", "--", ":")
DASHED = (0, (4, 2))
METHOD_COLOURS = {"dsm": ORANGE, "dsm_diffclf": BLUE, "diffclf": GREY}
OF_DATA = "Energies of the data alone"
FAMILIES = {"Energies of noised data, at the least noise": NOISED, OF_DATA: NOISELESS}
PANELS = {
    "excess_classification.profiled_f": "Excess classification loss [nats]",
    "energy_mode_total_variation": "Error of the energy's mode weights",
}


MOST_LINES = 8
"""Objectives that one figure can tell apart."""

TALLEST = 3.0
"""Top of the densities that are shown, in the highest of the exact one: energies that diverge have spikes."""


@mpl.rc_context(STYLE)
def densities_figure(rows: Sequence[TableRow]) -> Figure:
    """Return the densities exp(-U) of the first seed of each objective beside the exact one, a panel a family."""
    curves = first_curves(rows, "density")
    panels = {title: [name for name in family if name in curves] for title, family in FAMILIES.items()}
    # Sizes in names are without number, and all of them are of the data alone.
    panels[OF_DATA] += [name for name in curves if not any(name in family for family in FAMILIES.values())]
    panels = {title: names for title, names in panels.items() if names}
    figure = Figure(figsize=(4.2 * len(panels), 3.0), layout="constrained")
    axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for axis, (title, names) in zip(axes, panels.items(), strict=True):
        for place, name in enumerate(names):
            x, density = zip(*((x, row.value) for x, row in curves[name].items()), strict=True)
            axis.plot(x, density, color=METHOD_COLOURS.get(name, SERIES[place % len(SERIES)]), label=name)
        exact = {x: row.limit for x, row in curves[names[0]].items() if row.limit is not None}
        axis.plot(list(exact), list(exact.values()), color=INK, linewidth=1, linestyle=DASHED, label="exact")
        axis.set(title=title, xlabel="x")
        axis.legend()
    tallest = max(row.limit for curve in curves.values() for row in curve.values() if row.limit is not None)
    axes[0].set(ylabel="density", ylim=(-0.1 * tallest, TALLEST * tallest))
    return figure


def first_curves(rows: Sequence[TableRow], metric: str) -> dict[str, dict[float, TableRow]]:
    """Return a curve of each objective's first seed, by place."""
    points = [row for row in rows if row.metric.startswith(f"{metric}@") and row.seed != ALL_SEEDS]
    first: Mapping[str, str] = {row.objective: row.seed for row in reversed(points)}
    curves: dict[str, dict[float, TableRow]] = {}
    for row in points:
        if row.seed == first[row.objective]:
            curves.setdefault(row.objective, {})[float(row.metric.partition("@")[2])] = row
    return curves


@mpl.rc_context(STYLE)
def dimensions_figure(rows: Sequence[TableRow]) -> Figure:
    """Return two metrics of every objective, all seeds together, over the dimension.

    Of more than :data:`MOST_LINES` objectives those are shown that have rows in the most dimensions.
    """
    ours = [row for row in rows if row.seed == ALL_SEEDS]
    several = {name: {row.dim for row in ours if row.objective == name} for name in (row.objective for row in ours)}
    widest = max(map(len, several.values()), default=0)
    objectives = [name for name, found in several.items() if len(several) <= MOST_LINES or len(found) == widest]
    dims = sorted({row.dim for row in ours})
    figure = Figure(figsize=(10.4, 3.6), layout="constrained")
    axes = figure.subplots(1, len(PANELS))
    for axis, (metric, title) in zip(axes, PANELS.items(), strict=True):
        lines = {name: [row for row in ours if (row.objective, row.metric) == (name, metric)] for name in objectives}
        _draw_lines(axis, lines, dims)
        axis.set(title=title, xlabel="dimensions")
    # Every objective has mode weights, those of the data alone no classification loss.
    figure.legend(*axes[-1].get_legend_handles_labels(), loc="outside right upper")
    return figure


def _draw_lines(axis: Axes, lines: Mapping[str, Sequence[TableRow]], dims: Sequence[int]) -> None:
    for place, (name, line) in enumerate(lines.items()):
        axis.errorbar(
            [dims.index(row.dim) for row in line],
            [row.value for row in line],
            yerr=[row.stderr or 0.0 for row in line],
            color=SERIES[place % len(SERIES)],
            linestyle=DASHES[place // len(SERIES) % len(DASHES)],
            marker="o",
            markersize=4,
            capsize=2,
            label=name,
        )
    floors = {row.dim: row.limit for line in lines.values() for row in line if row.limit}
    if floors:
        places = [dims.index(dim) for dim in sorted(floors)]
        axis.plot(places, [floors[dim] for dim in sorted(floors)], color=GREY, linestyle=DASHED, marker="_", zorder=0)
    # A loss may fall below the best one by the noise of its samples, which a logarithm would hide.
    axis.set_yscale("symlog", linthresh=0.01)
    lowest = min((row.value for line in lines.values() for row in line), default=0.0)
    axis.set_ylim(bottom=min(0.0, 2 * lowest))  # an error wider than its value would take half of the axis
    axis.set_xticks(range(len(dims)), [str(dim) for dim in dims])
