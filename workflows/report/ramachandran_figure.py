"""Ramachandran maps side by side: plain surfaces in, a matplotlib Figure out."""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

from boltzgen_diffclf.observables.ramachandran import FreeEnergySurface, surface_difference
from workflows.report.figures import STYLE

TITLES = {"reference": "reference, held out", "reverse": "generated", "langevin": "Langevin on $U_\\theta$"}
HIGHEST = 8.0
"""Top of the colour scale [kT]."""
LARGEST = 2.0
"""End of the scale of differences [kT]."""


@mpl.rc_context(STYLE)
def maps_figure(surfaces: Mapping[str, FreeEnergySurface]) -> Figure:
    """Return the free energy of each surface on one scale, and below it its difference from the reference."""
    figure = Figure(figsize=(3.4 * len(surfaces) + 0.8, 6.4), layout="constrained")
    grid = figure.subplots(2, len(surfaces), squeeze=False, sharex=True, sharey=True)
    reference = surfaces["reference"]
    for (name, surface), upper, lower in zip(surfaces.items(), *grid, strict=True):
        upper.set_title(TITLES.get(name, name))
        free_energy = np.where(np.isfinite(surface.free_energy), surface.free_energy, np.nan)
        shown = _draw(upper, free_energy, "viridis", 0.0, HIGHEST)
        if name == "reference":
            lower.set_visible(False)
            continue
        difference = _draw(lower, surface_difference(reference, surface).value, "RdBu_r", -LARGEST, LARGEST)
        lower.set_xlabel("φ [degrees]")
    figure.colorbar(shown, ax=list(grid[0]), label="free energy [kT]", shrink=0.9, pad=0.02)
    figure.colorbar(difference, ax=list(grid[1]), label="minus the reference [kT]", shrink=0.9, pad=0.02)
    grid[0, 0].set_ylabel("ψ [degrees]")
    return figure


def _draw(axis: Axes, values: np.ndarray, colours: str, low: float, high: float) -> AxesImage:
    axis.set_facecolor("#e9ebee")
    axis.set_xticks([-120, -60, 0, 60, 120])
    axis.set_yticks([-120, -60, 0, 60, 120])
    return axis.imshow(
        values.T, origin="lower", extent=(-180, 180, -180, 180), cmap=colours, vmin=low, vmax=high, aspect="equal"
    )
