"""Muon: steps along the momentum with all its singular values made about one."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
_ITERATIONS = 5
_RMS = 0.2
"""Root mean square of the steps of AdamW, in its learning rate."""


class Muon(torch.optim.Optimizer):
    """Muon with Nesterov momentum, its steps as long as those of AdamW at the same rate; for matrices alone.

    It computes in the precision of the matrices. ``torch.optim.Muon`` turns to bfloat16, which a processor without
    units for it multiplies tens of times slower than float32.

    Args:
        groups: as of any optimiser of PyTorch.
        weight_decay: decoupled.
        momentum: share of the past in the moving mean of gradients.

    References:
        Jordan et al. 2024, kellerjordan.github.io/posts/muon; Liu et al. 2025, arXiv:2502.16982, for the step size.
    """

    def __init__(self, groups: Iterable[dict[str, Any]], weight_decay: float, momentum: float = 0.95) -> None:
        super().__init__(groups, {"lr": 0.0, "weight_decay": weight_decay, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Step every matrix that has a gradient."""
        loss = None if closure is None else torch.enable_grad()(closure)()
        for group in self.param_groups:
            for matrix in (one for one in group["params"] if one.grad is not None):
                state = self.state[matrix]
                if not state:
                    state["momentum_buffer"] = torch.zeros_like(matrix)
                mean = state["momentum_buffer"].lerp_(matrix.grad, 1 - group["momentum"])
                direction = orthogonalised(matrix.grad.lerp(mean, group["momentum"]))
                matrix.mul_(1 - group["lr"] * group["weight_decay"])
                matrix.add_(direction, alpha=-group["lr"] * _RMS * max(matrix.shape) ** 0.5)
        return loss


def orthogonalised(matrix: Float[Tensor, "rows columns"]) -> Float[Tensor, "rows columns"]:
    """Return the matrix with its singular values moved to between 0.6 and 1.2, those far below the largest less so.

    Five Newton-Schulz iterations, whose quintic is steep at zero.
    """
    a, b, c = _COEFFICIENTS
    x = matrix.T if matrix.shape[0] > matrix.shape[1] else matrix
    x = x / x.norm().clamp(min=torch.finfo(x.dtype).tiny)
    for _ in range(_ITERATIONS):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.T if matrix.shape[0] > matrix.shape[1] else x
