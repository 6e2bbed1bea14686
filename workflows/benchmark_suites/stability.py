"""How steadily a training went."""

from __future__ import annotations

import numpy as np

from boltzgen_diffclf.training.loop import History
from workflows.benchmark_suites.suite import Metric

DIVERGED = Metric("diverged", 1.0, None, 0.0)
"""Of a training that left the finite numbers, which has no other metrics."""

_GRADIENT_NORM = "gradient_norm."


def stability_metrics(history: History) -> list[Metric]:
    """Return the median gradient norm of every loss, and how many times larger the largest was.

    The first record is left out: the first steps of every training are steep.
    """
    metrics = [Metric("diverged", 0.0, None, 0.0)]
    records = history[1:] or history
    for name in (name for name in records[0] if name.startswith(_GRADIENT_NORM)):
        norms = np.array([record[name] for record in records])
        median, loss = float(np.median(norms)), name.removeprefix(_GRADIENT_NORM)
        metrics += [Metric(f"gradient_norm.{loss}", median), Metric(f"gradient_burst.{loss}", norms.max() / median)]
    return metrics
