"""From a trained model and samples of the path to derivatives, energy matrices and works, with what they cost."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from boltzgen_diffclf.energy import EnergyModel
from boltzgen_diffclf.training import PathData

_CHUNK = 8192


@dataclass(frozen=True)
class Cost:
    """What an estimate cost.

    Attributes:
        energy_evaluations: configurations evaluated with a true energy.
        network_evaluations: network energies and gradients evaluated.
        seconds: of wall time.
    """

    energy_evaluations: int = 0
    network_evaluations: int = 0
    seconds: float = 0.0

    def __add__(self, other: Cost) -> Cost:
        """Return the sum of both."""
        return Cost(
            self.energy_evaluations + other.energy_evaluations,
            self.network_evaluations + other.network_evaluations,
            self.seconds + other.seconds,
        )


def time_derivatives(model: EnergyModel, data: PathData) -> Float[Tensor, "levels pool"]:
    """Return ``dU_theta/dt`` [kT] of every configuration at its own level, in float64.

    Their mean at each level is ``dF/dt`` where the model's energies are those of the path:
    ``F(1) - F(0) = int_0^1 E_(p_t)[dU/dt] dt``.

    References:
        Kirkwood 1935, J. Chem. Phys. 3, 300; Mate, Fleuret & Bereau 2024 (neural TI).
    """
    rows = []
    # Without this the parameters' graph of every configuration is kept: gigabytes for a message-passing network.
    with torch.no_grad():
        for t, y, ends in zip(data.levels, data.y, data.end_energy, strict=True):
            parts = zip(y.split(_CHUNK), ends.split(_CHUNK), strict=True)
            rows.append(torch.cat([model.time_derivative(part, t.repeat(len(part)), end) for part, end in parts]))
    return torch.stack(rows)


def level_energies(model: EnergyModel, data: PathData, levels: Float[Tensor, " at"]) -> Float[Tensor, "levels pool at"]:
    """Return ``U_theta(y_i, t_j)`` [kT] of every configuration at some levels, of all: the MBAR matrix of the path."""
    n_levels, pool, dim = data.y.shape
    y, ends = data.y.reshape(-1, dim), data.end_energy.reshape(-1, 2)
    columns = []
    with torch.no_grad():
        for t in levels:
            parts = zip(y.split(_CHUNK), ends.split(_CHUNK), strict=True)
            columns.append(torch.cat([model.energy(part, t.expand(len(part)), end) for part, end in parts]))
    return torch.stack(columns, dim=-1).reshape(n_levels, pool, len(levels))


def cast(data: PathData, dtype: torch.dtype) -> PathData:
    """Return the same pool with tensors of ``dtype``; expanded tensors stay without memory."""
    fields: dict[str, Any] = {
        field.name: value.to(dtype)
        for field in dataclasses.fields(data)
        if isinstance(value := getattr(data, field.name), Tensor) and value.is_floating_point()
    }
    return dataclasses.replace(data, **fields)
