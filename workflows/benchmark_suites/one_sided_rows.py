"""Sizes and rows that the suites of one density share."""

from __future__ import annotations

from collections.abc import Mapping

from workflows.benchmark_suites.suite import Metric, RowContext, RowSpec

SMALL = {
    "samples": 20_000,
    "steps": 2000,
    "groups": 64,
    "group_size": 4,
    "reference_batch": 1024,
    "averaged_steps": 200,
    "hidden": 64,
    "layers": 3,
    "levels": 128,
    "level_pool": 32,
    "measured": 2048,
    "particles": 512,
}
"""On the line and in the plane, a quick run."""

SMALL_FULL = {
    **SMALL,
    "samples": 60_000,
    "steps": 8000,
    "groups": 128,
    "reference_batch": 2048,
    "averaged_steps": 1000,
}
"""On the line and in the plane, what a table needs."""

LARGE = {
    "samples": 60_000,
    "steps": 2000,
    "groups": 128,
    "group_size": 4,
    "reference_batch": 1024,
    "averaged_steps": 200,
    "hidden": 128,
    "layers": 3,
    "levels": 128,
    "level_pool": 16,
    "measured": 1024,
    "particles": 512,
}
"""In many dimensions, a quick run."""

LARGE_FULL = {
    **LARGE,
    "steps": 6000,
    "hidden": 256,
    "layers": 4,
    "averaged_steps": 300,
    "level_pool": 32,
    "profile_pool": 1024,
    "measured": 2048,
}
"""In many dimensions, what a table needs."""


LONGER: Mapping[str, tuple[str, float]] = {"dsm_longer": ("dsm", 1.375)}
"""Rows of another objective in more steps than the suite has, and how many times as many.

In 128 dimensions a step of ``dsm_diffclf_chained`` takes 1.5 times as long as one of ``dsm``, and a quarter of them are
those of ``dsm``.
"""


def variance_preserving_row(spec: RowSpec, context: RowContext) -> list[Metric]:
    """Return what one row measured under variance preserving noise."""
    from boltzgen_diffclf.paths import PATHS
    from workflows.benchmark_suites.one_sided import measure, train_as
    from workflows.benchmark_suites.one_sided_training import OneSidedSizes

    objective, factor = LONGER.get(spec.objective, (spec.objective, 1.0))
    sizes = OneSidedSizes(**{**context.sizes, "steps": round(factor * context.sizes["steps"])})
    return measure(train_as(objective, sizes, PATHS["vp"], spec, context), PATHS["vp"], spec.seed, sizes)
