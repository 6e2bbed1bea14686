r"""The energy ``U_theta(y, t)`` between two data sets, preconditioned by the Gaussians of both.

For ``y = (1 - t) x_0 + t x_1 + gamma z`` of independent ends with means ``m_0, m_1`` and covariances ``S_0, S_1``, a
Gaussian at both ends is one at every t, of mean ``m = (1 - t) m_0 + t m_1`` and covariance
``C = (1 - t)^2 S_0 + t^2 S_1 + gamma^2``. With ``C = L L^T`` and ``h = L^{-1} (y - m)``,

.. math:: U(y, t) = \tfrac12 |h|^2 + \log \det L + \tfrac d2 \log 2 \pi + s(t)\, u(h, c), \qquad
          s = \sqrt{v / (\gamma^2 + \rho^2)} .

*Output.* The score's target is ``-z / gamma``, and under Gaussian data ``z`` has the covariance ``1 - gamma^2 C^{-1}``
given ``y``. So what the network is to add to the slope in ``h`` has the covariance ``(L^T L - gamma^2) / gamma^2``. Its
mean over coordinates is ``s^2``, as ``L^T L`` has the trace of ``C``, with ``v`` the mean variance of
``(1 - t)^2 S_0 + t^2 S_1``; where the noise differs among coordinates, ``gamma^2`` in ``s`` is its mean. This is the
factor of :mod:`~boltzgen_diffclf.noised_energy`, whose ``alpha^2 v / sigma^2`` is ``v / gamma^2`` here. It stops
growing where the noise falls below the width ``rho``, ``rho^2 = (1 - t)^2 rho_0^2 + t^2 rho_1^2``, under which no end
has structure.

*Input.* Towards the ends ``s`` grows by decades within a few levels, and the network must see it: its time ``c`` is the
mean of ``t`` and of a time in which ``log s`` is straight on either side of its least value, 0 at A and 1 at B.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from boltzgen_diffclf.data_gaussian import data_resolution
from boltzgen_diffclf.energy import Ends, EnergyModel
from boltzgen_diffclf.errors import InputError
from boltzgen_diffclf.paths import StochasticInterpolant

_GRID = 4097
"""Times on which the least factor of the network is looked for."""


class EndMoments(NamedTuple):
    """What is known of the data at one end.

    Attributes:
        mean: [unit of y].
        covariance: its square.
        resolution: width below which the data has no structure [unit of y].
    """

    mean: Float[Tensor, " dim"]
    covariance: Float[Tensor, "dim dim"]
    resolution: float


def end_moments(x: Float[Tensor, "samples dim"], generator: torch.Generator) -> EndMoments:
    """Return the moments of samples; the generator chooses the probes of their resolution.

    Raises:
        InputError: fewer samples than make a covariance.
    """
    samples, dimension = x.shape
    if samples <= dimension:
        raise InputError(f"a covariance of {dimension} coordinates needs more than {samples} samples: give more")
    covariance = torch.cov(x.T).reshape(dimension, dimension)
    return EndMoments(x.mean(0), covariance, data_resolution(x, generator))


class GaussianPathEnergyModel(EnergyModel):
    """``U = -log N(m, C) + s u``, learned everywhere: with a network that gives zero, the Gaussian of the path.

    The formulas are those at the head of the module; the true energies of the ends are not asked for.

    Args:
        net: ``(h, c) -> (batch,)`` [kT].
        levels: see :class:`EnergyModel`.
        path: its noise may differ among coordinates.
        ends: moments at t = 0 and at t = 1.
    """

    means: Tensor
    covariances: Tensor
    resolutions: Tensor
    noise_scale: Tensor
    log_factors: Tensor
    turn: Tensor

    def __init__(
        self,
        net: nn.Module,
        levels: Float[Tensor, " levels"],
        path: StochasticInterpolant,
        ends: tuple[EndMoments, EndMoments],
    ) -> None:
        super().__init__(net, levels)
        self.register_buffer("means", torch.stack([end.mean for end in ends]).to(levels))
        self.register_buffer("covariances", torch.stack([end.covariance for end in ends]).to(levels))
        self.register_buffer("resolutions", levels.new_tensor([end.resolution for end in ends]))
        self.register_buffer("noise_scale", path.noise_scale.to(levels).expand(path.dimension).clone())
        # On a grid finer than the levels, so that no time is beyond the least value by much.
        log_factors = self.net_weight(torch.linspace(0, 1, _GRID).to(levels)).log()
        self.register_buffer("log_factors", torch.stack([log_factors[0], log_factors.min(), log_factors[-1]]))
        self.register_buffer("turn", log_factors.argmin() / (_GRID - 1))

    def prior_energy(self, t: Float[Tensor, " batch"], end_energy: Float[Tensor, "batch 2"]) -> Float[Tensor, " batch"]:
        """See :meth:`EnergyModel.prior_energy`: nothing; the Gaussian stands in its place, and is of ``y``."""
        return torch.zeros_like(end_energy[:, 0])

    def net_weight(self, t: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        """Return ``s(t)``."""
        shares = self._shares(t)
        signal = shares @ self.covariances.diagonal(dim1=1, dim2=2).mean(1)
        noise = t * (1 - t) * self.noise_scale.square().mean()
        return (signal / (noise + shares @ self.resolutions.square())).sqrt()

    def net_time(self, t: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        """Return ``c(t)``, from 0 to 1."""
        first, least, last = self.log_factors
        above = (self.net_weight(t).log() - least).clamp(min=0)
        side = torch.where(t < self.turn, -above / (first - least), above / (last - least))
        return 0.5 * (t + 0.5 + 0.5 * side)

    def energy(
        self, y: Float[Tensor, "batch dim"], t: Float[Tensor, " batch"], end_energy: Float[Tensor, "batch 2"]
    ) -> Float[Tensor, " batch"]:
        """Return ``U_theta(y, t)`` [kT]; the end energies say nothing here."""
        noise = (t * (1 - t))[:, None, None] * torch.diag(self.noise_scale.square())
        covariance = torch.einsum("be,eij->bij", self._shares(t), self.covariances) + noise
        lower = torch.linalg.cholesky(covariance)
        mean = torch.lerp(self.means[0], self.means[1], t[:, None])
        white = torch.linalg.solve_triangular(lower, (y - mean)[:, :, None], upper=False)[:, :, 0]
        normal = 0.5 * white.square().sum(-1) + lower.diagonal(dim1=1, dim2=2).log().sum(-1)
        gaussian = normal + 0.5 * y.shape[1] * math.log(2 * math.pi)
        return (gaussian + self.net_weight(t) * self.net(white, self.net_time(t))).to(end_energy.dtype)

    def energy_and_gradient(
        self, y: Float[Tensor, "batch dim"], t: Float[Tensor, " batch"], ends: Ends
    ) -> tuple[Float[Tensor, " batch"], Float[Tensor, "batch dim"]]:
        """See :meth:`EnergyModel.energy_and_gradient`."""
        pulled = torch.func.vjp(lambda point: self.energy(point, t, ends.energy), y)
        energy, pullback = pulled[0], pulled[1]
        return energy, pullback(torch.ones_like(energy))[0]

    def _shares(self, t: Float[Tensor, " batch"]) -> Float[Tensor, "batch 2"]:
        return torch.stack([(1 - t).square(), t.square()], dim=1)
