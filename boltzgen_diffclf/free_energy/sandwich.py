r"""The normaliser of a learned energy between two bounds, and with it held-out log-likelihoods.

Annealed importance sampling estimates a ratio of normalisers without bias, hence its logarithm too low on average.
From a base to the model that bounds ``log Z`` from below, from the model to the base from above.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from boltzgen_diffclf.estimators import exponential_averaging
from boltzgen_diffclf.estimators.estimate import Measurement
from boltzgen_diffclf.free_energy.annealed import AnnealedWorks, AnnealingSettings, annealed_works
from boltzgen_diffclf.free_energy.step_sizes import KernelFamily
from boltzgen_diffclf.target import Ladder


@dataclass(frozen=True, eq=False)
class Sandwich:
    """Stochastic bounds of ``log Z`` of a target.

    Attributes:
        lower: below ``log Z`` on average; above it by b with a probability of ``exp(-b)`` at the most.
        upper: above ``log Z`` on average, and below by b as rarely, if the target's samples are its own.
        works: how the passes went.
    """

    lower: Measurement
    upper: Measurement
    works: AnnealedWorks


def sandwich_log_normaliser(
    ladder: Ladder,
    base_log_normaliser: float,
    base_samples: Float[Tensor, "base_samples *event"],
    target_samples: Float[Tensor, "target_samples *event"],
    family: KernelFamily,
    settings: AnnealingSettings,
    generator: torch.Generator,
) -> Sandwich:
    r"""Return bounds of ``log Z = log int exp(-u)`` of a ladder's last level by annealing both ways along it.

    Args:
        ladder: from a base whose normaliser is known to the unnormalised target; for a target alone a
            :class:`~boltzgen_diffclf.target.LinearLadder` from a normal that covers it, its lambdas dense near zero.
        base_log_normaliser: ``log Z`` of the first level.
        base_samples: independent samples of the first level.
        target_samples: independent samples of ``exp(-u)`` of the last level itself, not of the data: the upper
            bound is one only for these. The end points of long exact chains, or exact samples of an analytic target.
        family: the moves; their step sizes come from a pilot run.
        settings: sizes; without resampling, so that the paths are independent.
        generator: see :func:`~boltzgen_diffclf.free_energy.annealed.annealed_works`.

    Raises:
        ValueError: settings with resampling, or with other levels than the ladder's.

    References:
        Neal 2001, Stat. Comput. 11:125; Grosse, Ghahramani & Adams 2015, arXiv:1511.02543 (both directions).
    """
    if settings.resample_below is not None:
        raise ValueError(f"resampled paths have no independent weights: resample_below is {settings.resample_below}")
    sizes = [len(base_samples), len(target_samples)]
    groups = torch.arange(sum(sizes), device=base_samples.device).split(sizes)
    works = annealed_works(ladder, base_samples, groups[0], target_samples, groups[1], family, settings, generator)
    forward = exponential_averaging(works.forward, direction="forward", groups=works.groups_forward)
    reverse = exponential_averaging(works.reverse, direction="reverse", groups=works.groups_reverse)
    return Sandwich(
        lower=Measurement(base_log_normaliser - forward.value, forward.stderr),
        upper=Measurement(base_log_normaliser - reverse.value, reverse.stderr),
        works=works,
    )


def held_out_log_likelihood(
    energies: Float[np.ndarray, " samples"], sandwich: Sandwich
) -> tuple[Measurement, Measurement]:
    """Return a lower and an upper bound of the mean log-likelihood [nats] of held-out samples.

    Args:
        energies: ``u`` [kT] of the sandwiched target at independent held-out samples.
        sandwich: of that target. The lower bound of ``log Z`` alone gives the upper, optimistic one here.
    """
    mean, variance = -float(energies.mean()), float(energies.var(ddof=1)) / len(energies)
    low, high = (
        Measurement(mean - bound.value, float(np.sqrt(variance + bound.stderr**2)))
        for bound in (sandwich.upper, sandwich.lower)
    )
    return low, high
