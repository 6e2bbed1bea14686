"""The density that an energy has learned, as a target, beside the exact one."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from boltzgen_diffclf.data_energy import DataEnergyModel
from boltzgen_diffclf.paths import DiffusionPath, VariancePreserving
from boltzgen_diffclf.target import Target
from systems.analytic import GaussianMixture, noised
from workflows.benchmark_suites.one_sided import measure, train_row
from workflows.benchmark_suites.one_sided_training import OneSidedSizes, Trained, one_sided_target
from workflows.benchmark_suites.suite import Metric, RowContext, RowSpec


class LearnedDensity(Target):
    """``U(x)`` [kT] of the data, or of the data under the least noise.

    Args:
        trained: the energy.
        path: of its noise; an energy of the data alone has no use for it.

    Attributes:
        exact: the density that ``exp(-U) / Z`` should be.
    """

    def __init__(self, trained: Trained, path: DiffusionPath) -> None:
        self.model, self.t_min = trained.model, path.t_min
        is_noiseless = isinstance(trained.model, DataEnergyModel)
        self.exact = trained.target if is_noiseless else noised(trained.target, path, path.t_min)
        self.event_shape, self.dimension = self.exact.event_shape, self.exact.dimension

    @property
    def log_normaliser(self) -> float:
        """``log Z`` as it was learned, NaN where it was not."""
        if isinstance(self.model, DataEnergyModel):
            return float(self.model.log_normaliser)
        return -float(self.model.free_energy(torch.tensor(self.t_min, dtype=self.dtype)))

    def energy(self, x: Float[Tensor, "batch dim"]) -> Float[Tensor, " batch"]:
        """See :meth:`Target.energy`."""
        if isinstance(self.model, DataEnergyModel):
            return self.model.energy(x)
        return self.model.energy(x, x.new_full((len(x),), self.t_min))


def late_path(target: GaussianMixture) -> VariancePreserving:
    """Return variance preserving noise that begins at a tenth of the width of the narrowest mode.

    A network of an earlier level would have to resolve its energy to a thousandth of a kT, for a density that is the
    same to the eye.
    """
    sigma = 0.1 * target.variances.min().sqrt()[None]
    log_snr = 2 * (0.5 * torch.log1p(-sigma.square()) - sigma.log())
    t_min = VariancePreserving().time_at_log_snr(log_snr).item()
    # Two digits, for whoever wants to repeat it.
    return VariancePreserving(t_min=float(f"{t_min:.1e}"), t_max=1 - 1e-4)


def learned_row(spec: RowSpec, context: RowContext) -> tuple[LearnedDensity, list[Metric]]:
    """Train the energy of one row from data on, or from a late path on, and return it with all that is measured."""
    path = late_path(one_sided_target(spec.target, spec.dim))
    trained = train_row(path, spec, context)
    return LearnedDensity(trained, path), measure(trained, path, spec.seed, OneSidedSizes(**context.sizes))
