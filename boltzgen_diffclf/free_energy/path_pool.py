"""From two ensembles to the path between them: pairs, noise, and the true end energies of every configuration."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
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
    def pair(
        self, x_0: Float[Tensor, "n *event"], x_1: Float[Tensor, "n *event"]
    ) -> tuple[Float[Tensor, "n *event"], Int[Tensor, " n"]]:
        """Return ``x_1`` permuted (and turned, and relabelled where atoms are identical) to go with ``x_0``.

        The permutation comes with it: which of ``x_1`` each row is.
        """

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
    walkers: tuple[Int[Tensor, " frames_a"], Int[Tensor, " frames_b"]] | None = None,
    advance: Callable[[float], None] = lambda share: None,
) -> PathData:
    """Draw ``pool`` configurations at every level, in float64; the first and last level are the exact ends.

    Each level draws its own noise; :data:`LEVELS_PER_PAIRING` neighbours share their pairs of frames, and a frame is in
    several pairings: what is estimated of several levels has to look at ``origin``.

    Args:
        space: coordinates, pairing, noise.
        frames_a: configurations of state A, e.g. positions [nm].
        frames_b: configurations of state B.
        levels: from 0 to 1.
        pool: configurations a level; paired by transport within blocks of :data:`TRANSPORT_BATCH`.
        generator: a stream on the CPU.
        walkers: of the frames of A and of B, a label of both being one walker; where not given, frames are
            independent.
        advance: told each share of the pool that has its energies, which take nearly all of the time.
    """
    origins = walkers or torch.arange(len(frames_a) + len(frames_b)).split([len(frames_a), len(frames_b)])
    configurations, noises, forces, labels = [], [], [], []
    for index, t in enumerate(levels):
        if index % LEVELS_PER_PAIRING == 0:
            pairs = _draw_pairs(space, frames_a, frames_b, pool, generator)
            origin = torch.stack([label[chosen] for label, chosen in zip(origins, pairs.chosen, strict=True)], dim=1)
        noise = space.noise(pool, generator)
        configurations.append(space.path.sample(pairs.y_0, pairs.displacement, t.to(noise).expand(pool), noise))
        noises.append(noise)
        forces.append(pairs.forces)
        labels.append(origin)
    y = torch.stack(configurations)
    n_levels, _, dim = y.shape
    ends = []
    for several in y.split(LEVELS_PER_PAIRING):
        ends.append(space.end_values(several.reshape(-1, dim)))
        advance(len(several) / n_levels)
    return PathData(
        levels=levels.to(y),
        dimension=space.path.dimension,
        y=y,
        noise=torch.stack(noises),
        gamma=space.path.gamma(levels.to(y)).reshape(n_levels, -1).expand(n_levels, dim),
        end_energy=torch.cat([one.energy for one in ends]).reshape(n_levels, pool, 2),
        end_gradient=torch.cat([one.gradient for one in ends]).reshape(n_levels, pool, 2, dim),
        end_force=torch.stack(forces),
        origin=torch.stack(labels),
    )


class _Pairs(NamedTuple):
    y_0: Float[Tensor, "pool dim"]
    displacement: Float[Tensor, "pool dim"]
    forces: Float[Tensor, "pool 2 dim"]
    chosen: tuple[Int[Tensor, " pool"], Int[Tensor, " pool"]]


def _draw_pairs(space: PathSpace, frames_a: Tensor, frames_b: Tensor, pool: int, generator: torch.Generator) -> _Pairs:
    of_a, of_b = (_choose(len(frames), pool, generator) for frames in (frames_a, frames_b))
    x_0, x_1 = frames_a[of_a.to(frames_a.device)], frames_b[of_b.to(frames_b.device)]
    # Transport runs on one core and lets go of the interpreter: blocks are paired side by side.
    with ThreadPoolExecutor(torch.get_num_threads()) as workers:
        blocks = list(workers.map(space.pair, x_0.split(TRANSPORT_BATCH), x_1.split(TRANSPORT_BATCH)))
    x_1 = torch.cat([partner for partner, _ in blocks])
    of_b = torch.cat([part[order.cpu()] for part, (_, order) in zip(of_b.split(TRANSPORT_BATCH), blocks, strict=True)])
    y_0 = space.encode(x_0)
    return _Pairs(y_0, space.displacement(y_0, space.encode(x_1)), space.pair_forces(x_0, x_1), (of_a, of_b))


def _choose(n: int, size: int, generator: torch.Generator) -> Int[Tensor, " size"]:
    """Return ``size`` indices below ``n``: all different while that is possible."""
    rounds = [torch.randperm(n, generator=generator) for _ in range(-(-size // n))]
    return torch.cat(rounds)[:size]
