"""The picture of classification diffusion: its density on the line, and its denoiser at every level."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib as mpl
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from workflows.benchmark_suites.suite import ALL_SEEDS, TableRow
from workflows.report.figures import BLUE, GREY, INK, ORANGE, SERIES, STYLE
from workflows.report.one_sided_figures import DASHED, first_curves

COLOURS = {
    "cdm": BLUE,
    "cdm_cross_entropy": SERIES[2],
    "cdm_denoising": ORANGE,
    "plain_denoiser": GREY,
    "dsm_diffclf_all": SERIES[3],
}
CEILING = 1.5
"""Height of the density panel, in units of the exact density's: a wrong constant may leave it."""


@mpl.rc_context(STYLE)
def classifier_figure(rows: Sequence[TableRow]) -> Figure:
    """Return the densities on the line beside the exact one, and the excess error of the denoisers by dimension."""
    dims = sorted({row.dim for row in rows})
    densities = {name: curve for name, curve in first_curves(rows, "density").items() if name in COLOURS}
    panels = bool(densities) + len(dims)
    figure = Figure(figsize=(3.9 * panels, 3.7), layout="constrained")
    axes = list(figure.subplots(1, panels, squeeze=False)[0])
    if densities:
        _draw_densities(axes.pop(0), densities)
    for axis, dim in zip(axes, dims, strict=True):
        _draw_excess(axis, [row for row in rows if row.dim == dim and row.seed == ALL_SEEDS])
        axis.set_title(f"Excess error of the denoiser, d = {dim}")
    _legend(figure)
    return figure


def _draw_densities(axis: Axes, curves: dict[str, dict[float, TableRow]]) -> None:
    for name, curve in curves.items():
        axis.plot(list(curve), [row.value for row in curve.values()], color=COLOURS[name], label=name)
    exact = {x: row.limit or 0.0 for x, row in next(iter(curves.values())).items()}
    axis.plot(list(exact), list(exact.values()), color=INK, linewidth=1, linestyle=DASHED, label="exact")
    axis.set(title="Density of the data, one pass", xlabel="x", ylabel="density")
    axis.set(xlim=(-3.2, 3.2), ylim=(0, CEILING * max(exact.values())))


def _draw_excess(axis: Axes, rows: Sequence[TableRow]) -> None:
    for name, colour in COLOURS.items():
        points = [row for row in rows if row.objective == name and row.metric.startswith("excess_denoising@")]
        if points:
            t = [float(row.metric.partition("@")[2]) for row in points]
            axis.plot(t, [row.value for row in points], color=colour, marker="o", markersize=3, label=name)
    axis.set(xlabel="level: 0 is data, 1 is noise", yscale="log", xlim=(0, 1))


def _legend(figure: Figure) -> None:
    """Name every line once, whichever panels it is in."""
    found: dict[str, Artist] = {}
    for axis in figure.axes:
        handles, labels = axis.get_legend_handles_labels()
        found |= dict(zip(labels, handles, strict=True))
    figure.legend(list(found.values()), list(found), loc="outside lower center", ncols=len(found))
