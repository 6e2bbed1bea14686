"""Noisings by name, and the levels that are laid on them."""

from __future__ import annotations

from collections.abc import Mapping

from jaxtyping import Float
from torch import Tensor

from boltzgen_diffclf.paths.diffusion import DiffusionPath, Edm, VarianceExploding, VariancePreserving
from boltzgen_diffclf.paths.levels import log_snr_levels, uniform_levels

PATHS: Mapping[str, DiffusionPath] = {
    "vp": VariancePreserving(t_max=1 - 1e-4),
    "ve": VarianceExploding(sigma_min=0.01, sigma_max=20.0),
    "edm": Edm(),
}
"""Noisings by name, of data whose spread is about one."""


def path_levels(path: DiffusionPath, n_levels: int) -> Float[Tensor, " levels"]:
    """Return levels even in time under variance preserving noise, as published, else in log-SNR."""
    if isinstance(path, VariancePreserving):
        return uniform_levels(n_levels, path.t_min, path.t_max)
    return log_snr_levels(path, n_levels)
