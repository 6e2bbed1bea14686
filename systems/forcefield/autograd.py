"""Letting an energy that comes with its force be differentiated."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from boltzgen_diffclf.target import Target


class EnergyWithForce(torch.autograd.Function):
    """``u(x)`` whose derivative is the force of the same evaluation, once."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, target: Target) -> Tensor:
        """Evaluate both and keep the force."""
        energy, force = target.energy_and_force(x)
        ctx.save_for_backward(force.to(x))
        return energy

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None]:
        """Return ``upstream * du/dx``."""
        (force,) = ctx.saved_tensors
        return -upstream.to(force)[:, None, None] * force, None
