"""From two ensembles to the path between them: pairs, noise, and the true end energies of every configuration."""

from __future__ import annotations

from abc import ABC, abstractmethod
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from boltzgen_diffclf.energy import Ends
from boltzgen_diffclf.paths import StochasticInterpolant
from boltzgen_diffclf.training import PathData

TRANSPORT_BATCH = 500
"""Pairs that are transported together: the cost of exact transport grows with the cube."""

LEVELS_PER_PAIRING = 8
"""Neighbouring levels that share their pairs: transport costs more than all else in a pool."""


class PathSpace(ABC):
    """The coordinates of a path between two states, and how its configurations are made.

    Attributes:
        path: the interpolant, in flat coordinates.
        dimension: how many flat coordinates.
    """

    path: StochasticInterpolant
    dimension: int

    @abstractmethod
    def pair(self, x_0: Float[Tensor, "n *event"], x_1: Float[Tensor, "n *event"]) -> Float[Tensor, "n *event"]:
        """Return ``x_1`` permuted (and turned, and relabelled where atoms are identical) to go with ``x_0``."""

    @abstractmethod
    def encode(self, x: Float[Tensor, "n *event"]) -> Float[Tensor, "n dim"]:
        """Return flat path coordinates of configurations, e.g. of positions [nm]."""

    @abstractmethod
    def displacement(self, y_0: Float[Tensor, "n dim"], y_1: Float[Tensor, "n dim"]) -> Float[Tensor, "n dim"]:
        """Return the way from ``y_0`` to ``y_1``."""

    @abstractmethod
    def noise(self, n: int, generator: torch.Generator) -> Float[Tensor, "n dim"]:
        """Return unit noise of the path."""

    @abstractmethod
    def end_values(self, y: Float[Tensor, "n dim"]) -> Ends:
        """Return the true energies and gradients of both ends, or zeros where the model has no use for them."""

    @abstractmethod
    def pair_forces(self, x_0: Float[Tensor, "n *event"], x_1: Float[Tensor, "n *event"]) -> Float[Tensor, "n 2 dim"]:
        """Return the forces at both members of each pair, or zeros where no objective asks for them."""


def build_path_data(
    space: PathSpace,
    frames_a: Float[Tensor, "frames_a *event"],
    frames_b: Float[Tensor, "frames_b *event"],
    levels: Float[Tensor, " levels"],
    pool: int,
    generator: torch.Generator,
) -> PathData:
    """Draw ``pool`` configurations at every level, in float64; the first and last level are the exact ends.

    Each level draws its own noise; :data:`LEVELS_PER_PAIRING` neighbours share their pairs of frames.

    Args:
        space: coordinates, pairing, noise.
        frames_a: configurations of state A, e.g. positions [nm].
        frames_b: configurations of state B.
        levels: from 0 to 1.
        pool: configurations a level; paired by transport within blocks of :data:`TRANSPORT_BATCH`.
        generator: a stream on the CPU.
    """
    configurations, noises, forces = [], [], []
    for index, t in enumerate(levels):
        if index % LEVELS_PER_PAIRING == 0:
            pairs = _draw_pairs(space, frames_a, frames_b, pool, generator)
        noise = space.noise(pool, generator)
        configurations.append(space.path.sample(pairs.y_0, pairs.displacement, t.to(noise).expand(pool), noise))
        noises.append(noise)
        forces.append(pairs.forces)
    y = torch.stack(configurations)
    n_levels, _, dim = y.shape
    ends = space.end_values(y.reshape(-1, dim))
    return PathData(
        levels=levels.to(y),
        dimension=space.path.dimension,
        y=y,
        noise=torch.stack(noises),
        gamma=space.path.gamma(levels.to(y)).expand(n_levels, dim),
        end_energy=ends.energy.reshape(n_levels, pool, 2),
        end_gradient=ends.gradient.reshape(n_levels, pool, 2, dim),
        end_force=torch.stack(forces),
    )


class _Pairs(NamedTuple):
    y_0: Float[Tensor, "pool dim"]
    displacement: Float[Tensor, "pool dim"]
    forces: Float[Tensor, "pool 2 dim"]


def _draw_pairs(space: PathSpace, frames_a: Tensor, frames_b: Tensor, pool: int, generator: torch.Generator) -> _Pairs:
    x_0 = frames_a[_choose(len(frames_a), pool, generator).to(frames_a.device)]
    x_1 = frames_b[_choose(len(frames_b), pool, generator).to(frames_b.device)]
    # Transport runs on one core and lets go of the interpreter: blocks are paired side by side.
    with ThreadPoolExecutor(torch.get_num_threads()) as workers:
        x_1 = torch.cat(list(workers.map(space.pair, x_0.split(TRANSPORT_BATCH), x_1.split(TRANSPORT_BATCH))))
    y_0 = space.encode(x_0)
    return _Pairs(y_0, space.displacement(y_0, space.encode(x_1)), space.pair_forces(x_0, x_1))


def _choose(n: int, size: int, generator: torch.Generator) -> Int[Tensor, " size"]:
    """Return ``size`` indices below ``n``: all different while that is possible."""
    rounds = [torch.randperm(n, generator=generator) for _ in range(-(-size // n))]
    return torch.cat(rounds)[:size]
