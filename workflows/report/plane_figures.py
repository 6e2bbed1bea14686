"""Figures of the suites in the plane: plain table rows in, a matplotlib Figure out."""

from __future__ import annotations

import math
from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from workflows.benchmark_suites.one_sided_training import one_sided_target
from workflows.benchmark_suites.suite import ALL_SEEDS, TableRow
from workflows.report.figures import GREY, INK, STYLE
from workflows.report.one_sided_figures import DASHED, METHOD_COLOURS

MOST_COLUMNS = 5
DIVERGENCE = "kullback_leibler.normalised"


@mpl.rc_context(STYLE)
def mode_weights_figure(rows: Sequence[TableRow]) -> Figure:
    """Return the exact density of one target, then the weights of its modes under each objective's first seed."""
    weights = _first_weights(rows)
    lines = math.ceil((1 + len(weights)) / MOST_COLUMNS)
    columns = math.ceil((1 + len(weights)) / lines)
    figure = Figure(figsize=(2.1 * columns, 2.3 * lines), layout="constrained")
    grid = figure.add_gridspec(lines, columns)
    _draw_target(figure.add_subplot(grid[0, 0]), rows[0])
    highest = max(row.value for line in weights.values() for row in line.values())
    for place, (name, line) in enumerate(weights.items(), start=1):
        axis = figure.add_subplot(grid[divmod(place, columns)])
        _draw_weights(axis, line, METHOD_COLOURS.get(name, GREY))
        axis.set_title(name)
        axis.set_ylim(0, 1.05 * highest)
        if place == 1 or place % columns == 0:
            axis.set_ylabel("weight of the mode")
        else:
            axis.tick_params(axis="y", labelleft=False)
    return figure


def _first_weights(rows: Sequence[TableRow]) -> dict[str, dict[int, TableRow]]:
    """Return the weights of the modes of each objective's first seed, by number of the mode."""
    weights: dict[str, dict[int, TableRow]] = {}
    for row in rows:
        name, _, place = row.metric.partition("@")
        if name == "mode_weight" and row.seed != ALL_SEEDS:
            weights.setdefault(row.objective, {}).setdefault(int(place), row)
    return weights


def _draw_target(axis: Axes, row: TableRow) -> None:
    target = one_sided_target(row.target, row.dim)
    reach = float(target.means.abs().max() + 6 * target.sigmas.max())
    side = torch.linspace(-reach, reach, 201, dtype=target.dtype)
    y, x = torch.meshgrid(side, side, indexing="ij")
    density = target.log_density(torch.stack([x.flatten(), y.flatten()], dim=-1)).exp().reshape(x.shape)
    # The root shows light clusters beside heavy ones.
    extent = (-reach, reach, -reach, reach)
    axis.imshow(density.sqrt().numpy(), origin="lower", extent=extent, cmap="Blues")
    right = target.means[:, 0] + 4 * target.variances.amax(1).sqrt()
    for k, (left, top) in enumerate(zip(right.tolist(), target.means[:, 1].tolist(), strict=True), start=1):
        axis.text(left, top, str(k), ha="center", va="center", fontsize=8, color=INK)
    axis.set(title="exact density", xticks=[], yticks=[])


def _draw_weights(axis: Axes, line: dict[int, TableRow], colour: str) -> None:
    places = sorted(line)
    exact = [line[k].limit or 0.0 for k in places]
    axis.bar(places, [line[k].value for k in places], width=0.8, color=colour)
    axis.stairs(exact, np.arange(len(places) + 1) + 0.5, color=INK, linewidth=1.2)
    axis.set_xticks(places)
    axis.tick_params(axis="x", length=0)


@mpl.rc_context(STYLE)
def costs_figure(rows: Sequence[TableRow]) -> Figure:
    """Return how far each objective gets for its price, and the log-likelihood with its bounds, on one target."""
    together = {(row.objective, row.metric): row for row in rows if row.seed == ALL_SEEDS}
    objectives = [name for name, metric in together if metric == DIVERGENCE]
    figure = Figure(figsize=(10.4, 1.4 + 0.3 * len(objectives)), layout="constrained")
    left, right = figure.subplots(1, 2)
    prices = {name: together[name, "network_evaluations"] for name in objectives}
    # Names of neighbours in price stand above and below their points in turn.
    for place, name in enumerate(sorted(prices, key=lambda name: prices[name].value)):
        _draw_price(left, name, prices[name], together[name, DIVERGENCE], 4 if place % 2 else -11)
    left.set(xscale="log", yscale="log", xlabel="network evaluations of the training")
    left.set_title("Divergence from the exact density [nats]")
    left.xaxis.set_minor_formatter(NullFormatter())
    left.margins(0.16)
    for place, name in enumerate(objectives):
        exact = together[name, "log_likelihood"].limit or 0.0
        low, own, high = (exact - together[name, f"log_likelihood{end}"].value for end in (".upper", "", ".lower"))
        _draw_bracket(right, place, name, (low, own, high))
    right.axvline(0.0, color=GREY, linestyle=DASHED, zorder=0)
    right.set_xscale("symlog", linthresh=0.1)
    right.set_xlim(min(-0.05, 2 * right.dataLim.x0), max(0.1, 2 * right.dataLim.x1))
    right.set_yticks(range(len(objectives)), objectives)
    right.set_ylim(len(objectives) - 0.4, -0.6)
    right.tick_params(axis="y", length=0)
    right.set(title="Held-out log-likelihood below the exact one [nats]")
    return figure


def _draw_price(axis: Axes, name: str, price: TableRow, divergence: TableRow, above: int) -> None:
    colour, offset = METHOD_COLOURS.get(name, INK), (5, above)
    axis.errorbar(price.value, divergence.value, yerr=divergence.stderr, fmt="o", color=colour, markersize=5, capsize=2)
    axis.annotate(name, (price.value, divergence.value), offset, textcoords="offset points", fontsize=8, color=colour)


def _draw_bracket(axis: Axes, place: int, name: str, bracket: tuple[float, float, float]) -> None:
    low, own, high = bracket
    colour = METHOD_COLOURS.get(name, INK)
    axis.plot([low, high], [place, place], "|-", color=colour, linewidth=1.4, markersize=9)
    axis.plot(own, place, "o", color=colour, markersize=5)
