"""From two ensembles to the path between them: pairs, noise, and the true end energies of every configuration."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from boltzgen_diffclf.energy import Ends
from boltzgen_diffclf.paths import StochasticInterpolant
from boltzgen_diffclf.training import PathData

Pairing = Callable[[Tensor, Tensor], Tensor]
"""Configurations of both ends, ``(n, dim)`` each, to a permutation of the second."""

Displacement = Callable[[Tensor, Tensor], Tensor]
"""Configurations of both ends to the displacement from the first to the second."""

EvaluateEnds = Callable[[Tensor], Ends]
"""Configurations to the true energies and gradients of both ends."""


@dataclass(frozen=True, eq=False)
class PathSpace:
    """The coordinates of a path and all that is needed to make configurations on it.

    Attributes:
        path: the interpolant.
        displacement: from one end to the other.
        pairing: minibatch optimal transport; which B goes with which A.
        noise: ``(shape, generator) -> z``, centred where the coordinates are.
        evaluate_ends: true end energies at a configuration of the path; :func:`no_ends` for a model without.
        pair_forces: forces at the two configurations of a pair, ``(n, 2, dim)``, for endpoint target score
            matching; None where no objective asks for them.
    """

    path: StochasticInterpolant
    displacement: Displacement
    pairing: Pairing
    noise: Callable[[tuple[int, ...], torch.Generator], Tensor]
    evaluate_ends: EvaluateEnds
    pair_forces: Callable[[Tensor, Tensor], Tensor] | None = None


def no_ends(y: Float[Tensor, "batch dim"]) -> Ends:
    """Return zeros for both ends, without memory: an unanchored model has no use for them."""
    zero = y.new_zeros(1)
    return Ends(zero.expand(len(y), 2), zero.expand(len(y), 2, y.shape[1]))


def build_path_data(
    space: PathSpace,
    ends_a: Float[Tensor, "frames_a dim"],
    ends_b: Float[Tensor, "frames_b dim"],
    levels: Float[Tensor, " levels"],
    pool: int,
    generator: torch.Generator,
) -> PathData:
    """Draw ``pool`` configurations at every level, in float64; the first and last level are the exact ends.

    Each level draws its own frames and its own noise, so that levels are independent given the frames.

    Args:
        space: coordinates, pairing, noise.
        ends_a: frames of state A in path coordinates.
        ends_b: frames of state B.
        levels: from 0 to 1.
        pool: configurations a level.
        generator: a stream on the CPU.
    """
    configurations, noises, forces = [], [], []
    for t in levels:
        start = ends_a[_choose(len(ends_a), pool, generator).to(ends_a.device)]
        goal = ends_b[_choose(len(ends_b), pool, generator).to(ends_b.device)]
        goal = goal[space.pairing(start, goal)]
        noise = space.noise(tuple(start.shape), generator)
        times = t.to(start).expand(pool)
        configurations.append(space.path.sample(start, space.displacement(start, goal), times, noise))
        noises.append(noise)
        forces.append(_pair_forces(space, start, goal))
    y = torch.stack(configurations)
    n_levels, _, dim = y.shape
    at_y = space.evaluate_ends(y.reshape(-1, dim))
    return PathData(
        levels=levels.to(y),
        dimension=space.path.dimension,
        y=y,
        noise=torch.stack(noises),
        gamma=space.path.gamma(levels.to(y)).expand(n_levels, dim),
        end_energy=at_y.energy.reshape(n_levels, pool, 2),
        end_gradient=at_y.gradient.reshape(n_levels, pool, 2, dim),
        end_force=torch.stack(forces) if space.pair_forces else forces[0].expand(n_levels, -1, -1, -1),
    )


def _pair_forces(space: PathSpace, start: Tensor, goal: Tensor) -> Float[Tensor, "pool 2 dim"]:
    if space.pair_forces is None:
        return start.new_zeros(1).expand(len(start), 2, start.shape[1])
    return space.pair_forces(start, goal)


def _choose(n: int, size: int, generator: torch.Generator) -> Int[Tensor, " size"]:
    """Return ``size`` indices below ``n``: all different while that is possible."""
    rounds = [torch.randperm(n, generator=generator) for _ in range(-(-size // n))]
    return torch.cat(rounds)[:size]
