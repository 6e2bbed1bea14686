"""The density that an energy on the line has, by quadrature."""

from __future__ import annotations

import torch

from boltzgen_diffclf.paths import VariancePreserving
from workflows.benchmark_suites.learned_density import LearnedDensity
from workflows.benchmark_suites.one_sided_training import Trained
from workflows.benchmark_suites.suite import Metric

PATH = VariancePreserving(t_min=1e-2, t_max=1 - 1e-4)
"""It begins where the noise is a tenth of the narrower mode: a network of an earlier level would have to resolve its
energy to a thousandth of a kT, for a density that is the same to the eye."""

_QUADRATURE = 4001
_SHOWN = 20
"""Every how many points of the quadrature the densities are kept."""


def density_metrics(trained: Trained) -> list[Metric]:
    """Return the left mode's weight in ``exp(-U)``, and the normalised density as the curve ``density@x``."""
    learned, target = LearnedDensity(trained, PATH), trained.target
    low, high = target.means[0] - 8 * target.sigmas[0], target.means[-1] + 8 * target.sigmas[-1]
    x = torch.linspace(float(low), float(high), _QUADRATURE, dtype=torch.float64)
    with torch.no_grad():
        log_ours = -learned.energy(x[:, None])
    ours = (log_ours - log_ours.logsumexp(0)).exp() / (x[1] - x[0])
    truth = learned.exact.log_density(x[:, None]).exp()
    left = x < target.means.mean()
    weight, true_weight = (float(torch.trapezoid(p * left, x)) for p in (ours, truth))
    return [
        Metric("left_weight", weight, None, true_weight),
        Metric("left_weight_relative_error", abs(weight / true_weight - 1), None, 0.0),
        *(
            Metric(f"density@{float(x[k]):.3f}", float(ours[k]), None, float(truth[k]))
            for k in range(0, _QUADRATURE, _SHOWN)
        ),
    ]
