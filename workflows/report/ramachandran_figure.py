"""Pictures of the Ramachandran page: maps side by side, distributions, weights; plain arrays in, a Figure out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import matplotlib as mpl
import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.ticker import MaxNLocator

from boltzgen_diffclf.observables.ramachandran import FreeEnergySurface, surface_difference
from workflows.ramachandran import REFERENCE
from workflows.ramachandran_distributions import Distributions
from workflows.report import rounding
from workflows.report.figures import BLUE, GREY, INK, ORANGE, SERIES, STYLE

HIGHEST = 8.0
"""Top of the colour scale [kT]."""
LARGEST = 2.0
"""End of the scale of differences [kT]."""
MOST_SIGMAS = 5.0
"""End of the scale of deviations [standard errors]."""
PANELS_IN_A_ROW = 3
SHOWN_OUTSIDE = 0.005
"""Share beyond the bins from which on a legend tells it."""
SCALE, DIFFERENCE, DEVIATION = "free energy [kT]", "minus the reference [kT]", "the same [standard errors]"
COLOURS = {REFERENCE: INK, "iid": BLUE, "langevin": ORANGE, "reweighted": SERIES[2], "smc": SERIES[3]}


@dataclass(frozen=True)
class Frame:
    """The axes of a map.

    Attributes:
        labels: with their units.
        extent: left, right, bottom and top, in these units.
        ticks: on both axes; None where they are found.
    """

    labels: tuple[str, str]
    extent: tuple[float, float, float, float]
    ticks: Sequence[float] | None = None


TORSIONS = Frame(("φ [degrees]", "ψ [degrees]"), (-180, 180, -180, 180), (-120, -60, 0, 60, 120))


@mpl.rc_context(STYLE)
def maps_figure(surfaces: Mapping[str, FreeEnergySurface], titles: Mapping[str, str], frame: Frame) -> Figure:
    """Return the free energy of each surface on one scale, and below it its difference from the reference.

    Args:
        surfaces: by label, that of the reference among them, perhaps alone.
        titles: of the labels.
        frame: their axes.
    """
    difference = sigmas = None
    figure = Figure(figsize=(3.1 * len(surfaces) + 1.0, 8.6), layout="constrained")
    grid = figure.subplots(3, len(surfaces), squeeze=False, sharex=True, sharey=True)
    reference = surfaces[REFERENCE]
    for column, (name, surface) in enumerate(surfaces.items()):
        upper, middle, lower = grid[:, column]
        upper.set_title(titles.get(name, name) + _told_outside("\n", surface.outside))
        shown = _draw_free_energy(upper, surface, frame)
        if name == REFERENCE:
            stderr = np.where(np.isfinite(surface.stderr), surface.stderr, np.nan)
            _draw(middle, stderr, frame, "RdBu_r", -LARGEST, LARGEST)
            middle.set_title("its standard error", fontweight="normal")
            middle.tick_params(labelbottom=True)
            middle.set_xlabel(frame.labels[0])
            lower.set_visible(False)
            continue
        found = surface_difference(reference, surface)
        difference = _draw(middle, found.value, frame, "RdBu_r", -LARGEST, LARGEST)
        with np.errstate(divide="ignore", invalid="ignore"):
            sigmas = _draw(lower, found.value / found.stderr, frame, "PuOr_r", -MOST_SIGMAS, MOST_SIGMAS)
        lower.set_xlabel(frame.labels[0])
    for row, image, label in zip(grid, (shown, difference, sigmas), (SCALE, DIFFERENCE, DEVIATION), strict=True):
        row[0].set_ylabel(frame.labels[1])
        if image is not None:
            figure.colorbar(image, ax=list(row), label=label, shrink=0.9, pad=0.02)
    # The first panel of the last row is not there.
    for axis in grid[2, 1:2]:
        axis.set_ylabel(frame.labels[1])
        axis.tick_params(labelleft=True)
    return figure


@mpl.rc_context(STYLE)
def residue_maps_figure(surfaces: Mapping[str, Mapping[str, FreeEnergySurface]], titles: Mapping[str, str]) -> Figure:
    """Return the map of phi and psi of every residue, a row each: all origins, then what differs from the reference.

    Args:
        surfaces: by residue and label, that of the reference among them.
        titles: of the labels.
    """
    labels = list(next(iter(surfaces.values())))
    others = [label for label in labels if label != REFERENCE]
    columns, difference = len(labels) + len(others), None
    figure = Figure(figsize=(1.9 * columns + 0.9, 1.9 * len(surfaces) + 1.3), layout="constrained")
    grid = figure.subplots(len(surfaces), columns, squeeze=False, sharex=True, sharey=True)
    for row, (residue, several) in zip(grid, surfaces.items(), strict=True):
        for axis, label in zip(row, labels, strict=False):
            shown = _draw_free_energy(axis, several[label], TORSIONS)
        for axis, label in zip(row[len(labels) :], others, strict=True):
            found = surface_difference(several[REFERENCE], several[label])
            difference = _draw(axis, found.value, TORSIONS, "RdBu_r", -LARGEST, LARGEST)
        row[0].set_ylabel(f"{residue}\n{TORSIONS.labels[1]}")
    for axis, title in zip(grid[0], [*labels, *others], strict=True):
        axis.set_title(titles.get(title, title))
    for axis in grid[-1]:
        axis.set_xlabel(TORSIONS.labels[0])
        axis.tick_params(axis="x", rotation=90)
    for image, axes, label in (
        (shown, grid[:, : len(labels)], SCALE),
        (difference, grid[:, len(labels) :], DIFFERENCE),
    ):
        if image is not None:
            figure.colorbar(image, ax=list(axes.flat), label=label, location="bottom", shrink=0.8, pad=0.01, aspect=30)
    return figure


def _told_outside(before: str, share: float) -> str:
    """Return the share that lies beyond the limits, in words, nothing where it is small."""
    return f"{before}{rounding.plain(100 * share)} % outside" if share > SHOWN_OUTSIDE else ""


def _draw_free_energy(axis: Axes, surface: FreeEnergySurface, frame: Frame) -> AxesImage:
    free_energy = np.where(np.isfinite(surface.free_energy), surface.free_energy, np.nan)
    return _draw(axis, free_energy, frame, "viridis", 0.0, HIGHEST)


def _draw(
    axis: Axes, values: Float[np.ndarray, "bins bins"], frame: Frame, colours: str, low: float, high: float
) -> AxesImage:
    axis.set_facecolor("#e9ebee")
    if frame.ticks is not None:
        axis.set_xticks(frame.ticks)
        axis.set_yticks(frame.ticks)
    image = axis.imshow(values.T, origin="lower", extent=frame.extent, cmap=colours, vmin=low, vmax=high, aspect="auto")
    axis.set_box_aspect(1)
    return image


@mpl.rc_context(STYLE)
def distributions_figure(panels: Sequence[Distributions], labels: Mapping[str, str]) -> Figure:
    """Return densities of some quantities, each a panel, of samples of several origins.

    Args:
        panels: from left to right.
        labels: what the origins are called.
    """
    rows = -(-len(panels) // PANELS_IN_A_ROW)
    columns = min(len(panels), PANELS_IN_A_ROW)
    figure = Figure(figsize=(3.6 * columns + 0.4, 3.3 * rows), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False)
    for axis in grid.flat[len(panels) :]:
        axis.set_visible(False)
    for axis, panel in zip(grid.flat, panels, strict=False):
        for label, found in panel.histograms.items():
            axis.stairs(
                found.density,
                found.edges,
                color=COLOURS[label],
                fill=label == REFERENCE,
                alpha=0.22 if label == REFERENCE else 1.0,
                linewidth=1.4,
                label=labels[label] + _told_outside(", ", found.outside),
            )
        axis.set(xlabel=panel.axis, title=panel.title, yticks=[])
        axis.xaxis.set_major_locator(MaxNLocator(5))
        axis.set_ylim(0, 1.35 * axis.get_ylim()[1])
        axis.legend(loc="upper right", fontsize=7.5)
    for row in grid:
        row[0].set_ylabel("probability density")
    return figure


@mpl.rc_context(STYLE)
def weights_figure(families: Mapping[str, tuple[Float[np.ndarray, " roots"], Float[np.ndarray, " roots"]]]) -> Figure:
    """Return how much of the whole weight the heaviest families carry, before and after the bridge.

    Args:
        families: log weights of families before and after, by the name of the model.
    """
    figure = Figure(figsize=(3.6 * len(families) + 0.6, 3.4), layout="constrained")
    axes: Sequence[Axes] = figure.subplots(1, len(families), squeeze=False, sharey=True)[0]
    for axis, (name, several) in zip(axes, families.items(), strict=True):
        n = len(several[0])
        share = np.arange(1, n + 1) / n
        axis.plot(share, share, color=GREY, linewidth=0.9, linestyle=(0, (4, 2)), label="equal weights")
        for log_w, colour, label in zip(several, (ORANGE, BLUE), ("at one stroke", "after the bridge"), strict=True):
            if not np.isfinite(log_w).any():
                continue
            weights = np.sort(np.exp(log_w - log_w.max()))[::-1]
            axis.plot(share, np.cumsum(weights) / weights.sum(), color=colour, linewidth=1.6, label=label)
        axis.set(xscale="log", xlim=(1 / n, 1), ylim=(0, 1.02), xlabel="heaviest share of the families", title=name)
    axes[0].set_ylabel("share of the weight that they carry")
    axes[0].legend(loc="lower right")
    return figure
