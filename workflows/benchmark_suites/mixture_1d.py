"""Suite ``mixture-1d``: a mixture on the line whose separated weights score matching alone cannot learn."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import matplotlib as mpl
import torch
from jaxtyping import Float
from matplotlib.figure import Figure
from torch import Tensor

from boltzgen_diffclf.data_energy import DataEnergyModel
from boltzgen_diffclf.paths import VariancePreserving
from systems.analytic import GaussianMixture, noised
from workflows.benchmark_suites.one_sided import Metrics, RowMetric, SuiteRow, measure
from workflows.benchmark_suites.one_sided_training import (
    ONE_SIDED_TARGETS,
    OneSidedSizes,
    Trained,
    choose,
    train_one_sided,
)
from workflows.report.figures import BLUE, GREY, INK, ORANGE, SERIES, STYLE

TARGET = "mixture_1d"
OBJECTIVES = ("dsm", "dsm_diffclf", "diffclf", "nce", "cd", "pcd", "sliced_score_matching")
SEEDS = (0, 1, 2)
PRESETS: Mapping[str, OneSidedSizes] = {
    "quick": OneSidedSizes(steps=1000, groups=64, hidden=64, layers=3, training_pool=20_000),
    "standard": OneSidedSizes(steps=5000, hidden=64, layers=3, ema_decay=0.999),
}

PATH = VariancePreserving(t_min=1e-2, t_max=1 - 1e-4)
"""It begins where the noise is a tenth of the narrower mode: a network of an earlier level would have to resolve its
energy to a thousandth of a kT, for a density that is the same to the eye."""

_QUADRATURE = 4001
_SHOWN = 20
"""Every how many points of the quadrature the densities are kept."""


def mixture_1d_rows(
    preset: str = "quick", objectives: Sequence[str] = OBJECTIVES, seeds: Sequence[int] = SEEDS
) -> list[SuiteRow]:
    """Return every row of the suite."""
    return [
        SuiteRow(TARGET, 1, objective, seed, mixture_1d_row(objective, seed, PRESETS[preset]))
        for objective in objectives
        for seed in seeds
    ]


def mixture_1d_row(objective: str, seed: int, sizes: OneSidedSizes, *, checkpoint: Path | None = None) -> Metrics:
    """Return what :func:`~workflows.benchmark_suites.one_sided.one_sided_row` does, and the density by quadrature.

    ``left_weight`` is the weight of the left mode in ``exp(-U)``, and ``density@x`` the normalised density itself,
    each beside the exact one.
    """
    target = choose(ONE_SIDED_TARGETS, TARGET)(1)
    trained = train_one_sided(target, PATH, objective, seed, sizes, checkpoint=checkpoint)
    return measure(trained, PATH, seed, sizes) | density_metrics(trained)


def density_metrics(trained: Trained) -> Metrics:
    """Return the left mode's weight and the density of a learned energy on the line, by quadrature."""
    exact = _learned_density(trained)
    low, high = (
        trained.target.means[0] - 8 * trained.target.sigmas[0],
        trained.target.means[-1] + 8 * trained.target.sigmas[-1],
    )
    x = torch.linspace(float(low), float(high), _QUADRATURE, dtype=torch.float64)
    with torch.no_grad():
        log_ours = -_energy(trained, x[:, None])
    ours = (log_ours - log_ours.logsumexp(0)).exp() / (x[1] - x[0])
    truth = exact.log_density(x[:, None]).exp()
    left = x < trained.target.means.mean()
    weight, true_weight = (float(torch.trapezoid(p * left, x)) for p in (ours, truth))
    shown = range(0, _QUADRATURE, _SHOWN)
    return {
        "left_weight": RowMetric(weight, None, true_weight),
        "left_weight_relative_error": RowMetric(abs(weight / true_weight - 1), None, 0.0),
        **{f"density@{float(x[k]):.3f}": RowMetric(float(ours[k]), None, float(truth[k])) for k in shown},
    }


def _learned_density(trained: Trained) -> GaussianMixture:
    """Return the exact density of what the energy is of: the data, or the data under the least noise."""
    is_noiseless = isinstance(trained.model, DataEnergyModel)
    return trained.target if is_noiseless else noised(trained.target, PATH, PATH.t_min)


def _energy(trained: Trained, x: Float[Tensor, "points 1"]) -> Float[Tensor, " points"]:
    model = trained.model
    if isinstance(model, DataEnergyModel):
        return model.energy(x)
    return model.energy(x, x.new_full((len(x),), PATH.t_min))


@mpl.rc_context(STYLE)
def mixture_1d_figure(rows: Iterable[SuiteRow]) -> Figure:
    """Return the densities exp(-U) beside the exact one: the two of the method, and the classical ones.

    Args:
        rows: of this suite; the first seed of each objective is drawn.
    """
    figure = Figure(figsize=(7.8, 2.9), layout="constrained")
    method, classical = figure.subplots(1, 2, sharey=True)
    colours = {"dsm": ORANGE, "dsm_diffclf": BLUE, "diffclf": GREY}
    drawn: set[str] = set()
    for row in rows:
        curve = {float(name.split("@")[1]): m for name, m in row.metrics.items() if name.startswith("density@")}
        if row.objective in drawn or not curve:
            continue
        axis = method if row.objective in colours else classical
        colour = colours.get(row.objective, SERIES[len(drawn) % len(SERIES)])
        axis.plot(list(curve), [m.value for m in curve.values()], color=colour, label=row.objective)
        if row.objective in ("dsm", "nce"):
            exact = [m.limit or 0.0 for m in curve.values()]
            axis.plot(list(curve), exact, color=INK, linewidth=1, linestyle=(0, (4, 2)), label="exact")
        drawn.add(row.objective)
    method.set(title="noised energies at the least noise", xlabel="x", ylabel="density")
    classical.set(title="energies of the data alone", xlabel="x")
    for axis in (method, classical):
        axis.legend()
    return figure
