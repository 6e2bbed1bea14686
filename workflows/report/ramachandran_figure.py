"""Pictures of the Ramachandran page: maps side by side, distributions, weights; plain arrays in, a Figure out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

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
from workflows.report.figures import BLUE, GREY, INK, ORANGE, SERIES, STYLE

HIGHEST = 8.0
"""Top of the colour scale [kT]."""
LARGEST = 2.0
"""End of the scale of differences [kT]."""
MOST_SIGMAS = 5.0
"""End of the scale of deviations [standard errors]."""
SHOWN_OUTSIDE = 0.005
"""Share beyond the reference's range from which on a legend tells it."""
TICKS = [-120, -60, 0, 60, 120]
COLOURS = {REFERENCE: INK, "iid": BLUE, "langevin": ORANGE, "reweighted": SERIES[2]}


@mpl.rc_context(STYLE)
def maps_figure(surfaces: Mapping[str, FreeEnergySurface], titles: Mapping[str, str]) -> Figure:
    """Return the free energy of each surface on one scale, and below it its difference from the reference.

    Args:
        surfaces: by label, that of the reference among them.
        titles: of the labels.
    """
    figure = Figure(figsize=(3.1 * len(surfaces) + 1.0, 8.6), layout="constrained")
    grid = figure.subplots(3, len(surfaces), squeeze=False, sharex=True, sharey=True)
    reference = surfaces[REFERENCE]
    for column, (name, surface) in enumerate(surfaces.items()):
        upper, middle, lower = grid[:, column]
        upper.set_title(titles.get(name, name))
        free_energy = np.where(np.isfinite(surface.free_energy), surface.free_energy, np.nan)
        shown = _draw(upper, free_energy, "viridis", 0.0, HIGHEST)
        if name == REFERENCE:
            stderr = np.where(np.isfinite(surface.stderr), surface.stderr, np.nan)
            _draw(middle, stderr, "RdBu_r", -LARGEST, LARGEST)
            middle.set_title("its standard error", fontweight="normal")
            middle.tick_params(labelbottom=True)
            middle.set_xlabel("φ [degrees]")
            lower.set_visible(False)
            continue
        found = surface_difference(reference, surface)
        difference = _draw(middle, found.value, "RdBu_r", -LARGEST, LARGEST)
        with np.errstate(divide="ignore", invalid="ignore"):
            sigmas = _draw(lower, found.value / found.stderr, "PuOr_r", -MOST_SIGMAS, MOST_SIGMAS)
        lower.set_xlabel("φ [degrees]")
    for row, image, label in zip(
        grid,
        (shown, difference, sigmas),
        ("free energy [kT]", "minus the reference [kT]", "the same [standard errors]"),
        strict=True,
    ):
        figure.colorbar(image, ax=list(row), label=label, shrink=0.9, pad=0.02)
        row[0].set_ylabel("ψ [degrees]")
    # The first panel of the last row is not there.
    grid[2, 1].set_ylabel("ψ [degrees]")
    grid[2, 1].tick_params(labelleft=True)
    return figure


def _draw(axis: Axes, values: Float[np.ndarray, "bins bins"], colours: str, low: float, high: float) -> AxesImage:
    axis.set_facecolor("#e9ebee")
    axis.set_xticks(TICKS)
    axis.set_yticks(TICKS)
    return axis.imshow(
        values.T, origin="lower", extent=(-180, 180, -180, 180), cmap=colours, vmin=low, vmax=high, aspect="equal"
    )


@mpl.rc_context(STYLE)
def distributions_figure(panels: Sequence[Distributions], labels: Mapping[str, str]) -> Figure:
    """Return densities of some quantities, each a panel, of samples of several origins.

    Args:
        panels: from left to right.
        labels: what the origins are called.
    """
    figure = Figure(figsize=(3.6 * len(panels) + 0.4, 3.3), layout="constrained")
    axes: Sequence[Axes] = figure.subplots(1, len(panels), squeeze=False)[0]
    for axis, panel in zip(axes, panels, strict=True):
        for label, found in panel.histograms.items():
            outside = f", {100 * found.outside:.2g} % outside" if found.outside > SHOWN_OUTSIDE else ""
            axis.stairs(
                found.density,
                found.edges,
                color=COLOURS[label],
                fill=label == REFERENCE,
                alpha=0.22 if label == REFERENCE else 1.0,
                linewidth=1.4,
                label=labels[label] + outside,
            )
        axis.set(xlabel=panel.axis, title=panel.title, yticks=[])
        axis.xaxis.set_major_locator(MaxNLocator(5))
        axis.set_ylim(0, 1.35 * axis.get_ylim()[1])
        axis.legend(loc="upper right", fontsize=7.5)
    axes[0].set_ylabel("probability density")
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
