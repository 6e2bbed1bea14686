"""What an energy says of the levels of a path: how long the way between them is, and their free energies."""

from __future__ import annotations

import math

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from boltzgen_diffclf.energy import TimeEnergy
from boltzgen_diffclf.errors import InputError, NotTrustworthyError, TrainingDivergedError
from boltzgen_diffclf.estimators.profile import chained_free_energies
from boltzgen_diffclf.noised_energy import NoisedEnergyModel
from boltzgen_diffclf.paths import accumulated_length, fisher_information
from boltzgen_diffclf.training.clean_data import CleanData
from boltzgen_diffclf.training.noised_case import Setting, noised_batch


def profile_curve(
    model: NoisedEnergyModel, data: CleanData, setting: Setting, pool: int, generator: torch.Generator
) -> None:
    """Give the model the level free energies that its energies have on ``data``, by BAR from level to level.

    Energies have constants of their own at every level, so the learned ``F`` trails behind them: this is the answer
    for the energies as they are. Every sample is evaluated at three levels, not at all, so that many can be.

    Args:
        model: whose curve is set; its levels are those of ``setting``.
        data: what the model was trained on.
        setting: path and levels.
        pool: samples a level.
        generator: a CPU stream.

    Raises:
        TrainingDivergedError: the energies are no numbers, or neighbouring levels share nothing under them.
    """
    y = _pool_of_every_level(data, setting, pool, generator)
    with torch.no_grad():
        try:
            curve = chained_free_energies(*neighbour_energies(model, y, setting.levels))
        except (InputError, NotTrustworthyError) as error:
            raise TrainingDivergedError(
                f"training diverged: its energies have no level free energies ({error}); lower the learning rate"
            ) from error
        model.curve.values.copy_(torch.as_tensor(curve))


def neighbour_energies(
    model: NoisedEnergyModel, y: Float[Tensor, "levels pool dim"], levels: Float[Tensor, " levels"]
) -> tuple[Float[np.ndarray, "levels pool"], Float[np.ndarray, "gaps pool"], Float[np.ndarray, "gaps pool"]]:
    """Return what :func:`chained_free_energies` takes, ``U`` [kT] of the samples of each level there and next to it."""

    def at(samples: Tensor, t: Tensor) -> Float[np.ndarray, "rows pool"]:
        rows, times = samples.flatten(0, 1).split(4096), t.repeat_interleave(samples.shape[1]).split(4096)
        energies = torch.cat([model.energy(*part) for part in zip(rows, times, strict=True)])
        return energies.unflatten(0, samples.shape[:2]).double().cpu().numpy()

    with torch.no_grad():
        return at(y, levels), at(y[:-1], levels[1:]), at(y[1:], levels[:-1])


def gaussian_length(model: NoisedEnergyModel, levels: Float[Tensor, " levels"]) -> Float[Tensor, " levels"]:
    r"""Return the thermodynamic length up to each level as the width of the data's modes has it, on the CPU.

    The noised modes of ``dim`` degrees of freedom have the variance ``c = alpha^2 rho^2 + sigma^2`` each, and the
    length element of a Gaussian is ``sqrt(dim / 2) |d log c|``; under a fixed spread of all the data that is
    ``sqrt(2 dim)`` times the change of :meth:`NoisedEnergyModel.information`.
    """
    times = levels.to(model.resolution.device, torch.float64)
    return -math.sqrt(2 * len(model.data.variance)) * model.information(times).cpu()


def energy_length(
    energy: TimeEnergy, data: CleanData, setting: Setting, pool: int, generator: torch.Generator
) -> Float[Tensor, " levels"]:
    """Return the thermodynamic length from the first level to each, as an energy has it on ``data``.

    Args:
        energy: trained, or exact.
        data: clean samples.
        setting: path and levels; between them the length grows by the trapezoidal rule.
        pool: samples a level.
        generator: a CPU stream.
    """
    return accumulated_length(setting.levels, energy_information(energy, data, setting, pool, generator))


def energy_information(
    energy: TimeEnergy, data: CleanData, setting: Setting, pool: int, generator: torch.Generator
) -> Float[Tensor, " levels"]:
    """Return the Fisher information ``Var[d/dt log p_t]`` at each level; arguments as of :func:`energy_length`."""
    y = _pool_of_every_level(data, setting, pool, generator)
    with torch.no_grad():
        time_scores = [-energy.time_derivative(y_t, t.expand(pool)) for y_t, t in zip(y, setting.levels, strict=True)]
    return fisher_information(torch.stack(time_scores))


def _pool_of_every_level(
    data: CleanData, setting: Setting, pool: int, generator: torch.Generator
) -> Float[Tensor, "levels pool dim"]:
    n_levels = len(setting.levels)
    level = torch.arange(n_levels)[:, None].expand(-1, pool).reshape(-1, 1)
    clean = data.draw(n_levels * pool, generator)
    return noised_batch(clean, level, setting, generator).y[:, 0].unflatten(0, (n_levels, pool))
