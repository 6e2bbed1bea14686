"""How noise levels are laid out.

Neighbouring levels can be told apart by how much ``log p_t`` varies between them. Its measure is the thermodynamic
length ``L(t)``, with ``(dL/dt)^2 = I(t) = Var_{p_t}[d/dt log p_t]``: two levels a small length ``g`` apart have a
classification loss of ``log 2 - g^2 / 8``, whatever the dimension. Gaps well below 1 teach little, gaps well above
it are saturated.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor

from boltzgen_diffclf.paths.diffusion import DiffusionPath

_NODES = 257
"""Times between two levels at which the length is asked for; evenly spaced in time, where it is anything but even."""


def uniform_levels(n_levels: int, t_min: float = 0.0, t_max: float = 1.0) -> Float[Tensor, " levels"]:
    """Return evenly spaced times from ``t_min`` to ``t_max``, both included.

    Raises:
        ValueError: fewer than two levels, or times out of order.
    """
    if n_levels < 2 or not t_min < t_max:
        raise ValueError(f"levels need two or more and t_min < t_max, got {n_levels} from {t_min} to {t_max}")
    return torch.linspace(t_min, t_max, n_levels, dtype=torch.float64)


def log_snr_levels(
    path: DiffusionPath, n_levels: int, t_min: float | None = None, t_max: float | None = None
) -> Float[Tensor, " levels"]:
    """Return times from ``t_min`` to ``t_max`` whose log signal-to-noise ratios are evenly spaced.

    Args:
        path: whose ``t_min`` and ``t_max`` stand in for those not given.
        n_levels: levels in all.
        t_min: the first level; the noise there is not zero.
        t_max: the last level.

    Raises:
        ValueError: fewer than two levels, times out of order, or no noise at ``t_min``.
    """
    ends = uniform_levels(2, path.t_min if t_min is None else t_min, path.t_max if t_max is None else t_max)
    first, last = path.log_snr(ends).tolist()
    if first == float("inf"):
        raise ValueError(f"there is no noise at t_min = {float(ends[0])}: choose a later one")
    levels = path.time_at_log_snr(uniform_levels(n_levels, -first, -last).neg())
    levels[0], levels[-1] = ends
    return levels


def fisher_information(time_scores: Float[Tensor, "nodes samples"]) -> Float[Tensor, " nodes"]:
    """Return ``I(t) = Var[d/dt log p_t(y)]`` over samples ``y ~ p_t`` of each node.

    Args:
        time_scores: ``d/dt log p_t(y)`` of a model or oracle; a constant a node, such as ``dF/dt``, is free.
            *Conditional* time scores ``d/dt log p(y | x)`` overestimate: the marginal's is their posterior mean, so
            their variance exceeds ``I(t)`` by the mean posterior variance ``E Var[d/dt log p(y | x) | y]``. The
            excess vanishes where the noise swamps the data and dominates where it is below the data's own width.
    """
    return time_scores.var(dim=1)


def accumulated_length(nodes: Float[Tensor, " nodes"], information: Float[Tensor, " nodes"]) -> Float[Tensor, " nodes"]:
    """Return the thermodynamic length from the first node to each, by the trapezoidal rule.

    Args:
        nodes: ascending times; where ``I(t)`` spans decades, place them by :func:`log_snr_levels`.
        information: ``I(t)`` there.

    Raises:
        ValueError: nodes out of order, or an information that is negative or not finite.
    """
    if not bool((nodes.diff() > 0).all()):
        raise ValueError("the nodes of a thermodynamic length must ascend")
    if not bool((torch.isfinite(information) & (information >= 0)).all()):
        raise ValueError("the Fisher information must be finite and not negative at every node")
    length = torch.cumulative_trapezoid(information.sqrt(), nodes)
    return torch.cat([length.new_zeros(1), length])


def thermodynamic_length(
    nodes: Float[Tensor, " nodes"], time_scores: Float[Tensor, "nodes samples"]
) -> Float[Tensor, " nodes"]:
    """Return the thermodynamic length from the first node to each, estimated from samples.

    Args:
        nodes: see :func:`accumulated_length`.
        time_scores: see :func:`fisher_information`, also for what conditional ones overestimate.

    References:
        Crooks 2007, Phys. Rev. Lett. 99:100602.
    """
    return accumulated_length(nodes, fisher_information(time_scores))


def length_at(
    levels: Float[Tensor, " levels"], nodes: Float[Tensor, " nodes"], length: Float[Tensor, " nodes"]
) -> Float[Tensor, " levels"]:
    """Return the length at times between the nodes, by straight lines."""
    return _interpolate(levels, nodes, length)


def thermodynamic_levels(
    nodes: Float[Tensor, " nodes"], information: Float[Tensor, " nodes"], n_levels: int
) -> Float[Tensor, " levels"]:
    """Return times from the first to the last node, evenly spaced in thermodynamic length.

    Args:
        nodes: see :func:`accumulated_length`.
        information: ``I(t)`` there.
        n_levels: levels in all; ``length / n`` about 1 makes neighbours neither identical nor trivial to tell apart.

    Raises:
        ValueError: fewer than two levels, bad nodes or information, or a path along which nothing changes.
    """
    length = accumulated_length(nodes, information)
    if not length[-1] > 0:
        raise ValueError("the density does not change along these nodes: there is no length to divide")
    even = uniform_levels(n_levels).to(length) * length[-1]
    levels = _interpolate(even, length, nodes)
    levels[0], levels[-1] = nodes[0], nodes[-1]
    return levels


def close_levels(
    levels: Float[Tensor, " levels"],
    length: Callable[[Float[Tensor, " times"]], Float[Tensor, " times"]],
    largest_gap: float,
) -> Float[Tensor, " more_levels"]:
    """Return the levels and, where two are far apart, others between them, evenly in thermodynamic length.

    Args:
        levels: ascending times, all of them kept.
        length: gives the length at times, ascending.
        largest_gap: longest that may lie between neighbours.
    """
    nodes = torch.cat([levels[:1], *(torch.linspace(*ends, _NODES).to(levels)[1:] for ends in _pairs(levels))])
    at_nodes, at_levels = length(nodes), length(levels)
    closer = [levels[:1]]
    for (first, last), upper in zip(_pairs(at_levels), levels[1:], strict=True):
        parts = max(1, math.ceil((last - first) / largest_gap))
        between = torch.linspace(first, last, parts + 1, dtype=at_nodes.dtype)[1:-1]
        closer += [_interpolate(between, at_nodes, nodes), upper[None]]
    return torch.cat(closer)


def _pairs(values: Tensor) -> list[tuple[float, float]]:
    return list(pairwise(values.tolist()))


def _interpolate(x: Tensor, nodes: Tensor, values: Tensor) -> Tensor:
    upper = torch.searchsorted(nodes, x).clamp(1, len(nodes) - 1)
    left, right = nodes[upper - 1], nodes[upper]
    return values[upper - 1] + (x - left) / (right - left) * (values[upper] - values[upper - 1])


def arcsine_levels(n_levels: int) -> Float[Tensor, " levels"]:
    r"""Return ``t_j = sin^2(pi j / (2 (L - 1)))``: both ends exactly, and dense near them.

    Under ``gamma = sqrt(t (1 - t))`` the noise changes fastest at the ends; these nodes are uniform in the arc
    length ``dt / sqrt(t (1 - t))``, so that neighbouring levels overlap about equally.

    >>> arcsine_levels(3).tolist()
    [0.0, 0.5, 1.0]
    """
    angle = torch.linspace(0, torch.pi / 2, n_levels, dtype=torch.float64)
    levels = torch.sin(angle).square()
    levels[0], levels[-1] = 0.0, 1.0
    if n_levels % 2:
        levels[n_levels // 2] = 0.5
    return levels
