"""Suite ``ratios``: mixtures of forty and sixteen modes in many dimensions, against published numbers."""

from __future__ import annotations

from collections.abc import Sequence

from workflows.benchmark_suites.seeds import over_seeds, widened_by
from workflows.benchmark_suites.suite import (
    Block,
    Metric,
    Preset,
    Published,
    RowContext,
    RowSpec,
    Suite,
    SuiteFigure,
    TableRow,
)

TARGET = "feat_mixtures"
SOURCE = "arXiv:2504.11516, table 1"
OBJECTIVES = {
    "bar": "Bennett's acceptance ratio of the samples of both ends, with its bootstrap error; its overlap and "
    "asymptotic error stand beside",
    "ais": "annealing along the straight line of the true energies, both directions, BAR of the works",
    "dsm": "thermodynamic integration of a network of learned wells, trained by score matching alone, corrected at "
    "both ends",
    "dsm_diffclf": "the same, trained by score matching and the classification loss; delta_f_exact_ends chains the "
    "classifiers of neighbouring levels, the true states as end classes",
    "dsm_diffclf_ends": "dsm_diffclf with both true ends among the classes of every step; delta_f_classifier is the "
    "F_B - F_A that training learned",
    "dsm_diffclf_mlp": "a plain network, its energies anchored to the true ones at both ends, pairs by transport",
}
SIZES = {
    "samples": 10_000,
    "steps": 300,
    "levels": 129,
    "pool": 500,
    "evaluation_pool": 500,
    "groups": 64,
    "group_size": 4,
    "hidden": 128,
    "layers": 3,
    "anneal_levels": 200,
    "anneal_particles": 500,
}
LARGE_SIZES = {**SIZES, "steps": 2000, "pool": 1000, "evaluation_pool": 10_000}
"""The error of an answer is that of the samples it is computed from, 0.24 kT from a pool of 1000 in 40 dimensions."""

PRESETS = {
    "quick": Preset((Block(TARGET, (40,), ("bar", "ais", "dsm_diffclf")),), SIZES),
    "standard": Preset((Block(TARGET, (40, 100), tuple(OBJECTIVES)),), LARGE_SIZES),
}


def run_row(spec: RowSpec, context: RowContext) -> list[Metric]:
    """Return what one row measured.

    Noise that preserves the variance keeps the path short: with little noise narrow modes travel far, and the works
    between neighbouring levels are hundreds of kT. Independent pairs join every mode to every other.
    """
    from systems.analytic import feat_mixtures
    from workflows.benchmark_suites.two_sided import PathChoice, two_sided_row

    if spec.objective == "dsm_diffclf_mlp":
        choice = PathChoice(transport=True, softened=True, learning_rate=2e-3)
    else:
        choice = PathChoice(learning_rate=1e-3, network="wells")
    return two_sided_row(feat_mixtures(spec.dim), choice, spec, context)


def combine(seeds: Sequence[Sequence[Metric]]) -> list[Metric]:
    """Return the metrics over the seeds, the misfit of the model in the errors of the learned rows."""
    return widened_by(over_seeds(seeds), "delta_f", "delta_f_exact_ends")


def figures(rows: Sequence[TableRow]) -> list[SuiteFigure]:
    """Return every estimate beside the published ones, one panel a dimension."""
    from workflows.report.benchmark_figures import estimates_figure

    caption = (
        "Estimates of F_B - F_A with one standard error, ours and published; the dashed line is the exact answer. "
        "Beyond 10 kT the axis is logarithmic."
    )
    return [SuiteFigure("ratios", caption, estimates_figure(rows))]


RATIOS = Suite(
    name="ratios",
    question="Mixtures of forty and of sixteen modes, both normalised: how near does each estimator come to "
    "F_B - F_A = 0, and what do others print?",
    objectives=OBJECTIVES,
    dims=(2, 40, 100),
    presets=PRESETS,
    run_row=run_row,
    figures=figures,
    combine=combine,
    # In the sign of the paper, whose order of the states is not ours for sure; the truth is 0 in both.
    published=(
        Published(TARGET, 40, "target-FEP", "delta_f", 0.09, 0.26, SOURCE),
        Published(TARGET, 40, "FEAT", "delta_f", 0.04, 0.04, SOURCE),
        Published(TARGET, 100, "target-FEP", "delta_f", -17.96, 1.49, SOURCE),
        Published(TARGET, 100, "FEAT", "delta_f", -5.34, 1.52, SOURCE),
    ),
)
