"""The benchmark suites by name: a new one is a file here and a line below."""

from __future__ import annotations

from collections.abc import Mapping

from workflows.benchmark_suites.crossed import CROSSED
from workflows.benchmark_suites.levels import LEVELS
from workflows.benchmark_suites.mixture_1d import MIXTURE_1D
from workflows.benchmark_suites.mog40 import MOG40
from workflows.benchmark_suites.paths import PATHS_SUITE
from workflows.benchmark_suites.ratios import RATIOS
from workflows.benchmark_suites.suite import Suite

SUITES: Mapping[str, Suite] = {
    suite.name: suite
    for suite in (
        CROSSED,
        LEVELS,
        MIXTURE_1D,
        MOG40,
        PATHS_SUITE,
        RATIOS,
    )
}

__all__ = ["SUITES"]
