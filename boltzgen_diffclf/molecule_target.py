"""A learned energy of a molecule at one noise level, as a target on positions: dynamics can run on it."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from boltzgen_diffclf.compilation import fuse
from boltzgen_diffclf.coordinates import CentredCoordinates
from boltzgen_diffclf.noised_energy import NoisedEnergyModel
from boltzgen_diffclf.target import Target


class LearnedMoleculeTarget(Target):
    r"""``u(x) = U(y(x), t) - log |dy/dx|`` [kT] of positions ``(batch, atoms, 3)`` in nm.

    With ``F(t)`` its density on positions without a centroid is normalised: the log-Jacobian is that of the unit of the
    coordinates. Nothing holds the centroid.

    Args:
        model: of centred coordinates, in evaluation state; its precision is that of the target.
        coordinates: from positions to those.
        t: the level, at which ``exp(-U)`` is the density of data with that much noise.
    """

    recordable = True

    def __init__(self, model: NoisedEnergyModel, coordinates: CentredCoordinates, t: float) -> None:
        levels = model.curve.levels
        self.model, self.coordinates, self.t = model, coordinates, levels.new_tensor([t])
        self.event_shape, self.dimension = (coordinates.n_atoms, 3), coordinates.dimension
        self.dtype, self.device = levels.dtype, levels.device
        self._evaluate = fuse(self._energy_and_force, self.device)

    def energy(self, x: Float[Tensor, "batch atoms 3"]) -> Float[Tensor, " batch"]:
        """See :meth:`Target.energy`."""
        return self.model.energy(self.coordinates.from_cartesian(x), self.t.expand(len(x))) + self._log_volume()

    def energy_and_force(
        self, x: Float[Tensor, "batch atoms 3"]
    ) -> tuple[Float[Tensor, " batch"], Float[Tensor, "batch atoms 3"]]:
        """See :meth:`Target.energy_and_force`."""
        with torch.no_grad():
            return self._evaluate(x.detach())

    def _energy_and_force(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = self.coordinates.from_cartesian(x)
        energy, gradient = self.model.energy_and_gradient(y, self.t.expand(len(x)))
        # y = B^T x / length, so that a slope in y is carried back by B / length.
        return energy + self._log_volume(), -self.coordinates.positions(gradient) / self.coordinates.length_nm.square()

    def _log_volume(self) -> Tensor:
        return self.dimension * self.coordinates.length_nm.log()
