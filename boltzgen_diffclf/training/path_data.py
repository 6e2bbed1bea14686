"""What training draws from: path configurations, grouped by level, with everything the losses need computed once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from boltzgen_diffclf.paths import neighbour_groups, scattered_groups


class PathBatch(NamedTuple):
    """Groups of configurations; within a group each sits at another level.

    Attributes:
        t: the levels.
        y: the configurations in path coordinates.
        noise: the z that made them.
        gamma: its standard deviation; zero at the exact ends.
        end_energy: ``u_A(y)`` and ``u_B(y)`` [kT].
        end_gradient: their gradients [kT per unit].
        end_force: the forces at the two configurations that y lies between, for endpoint target score matching.
    """

    t: Float[Tensor, "groups size"]
    y: Float[Tensor, "groups size dim"]
    noise: Float[Tensor, "groups size dim"]
    gamma: Float[Tensor, "groups size dim"]
    end_energy: Float[Tensor, "groups size 2"]
    end_gradient: Float[Tensor, "groups size 2 dim"]
    end_force: Float[Tensor, "groups size 2 dim"]


@dataclass(frozen=True, eq=False)
class PathData:
    """A pool of configurations at every level of a path, the exact ends included.

    Attributes:
        levels: from 0 to 1.
        dimension: degrees of freedom of the coordinates.
        y: configurations.
        noise: the z that made them.
        gamma: per level and coordinate.
        end_energy: true energies of both ends [kT]; zeros for a model that does not use them.
        end_gradient: their gradients.
        end_force: forces at the two ends of each pair; zeros where the objective does not use them.
        origin: labels of what made each configuration, in A and in B: two that share one are not independent.
    """

    levels: Float[Tensor, " levels"]
    dimension: int
    y: Float[Tensor, "levels pool dim"]
    noise: Float[Tensor, "levels pool dim"]
    gamma: Float[Tensor, "levels dim"]
    end_energy: Float[Tensor, "levels pool 2"]
    end_gradient: Float[Tensor, "levels pool 2 dim"]
    end_force: Float[Tensor, "levels pool 2 dim"]
    origin: Int[Tensor, "levels pool 2"]

    def draw(self, n_groups: int, group_size: int, generator: torch.Generator, *, neighbours: bool = True) -> PathBatch:
        """Draw ``n_groups`` groups of ``group_size`` levels, one configuration from the pool of each.

        Args:
            n_groups: groups in the batch.
            group_size: levels a group: N of the N-level classification loss.
            generator: a CPU stream, the same on every process of a distributed run.
            neighbours: consecutive levels; False draws distinct levels uniformly, as the paper does.
        """
        draw_levels = neighbour_groups if neighbours else scattered_groups
        level = draw_levels(len(self.levels), group_size, n_groups, generator)
        member = torch.randint(self.y.shape[1], level.shape, generator=generator)
        return self.take(level.to(self.y.device), member.to(self.y.device))

    def draw_with_ends(
        self, n_groups: int, group_size: int, generator: torch.Generator, *, neighbours: bool = True
    ) -> PathBatch:
        """Draw groups whose first and last level are the ends of the path, the others from between, see :meth:`draw`.

        Args:
            n_groups: groups in the batch.
            group_size: levels a group, both ends counted.
            generator: a CPU stream, the same on every process of a distributed run.
            neighbours: as in :meth:`draw`, of the levels between.
        """
        draw_levels, last = neighbour_groups if neighbours else scattered_groups, len(self.levels) - 1
        between = 1 + draw_levels(last - 1, group_size - 2, n_groups, generator)
        start = torch.zeros_like(between[:, :1])
        level = torch.cat([start, between, start + last], dim=1)
        member = torch.randint(self.y.shape[1], level.shape, generator=generator)
        return self.take(level.to(self.y.device), member.to(self.y.device))

    def at_levels(self, index: Tensor) -> PathData:
        """Return the pools of the levels at ``index`` alone."""
        fields = {
            name: getattr(self, name)[index]
            for name in ("levels", "y", "noise", "gamma", "end_energy", "end_gradient", "end_force", "origin")
        }
        return PathData(dimension=self.dimension, **fields)

    def take(self, level: Tensor, member: Tensor) -> PathBatch:
        """Return the configurations ``member`` of the pools ``level``, both ``(groups, size)``."""
        return PathBatch(
            self.levels[level],
            self.y[level, member],
            self.noise[level, member],
            self.gamma[level],
            self.end_energy[level, member],
            self.end_gradient[level, member],
            self.end_force[level, member],
        )
