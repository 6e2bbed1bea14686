"""The figures of the page: one function a figure, plain arrays in, a matplotlib Figure out."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import matplotlib as mpl
import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from workflows.report.data import Integrand, RamachandranPmf, TrainingCurves, WorkValues
from workflows.results import EstimatorRow, Published, is_finite

BLUE, ORANGE, GREY, INK = "#1f5f99", "#c4541d", "#8a8f98", "#222831"
ROLE_COLOURS = {"classical": BLUE, "learned": ORANGE, "ablation": GREY}
SERIES = (BLUE, ORANGE, "#2f8f6b", "#8d4fa8", "#b58900", "#5f6b7a")
STYLE = {
    "font.family": "DejaVu Sans",
    "font.size": 9.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#6b7280",
    "axes.labelcolor": INK,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "figure.dpi": 130,
}


def _panels(rows: int, columns: int, size: tuple[float, float]) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    return figure, list(axes.ravel())


@mpl.rc_context(STYLE)
def work_distributions(work: Sequence[WorkValues], value_kT: float | None) -> Figure:
    """Return the densities of forward and reversed reverse work; they cross where W equals F_B - F_A.

    Args:
        work: one panel each.
        value_kT: where to draw F_B - F_A [kT], or None.
    """
    columns = min(2, len(work))
    rows = math.ceil(len(work) / columns)
    figure, axes = _panels(rows, columns, (3.9 * columns + (1.2 if columns == 1 else 0), 2.9 * rows))
    for axis, one in zip(axes, work, strict=False):
        _draw_work(axis, one, value_kT)
    for axis in axes[len(work) :]:
        axis.set_visible(False)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=3, handlelength=1.4)
    return figure


def _draw_work(axis: Axes, work: WorkValues, value_kT: float | None) -> None:
    series = ((work.forward, BLUE, "W, A → B"), (-work.reverse, ORANGE, "−W, B → A"))
    finite = [values[np.isfinite(values)] for values, _, _ in series]
    low, high = np.quantile(np.concatenate(finite), [0.005, 0.995])
    margin = 0.05 * max(high - low, 1e-6)
    n_bins = int(np.clip(1.5 * np.sqrt(min(map(len, finite))), 10, 60))
    edges = np.linspace(low - margin, high + margin, n_bins + 1)
    top = 0.0
    for values, (_, colour, label) in zip(finite, series, strict=True):
        density = np.histogram(values, edges)[0] / (max(len(values), 1) * np.diff(edges))
        axis.stairs(density, edges, fill=True, color=colour, alpha=0.28, linewidth=0)
        axis.stairs(density, edges, color=colour, linewidth=1.4, label=label)
        top = max(top, float(density.max()))
    if value_kT is not None:
        axis.axvline(value_kT, color=INK, linewidth=1.1, linestyle=(0, (4, 2)), label="$F_B − F_A$")
    axis.set(xlabel="work [kT]", ylabel="probability density [1/kT]", title=work.label, ylim=(0, 1.08 * top))


@mpl.rc_context(STYLE)
def overlap_matrix(overlap: Float[np.ndarray, "levels levels"], labels: Sequence[str]) -> Figure:
    """Return what each pair of states shares as a heat map, its elements written in while they can be read."""
    n_levels = len(overlap)
    side = min(6.2, 2.2 + 0.42 * n_levels)
    figure, (axis,) = _panels(1, 1, (side + 1.9, side))
    image = axis.imshow(overlap, cmap="Blues", vmin=0, vmax=max(0.5, float(np.nanmax(overlap))))
    shown = [str(label) for label in labels] or [str(k) for k in range(n_levels)]
    rotation = 90 if max(map(len, shown)) > 5 and n_levels > 4 else 0
    axis.set_xticks(range(n_levels), shown, rotation=rotation)
    axis.set_yticks(range(n_levels), shown)
    axis.set(xlabel="state", ylabel="state")
    axis.tick_params(length=0)
    axis.spines[:].set_visible(False)
    if n_levels <= 12:
        half = 0.6 * image.get_clim()[1]
        for (i, j), element in np.ndenumerate(overlap):
            text = f"{element:.2f}" if element >= 0.005 else "0"
            axis.text(j, i, text, ha="center", va="center", fontsize=8, color="white" if element > half else INK)
    figure.colorbar(image, ax=axis, label="overlap", shrink=0.85)
    return figure


@mpl.rc_context(STYLE)
def thermodynamic_integrand(integrands: Sequence[Integrand]) -> Figure:
    """Return the mean of dU/ds along the path of several methods, each with a band of two standard errors.

    It is drawn over ``s = (2 / pi) arcsin sqrt(t)``, in which the levels are evenly spaced: over t all that happens
    near the ends is a spike.
    """
    integrands = [_over_arc(one) for one in integrands]
    first, *others = integrands
    comparable = [one for one in others if np.array_equal(one.t, first.t)]
    figure, axes = _panels(1 + bool(comparable), 1, (6.8, 5.0 if comparable else 3.3))
    for index, one in enumerate(integrands):
        _draw_band(axes[0], one, one.mean, SERIES[index % len(SERIES)])
        if comparable and np.array_equal(one.t, first.t):
            _draw_band(axes[1], one, one.mean - first.mean, SERIES[index % len(SERIES)])
    axes[0].set_ylabel("mean of ∂U/∂s [kT]")
    axes[0].legend(loc="best")
    if comparable:
        axes[1].set_ylabel(f"minus {first.label} [kT]")
    for axis in axes:
        axis.set_xlim(0, 1)
        axis.set_xticks([_arc(t) for t in ARC_TICKS], [f"{t:g}" for t in ARC_TICKS])
    axes[-1].set_xlabel("t   (0: state A, 1: state B), evenly spaced in s = (2/π) arcsin √t")
    return figure


ARC_TICKS = (0.0, 0.02, 0.1, 0.25, 0.5, 0.75, 0.9, 0.98, 1.0)


def _arc(t: float) -> float:
    return 2 / math.pi * math.asin(math.sqrt(t))


def _over_arc(one: Integrand) -> Integrand:
    arc = 2 / math.pi * np.arcsin(np.sqrt(one.t))
    slope = 0.5 * math.pi * np.sin(math.pi * arc)  # dt/ds
    return replace(one, t=arc, mean=slope * one.mean, stderr=slope * one.stderr)


def _draw_band(axis: Axes, one: Integrand, mean: Float[np.ndarray, " levels"], colour: str) -> None:
    axis.fill_between(one.t, mean - 2 * one.stderr, mean + 2 * one.stderr, color=colour, alpha=0.22, linewidth=0)
    axis.plot(one.t, mean, color=colour, linewidth=1.6, label=one.label)


@mpl.rc_context(STYLE)
def training_curves(training: Mapping[str, TrainingCurves]) -> Figure:
    """Return training and held-out loss, loss components and the drift of F, one column a training run."""
    has_drift = any(curves.free_energy is not None for curves in training.values())
    has_parts = any(curves.components for curves in training.values())
    rows = 1 + has_parts + has_drift
    columns = len(training)
    figure, axes = _panels(rows, columns, (max(5.2, 3.3 * columns), 2.2 * rows + 0.4))
    grid = np.array(axes, dtype=object).reshape(rows, columns)
    for column, (name, curves) in enumerate(training.items()):
        _draw_losses(grid[0, column], name, curves)
        if has_parts:
            _draw_components(grid[1, column], curves)
        if has_drift:
            _draw_drift(grid[-1, column], curves)
        grid[-1, column].set_xlabel("optimiser step")
    for axis, label in zip(grid[:, 0], _row_labels(has_parts, has_drift), strict=True):
        axis.set_ylabel(label)
    return figure


def _row_labels(has_parts: bool, has_drift: bool) -> list[str]:
    return ["loss", *(["loss component"] if has_parts else []), *(["F(1) − F(0) [kT]"] if has_drift else [])]


def _draw_losses(axis: Axes, name: str, curves: TrainingCurves) -> None:
    axis.plot(curves.step, curves.train_loss, color=BLUE, linewidth=1.1, alpha=0.85, label="training")
    known = np.isfinite(curves.heldout_loss)
    axis.plot(curves.step[known], curves.heldout_loss[known], color=ORANGE, linewidth=1.7, label="held out")
    axis.set_title(name)
    _robust_limits(axis, np.concatenate([curves.train_loss, curves.heldout_loss]))
    axis.legend(loc="upper right")


def _draw_components(axis: Axes, curves: TrainingCurves) -> None:
    for index, (name, values) in enumerate(curves.components.items()):
        axis.plot(curves.step, values, color=SERIES[(index + 2) % len(SERIES)], linewidth=1.2, label=name)
    if curves.components:
        values = np.concatenate(list(curves.components.values()))
        if np.nanmin(values) > 0 and np.nanmax(values) > 30 * np.nanmin(values):
            axis.set_yscale("log")
        axis.legend(loc="upper right")


def _draw_drift(axis: Axes, curves: TrainingCurves) -> None:
    if curves.free_energy is None:
        axis.set_visible(False)
        return
    axis.plot(curves.step, curves.free_energy, color=INK, linewidth=1.3)
    axis.axhline(curves.free_energy[-1], color=GREY, linewidth=0.8, linestyle=(0, (4, 2)))
    _robust_limits(axis, curves.free_energy)


def _robust_limits(axis: Axes, values: Float[np.ndarray, " entries"]) -> None:
    """Keep the wild first steps from flattening the rest of a curve."""
    finite = values[np.isfinite(values)]
    if len(finite) < 2:
        return
    low, high = np.quantile(finite, [0.0, 0.9])
    margin = 0.12 * max(high - low, 1e-9)
    axis.set_ylim(low - margin, high + 2 * margin)


@mpl.rc_context(STYLE)
def ramachandran(pmfs: Sequence[RamachandranPmf]) -> Figure:
    """Return the PMF of phi and psi of each state on one colour scale, and below it its standard error."""
    figure = Figure(figsize=(3.4 * len(pmfs) + 0.8, 6.4), layout="constrained")
    grid = figure.subplots(2, len(pmfs), squeeze=False, sharex=True, sharey=True)
    rows = (
        (
            [np.where(np.isfinite(pmf.free_energy), pmf.free_energy, np.nan) for pmf in pmfs],
            "viridis",
            "free energy [kT]",
        ),
        ([np.where(np.isfinite(pmf.stderr), pmf.stderr, np.nan) for pmf in pmfs], "magma", "standard error [kT]"),
    )
    for axes, (maps, colours, label) in zip(grid, rows, strict=True):
        top = max(
            (float(np.quantile(one[np.isfinite(one)], 0.995)) for one in maps if np.isfinite(one).any()), default=1.0
        )
        for axis, one in zip(axes, maps, strict=True):
            axis.set_facecolor("#e9ebee")
            image = axis.imshow(
                one.T,
                origin="lower",
                extent=(-180, 180, -180, 180),
                cmap=colours,
                vmin=0,
                vmax=top,
                aspect="equal",
            )
        figure.colorbar(image, ax=list(axes), label=label, shrink=0.9, pad=0.02)
    for axis, pmf in zip(grid[0], pmfs, strict=True):
        axis.set_title(pmf.state)
    for axis in grid[1]:
        axis.set_xlabel("φ [degrees]")
    for axis in grid[:, 0]:
        axis.set_ylabel("ψ [degrees]")
        axis.set_xticks([-120, -60, 0, 60, 120])
        axis.set_yticks([-120, -60, 0, 60, 120])
    return figure


@mpl.rc_context(STYLE)
def estimator_comparison(
    estimators: Mapping[str, EstimatorRow], yardstick: str | None, published: Sequence[Published]
) -> Figure:
    """Return every estimator with its error bar, the classical yardstick's band and the published figures."""
    drawn = {name: row for name, row in estimators.items() if is_finite(row)}
    points = [
        (name, row.value_kT, row.stderr_kT, ROLE_COLOURS[row.role], row.replicates) for name, row in drawn.items()
    ]
    points += [(one.label, one.value_kT, one.stderr_kT or 0.0, INK, ()) for one in published]
    figure, (axis,) = _panels(1, 1, (7.2, 1.1 + 0.3 * len(points)))
    if yardstick is not None:
        row = estimators[yardstick]
        for width, alpha in ((3 * row.stderr_kT, 0.10), (row.stderr_kT, 0.22)):
            axis.axvspan(row.value_kT - width, row.value_kT + width, color=BLUE, alpha=alpha, linewidth=0)
        reach = _reach(row, drawn.values())
        axis.set_xlim(row.value_kT - reach, row.value_kT + reach)
    for place, (_, value, stderr, colour, replicates) in enumerate(points):
        marker = "D" if colour == INK else "o"
        _draw_point(axis, place, value, stderr, colour, marker)
        axis.plot(replicates, [place] * len(replicates), "|", color=colour, alpha=0.55, markersize=7)
    axis.set_yticks(range(len(points)), [label for label, *_ in points])
    axis.set_ylim(len(points) - 0.4, -0.6)
    axis.tick_params(axis="y", length=0)
    axis.set_xlabel("$F_B − F_A$ [kT]")
    _role_legend(axis, {row.role for row in drawn.values()}, bool(published))
    return figure


