"""Suite ``crossed``: where estimators from the ends agree with each other and are wrong, and a path is right."""

from __future__ import annotations

from collections.abc import Sequence

from workflows.benchmark_suites.seeds import over_seeds, widened_by
from workflows.benchmark_suites.suite import Block, Metric, Preset, RowContext, RowSpec, Suite, SuiteFigure, TableRow

TARGET = "crossed_mixtures"
OBJECTIVES = {
    "bar": "Bennett's acceptance ratio of the samples of both ends, with its bootstrap error; its overlap and "
    "asymptotic error stand beside and do tell",
    "ais": "annealing along the straight line of the true energies, both directions, BAR of the works",
    "ais_slow": "the same, ten times slower",
    "dsm": "thermodynamic integration of an energy learned by score matching alone",
    "diffclf": "thermodynamic integration of an energy learned by the classification loss alone",
    "dsm_diffclf": "thermodynamic integration of an energy learned by both; delta_f_exact_ends is the classifier with "
    "frozen energies and the exact ends as classes",
    "dsm_diffclf_ends": "the same, both exact ends among the classes of every step; delta_f_classifier is the "
    "F_B - F_A that training learned",
}
SIZES = {
    "samples": 10_000,
    "steps": 2000,
    "levels": 33,
    "pool": 4000,
    "evaluation_pool": 4000,
    "groups": 64,
    "group_size": 4,
    "hidden": 64,
    "layers": 3,
    "anneal_levels": 200,
    "anneal_particles": 1000,
}
PRESETS = {
    "quick": Preset((Block(TARGET, (20, 50), ("bar", "ais", "dsm", "diffclf", "dsm_diffclf")),), SIZES),
    "standard": Preset((Block(TARGET, (20, 50), tuple(OBJECTIVES)),), {**SIZES, "steps": 5000, "hidden": 128}),
}


def run_row(spec: RowSpec, context: RowContext) -> list[Metric]:
    """Return what one row measured.

    The two dominant modes have the same shape, so independent pairs and a noise that preserves the variance carry
    one onto the other: every p_t is one normal, and the network has to learn only where the energy of each end
    switches from one of its modes to the other.
    """
    from systems.analytic import crossed_mixtures
    from workflows.benchmark_suites.two_sided import PathChoice, two_sided_row

    return two_sided_row(crossed_mixtures(spec.dim), PathChoice(), spec, context)


def combine(seeds: Sequence[Sequence[Metric]]) -> list[Metric]:
    """Return the metrics over the seeds, the misfit of the model in the errors of the learned rows."""
    return widened_by(over_seeds(seeds), "delta_f", "delta_f_exact_ends")


def figures(rows: Sequence[TableRow]) -> list[SuiteFigure]:
    """Return the picture that explains the method."""
    from workflows.report.crossed_figure import crossed_figure

    caption = (
        "Left: two states (filled) whose dominant modes lie 12 standard deviations apart; the tiny mode of each, "
        "which no sample shows, is where the other lives. Lines are the densities of the learned path. Middle: each "
        "path where half its mass has crossed. The straight line of energies has two wells there, and local moves do "
        "not pass between them; the path of interpolated samples has one, which travels. Right: estimates, "
        "single seeds as ticks; the dashed line is the exact answer."
    )
    return [SuiteFigure("crossed", caption, crossed_figure(rows))]


CROSSED = Suite(
    name="crossed",
    question="Two states whose samples never show what they share: which estimator finds F_B - F_A = 10 kT, and which "
    "is wrong with a small error bar?",
    objectives=OBJECTIVES,
    dims=(2, 5, 20, 50),
    presets=PRESETS,
    run_row=run_row,
    figures=figures,
    combine=combine,
)
