"""Energy of a vector as a well about a learned centre: for modes that are far apart compared with their width."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from boltzgen_diffclf.nets.initialisation import zero_linear
from boltzgen_diffclf.nets.plain_mlp import MlpEnergyNet


class WellEnergyNet(MlpEnergyNet):
    r"""Energy ``u = k(t) sum_i h_i(x, t) (x_i - c_i(x, t))^2 / 2 + <x, f(x, t)> + g(x, t)`` [kT], zero untrained.

    In a :class:`~boltzgen_diffclf.noised_energy.NoisedEnergyModel` with the factor ``s``, a mode as narrow as the noise
    and the resolution let it be adds ``s^2 |x - c|^2 / 2`` to the Gaussian: the stiffness of ``u = ... / s`` grows
    as ``s``, by decades. ``k = sqrt(1 + s^2)`` takes that from ``h`` where modes stand apart, and is one where noise
    has joined them. Every coordinate has a stiffness of its own: modes have a width along each, and ``x`` a scale.
    In the form of :class:`MlpEnergyNet` the same is the difference of ``s^2 |x|^2 / 2`` and terms as large, thousands
    of kT where there are many coordinates; here an error of ``c`` moves the energy at the centre by its square, and one
    of ``h`` does not.

    Args:
        dim: length of ``x``; its columns should have a scale of about one.
        generator: draws the starting weights.
        factors: ``s`` at ``t = 0`` and ``t = 1``; between them its logarithm is linear in ``t``.
        hidden: see :class:`MlpEnergyNet`, as are the others.
        layers: see there.
        n_frequencies: see there.
        max_cycles: see there.

    References:
        Du et al. 2023, arXiv:2302.11552, compare energies of diffusion models, ``|x - f|^2`` among them.

    >>> net = WellEnergyNet(2, torch.Generator(), (20.0, 0.01), hidden=8, layers=1)
    >>> net(torch.ones(3, 2), torch.zeros(3)).tolist()
    [0.0, 0.0, 0.0]
    """

    def __init__(
        self,
        dim: int,
        generator: torch.Generator,
        factors: tuple[float, float],
        *,
        hidden: int = 128,
        layers: int = 4,
        n_frequencies: int = 8,
        max_cycles: float = 8.0,
    ) -> None:
        super().__init__(
            dim, generator, hidden=hidden, layers=layers, n_frequencies=n_frequencies, max_cycles=max_cycles
        )
        self.centre = zero_linear(hidden, dim)
        self.curvature = zero_linear(hidden, dim)
        self.log_factors = tuple(math.log(factor) for factor in factors)

    def forward(self, x: Float[Tensor, "batch dim"], t: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        """Return ``u(x, t)`` [kT]."""
        features = self._features(x, t)
        first, last = self.log_factors
        stiffness = ((2 * (first + (last - first) * t)).exp() + 1).sqrt()
        wells = (self.curvature(torch.tanh(features)) * (x - self.centre(features)).square()).sum(-1)
        return 0.5 * stiffness * wells + self._linear(x, features)
