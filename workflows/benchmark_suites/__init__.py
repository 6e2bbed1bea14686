"""The benchmark suites by name: a new one is a file here and a line below."""

from __future__ import annotations

from collections.abc import Mapping

from workflows.benchmark_suites.crossed import CROSSED
from workflows.benchmark_suites.ratios import RATIOS
from workflows.benchmark_suites.suite import Suite

SUITES: Mapping[str, Suite] = {suite.name: suite for suite in (CROSSED, RATIOS)}

__all__ = ["SUITES"]
