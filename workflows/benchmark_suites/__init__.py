"""The benchmark suites by name: a new one is a file here and a line below."""

from __future__ import annotations

from collections.abc import Mapping

from workflows.benchmark_suites.classical import CLASSICAL
from workflows.benchmark_suites.classifier import CLASSIFIER
from workflows.benchmark_suites.composition import COMPOSITION
from workflows.benchmark_suites.crossed import CROSSED
from workflows.benchmark_suites.levels import LEVELS
from workflows.benchmark_suites.mixture_1d import MIXTURE_1D
from workflows.benchmark_suites.mog40 import MOG40
from workflows.benchmark_suites.paths import PATHS_SUITE
from workflows.benchmark_suites.ratios import RATIOS
from workflows.benchmark_suites.rings import RINGS
from workflows.benchmark_suites.suite import Suite
from workflows.benchmark_suites.two_modes import TWO_MODES

SUITES: Mapping[str, Suite] = {
    suite.name: suite
    for suite in (
        CLASSICAL,
        CLASSIFIER,
        COMPOSITION,
        CROSSED,
        LEVELS,
        MIXTURE_1D,
        MOG40,
        PATHS_SUITE,
        RATIOS,
        RINGS,
        TWO_MODES,
    )
}

__all__ = ["SUITES"]
