"""Suite ``rings``: clusters on a ring, each heavier than the one before, so that wrong weights show."""

from __future__ import annotations

from collections.abc import Sequence

from workflows.benchmark_suites.one_sided_objectives import ALL, FOREMOST
from workflows.benchmark_suites.one_sided_rows import SMALL, SMALL_FULL
from workflows.benchmark_suites.seeds import over_seeds
from workflows.benchmark_suites.suite import Block, Metric, Preset, RowContext, RowSpec, Suite, SuiteFigure, TableRow

TARGET = "rings"
PRESETS = {
    "quick": Preset((Block(TARGET, (2,), ("dsm", "dsm_diffclf", "nce", "pcd"), (0,)),), SMALL),
    "standard": Preset((Block(TARGET, (2,), (*FOREMOST, "nce", "cd", "pcd")),), SMALL_FULL),
}


def run_row(spec: RowSpec, context: RowContext) -> list[Metric]:
    """Return what one row measured, the weights of the clusters by quadrature included."""
    from workflows.benchmark_suites.learned_density import learned_row
    from workflows.benchmark_suites.plane_density import plane_density, quadrature_metrics

    learned, measured = learned_row(spec, context)
    return [*quadrature_metrics(learned, plane_density(learned)), *measured]


def figures(rows: Sequence[TableRow]) -> list[SuiteFigure]:
    """Return the weights of the clusters in each learned density beside the exact ones."""
    from workflows.report.plane_figures import mode_weights_figure

    caption = (
        "First: the exact density, its clusters numbered. Then the weights of the clusters in the learned exp(-U) at "
        "the least noise, by quadrature over the plane, of the first seed of each objective; the exact ones are the "
        "black steps. Scores fix the shape of each cluster and not how they weigh against each other."
    )
    return [SuiteFigure("rings", caption, mode_weights_figure(rows))]


RINGS = Suite(
    name="rings",
    question="Eight clusters on a ring with weights that rise from 1/36 to 8/36: which objective learns an energy that "
    "knows the weights?",
    objectives=ALL,
    dims=(2,),
    presets=PRESETS,
    run_row=run_row,
    figures=figures,
    combine=over_seeds,
    headline="mode_weight_error",
)
