"""The height above which a state's energy is softened between the ends of a path."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from boltzgen_diffclf.target import Target

CEILING_QUANTILE = 0.99
"""Of the energies of a state's own samples: what lies above may be softened between the ends."""

_CHUNK = 8192


def ceiling_of(target: Target, samples: Float[Tensor, "samples dim"]) -> float:
    """Return the ceiling [kT] of a state, from samples of it in the coordinates of ``target``."""
    with torch.no_grad():
        energies = torch.cat([target.energy(part) for part in samples.split(_CHUNK)])
    return float(energies.quantile(CEILING_QUANTILE))
