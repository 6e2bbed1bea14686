"""How the levels of a group are chosen in training, by name: a new way is a line here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from boltzgen_diffclf.errors import InputError, nearest_name
from boltzgen_diffclf.paths import gap_aware_pairs, neighbour_groups, scattered_groups, spaced_groups

SPACING = 2.0
"""Thermodynamic length between the levels of spaced groups: they span much of the path, and their free energies are
known nearly as well as at less, see :func:`spaced_groups`."""

FAR_SHARE = 0.125
"""Share of the spaced groups whose levels are from all over the path instead."""

TARGET_GAP = 1.0
"""Likeliest thermodynamic length between the two levels of a gap-aware pair."""

LevelIndices = Int[Tensor, "groups size"]
"""Ascending indices of levels, a row a group."""


@dataclass(frozen=True)
class LevelSampler:
    """A way to choose the levels of a group.

    Attributes:
        draw: from the thermodynamic length at each level, levels a group, groups and a CPU stream to the groups.
        needs_length: whether that length must have been measured; where not, that of the data's Gaussian will do.
        is_even: whether every level is as frequent as any other, as classes among all levels have to be.
    """

    draw: Callable[[Float[Tensor, " levels"], int, int, torch.Generator], LevelIndices]
    needs_length: bool = False
    is_even: bool = False


def neighbours(place: Float[Tensor, " levels"], size: int, groups: int, generator: torch.Generator) -> LevelIndices:
    """Draw groups of consecutive levels."""
    return neighbour_groups(len(place), size, groups, generator)


def scattered(place: Float[Tensor, " levels"], size: int, groups: int, generator: torch.Generator) -> LevelIndices:
    """Draw groups of distinct levels from all over the path."""
    return scattered_groups(len(place), size, groups, generator)


def spaced(place: Float[Tensor, " levels"], size: int, groups: int, generator: torch.Generator) -> LevelIndices:
    """Draw groups of levels about :data:`SPACING` apart in thermodynamic length, and :data:`FAR_SHARE` scattered ones.

    Samples of much noise, shown to a level of little, say that its energy is high where it has no data. Neighbours
    alone leave holes there, thousands of kT deep, which dynamics find; few scattered groups close those of five beads.
    """
    far = round(FAR_SHARE * groups) if size > 1 else 0
    near = spaced_groups(place, SPACING, size, groups - far, generator)
    return torch.cat([near, scattered_groups(len(place), size, far, generator)])


def gap_aware(place: Float[Tensor, " levels"], size: int, groups: int, generator: torch.Generator) -> LevelIndices:
    """Draw pairs of levels about :data:`TARGET_GAP` apart in thermodynamic length.

    Raises:
        InputError: groups of another size.
    """
    if size != 2:
        raise InputError(f"gap-aware levels come in pairs, and groups of {size} were asked for; take a group size of 2")
    return gap_aware_pairs(place, TARGET_GAP, groups, generator)


LEVEL_SAMPLERS: Mapping[str, LevelSampler] = {
    "neighbours": LevelSampler(neighbours),
    "scattered": LevelSampler(scattered, is_even=True),
    "spaced": LevelSampler(spaced),
    "gap_aware": LevelSampler(gap_aware, needs_length=True),
}
"""Ways to choose levels by name."""


def named_level_sampler(name: str) -> LevelSampler:
    """Return the way to choose levels called ``name``.

    Raises:
        InputError: there is none.
    """
    if name not in LEVEL_SAMPLERS:
        near = nearest_name(name, list(LEVEL_SAMPLERS))
        raise InputError(f"there is no level sampler {name!r} (valid: {', '.join(LEVEL_SAMPLERS)}){near}")
    return LEVEL_SAMPLERS[name]
