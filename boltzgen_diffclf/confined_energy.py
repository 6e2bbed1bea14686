"""The anchored energy of a path between two parts of one state: walls that harden towards either end."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from boltzgen_diffclf.coordinates import Arc
from boltzgen_diffclf.coordinates.arc import EDGE
from boltzgen_diffclf.energy import AnchoredEnergyModel, Ends


class ConfinedEnergyModel(AnchoredEnergyModel):
    r"""``U = s_t(u) + w(t) net + (1 - t) d_A^2 / (2 s(t)^2) + t d_B^2 / (2 s(1 - t)^2)``.

    ``d_A`` is how far one periodic coordinate is from the arc of A, ``d_B`` from that of B, and
    ``s(t)^2 = noise^2 t + REACH^2 t^2`` is about how far the path has left A at t: the noise of the interpolant, and
    the way it has gone. At t = 0 the first wall is the indicator of A and the second has no weight, at t = 1 the other
    way round: the ends are exact, whatever the network says, and between them no energy is infinite. Without walls
    every level near an end would claim the other basin too, which ``u`` calls likely and the path has not reached.

    Args:
        net: see :class:`AnchoredEnergyModel`.
        levels: see there.
        ceilings: see there.
        column: of the coordinate in the path's configurations.
        arcs: of A and B [rad].
        noise: scale of the interpolant's noise in that coordinate [rad].
    """

    REACH = 1.0
    """Angle [rad] that the path has gone at t = 1 if it went straight on."""

    def __init__(
        self,
        net: nn.Module,
        levels: Float[Tensor, " levels"],
        ceilings: tuple[float, float] | None,
        column: int,
        arcs: tuple[Arc, Arc],
        noise: float,
    ) -> None:
        super().__init__(net, levels, ceilings)
        self.column, self.arcs, self.noise = column, arcs, noise

    def walls(self, angle: Float[Tensor, " batch"], t: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        """Return the energy of both walls [kT]; infinite at an end outside its arc, and there alone."""
        return (1 - t) * self._wall(self.arcs[0], angle, t) + t * self._wall(self.arcs[1], angle, 1 - t)

    def energy(
        self, y: Float[Tensor, "batch dim"], t: Float[Tensor, " batch"], end_energy: Float[Tensor, "batch 2"]
    ) -> Float[Tensor, " batch"]:
        """See :meth:`EnergyModel.energy`; ``end_energy`` holds the energy of the whole state, twice."""
        return super().energy(y, t, end_energy) + self.walls(y[:, self.column], t)

    def energy_and_gradient(
        self, y: Float[Tensor, "batch dim"], t: Float[Tensor, " batch"], ends: Ends
    ) -> tuple[Float[Tensor, " batch"], Float[Tensor, "batch dim"]]:
        """See :meth:`EnergyModel.energy_and_gradient`."""
        energy, gradient = super().energy_and_gradient(y, t, ends)
        angle = y[:, self.column]
        walls, pullback = torch.func.vjp(lambda turned: self.walls(turned, t), angle)[:2]
        (slope,) = pullback(torch.ones_like(walls))
        here = torch.tensor([self.column], device=y.device)
        return energy + walls, gradient.index_add(1, here, slope[:, None])

    def _wall(self, arc: Arc, angle: Tensor, gone: Tensor) -> Tensor:
        away = arc.distance(angle)
        at_end = gone <= 0
        width = torch.where(at_end, 1.0, self.noise**2 * gone + (self.REACH * gone) ** 2)
        outside = torch.where(arc.contains(angle, EDGE), 0.0, torch.inf)
        return torch.where(at_end, outside.to(away), 0.5 * away.square() / width)
