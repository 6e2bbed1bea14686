"""From the metrics of each seed to those of the row: means, and errors that the scatter shows."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import replace

from workflows.benchmark_suites.suite import COSTS, Metric


def over_seeds(seeds: Sequence[Sequence[Metric]]) -> list[Metric]:
    """Return each metric that all seeds have, averaged.

    The error is the scatter of the seeds with Student's factor, and never less than what the seeds say of
    themselves: few that agree by chance do not undercut their own sampling errors. One seed keeps its own error.
    """
    named = [{metric.name: metric for metric in metrics} for metrics in seeds]
    shared = [name for name in named[0] if all(name in metrics for metrics in named)]
    return [_combined([metrics[name] for metrics in named]) for name in shared]


def widened_by(metrics: Sequence[Metric], name: str, other: str) -> list[Metric]:
    """Return the metrics with the distance of ``name`` to ``other`` in the errors of both: the misfit of the model."""
    named = {metric.name: metric for metric in metrics}
    if not (name in named and other in named):
        return list(metrics)
    misfit = named[name].value - named[other].value
    return [
        replace(metric, stderr=math.hypot(metric.stderr or 0.0, misfit)) if metric.name in (name, other) else metric
        for metric in metrics
    ]


def _combined(metrics: Sequence[Metric]) -> Metric:
    from boltzgen_diffclf.estimators.replicates import student_factor

    n, mean = len(metrics), statistics.fmean(metric.value for metric in metrics)
    # The best that is possible on a seed's own samples differs from seed to seed.
    limits = [metric.limit for metric in metrics if metric.limit is not None]
    first = replace(metrics[0], limit=statistics.fmean(limits) if limits else None)
    if n == 1 or first.name in COSTS:
        return replace(first, value=mean)
    variance = sum((metric.value - mean) ** 2 for metric in metrics) / (n - 1)
    scatter = math.sqrt(variance / n) * student_factor(n)
    own = math.sqrt(sum((metric.stderr or 0.0) ** 2 for metric in metrics)) / n
    return replace(first, value=mean, stderr=max(scatter, own))
