"""How the levels of a group are drawn: pairs and groups of indices, for losses that compare their levels."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

_GAP_SPREAD = 0.5
"""Standard deviation of the logarithm of a drawn gap, up to the skew of the linear measure."""

_GAP_STRETCH = 1.3
"""Largest factor between the gap of a group and the one asked for."""


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


def neighbour_groups(
    n_levels: int, group_size: int, n_groups: int, generator: torch.Generator
) -> Int[Tensor, "groups size"]:
    """Draw groups of consecutive level indices, the window clamped at the ends.

    Clamping gives the first and last window the share of all windows that would overhang: the exact ends, which anchor
    the scale of F, are in ``group_size // 2 + 1`` of these starts, a level far from them in ``group_size``.

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
