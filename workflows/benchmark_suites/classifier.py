"""Suite ``classifier``: classification diffusion on mixtures whose every density, posterior and denoiser is known."""

from __future__ import annotations

from collections.abc import Sequence

from workflows.benchmark_suites.seeds import over_seeds
from workflows.benchmark_suites.suite import Block, Metric, Preset, RowContext, RowSpec, Suite, SuiteFigure, TableRow

TARGET = "mixture"
OBJECTIVES = {
    "cdm": "classification diffusion: the squared error of the noise and the cross-entropy of naming the level",
    "cdm_cross_entropy": "the same network by the cross-entropy alone",
    "cdm_denoising": "the same network by the squared error alone",
    "plain_denoiser": "a network of the noisy vector and the level that predicts the noise, and knows no density",
    "dsm_diffclf_all": "the energy of the other suites, DSM and DiffCLF among all levels from one pass; its levels are "
    "the classes, the first at a noise of 0.01",
    "exact_posterior": "the exact posterior of the levels: what the quadrature and the steps of the sampler cost",
}
SIZES = {
    "samples": 60_000,
    "steps": 4000,
    "groups": 512,
    "averaged_steps": 400,
    "hidden": 64,
    "layers": 3,
    "levels": 18,
    "measured": 2048,
}
FULL_SIZES = {"steps": 10_000, "averaged_steps": 1000, "measured": 8192}
PRESETS = {
    "quick": Preset((Block(TARGET, (1, 2), tuple(OBJECTIVES), (0,)),), SIZES),
    "standard": Preset((Block(TARGET, (1, 2), tuple(OBJECTIVES)),), {**SIZES, **FULL_SIZES}),
}


def run_row(spec: RowSpec, context: RowContext) -> list[Metric]:
    """Return what one row measured."""
    from workflows.benchmark_suites.classifier_measures import measure
    from workflows.benchmark_suites.classifier_training import ClassifierSizes, classifier_target, train_levels
    from workflows.benchmark_suites.suite import StepProgress

    sizes = ClassifierSizes(**context.sizes)
    trained = train_levels(
        classifier_target(spec.dim),
        spec.objective,
        spec.seed,
        sizes,
        checkpoint=context.checkpoint(spec),
        progress=StepProgress(context).report,
    )
    return measure(trained, spec.seed, sizes.measured)


def figures(rows: Sequence[TableRow]) -> list[SuiteFigure]:
    """Return the densities on the line, and what the denoisers lose at every level."""
    from workflows.report.classifier_figure import classifier_figure

    caption = (
        "Left: the density on the line that one pass of each network gives, not normalised afterwards, beside the "
        "exact one (dashed); the first seed. The others: squared error of the denoiser, a coordinate, less that of "
        "the exact one, from the least noise to the most; all seeds together. The last level is pure noise, whose "
        "denoiser a classifier knows without learning."
    )
    return [SuiteFigure("classifier", caption, classifier_figure(rows))]


CLASSIFIER = Suite(
    name="classifier",
    question="A classifier of noise levels gives the normalised density of the data in one pass: is it right, and "
    "which of its two losses is it right by?",
    objectives=OBJECTIVES,
    dims=(1, 2),
    presets=PRESETS,
    run_row=run_row,
    figures=figures,
    combine=over_seeds,
    headline="integral",
)
