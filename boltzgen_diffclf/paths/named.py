"""Noisings by name, and the levels that are laid on them, by name too."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from jaxtyping import Float
from torch import Tensor

from boltzgen_diffclf.errors import InputError, nearest_name
from boltzgen_diffclf.paths.diffusion import DiffusionPath, Edm, VarianceExploding, VariancePreserving
from boltzgen_diffclf.paths.levels import log_snr_levels, thermodynamic_levels, uniform_levels

PATHS: Mapping[str, DiffusionPath] = {
    "vp": VariancePreserving(t_max=1 - 1e-4),
    "ve": VarianceExploding(sigma_min=0.01, sigma_max=20.0),
    "edm": Edm(),
}
"""Noisings by name, of data whose spread is about one."""

_NODES = 257
"""Times, even in log-SNR, at which levels even in thermodynamic length ask for the Fisher information."""

TimeInformation = Callable[[Float[Tensor, " nodes"]], Float[Tensor, " nodes"]]
"""Gives ``I(t) = Var[d/dt log p_t]`` of the noised data at ascending times."""


def _even_in_time(path: DiffusionPath, n_levels: int, information: TimeInformation | None) -> Float[Tensor, " levels"]:
    return uniform_levels(n_levels, path.t_min, path.t_max)


def _even_in_log_snr(
    path: DiffusionPath, n_levels: int, information: TimeInformation | None
) -> Float[Tensor, " levels"]:
    return log_snr_levels(path, n_levels)


def _even_in_length(
    path: DiffusionPath, n_levels: int, information: TimeInformation | None
) -> Float[Tensor, " levels"]:
    if information is None:
        raise InputError("levels even in thermodynamic length need the Fisher information of the data: give it")
    nodes = log_snr_levels(path, _NODES)
    return thermodynamic_levels(nodes, information(nodes), n_levels)


LEVEL_LAYOUTS: Mapping[str, Callable[[DiffusionPath, int, TimeInformation | None], Float[Tensor, " levels"]]] = {
    "uniform": _even_in_time,
    "log_snr": _even_in_log_snr,
    "thermodynamic": _even_in_length,
}
"""Ways to lay levels on a path by name: even in time, in the log signal-to-noise ratio, or in thermodynamic length."""


def path_levels(
    path: DiffusionPath, n_levels: int, layout: str | None = None, information: TimeInformation | None = None
) -> Float[Tensor, " levels"]:
    """Return the levels of a path, from its first to its last time.

    Args:
        path: on which they lie.
        n_levels: levels in all.
        layout: one of :data:`LEVEL_LAYOUTS`; None is even in time under variance preserving noise, as published,
            else in log-SNR.
        information: only asked for by the layout that is even in thermodynamic length.

    Raises:
        InputError: there is no such layout, or it needs an information that was not given.
    """
    chosen = layout or ("uniform" if isinstance(path, VariancePreserving) else "log_snr")
    if chosen not in LEVEL_LAYOUTS:
        near = nearest_name(chosen, list(LEVEL_LAYOUTS))
        raise InputError(f"there is no layout of levels {chosen!r} (valid: {', '.join(LEVEL_LAYOUTS)}){near}")
    return LEVEL_LAYOUTS[chosen](path, n_levels, information)
