"""What every system with a known answer offers beyond its energy."""

from __future__ import annotations

from abc import abstractmethod

import torch
from jaxtyping import Float
from torch import Tensor

from boltzgen_diffclf.target import Target


class AnalyticTarget(Target):
    """A target with independent samples and a known normaliser ``log Z``, ``Z`` the integral of ``exp(-u)``."""

    @property
    @abstractmethod
    def log_normaliser(self) -> float:
        """Log Z; the free energy is ``-log Z`` [kT]."""

    @abstractmethod
    def sample(self, n: int, generator: torch.Generator) -> Float[Tensor, "{n} dim"]:
        """Return independent samples."""

    def log_density(self, x: Float[Tensor, "batch dim"]) -> Float[Tensor, " batch"]:
        """Return the normalised ``log p(x)``."""
        return -self.energy(x) - self.log_normaliser

    def score(self, x: Float[Tensor, "batch dim"]) -> Float[Tensor, "batch dim"]:
        """Return ``grad log p(x)``, detached."""
        return self.energy_and_force(x)[1]
