r"""The energy ``U_theta(y, t)`` of data noised by a diffusion path, preconditioned by the Gaussian of the data.

For ``y = alpha x + sigma z`` and data of mean ``m`` and covariance ``Sigma = Q diag(v) Q^T``, write
``C = alpha^2 v + sigma^2`` along the principal axes ``Q`` and ``w = C^{-1/2} Q^T (y - alpha m)``. Then

.. math:: U(y, t) = \tfrac12 |w|^2 + \tfrac12 \sum_i \log 2 \pi C_i + s(t)\, u(h, c), \qquad
          h = Q w, \quad s = \alpha \sqrt{\bar v} / \sigma_\rho, \quad \sigma_\rho^2 = \sigma^2 + \alpha^2 \rho^2 .

*Input.* ``h`` has mean zero and unit covariance at every level, in the columns of ``y``; ``c`` is the log-SNR with
``sigma_rho`` in place of ``sigma``, moved linearly to [0, 1].

*Output.* By Tweedie ``E[x | y] = (y - sigma^2 grad U) / alpha = D_0 + Q d``, with the Wiener estimate
``D_0 = m + Q (alpha v / sqrt C) w`` and the network's share ``d = -(sigma^2 s / alpha) C^{-1/2} Q^T grad_h u``. For
Gaussian data ``Q^T (x - D_0)`` has the variances ``v sigma^2 / C``, so the regression target of ``-Q^T grad_h u`` has
the variances ``alpha^2 v / (sigma s)^2``. One scale multiplies a scalar network, so their mean is what can be one:
``s = alpha sqrt(mean v) / sigma``, exact for each coordinate where ``Sigma`` is a multiple of the identity. Then
``d = -sigma sqrt(mean v) C^{-1/2} Q^T grad_h u``, which divides by no ``alpha``.

*Resolution.* Noise far below the finest structure of the data changes neither ``U`` nor its slope, which no longer
grow as ``1 / sigma``; a factor that does amplifies every error of the network. With a resolution ``rho > 0``, the
width below which the data has no structure, ``s`` and ``c`` stop where the noise falls below it, and levels of less
noise share what they learn. The ``d`` above is then shrunk by ``sigma / sigma_rho``.

References:
    Karras et al. 2022, arXiv:2206.00364, for preconditioned denoisers; OuYang et al. 2026, arXiv:2601.21025.
"""

from __future__ import annotations

import math
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from boltzgen_diffclf.data_gaussian import DataGaussian
from boltzgen_diffclf.energy import FreeEnergyCurve
from boltzgen_diffclf.nets.multi_level import MultiLevelNet


