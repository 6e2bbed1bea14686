"""Suite ``composition``: two learned densities multiplied, mixed and negated, sampled with and without weights."""

from __future__ import annotations

from collections.abc import Sequence

from workflows.benchmark_suites.seeds import over_seeds
from workflows.benchmark_suites.suite import Block, Metric, Preset, RowContext, RowSpec, Suite, SuiteFigure, TableRow

RULES = ("product", "tempered_product", "mixture", "negation")
OBJECTIVES = {
    "exact": "the exact energies of both members at every level of noise, nothing learned",
    "dsm": "each member trained by denoising score matching",
    "dsm_diffclf": "each member trained by denoising score matching and classification among a group of levels",
}
SIZES = {
    "samples": 20_000,
    "steps": 1500,
    "groups": 128,
    "group_size": 4,
    "averaged_steps": 200,
    "hidden": 64,
    "layers": 3,
    "levels": 128,
    "level_pool": 32,
    "measured": 1024,
    "particles": 128,
}
FULL_SIZES = {
    "samples": 60_000,
    "steps": 6000,
    "hidden": 128,
    "averaged_steps": 1000,
    "measured": 4096,
    "particles": 512,
}
PRESETS = {
    "quick": Preset(tuple(Block(rule, (2,), tuple(OBJECTIVES), (0,)) for rule in RULES), SIZES),
    "standard": Preset(tuple(Block(rule, (2,), tuple(OBJECTIVES)) for rule in RULES), {**SIZES, **FULL_SIZES}),
}


def run_row(spec: RowSpec, context: RowContext) -> list[Metric]:
    """Return what one row measured; its target is the rule."""
    from workflows.benchmark_suites.composed import composed_row

    return composed_row(spec, context)


def figures(rows: Sequence[TableRow]) -> list[SuiteFigure]:
    """Return the densities that were sampled beside the exact ones, and the weights of their regions."""
    from workflows.report.composition_figure import composition_figure

    caption = (
        "Colour: density of the weighted samples of the first seed, in cells of 0.15; lines: the exact composition, "
        "half and 95 % of its mass inside. Left: reverse diffusion along the composed scores, which is biased even "
        "where the scores are exact, save for the mixture: a product of noised densities is not the noised product. "
        "Then sequential Monte Carlo along the same levels, which weighs its samples by the energies. Right: the "
        "weights of the five regions, the exact ones as bars; errors are those of the sampling."
    )
    return [SuiteFigure("composition", caption, composition_figure(rows))]


COMPOSITION = Suite(
    name="composition",
    question="Two densities are learned apart. Are their product, mixture and negation, composed at every level of "
    "noise, sampled with the right weights?",
    objectives=OBJECTIVES,
    dims=(2,),
    presets=PRESETS,
    run_row=run_row,
    figures=figures,
    combine=over_seeds,
    headline="smc_region_total_variation",
)
