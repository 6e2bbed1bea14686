"""Suite ``mixture-1d``: a mixture on the line whose separated weights score matching alone cannot learn."""

from __future__ import annotations

from collections.abc import Sequence

from workflows.benchmark_suites.one_sided_objectives import ALL
from workflows.benchmark_suites.one_sided_rows import SMALL, SMALL_FULL
from workflows.benchmark_suites.seeds import over_seeds
from workflows.benchmark_suites.suite import Block, Metric, Preset, RowContext, RowSpec, Suite, SuiteFigure, TableRow

TARGET = "mixture_1d"
COMPARED = ("dsm", "diffclf", "dsm_diffclf", "nce", "cd", "pcd", "sliced_score_matching")
PRESETS = {
    "quick": Preset((Block(TARGET, (1,), ("dsm", "dsm_diffclf", "nce", "cd", "pcd"), (0,)),), SMALL),
    "standard": Preset((Block(TARGET, (1,), COMPARED),), SMALL_FULL),
}


def run_row(spec: RowSpec, context: RowContext) -> list[Metric]:
    """Return what one row measured, the density by quadrature included, and the left mode's share of its samples."""
    from workflows.benchmark_suites.line_density import PATH, density_metrics
    from workflows.benchmark_suites.one_sided import measure, train_row
    from workflows.benchmark_suites.one_sided_training import OneSidedSizes, training_pool

    trained, sizes = train_row(PATH, spec, context), OneSidedSizes(**context.sizes)
    target, pool = trained.target, training_pool(trained.target, sizes.samples, spec.seed)
    is_left = pool.samples.x < target.means.mean()
    share = Metric("pool_left_weight", float(is_left.double().mean()), None, float(target.weights[0]))
    return [*density_metrics(trained), share, *measure(trained, PATH, spec.seed, sizes)]


def figures(rows: Sequence[TableRow]) -> list[SuiteFigure]:
    """Return the learned densities beside the exact one."""
    from workflows.report.one_sided_figures import densities_figure

    caption = (
        "Densities exp(-U)/Z of the learned energies, normalised by quadrature, beside the exact one (dashed); the "
        "first seed of each objective, cut above three times the exact one. Scores fix the shape of each mode and not "
        "how they weigh against each other."
    )
    return [SuiteFigure("mixture-1d", caption, densities_figure(rows))]


MIXTURE_1D = Suite(
    name="mixture-1d",
    question="Two modes on the line, ten apart, with weights 1/4 and 3/4: which objective learns an energy that knows "
    "the weights?",
    objectives=ALL,
    dims=(1,),
    presets=PRESETS,
    run_row=run_row,
    figures=figures,
    combine=over_seeds,
    headline="left_weight",
)
