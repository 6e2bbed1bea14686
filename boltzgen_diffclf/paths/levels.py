"""How noise levels are laid out and drawn.

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
from jaxtyping import Float, Int
from torch import Tensor

from boltzgen_diffclf.paths.diffusion import DiffusionPath

_GAP_SPREAD = 0.5
"""Standard deviation of the logarithm of a drawn gap, up to the skew of the linear measure."""

_GAP_STRETCH = 1.3
"""Largest factor between the gap of a group and the one asked for."""

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


def gap_probabilities(length_at_levels: Float[Tensor, " levels"], target_gap: float) -> Float[Tensor, "levels levels"]:
    r"""Return the probability ``P(i, j)`` that :func:`gap_aware_pairs` draws levels ``i < j``.

    One of the two is uniform over the levels; given it, the other has a thermodynamic distance ``r`` of density
    ``exp(-log(r / target_gap)^2 / (2 * 0.5^2))`` per length, each level standing for half the way to its neighbours.
    ``P`` is zero on and below the diagonal, positive above and sums to one: a mean over drawn pairs estimates
    ``sum_ij P(i, j) loss_ij``, and the weight ``q(i, j) / P(i, j)`` turns it into that of any other law ``q``.

    Args:
        length_at_levels: thermodynamic length at each level, ascending.
        target_gap: the likeliest distance; about 1 is neither trivial nor saturated.

    Raises:
        ValueError: fewer than two levels, lengths that do not ascend, or a gap that is not positive.
    """
    if len(length_at_levels) < 2 or not bool((length_at_levels.diff() > 0).all()):
        raise ValueError("pairs of levels need two or more, at ascending thermodynamic lengths")
    if not target_gap > 0:
        raise ValueError(f"target_gap must be positive, got {target_gap}")
    distance = (length_at_levels[:, None] - length_at_levels).abs()
    # A level's distance to itself has the logarithm -inf, and so no probability.
    log_weight = _shares(length_at_levels).log() - 0.5 * ((distance / target_gap).log() / _GAP_SPREAD).square()
    partner = log_weight.softmax(dim=1) / len(length_at_levels)
    return (partner + partner.T).triu(1)


def gap_aware_pairs(
    length_at_levels: Float[Tensor, " levels"], target_gap: float, n_pairs: int, generator: torch.Generator
) -> Int[Tensor, "pairs 2"]:
    """Draw pairs of level indices, ascending, about ``target_gap`` of thermodynamic length apart.

    Args:
        length_at_levels: thermodynamic length at each level, ascending.
        target_gap: the likeliest distance.
        n_pairs: pairs drawn, independently, from :func:`gap_probabilities`.
        generator: the stream for the draw.

    Raises:
        ValueError: see :func:`gap_probabilities`.
    """
    probability = gap_probabilities(length_at_levels, target_gap)
    drawn = torch.multinomial(probability.flatten(), n_pairs, replacement=True, generator=generator)
    return torch.stack([drawn // len(length_at_levels), drawn % len(length_at_levels)], dim=1)


def _shares(place: Tensor) -> Tensor:
    """Return half the way from each level to its neighbours on both sides."""
    step = torch.cat([place.new_zeros(1), place.diff(), place.new_zeros(1)])
    return 0.5 * (step[:-1] + step[1:])


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


def neighbour_groups(
    n_levels: int, group_size: int, n_groups: int, generator: torch.Generator
) -> Int[Tensor, "groups size"]:
    """Draw groups of consecutive level indices, the window clamped at the ends.

    Clamping gives the first and last window the share of all windows that would overhang: the exact ends, which anchor
    the scale of F, are seen about two thirds as often as levels far from them.

    Args:
        n_levels: levels in all.
        group_size: consecutive levels a group; at most ``n_levels``.
        n_groups: groups drawn.
        generator: the stream for the draw.

    Raises:
        ValueError: groups of more levels than there are.
    """
    _require_levels(n_levels, group_size)
    overhang = group_size // 2
    start = torch.randint(-overhang, n_levels - group_size + overhang + 1, (n_groups,), generator=generator)
    start = start.clamp(0, n_levels - group_size)
    return start[:, None] + torch.arange(group_size)


def spaced_groups(
    length: Float[Tensor, " levels"], gap: float, group_size: int, n_groups: int, generator: torch.Generator
) -> Int[Tensor, "groups size"]:
    """Draw groups of levels about ``gap`` apart in ``length``, the gap of each group its own.

    Half of the groups lie about levels drawn evenly in number, half about places drawn evenly in length: where few
    levels span much of the path, all of it is seen. Errors of free energies add up from gap to gap: from as many
    samples in all, BAR's variance over a path of Gaussians is 1.0, 1.2 and 1.8 times its least at gaps of 1, 2 and 3.

    Args:
        length: thermodynamic length at every level, ascending.
        gap: the middle one; the groups' own are within a factor of 1.3 of it, and no group spans more than
            half of the path.
        group_size: levels a group; at most as many as there are.
        n_groups: groups drawn.
        generator: the stream for the draw.

    Raises:
        ValueError: lengths that do not ascend, or groups of more levels than there are.
    """
    if not bool((length.diff() > 0).all()):
        raise ValueError("lengths at levels must ascend")
    _require_levels(len(length), group_size)
    n_levels, total, rank = len(length), length[-1] - length[0], torch.arange(group_size)
    centre, stretch, shift = torch.rand(3, n_groups, generator=generator, dtype=length.dtype)
    by_number = length[(centre * n_levels).long()]
    middle = torch.where(torch.arange(n_groups) % 2 == 0, by_number, length[0] + centre * total)
    span = (gap * _GAP_STRETCH ** (2 * stretch - 1) * (group_size - 1)).clamp(max=0.5 * float(total))
    first = torch.minimum((middle - shift * span).clamp(min=length[0]), length[-1] - span)
    wanted = first[:, None] + span[:, None] * rank / max(1, group_size - 1)
    # A level may be nearest to two places of a group: the later one takes the next level.
    distinct = (_nearest(wanted, length) - rank).cummax(dim=1).values.clamp(0, n_levels - group_size)
    return distinct + rank


def _nearest(wanted: Tensor, place: Tensor) -> Tensor:
    upper = torch.searchsorted(place, wanted.contiguous()).clamp(1, len(place) - 1)
    return upper - (wanted - place[upper - 1] < place[upper] - wanted).long()


def scattered_groups(
    n_levels: int, group_size: int, n_groups: int, generator: torch.Generator
) -> Int[Tensor, "groups size"]:
    """Draw groups of distinct level indices uniformly, in ascending order: the paper's choice.

    Raises:
        ValueError: groups of more levels than there are.

    References:
        OuYang et al. 2026, arXiv:2601.21025, multi-level loss.
    """
    _require_levels(n_levels, group_size)
    keys = torch.rand(n_groups, n_levels, generator=generator)
    return keys.argsort(dim=-1)[:, :group_size].sort(dim=-1).values


def _require_levels(n_levels: int, group_size: int) -> None:
    if group_size > n_levels:
        raise ValueError(f"groups of {group_size} levels need as many, and there are {n_levels}: lower the group size")
