"""Suite ``two-modes``: two modes of weights 2/3 and 1/3, ever further apart with the dimension."""

from __future__ import annotations

from collections.abc import Sequence

from workflows.benchmark_suites.one_sided_objectives import ALL, FOREMOST
from workflows.benchmark_suites.one_sided_rows import LARGE, LARGE_FULL, variance_preserving_row
from workflows.benchmark_suites.seeds import over_seeds
from workflows.benchmark_suites.suite import Block, Preset, Suite, SuiteFigure, TableRow

TARGET = "two_modes"
DIMS = (1, 2, 8, 32)
FAR_APART = {"wells_from": 8}
"""In 8 dimensions these modes are already 127 of their widths apart, and a plain network learns them worse."""

PRESETS = {
    "quick": Preset((Block(TARGET, (2, 8), ("dsm", "dsm_ctsm", "dsm_diffclf"), (0,)),), LARGE | FAR_APART),
    "standard": Preset((Block(TARGET, DIMS, FOREMOST),), LARGE_FULL | FAR_APART),
}


def figures(rows: Sequence[TableRow]) -> list[SuiteFigure]:
    """Return the loss of every objective above the best possible one, and the error of its mode weights."""
    from workflows.report.one_sided_figures import dimensions_figure

    caption = (
        "Left: classification loss [nats] less that of the exact densities, with the level free energies profiled "
        "out. Right: error of the weight of either mode in exp(-U) at the least noise, 1/3 where all of it is in the "
        "heavier mode and 2/3 where all is in the lighter; what as many exact samples would score is dashed. Linear "
        "below the smallest tick, logarithmic above."
    )
    return [SuiteFigure("two-modes", caption, dimensions_figure(rows))]


TWO_MODES = Suite(
    name="two-modes",
    question="Two narrow modes, 45 of their standard deviations apart in every dimension, with weights 2/3 and 1/3: "
    "which objective learns an energy that knows the weights?",
    objectives=ALL,
    dims=DIMS,
    presets=PRESETS,
    run_row=variance_preserving_row,
    figures=figures,
    combine=over_seeds,
    headline="energy_mode_total_variation",
)
