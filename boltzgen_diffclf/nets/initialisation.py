"""Layers whose starting weights come from a given generator, never from the global random state."""

from __future__ import annotations

import math

import torch
from torch import nn


def linear(n_in: int, n_out: int, generator: torch.Generator, *, bias: bool = True) -> nn.Linear:
    """Return a linear layer with uniform weights of variance ``1 / (3 n_in)`` and a bias of zero."""
    layer = nn.utils.skip_init(nn.Linear, n_in, n_out, bias=bias)
    bound = 1.0 / math.sqrt(max(n_in, 1))
    with torch.no_grad():
        layer.weight.uniform_(-bound, bound, generator=generator)
        if bias:
            layer.bias.zero_()
    return layer


def zero_linear(n_in: int, n_out: int) -> nn.Linear:
    """Return a linear layer that gives exactly zero until it is trained."""
    layer = nn.utils.skip_init(nn.Linear, n_in, n_out)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


def table(n_rows: int, n_features: int, generator: torch.Generator) -> nn.Parameter:
    """Return a learned table of standard normal rows, one a category."""
    return nn.Parameter(torch.randn(n_rows, n_features, generator=generator))
