"""Suite ``classical``: what the objectives that users know cost and get right, in the plane."""

from __future__ import annotations

from collections.abc import Sequence

from workflows.benchmark_suites.one_sided_objectives import NOISED, NOISELESS, SIZED
from workflows.benchmark_suites.one_sided_rows import SMALL, SMALL_FULL
from workflows.benchmark_suites.seeds import over_seeds
from workflows.benchmark_suites.suite import Block, Metric, Preset, RowContext, RowSpec, Suite, SuiteFigure, TableRow

TARGETS = ("mixture_2d", "rings")
COMPARED = (*SIZED, "pcd", "sliced_score_matching", "dsm_diffclf")
PRESETS = {
    "quick": Preset((Block(TARGETS[0], (2,), COMPARED, (0,)),), SMALL),
    "standard": Preset(tuple(Block(target, (2,), COMPARED) for target in TARGETS), SMALL_FULL),
}


def run_row(spec: RowSpec, context: RowContext) -> list[Metric]:
    """Return what one row measured, quadrature and bounds of the likelihood included."""
    from workflows.benchmark_suites.learned_density import learned_row
    from workflows.benchmark_suites.plane_density import likelihood_metrics, plane_density, quadrature_metrics

    learned, measured = learned_row(spec, context)
    plane = plane_density(learned)
    likelihood = likelihood_metrics(learned, plane, spec.seed, context.sizes)
    return [*quadrature_metrics(learned, plane), *likelihood, *measured]


def figures(rows: Sequence[TableRow]) -> list[SuiteFigure]:
    """Return what each objective costs and how far it gets, and the weights of the modes, for each target."""
    from workflows.report.plane_figures import costs_figure, mode_weights_figure

    costs = (
        "Left: divergence of the learned density, normalised by quadrature, from the exact one, over the network "
        "evaluations of its training. Right: how far the mean log-likelihood of held-out samples is "
        "below that of the exact density on the same samples; the dot is normalised by quadrature, the bar leads from "
        "one bound by annealing to the other. Linear below 0.1, logarithmic above. All seeds together."
    )
    weights = (
        "First: the exact density, its modes numbered. Then the weights of the modes in the learned exp(-U), by "
        "quadrature over the plane, of the first seed of each objective; the exact ones are the black steps."
    )
    shown = []
    for target in dict.fromkeys(row.target for row in rows):
        own = [row for row in rows if row.target == target]
        shown += [
            SuiteFigure(f"classical-{target}", costs, costs_figure(own)),
            SuiteFigure(f"classical-{target}-weights", weights, mode_weights_figure(own)),
        ]
    return shown


CLASSICAL = Suite(
    name="classical",
    question="Noise contrast, contrastive divergence and sliced score matching of the data alone, beside DSM + "
    "DiffCLF: what does each cost, and does it know the weights, log Z and the likelihood?",
    objectives={**SIZED, **NOISELESS, **NOISED},
    dims=(2,),
    presets=PRESETS,
    run_row=run_row,
    figures=figures,
    combine=over_seeds,
    more_targets=("gaussian",),
    headline="kullback_leibler.normalised",
)
