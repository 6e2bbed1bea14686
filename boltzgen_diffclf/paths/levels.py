"""How noise levels are laid out and drawn."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor


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

    Clamping gives the first and last window the share of all windows that would overhang, so that the exact ends,
    which anchor the scale of F, are seen as often as other levels.

    Args:
        n_levels: levels in all.
        group_size: consecutive levels a group; at most ``n_levels``.
        n_groups: groups drawn.
        generator: the stream for the draw.
    """
    overhang = group_size // 2
    start = torch.randint(-overhang, n_levels - group_size + overhang + 1, (n_groups,), generator=generator)
    start = start.clamp(0, n_levels - group_size)
    return start[:, None] + torch.arange(group_size)


def scattered_groups(
    n_levels: int, group_size: int, n_groups: int, generator: torch.Generator
) -> Int[Tensor, "groups size"]:
    """Draw groups of distinct level indices uniformly, in ascending order: the paper's choice.

    References:
        OuYang et al. 2026, arXiv:2601.21025, multi-level loss.
    """
    keys = torch.rand(n_groups, n_levels, generator=generator)
    return keys.argsort(dim=-1)[:, :group_size].sort(dim=-1).values
