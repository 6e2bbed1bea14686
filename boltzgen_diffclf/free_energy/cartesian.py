"""Free energy from a model of positions whose ends were learned: corrected at both ends, or the ends as classes."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from boltzgen_diffclf.energy import EnergyModel
from boltzgen_diffclf.estimators import Estimate, free_energy_from_weights
from boltzgen_diffclf.estimators.groups import crossed_stderr
from boltzgen_diffclf.estimators.reweighting import normalised_weights
from boltzgen_diffclf.free_energy.cartesian_space import CartesianSpace
from boltzgen_diffclf.free_energy.evaluation import Cost, level_energies
from boltzgen_diffclf.free_energy.learned import integrate, mbar_over_levels, strided
from boltzgen_diffclf.training import PathData


@dataclass(frozen=True)
class EndCorrection:
    """From the true energy of an end state to what the model has there, on exact samples of the state.

    Attributes:
        shift: ``F_model - F_true`` [kT], by exponential averaging.
        stderr: its standard error [kT].
        n_effective: samples that carry the average, of those there are; few means that it cannot be trusted.
        spread: standard deviation [kT] of ``U_model - u_true``: how far the learned end energy is off.
        influence: change of the shift by each sample [kT].
    """

    shift: float
    stderr: float
    n_effective: float
    spread: float
    influence: Float[np.ndarray, " pool"]


@dataclass(frozen=True, eq=False)
class CartesianAnswers:
    """What one trained model of positions says about ``F_B - F_A``.

    Attributes:
        integral: neural thermodynamic integration plus the corrections at both ends.
        exact_ends: MBAR over the levels, the true energies in the place of the two end levels.
        corrections: at A and at B.
        overlap: matrix of ``exact_ends``.
        cost: true energies, network energies and seconds of all of it.
    """

    integral: Estimate
    exact_ends: Estimate
    corrections: tuple[EndCorrection, EndCorrection]
    overlap: Float[np.ndarray, "levels levels"]
    cost: Cost


def answers(model: EnergyModel, data: PathData, space: CartesianSpace, stride: int) -> CartesianAnswers:
    """Return both estimates of a trained model on configurations that it has not seen.

    Args:
        model: anchored or not, float64.
        data: held-out configurations of the path; level 0 and the last hold exact samples of the states.
        space: for the true energies.
        stride: every how many levels enter MBAR; the ends are kept.
    """
    begun = time.monotonic()
    kept = data.at_levels(strided(len(data.levels), stride))
    n_kept, pool, dim = kept.y.shape
    true = space.true_energies(kept.y.reshape(-1, dim)).reshape(n_kept, pool, 2)
    corrections = end_correction(model, data, 0, true[0, :, 0]), end_correction(model, data, -1, true[-1, :, 1])
    # What the model says at the ends does not enter: its end energies may be anything.
    energies = torch.cat([true[..., :1], level_energies(model, kept, kept.levels[1:-1]), true[..., 1:]], dim=-1)
    exact_ends, overlap = mbar_over_levels(energies, kept.origin)
    evaluations = data.y[..., 0].numel() + n_kept * (n_kept - 2) * pool
    cost = Cost(2 * n_kept * pool, evaluations, time.monotonic() - begun)
    return CartesianAnswers(corrected_integral(model, data, corrections), exact_ends, corrections, overlap, cost)


def end_correction(model: EnergyModel, data: PathData, level: int, true: Float[Tensor, " pool"]) -> EndCorrection:
    """Return the correction at an end of the path.

    Args:
        model: see :func:`answers`.
        data: see there.
        level: 0 or -1.
        true: energies [kT] of the state's own exact samples.

    References:
        Zwanzig 1954, J. Chem. Phys. 22, 1420.
    """
    y, t = data.y[level], data.levels[level]
    with torch.no_grad():
        learned = model.energy(y, t.expand(len(y)), data.end_energy[level])
    difference = (learned - true).double().cpu().numpy()
    estimate = free_energy_from_weights(-difference, data.origin[level, :, level].cpu().numpy())
    influence = 1 / len(difference) - normalised_weights(-difference)
    spread = float(difference.std(ddof=1))
    return EndCorrection(estimate.value, estimate.stderr, estimate.n_effective, spread, influence)


def corrected_integral(
    model: EnergyModel, data: PathData, corrections: tuple[EndCorrection, EndCorrection]
) -> Estimate:
    """Return thermodynamic integration through the model, from true energy to true energy.

    ``F_B - F_A = (F_model(0) - F_A) + (F_model(1) - F_model(0)) - (F_model(1) - F_B)``.
    """
    integral, (start, end) = integrate(model, data), corrections
    influence = np.stack(integral.influence)
    influence[0] += start.influence
    influence[-1] -= end.influence
    return Estimate(
        integral.estimate.value + start.shift - end.shift,
        crossed_stderr(influence.reshape(-1), data.origin.reshape(-1, 2).cpu().numpy()),
        None,
        min(start.n_effective, end.n_effective),
        "TI with end corrections",
    )
