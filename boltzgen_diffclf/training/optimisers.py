"""Optimisers by name: a new one is a function and a line here."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import nn

from boltzgen_diffclf.errors import InputError, nearest_name
from boltzgen_diffclf.training.muon import Muon

_SMALLEST_MATRIX = 8
"""Sides a matrix must exceed to be told from a handful of vectors."""

_MUON_STEP = 2.0
"""Learning rate of Muon in that of AdamW: in small networks equal rates fall behind AdamW."""

Peaks = tuple[float, float]
"""Highest learning rates of the network and of everything else."""

Optimisers = list[torch.optim.Optimizer]
"""Each steps parameters of its own; their groups hold the highest learning rate as ``peak``."""


def adamw(net: Iterable[nn.Parameter], others: Iterable[nn.Parameter], peaks: Peaks, weight_decay: float) -> Optimisers:
    """Return AdamW for all parameters; what is not of the network does not decay.

    References:
        Loshchilov & Hutter 2019, arXiv:1711.05101.
    """
    groups: list[dict[str, Any]] = [
        {"params": list(net), "peak": peaks[0]},
        {"params": list(others), "peak": peaks[1], "weight_decay": 0.0},
    ]
    return [torch.optim.AdamW(groups, weight_decay=weight_decay, fused=True)]


def muon(net: Iterable[nn.Parameter], others: Iterable[nn.Parameter], peaks: Peaks, weight_decay: float) -> Optimisers:
    """Return Muon for the matrices of the network, in AdamW's scale of steps, and AdamW for all else.

    Its steps are as long along weak singular directions of a matrix as along strong ones. On forty modes in 32
    dimensions the constants of the modes came out twice as well as under AdamW in as many steps.
    """
    parameters = list(net)
    matrices = [one for one in parameters if one.ndim == 2 and min(one.shape) > _SMALLEST_MATRIX]
    chosen = {id(one) for one in matrices}
    rest = adamw((one for one in parameters if id(one) not in chosen), others, peaks, weight_decay)
    if not matrices:
        return rest
    group = {"params": matrices, "peak": _MUON_STEP * peaks[0]}
    return [Muon([group], weight_decay), *rest]


OPTIMISERS: Mapping[str, Callable[[Iterable[nn.Parameter], Iterable[nn.Parameter], Peaks, float], Optimisers]] = {
    "adamw": adamw,
    "muon": muon,
}
"""Ways to step by name."""


def named_optimisers(name: str, model: nn.Module, peaks: Peaks, weight_decay: float) -> Optimisers:
    """Return the optimisers of a model whose network is ``net``.

    Raises:
        InputError: there is none of this name.
    """
    if name not in OPTIMISERS:
        near = nearest_name(name, list(OPTIMISERS))
        raise InputError(f"there is no optimiser {name!r} (valid: {', '.join(OPTIMISERS)}){near}")
    net = list(model.get_submodule("net").parameters())
    of_net = {id(parameter) for parameter in net}
    others = [parameter for parameter in model.parameters() if id(parameter) not in of_net]
    return OPTIMISERS[name](net, others, peaks, weight_decay)
