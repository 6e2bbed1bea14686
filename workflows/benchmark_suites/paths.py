"""Suite ``paths``: which noising learns most reliably, and how well."""

from __future__ import annotations

from collections.abc import Sequence

from workflows.benchmark_suites.seeds import over_seeds
from workflows.benchmark_suites.suite import Block, Metric, Preset, RowContext, RowSpec, Suite, SuiteFigure, TableRow

INTERPOLANT = "interpolant"
LEARNED_ENDS = f"{INTERPOLANT}_learned_ends"
DSM = "_dsm"
"""What the names of rows without classification end with."""

ABOUT = {
    "vp": "variance preserving noise, beta from 0.1 to 20, levels even in time",
    "ve": "variance exploding noise, sigma from 0.01 to 20, levels even in the log signal-to-noise ratio",
    "edm": "the noise of EDM, sigma from 0.002 to 80, levels even in the log signal-to-noise ratio",
    INTERPOLANT: "the two-sided interpolant from two modes (t = 0) to the target (t = 1), independent pairs, noise "
    "that preserves the variance; its energies are anchored to the true ones of both ends, which the others never see",
    LEARNED_ENDS: "the same interpolant, its energies learned everywhere beside the Gaussian of the path",
}
OBJECTIVES = {
    **{name: f"{about}; denoising score matching and classification" for name, about in ABOUT.items()},
    **{f"{name}{DSM}": f"{about}; denoising score matching alone" for name, about in ABOUT.items()},
}
SIZES = {
    "samples": 60_000,
    "steps": 600,
    "groups": 128,
    "group_size": 4,
    "averaged_steps": 60,
    "hidden": 128,
    "layers": 3,
    "levels": 128,
    "level_pool": 16,
    "measured": 1024,
    "particles": 512,
}
FULL_SIZES = {"steps": 4000, "averaged_steps": 400, "level_pool": 32, "measured": 2048}
PRESETS = {
    "quick": Preset((Block("mixture_2d", (2,), tuple(ABOUT), (0,)), Block("mog40", (8,), tuple(ABOUT), (0,))), SIZES),
    "standard": Preset(
        (Block("mixture_2d", (2,), tuple(OBJECTIVES)), Block("mog40", (8,), tuple(OBJECTIVES))),
        {**SIZES, **FULL_SIZES},
    ),
}


def run_row(spec: RowSpec, context: RowContext) -> list[Metric]:
    """Return what one row measured; of a training that diverged, that it did."""
    from boltzgen_diffclf.errors import TrainingDivergedError
    from boltzgen_diffclf.paths import PATHS
    from workflows.benchmark_suites.interpolant import interpolant_row
    from workflows.benchmark_suites.one_sided import measure, train_as
    from workflows.benchmark_suites.one_sided_training import OneSidedSizes
    from workflows.benchmark_suites.stability import DIVERGED, stability_metrics

    path, objective = spec.objective.removesuffix(DSM), "dsm" if spec.objective.endswith(DSM) else "dsm_diffclf"
    sizes = OneSidedSizes(**context.sizes)
    try:
        if path.startswith(INTERPOLANT):
            return interpolant_row(objective, sizes, spec, context, anchored=path == INTERPOLANT)
        trained = train_as(objective, sizes, PATHS[path], spec, context)
    except TrainingDivergedError:
        return [DIVERGED]
    return [*measure(trained, PATHS[path], spec.seed, sizes), *stability_metrics(trained.history)]


def figures(rows: Sequence[TableRow]) -> list[SuiteFigure]:
    """Return losses, mode weights and burst of gradients of each path, and its scores over the levels."""
    from workflows.report.paths_figures import scores_figure, summary_figure

    summary = (
        "Classification loss [nats] less that of the exact densities, with the level free energies profiled out; total "
        "variation between the mode weights of exp(-U) at the least noise and the exact ones (the interpolant's "
        "are exact by construction, and not shown); largest gradient norm of the denoising loss over its median: "
        "all seeds together, single seeds as ticks. Linear left of the smallest tick, logarithmic beyond."
    )
    scores = (
        "Fisher divergence over the levels from the data (left) to the noise, or to the other end (right), all "
        "seeds together; denoising score matching alone is dashed."
    )
    return [
        SuiteFigure("paths", summary, summary_figure(rows)),
        SuiteFigure("paths-scores", scores, scores_figure(rows)),
    ]


PATHS_SUITE = Suite(
    name="paths",
    question="The same network, samples and steps under four noisings: which of them learns reliably, and which learns "
    "the right energy?",
    objectives=OBJECTIVES,
    dims=(2, 8),
    presets=PRESETS,
    run_row=run_row,
    figures=figures,
    combine=over_seeds,
    headline="excess_classification.profiled_f",
)
