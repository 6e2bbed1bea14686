"""The picture that explains the method: two crossed mixtures, two paths between them, and who finds the answer."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
import torch
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from boltzgen_diffclf.paths import StochasticInterpolant
from systems.analytic import MixturePair, crossed_mixtures, interpolated
from workflows.benchmark_suites.suite import TableRow
from workflows.report.benchmark_figures import draw_estimates
from workflows.report.figures import BLUE, INK, ORANGE, STYLE

SHOWN_TIMES = (0.15, 0.325, 0.5, 0.675, 0.85)
"""Where the densities of the path are drawn."""

LOWEST_DENSITY = 1e-11


@mpl.rc_context(STYLE)
def crossed_figure(rows: Sequence[TableRow]) -> Figure:
    """Return densities along the line that joins the modes, both paths half-way, and the estimates."""
    dims = list(dict.fromkeys(row.dim for row in rows))
    figure = Figure(figsize=(9.6 + 2.6 * len(dims), 3.5), layout="constrained")
    axes = figure.subplots(1, 2 + len(dims), width_ratios=[1.35, 1.0, *[0.95] * len(dims)])
    pair = crossed_mixtures(1)  # all other coordinates are standard normal in both states and on the path
    path = StochasticInterpolant(torch.tensor([2.0], dtype=torch.float64).sqrt(), dimension=1)
    _draw_densities(axes[0], pair, path)
    _draw_half_way(axes[1], pair, path)
    for axis, dim in zip(axes[2:], dims, strict=True):
        draw_estimates(axis, rows, dim, "delta_f")
        axis.set_title(f"Estimates, {dim} dimensions")
    return figure


def _grid() -> Float[Tensor, "points 1"]:
    return torch.linspace(-11, 11, 1101, dtype=torch.float64)[:, None]


def _draw_densities(axis: Axes, pair: MixturePair, path: StochasticInterpolant) -> None:
    x = _grid()
    for t in SHOWN_TIMES:
        density = interpolated(pair.state_a, pair.state_b, path, t).log_density(x).exp()
        axis.plot(x[:, 0], density, color=ORANGE, linewidth=1.2, alpha=0.85)
    for state, colour, label in ((pair.state_a, BLUE, "A"), (pair.state_b, INK, "B")):
        height = state.log_density(x).exp().numpy()
        axis.fill_between(x[:, 0], height, LOWEST_DENSITY, color=colour, alpha=0.18, linewidth=0)
        axis.plot(x[:, 0], height, color=colour, linewidth=1.6, label=f"state {label}")
    axis.plot([], [], color=ORANGE, linewidth=1.2, label="path, 0 < t < 1")
    axis.set(yscale="log", ylim=(LOWEST_DENSITY, 300.0), xlim=(-11, 11))
    axis.set(xlabel="along the line that joins the modes", ylabel="probability density", title="Two crossed states")
    axis.legend(loc="upper center", ncols=3, columnspacing=1.0, handlelength=1.2)


def _draw_half_way(axis: Axes, pair: MixturePair, path: StochasticInterpolant) -> None:
    x, t = _grid(), np.linspace(0, 1, 201)
    crossing = float(np.interp(0.5, mass_on_the_right(pair, t), t))
    straight = (1 - crossing) * pair.state_a.energy(x) + crossing * pair.state_b.energy(x)
    travelling = -interpolated(pair.state_a, pair.state_b, path, 0.5).log_density(x)
    for energy, colour, label in (
        (straight, BLUE, f"straight line of energies, t = {crossing:.3f}"),
        (travelling, ORANGE, "path of samples, t = 0.5"),
    ):
        axis.plot(x[:, 0], energy - energy.min(), color=colour, linewidth=1.7, label=label)
    axis.set(xlim=(-11, 11), ylim=(-0.5, 33), title="Where half the mass is across")
    axis.set(xlabel="along the line that joins the modes", ylabel="energy above the lowest [kT]")
    axis.legend(loc="upper center")


def mass_on_the_right(pair: MixturePair, t: Float[np.ndarray, " times"]) -> Float[np.ndarray, " times"]:
    """Return the probability of ``x > 0`` under ``exp(-(1 - t) u_A - t u_B)`` in one dimension, by quadrature."""
    u_a, u_b = pair.state_a.energy(_grid()), pair.state_b.energy(_grid())
    return np.array([_right_of_zero(-(1 - one) * u_a - one * u_b) for one in t.tolist()])


def _right_of_zero(log_density: Float[Tensor, " points"]) -> float:
    weight = log_density.softmax(0)
    return float(weight[_grid()[:, 0] > 0].sum())