@runtime_checkable
class Noising(Protocol):
    """What is asked of a diffusion path ``y_t = alpha(t) x + sigma(t) z``; t = 0 is data, t = 1 noise."""

    def alpha(self, t: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        """Return the factor of the data."""
        ...

    def sigma(self, t: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        """Return the standard deviation of the noise [unit of y]."""
        ...

    def log_snr(self, t: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        """Return ``2 log(alpha / sigma)``."""
        ...


class _Place(NamedTuple):
    """A batch in the frame of its levels: ``alpha``, ``sigma`` (batch, 1), ``sqrt C`` and ``w`` (batch, axes)."""

    alpha: Tensor
    sigma: Tensor
    spread: Tensor
    white: Tensor


class NoisedEnergyModel(nn.Module):
    """``U_theta(y, t)`` and ``F_theta(t)`` [kT] of noised data; a :class:`~boltzgen_diffclf.energy.TimeEnergy`.

    With a network that gives zero, ``exp(F - U)`` is the normalised density ``N(alpha m, alpha^2 Sigma + sigma^2)``,
    and ``F = 0``. The formulas are those at the head of the module.

    Args:
        net: ``(h, c) -> (batch,)`` [kT]. A :class:`~boltzgen_diffclf.nets.MultiLevelNet` needs an input that is
            the same at every level: it is given ``y`` standardised at the narrowest level instead of ``h``.
        path: the noising.
        data: the Gaussian of the data.
        levels: of the free-energy curve, growing; the log-SNR must be finite at both ends. ``F`` is zero at the last
            level, where the density is as good as known.
        resolution: ``rho`` [unit of y], see :func:`~boltzgen_diffclf.data_gaussian.data_resolution`; zero where the
            data may be arbitrarily fine.

    Raises:
        ValueError: if the levels do not grow, or the log-SNR is infinite or does not fall between their ends.
    """

    input_ends: Tensor
    input_scale: Tensor
    resolution: Tensor

    def __init__(
        self,
        net: nn.Module,
        path: Noising,
        data: DataGaussian,
        levels: Float[Tensor, " levels"],
        resolution: float = 0.0,
    ) -> None:
        super().__init__()
        self.register_buffer("resolution", levels.new_tensor(resolution))
        ends = path.log_snr(levels[[0, -1]])
        if not (bool((levels.diff() > 0).all()) and bool(ends.isfinite().all()) and bool(ends[0] > ends[1])):
            raise ValueError(f"levels must grow, with finite falling log-SNR at both ends; it is {ends.tolist()} there")
        self.net, self.path, self.data = net, path, data
        self.curve = FreeEnergyCurve(levels, gauge=-1)
        self.register_buffer("input_ends", self._resolved_log_snr(levels[[0, -1]]))
        # The narrower of the two end levels on each axis: what a network of all levels has to resolve.
        narrow = self._spread(path.alpha(levels[[0, -1]])[:, None], path.sigma(levels[[0, -1]])[:, None]).amin(0)
        self.register_buffer("input_scale", narrow)

    def energy(self, y: Float[Tensor, "batch dim"], t: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        """Return ``U(y, t)`` [kT], the normaliser of the Gaussian included."""
        place = self._place(y, t)
        return self._gaussian(place) + self.net_weight(t) * self.net(self._net_input(y, place), self.net_time(t))

    def gradient(self, y: Float[Tensor, "batch dim"], t: Float[Tensor, " batch"]) -> Float[Tensor, "batch dim"]:
        """Return ``dU/dy`` [kT per unit of y], differentiable in the parameters."""
        return self.energy_and_gradient(y, t)[1]

    def energy_and_gradient(
        self, y: Float[Tensor, "batch dim"], t: Float[Tensor, " batch"]
    ) -> tuple[Float[Tensor, " batch"], Float[Tensor, "batch dim"]]:
        """Return ``U(y, t)`` [kT] and ``dU/dy`` [kT per unit of y] from one pass through the network."""
        place, weight = self._place(y, t), self.net_weight(t)
        value, slope = self._net_value_and_slope(y, t, place)
        gradient = self.data.back(place.white / place.spread + weight[:, None] * slope)
        return self._gaussian(place) + weight * value, gradient

    def score(self, y: Float[Tensor, "batch dim"], t: Float[Tensor, " batch"]) -> Float[Tensor, "batch dim"]:
        """Return ``grad_y log p_t(y)`` [1 per unit of y]."""
        return -self.gradient(y, t)

    def denoiser(self, y: Float[Tensor, "batch dim"], t: Float[Tensor, " batch"]) -> Float[Tensor, "batch dim"]:
        """Return ``E[x | y]`` as the energy implies it [unit of x]."""
        return self.energy_and_denoiser(y, t)[1]

    def energy_and_denoiser(
        self, y: Float[Tensor, "batch dim"], t: Float[Tensor, " batch"]
    ) -> tuple[Float[Tensor, " batch"], Float[Tensor, "batch dim"]]:
        """Return ``U(y, t)`` [kT] and ``E[x | y]`` [unit of x] from one pass through the network."""
        place = self._place(y, t)
        value, slope = self._net_value_and_slope(y, t, place)
        wiener = place.alpha * self.data.variance / place.spread * place.white
        # sigma^2 s / alpha, without the division.
        factor = (
            place.sigma.square()
            * self.data.variance.mean().sqrt()
            / _resolved_sigma(self.path, t, self.resolution)[:, None]
        )
        denoised = self.data.mean + self.data.back(wiener - factor * slope)
        return self._gaussian(place) + self.net_weight(t) * value, denoised

    def denoising_weight(self, t: Float[Tensor, " batch"]) -> Float[Tensor, "batch axes"]:
        r"""Return ``C / (sigma^2 v)``, the weights of squared errors of the denoiser along the principal axes.

        For Gaussian data ``Q^T (x - E[x | y])`` has the variances ``v sigma^2 / C``, so that with these weights
        ``mean_i weight_i (Q^T (D - x))_i^2`` is one on average for a zero network, at every level and on every axis.
        As ``D - x = (sigma^2 / alpha) (score + z / sigma)``, the same is ``C / (alpha^2 v)`` times
        ``(sigma score + z)^2``. Any positive weight leaves the minimiser where it is.
        """
        alpha, sigma = self.path.alpha(t)[:, None], self.path.sigma(t)[:, None]
        return self._spread(alpha, sigma).square() / (sigma.square() * self.data.variance)

    def time_derivative(self, y: Float[Tensor, "batch dim"], t: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        """Return ``dU/dt`` [kT] at fixed y."""
        # Not forward mode: torch 2.13 compiles its zero tangents of weights to a tensor that it then writes to.
        pullback = torch.func.vjp(lambda time: self.energy(y, time), t)[1]
        return pullback(torch.ones_like(t))[0]

    def free_energy(self, t: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
        """Return ``F(t)`` [kT]; zero at the last level."""
        return self.curve(t)

    def set_levels(self, levels: Float[Tensor, " levels"]) -> None:
        """Lay the free-energy curve out on other levels, from the same first to the same last; ``F`` stays as it is."""
        levels = levels.to(self.curve.levels)
        finer = FreeEnergyCurve(levels, gauge=-1)
        with torch.no_grad():
            finer.values.copy_(self.curve(levels))
        self.curve = finer

    def log_density(self, y: Float[Tensor, "batch dim"], t: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        """Return ``log p_t(y) = F(t) - U(y, t)``, normalised as well as ``F`` is learned."""
        return self.free_energy(t) - self.energy(y, t)

    def level_energies(
        self, y: Float[Tensor, "batch dim"], levels: Float[Tensor, " levels"]
    ) -> Float[Tensor, "batch levels"]:
        """Return ``U(y_i, t_j)`` [kT]: one pass where the network takes all levels, else one for each level."""
        if not isinstance(self.net, MultiLevelNet):
            repeated = y.repeat_interleave(len(levels), dim=0)
            return self.energy(repeated, levels.repeat(len(y))).unflatten(0, (len(y), len(levels)))
        alpha, sigma = self.path.alpha(levels)[:, None], self.path.sigma(levels)[:, None]
        precision = self._spread(alpha, sigma).square().reciprocal()
        # |w|^2 expanded about the data mean turns every pair of configuration and level into matrix products.
        offset, moved = self.data.along(y - self.data.mean), (1 - alpha) * self.data.along(self.data.mean)
        constant = (moved.square() * precision - precision.log() + math.log(2 * math.pi)).sum(-1)
        gaussian = offset.square() @ precision.T + 2 * offset @ (moved * precision).T + constant
        return 0.5 * gaussian + self.net_weight(levels) * self.net.energies(self._fixed_input(y), self.net_time(levels))

    def net_weight(self, t: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        """Return ``s(t)``, the factor of the network, see :func:`network_factor`."""
        return network_factor(self.path, t, self.data, self.resolution)

    def net_time(self, t: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        """Return ``c(t)``: the log-SNR that the data resolves, 0 at the first level and 1 at the last."""
        return (self.input_ends[0] - self._resolved_log_snr(t)) / (self.input_ends[0] - self.input_ends[1])

    def information(self, t: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        r"""Return ``log(1 + s^2) / 2``, what ``y`` tells of Gaussian data down to its resolution [nats a coordinate].

        It falls from ``log(mean v / rho^2) / 2`` to zero, and stands still where more or less noise changes nothing.
        """
        return 0.5 * torch.log1p(self.net_weight(t).square())

    def _resolved_log_snr(self, t: Tensor) -> Tensor:
        log_snr = self.path.log_snr(t)
        # sigma_rho^2 / alpha^2 = exp(-log_snr) + rho^2.
        return -torch.logaddexp(-log_snr, 2 * self.resolution.log().expand_as(log_snr))

    def _spread(self, alpha: Tensor, sigma: Tensor) -> Tensor:
        return (alpha.square() * self.data.variance + sigma.square()).sqrt()

    def _place(self, y: Tensor, t: Tensor) -> _Place:
        alpha, sigma = self.path.alpha(t)[:, None], self.path.sigma(t)[:, None]
        spread = self._spread(alpha, sigma)
        return _Place(alpha, sigma, spread, self.data.along(y - alpha * self.data.mean) / spread)

    def _gaussian(self, place: _Place) -> Tensor:
        return (0.5 * place.white.square() + place.spread.log() + 0.5 * math.log(2 * math.pi)).sum(-1)

    def _fixed_input(self, y: Tensor) -> Tensor:
        return self.data.back(self.data.along(y - self.data.mean) / self.input_scale)

    def _net_input(self, y: Tensor, place: _Place) -> Tensor:
        return self._fixed_input(y) if isinstance(self.net, MultiLevelNet) else self.data.back(place.white)

    def _net_value_and_slope(self, y: Tensor, t: Tensor, place: _Place) -> tuple[Tensor, Tensor]:
        """Return the network's value, and its gradient in the components of ``y`` along the axes."""
        time = self.net_time(t)
        pulled = torch.func.vjp(lambda point: self.net(point, time), self._net_input(y, place))
        value, pullback = pulled[0], pulled[1]
        scale = self.input_scale if isinstance(self.net, MultiLevelNet) else place.spread
        return value, self.data.along(pullback(torch.ones_like(value))[0]) / scale


def network_factor(
    path: Noising, t: Float[Tensor, " batch"], data: DataGaussian, resolution: float | Float[Tensor, ""]
) -> Float[Tensor, " batch"]:
    """Return ``s(t) = alpha sqrt(mean v) / sigma_rho``, the factor of the network in :class:`NoisedEnergyModel`.

    Its logarithm is linear in the time that the network is given, :meth:`NoisedEnergyModel.net_time`.
    """
    return path.alpha(t) / _resolved_sigma(path, t, resolution) * data.variance.mean().sqrt()


def _resolved_sigma(path: Noising, t: Tensor, resolution: float | Tensor) -> Tensor:
    return torch.hypot(path.sigma(t), path.alpha(t) * resolution)
