"""The classifier of neighbouring levels with frozen energies, the true end states as its first and last class."""

from __future__ import annotations

import math

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from boltzgen_diffclf.energy import EnergyModel
from boltzgen_diffclf.estimators import Estimate, bar
from boltzgen_diffclf.estimators.bar import bar_influence
from boltzgen_diffclf.estimators.groups import correlated_size, crossed_stderr
from boltzgen_diffclf.target import Target
from boltzgen_diffclf.training import PathData


def chained_end_classes(model: EnergyModel, data: PathData, target_a: Target, target_b: Target) -> Estimate:
    """Return F_B - F_A [kT] as the sum of what binary classifiers of neighbouring levels say of their F.

    The binary classification loss with frozen energies is minimal at Bennett's acceptance ratio. Two energies a
    configuration and level, so that hundreds of levels cost what MBAR costs for a few. What the model says at the
    ends does not enter. It is consistent where the configurations of the levels between follow the model there.

    Args:
        model: trained, float64; anchored or not.
        data: configurations that the model has not seen; the first and last level hold samples of the states.
        target_a: the true energy of the first level.
        target_b: of the last.

    Returns:
        ``stderr`` is that of the configurations at fixed model, those of one origin taken together. ``overlap`` is the
        smallest of the neighbours'.

    References:
        Bennett 1976, J. Comput. Phys. 22:245; OuYang et al. 2026, arXiv:2601.21025 (binary loss).
    """
    last = len(data.levels) - 1

    def energies(level: int, at: int) -> Float[Tensor, " pool"]:
        """Return the energies of one level at the configurations of another."""
        y = data.y[at]
        if level in (0, last):
            return (target_a if level == 0 else target_b).energy(y)
        with torch.no_grad():
            return model.energy(y, data.levels[level].expand(len(y)), data.end_energy[at])

    steps, influence = [], np.zeros(data.y.shape[:2])
    own = energies(0, 0)
    for level in range(last):
        own_next = energies(level + 1, level + 1)
        forward = _numpy(energies(level + 1, level) - own)
        reverse = _numpy(energies(level, level + 1) - own_next)
        own = own_next
        steps.append(bar(forward, reverse))
        of_forward, of_reverse = bar_influence(forward, reverse, steps[-1].value)
        influence[level] += of_forward
        influence[level + 1] += of_reverse
    is_known = all(math.isfinite(step.stderr) for step in steps)
    stderr = crossed_stderr(influence.reshape(-1), data.origin.reshape(-1, 2).cpu().numpy()) if is_known else math.inf
    return Estimate(
        value=sum(step.value for step in steps),
        stderr=stderr,
        overlap=min(step.overlap for step in steps if step.overlap is not None),
        n_effective=correlated_size(
            min(step.n_effective for step in steps), float(np.sqrt(np.square(influence).sum())), stderr
        ),
        method="chained classes with exact ends",
    )


def _numpy(works: Tensor) -> Float[np.ndarray, " pool"]:
    return works.double().cpu().numpy()
