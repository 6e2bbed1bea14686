"""Compositions of two densities: what was sampled over what is exact, a line of panels a rule."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib as mpl
import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.colors import Colormap, LinearSegmentedColormap
from matplotlib.figure import Figure

from systems.analytic import PlaneDensity
from workflows.benchmark_suites.composed import EXACT, REGIONS, WINDOW, exact_composition, window_edges
from workflows.benchmark_suites.composition import RULES
from workflows.benchmark_suites.suite import ALL_SEEDS, TableRow
from workflows.report.figures import BLUE, GREY, INK, ORANGE, STYLE

MASSES = (0.95, 0.5)
"""Of the exact density inside each line."""

Series = tuple[str, str, str, str]
SERIES: tuple[Series, ...] = (
    (EXACT, "reverse", "Reverse diffusion,\nexact scores", GREY),
    (EXACT, "smc", "SMC,\nexact energies", INK),
    ("dsm", "smc", "SMC,\ndsm", ORANGE),
    ("dsm_diffclf", "smc", "SMC,\ndsm_diffclf", BLUE),
)
"""Objective, sampler, title and colour of each column."""


@mpl.rc_context(STYLE)
def composition_figure(rows: Sequence[TableRow]) -> Figure:
    """Return densities of the first seed in small multiples, and the weights of the regions of that seed."""
    found = _first_seeds(rows)
    rules = [rule for rule in RULES if any(one == rule for one, _ in found)]
    series = [one for one in SERIES if any((rule, one[0]) in found for rule in rules)]
    figure = Figure(figsize=(2.5 * len(series) + 3.0, 2.55 * len(rules) + 0.3), layout="constrained")
    widths = [*[1.0] * len(series), 1.25]
    panels = figure.subplots(len(rules), len(series) + 1, squeeze=False, width_ratios=widths)
    for line, rule in zip(panels, rules, strict=True):
        exact = exact_composition(rule)
        for axis, (objective, sampler, _, colour) in zip(line[:-1], series, strict=True):
            _draw_exact(axis, exact)
            if (rule, objective) in found:
                _draw_density(axis, found[rule, objective], sampler, colour)
        line[0].set_ylabel(rule.replace("_", " "), fontweight="bold")
        _draw_regions(line[-1], [(one, found[rule, one[0]]) for one in series if (rule, one[0]) in found])
    for axis, (_, _, title, _) in zip(panels[0], series, strict=False):
        axis.set_title(title)
    panels[0][-1].set_title("Weights of the regions")
    panels[-1][-1].set_xlabel("region")
    return figure


def _first_seeds(rows: Sequence[TableRow]) -> dict[tuple[str, str], dict[str, TableRow]]:
    """Return the metrics of the first seed of each rule and objective, by name."""
    first: dict[tuple[str, str], str] = {}
    found: dict[tuple[str, str], dict[str, TableRow]] = {}
    for row in rows:
        name = row.target, row.objective
        if row.seed != ALL_SEEDS and not row.published and first.setdefault(name, row.seed) == row.seed:
            found.setdefault(name, {})[row.metric] = row
    return found


def _draw_exact(axis: Axes, exact: PlaneDensity) -> None:
    half_width, _ = WINDOW
    side = round(len(exact.points) ** 0.5)
    x, y = (exact.points[:, k].reshape(side, side).numpy() for k in range(2))
    density = exact.probabilities.reshape(side, side).numpy() / exact.cell**2
    descending = np.sort(density, axis=None)[::-1]
    held = descending.cumsum() * exact.cell**2
    levels = [float(descending[np.searchsorted(held, mass)]) for mass in MASSES]
    axis.contour(x, y, density, levels=levels, colors=INK, linewidths=(0.6, 1.0))
    axis.set(xlim=(-half_width, half_width), ylim=(-half_width, half_width), aspect="equal", xticks=[], yticks=[])


def _draw_density(axis: Axes, metrics: Mapping[str, TableRow], sampler: str, colour: str) -> None:
    density = _cells(metrics, "density" if sampler == "smc" else "reverse_density")
    edges = window_edges()
    # All panels of a rule saturate where the exact density is highest, or the same colours would not be the same.
    top = max(row.limit or 0.0 for name, row in metrics.items() if name.startswith("density@"))
    axis.pcolormesh(edges, edges, density.T, cmap=_shades(colour), vmin=0.0, vmax=top, rasterized=True)
    error = metrics[f"{sampler}_region_total_variation"].value
    axis.set_xlabel(f"regions off by {error:.3f}", fontsize=8)


def _cells(metrics: Mapping[str, TableRow], name: str) -> Float[np.ndarray, "cells cells"]:
    """Return a curve over the plane as cells, along x first."""
    values = [row.value for metric, row in metrics.items() if metric.startswith(f"{name}@")]
    return np.array(values).reshape(WINDOW[1], WINDOW[1])


def _draw_regions(axis: Axes, series: Sequence[tuple[Series, Mapping[str, TableRow]]]) -> None:
    regions = range(len(REGIONS))
    for place, ((_, sampler, _, colour), metrics) in enumerate(series):
        weights = [metrics[f"{sampler}_region_weight@{k}"] for k in regions]
        if place == 0:
            axis.bar(regions, [row.limit or 0.0 for row in weights], width=0.8, color=GREY, alpha=0.25)
        axis.errorbar(
            [k + 0.17 * (place - 0.5 * (len(series) - 1)) for k in regions],
            [row.value for row in weights],
            yerr=[row.stderr or 0.0 for row in weights],
            fmt="o",
            color=colour,
            markersize=3.5,
            capsize=2,
        )
    axis.set_xticks(regions)
    axis.set_ylim(bottom=0.0)


def _shades(colour: str) -> Colormap:
    return LinearSegmentedColormap.from_list(colour, ["#ffffff", colour])
