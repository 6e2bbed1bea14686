"""Harmonic states with a constant pull, and the line between two of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from systems.analytic.exact import AnalyticTarget


class TiltedHarmonic(AnalyticTarget):
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
