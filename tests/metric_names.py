"""Looking up what a benchmark row measured."""

from __future__ import annotations

from collections.abc import Sequence

from workflows.benchmark_suites.suite import Metric


def by_name(metrics: Sequence[Metric]) -> dict[str, Metric]:
    """Return the metrics by their names, which must differ."""
    found = {metric.name: metric for metric in metrics}
    assert len(found) == len(metrics)
    return found