def _reach(yardstick: EstimatorRow, rows: Iterable[EstimatorRow]) -> float:
    """Return how far from the yardstick to draw [kT]: rows that vote, others while they do not squeeze them."""
    distances = [(abs(row.value_kT - yardstick.value_kT) + row.stderr_kT, row.role) for row in rows]
    longest = max(1.0, 20 * yardstick.stderr_kT)
    voting = min(max((one for one, role in distances if role != "ablation"), default=0.0), longest)
    reach = max((one for one, _ in distances if one <= 3 * voting), default=0.0)
    return 1.15 * max(5 * yardstick.stderr_kT, voting, reach)


def _draw_point(axis: Axes, place: int, value: float, stderr: float, colour: str, marker: str) -> None:
    low, high = axis.get_xlim()
    if axis.get_autoscalex_on() or low <= value <= high:
        axis.errorbar(value, place, xerr=stderr, fmt=marker, color=colour, markersize=5, capsize=3)
        return
    beyond = value > high
    axis.annotate(
        (f"{value:.2f} →" if beyond else f"← {value:.2f}").replace("-", "−"),
        (high if beyond else low, place),
        ha="right" if beyond else "left",
        va="center",
        color=colour,
    )


def _role_legend(axis: Axes, roles: set[str], has_published: bool) -> None:
    for role, colour in ROLE_COLOURS.items():
        if role in roles:
            axis.plot([], [], "o", color=colour, markersize=5, label=role)
    if has_published:
        axis.plot([], [], "D", color=INK, markersize=4.5, label="published")
    axis.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=4, handletextpad=0.2, columnspacing=1.4)
