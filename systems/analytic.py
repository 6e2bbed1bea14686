"""Systems whose answers are known: a Gaussian mixture, a double well, a pair of tilted harmonic states."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float64
from scipy.special import logsumexp, softmax
from torch import Tensor

from boltzgen_diffclf.target import Target


class GaussianMixture(Target):
    """A mixture of isotropic normals, ``u(x) = -log p(x) - log_normaliser``.

    Args:
        weights: of the components, in any scale.
        means: of the components.
        sigmas: of the components.
        log_normaliser: log Z that the unnormalised density is to have.
    """

    def __init__(
        self,
        weights: Float[Tensor, " components"],
        means: Float[Tensor, "components dim"],
        sigmas: Float[Tensor, " components"],
        log_normaliser: float = 0.0,
    ) -> None:
        if not (bool((weights > 0).all()) and bool((sigmas > 0).all())):
            raise ValueError(f"weights and sigmas must be positive, got {weights.tolist()} and {sigmas.tolist()}")
        self.dimension = means.shape[1]
        self.event_shape = (self.dimension,)
        self.dtype, self.device = means.dtype, means.device
        self.weights, self.means, self.sigmas = weights / weights.sum(), means, sigmas
        self.log_normaliser = log_normaliser

    def log_density(self, x: Float[Tensor, "batch dim"]) -> Float[Tensor, " batch"]:
        """Return the normalised ``log p(x)``."""
        return self._log_joint(x).logsumexp(-1)

    def responsibilities(self, x: Float[Tensor, "batch dim"]) -> Float[Tensor, "batch components"]:
        """Return the probability that each component made ``x``."""
        return self._log_joint(x).softmax(-1)

    def score(self, x: Float[Tensor, "batch dim"]) -> Float[Tensor, "batch dim"]:
        """Return ``grad log p(x)`` in closed form."""
        pull = (self.means - x[:, None]) / self.sigmas[:, None].square()
        return (self.responsibilities(x)[..., None] * pull).sum(1)

    def energy(self, x: Float[Tensor, "batch dim"]) -> Float[Tensor, " batch"]:
        """See :meth:`Target.energy`."""
        return -self.log_density(x) - self.log_normaliser

    def energy_and_force(
        self, x: Float[Tensor, "batch dim"]
    ) -> tuple[Float[Tensor, " batch"], Float[Tensor, "batch dim"]]:
        """See :meth:`Target.energy_and_force`; the closed form spares the backward pass."""
        x = x.detach()
        return self.energy(x), self.score(x)

    def sample(self, n: int, generator: torch.Generator) -> Float[Tensor, "{n} dim"]:
        """Return independent samples."""
        component = torch.multinomial(self.weights, n, replacement=True, generator=generator)
        noise = torch.randn(n, self.dimension, generator=generator, dtype=self.dtype, device=self.device)
        return self.means[component] + self.sigmas[component, None] * noise

    def _log_joint(self, x: Float[Tensor, "batch dim"]) -> Float[Tensor, "batch components"]:
        distance = (x[:, None] - self.means).square().sum(-1)
        log_normal = (
            -0.5 * distance / self.sigmas.square() - 0.5 * self.dimension * (2 * math.pi * self.sigmas.square()).log()
        )
        return self.weights.log() + log_normal


class DoubleWell(Target):
    """``barrier (x_0^2 - 1)^2 + tilt x_0`` [kT] along the first coordinate, a unit normal along the others.

    Args:
        barrier: between the wells near -1 and +1 [kT].
        tilt: makes the well near -1 the deeper one, by about twice its value [kT].
        dimension: of the space.
        dtype: of positions and energies.
        device: where it computes.
    """

    def __init__(
        self,
        barrier: float = 4.0,
        tilt: float = 0.5,
        dimension: int = 2,
        dtype: torch.dtype = torch.float64,
        device: torch.device | str = "cpu",
    ) -> None:
        if not (barrier > 0 and dimension >= 1):
            raise ValueError(f"a double well needs barrier > 0 and dimension >= 1, got {barrier} and {dimension}")
        self.barrier, self.tilt = barrier, tilt
        self.event_shape, self.dimension = (dimension,), dimension
        self.dtype, self.device = dtype, torch.device(device)

    def energy(self, x: Float[Tensor, "batch dim"]) -> Float[Tensor, " batch"]:
        """See :meth:`Target.energy`."""
        first, rest = x[:, 0], x[:, 1:]
        return self.barrier * (first.square() - 1).square() + self.tilt * first + 0.5 * rest.square().sum(-1)

    @property
    def log_normaliser(self) -> float:
        """Log Z to double precision."""
        grid, log_density = self._grid()
        log_z_first = float(logsumexp(log_density)) + math.log(grid[1] - grid[0])
        return log_z_first + 0.5 * (self.dimension - 1) * math.log(2 * math.pi)

    def expectation(self, function: Callable[[Float64[np.ndarray, " n"]], Float64[np.ndarray, " n"]]) -> float:
        """Return the mean of a function of the first coordinate, to double precision for a smooth one."""
        grid, log_density = self._grid()
        return float(function(grid) @ softmax(log_density))

    def sample(self, n: int, generator: torch.Generator) -> Float[Tensor, "{n} dim"]:
        """Return independent samples, the first coordinate by inversion of its distribution."""
        grid, log_density = self._grid()
        cumulative = np.cumsum(softmax(log_density))
        x = torch.randn(n, self.dimension, generator=generator, dtype=self.dtype, device=self.device)
        uniform = torch.rand(n, generator=generator, dtype=torch.float64, device=self.device)
        # Half a cell to the right is where the mass of all cells up to this one ends.
        edges = grid + 0.5 * (grid[1] - grid[0])
        x[:, 0] = torch.from_numpy(np.interp(uniform.cpu().numpy(), cumulative, edges)).to(x)
        return x

    def _grid(self) -> tuple[Float64[np.ndarray, " n"], Float64[np.ndarray, " n"]]:
        """Return points out to where the density has vanished, and its unnormalised logarithm there.

        A plain sum over them is the trapezoidal rule, which converges exponentially for such a density.
        """

        def first_energy(first: Float64[np.ndarray, " n"]) -> Float64[np.ndarray, " n"]:
            return self.barrier * (first**2 - 1) ** 2 + self.tilt * first

        half_width = 1.0
        while first_energy(np.array([-half_width, half_width])).min() < 800.0:
            half_width *= 1.25
        grid = np.linspace(-half_width, half_width, 20_001)
        return grid, -first_energy(grid)


class TiltedHarmonic(Target):
    """``u = stiffness |x|^2 / 2 - sum(tilt x)``: a normal with mean ``tilt / stiffness``.

    Args:
        stiffness: [kT per squared unit of x].
        tilt: the constant pull, one a coordinate [kT per unit of x].
        dtype: of positions and energies.
        device: where it computes.
    """

    def __init__(
        self,
        stiffness: float,
        tilt: Sequence[float],
        dtype: torch.dtype = torch.float64,
        device: torch.device | str = "cpu",
    ) -> None:
        if not (stiffness > 0 and len(tilt) > 0):
            raise ValueError(f"a harmonic state needs stiffness > 0 and a tilt, got {stiffness} and {tilt}")
        self.stiffness = stiffness
        self.tilt = torch.tensor(tilt, dtype=dtype, device=device)
        self.event_shape, self.dimension = (len(tilt),), len(tilt)
        self.dtype, self.device = dtype, self.tilt.device

    @property
    def log_normaliser(self) -> float:
        """Exact log Z."""
        squared_tilt = float(self.tilt.double().square().sum())
        return 0.5 * self.dimension * math.log(2 * math.pi / self.stiffness) + squared_tilt / (2 * self.stiffness)

    def energy(self, x: Float[Tensor, "batch dim"]) -> Float[Tensor, " batch"]:
        """See :meth:`Target.energy`."""
        return 0.5 * self.stiffness * x.square().sum(-1) - x @ self.tilt

    def sample(self, n: int, generator: torch.Generator) -> Float[Tensor, "{n} dim"]:
        """Return independent samples."""
        noise = torch.randn(n, self.dimension, generator=generator, dtype=self.dtype, device=self.device)
        return self.tilt / self.stiffness + noise / math.sqrt(self.stiffness)


@dataclass(frozen=True)
class TiltedHarmonicPair:
    """Two harmonic states whose free energy is known all along the straight line between them.

    >>> pair = TiltedHarmonicPair(TiltedHarmonic(1.0, [0.0]), TiltedHarmonic(4.0, [2.0]))
    >>> round(pair.delta_f, 4)
    0.1931
    """

    state_a: TiltedHarmonic
    state_b: TiltedHarmonic

    @property
    def delta_f(self) -> float:
        """F_B - F_A [kT], exact."""
        return self.state_a.log_normaliser - self.state_b.log_normaliser

    def at(self, coupling: float) -> TiltedHarmonic:
        """Return the state ``(1 - coupling) u_A + coupling u_B``, harmonic again; its F is ``-log_normaliser``."""
        stiffness = (1 - coupling) * self.state_a.stiffness + coupling * self.state_b.stiffness
        tilt = (1 - coupling) * self.state_a.tilt + coupling * self.state_b.tilt
        return TiltedHarmonic(stiffness, tilt.tolist(), self.state_a.dtype, self.state_a.device)
