r"""Composition of densities: products, mixtures and negations of energies, as targets and along noise levels.

A :class:`Rule` makes one energy of several. :class:`ComposedTarget` applies it to targets, :class:`ComposedLadder` to
ladders, level by level; with :class:`TimeEnergyLadder` members the latter leads from noise to a composition of data
densities. Its levels are compositions of noised densities, not noised compositions, so reverse diffusion along them
is biased; annealing with exact kernels is not.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from boltzgen_diffclf.energy import OnePassEnergy, TimeEnergy
from boltzgen_diffclf.target import Ladder, SingleLevel, Target


class Rule(ABC):
    """One energy of the energies of ``n_members``, and its slope in each of them."""

    n_members: int

    @abstractmethod
    def combine(
        self, energies: Float[Tensor, "*batch members"], level: Int[Tensor, "*batch"]
    ) -> Float[Tensor, "*batch"]:
        """Return the composed energy [kT] of the members' energies [kT], all at ``level``."""

    @abstractmethod
    def slopes(
        self, energies: Float[Tensor, "*batch members"], level: Int[Tensor, "*batch"]
    ) -> Float[Tensor, "*batch members"]:
        """Return the derivative of :meth:`combine` in each member's energy."""


class Product(Rule):
    r"""The tempered product of densities, ``u = sum_i a_i u_i``: what all members call likely.

    Args:
        exponents: ``a_i > 0``; all one for the plain product.
    """

    def __init__(self, exponents: Float[Tensor, " members"]) -> None:
        if not bool((exponents > 0).all()):
            raise ValueError(f"exponents of a product must be positive, got {exponents.tolist()}; negate with Negation")
        self.exponents, self.n_members = exponents, len(exponents)

    def combine(
        self, energies: Float[Tensor, "*batch members"], level: Int[Tensor, "*batch"]
    ) -> Float[Tensor, "*batch"]:
        """See :meth:`Rule.combine`."""
        return energies @ self.exponents

    def slopes(
        self, energies: Float[Tensor, "*batch members"], level: Int[Tensor, "*batch"]
    ) -> Float[Tensor, "*batch members"]:
        """See :meth:`Rule.slopes`."""
        return self.exponents.expand_as(energies)


class Mixture(Rule):
    r"""The mixture of densities, ``u = -log sum_i w_i exp(F_i - u_i)``: normalised when every ``F_i = -log Z_i`` is.

    Args:
        weights: ``w_i > 0`` in any scale; they are made to sum to one.
        free_energies: ``F_i`` [kT] of every level, one row a level; a target has one row. An error of ``F_i`` is
            one of the logarithm of ``w_i``; see :func:`tied_free_energies`.
    """

    def __init__(self, weights: Float[Tensor, " members"], free_energies: Float[Tensor, "levels members"]) -> None:
        if not bool((weights > 0).all()):
            raise ValueError(f"weights of a mixture must be positive, got {weights.tolist()}")
        self.n_members = len(weights)
        self.log_weights = (weights / weights.sum()).log() + free_energies

    def combine(
        self, energies: Float[Tensor, "*batch members"], level: Int[Tensor, "*batch"]
    ) -> Float[Tensor, "*batch"]:
        """See :meth:`Rule.combine`."""
        return -(self.log_weights[level] - energies).logsumexp(-1)

    def slopes(
        self, energies: Float[Tensor, "*batch members"], level: Int[Tensor, "*batch"]
    ) -> Float[Tensor, "*batch members"]:
        """See :meth:`Rule.slopes`: the probability that each member made the configuration."""
        return (self.log_weights[level] - energies).softmax(-1)


class Negation(Rule):
    r"""The first density away from the second, ``p_1 / (p_2 + epsilon)^a``: ``u = u_1 - a c(u_2)``.

    ``u_1 - a u_2`` alone may have no normaliser, and falls without bound where ``u_2`` clashes. The guard
    ``c(v) = -log(exp(-v) + exp(-ceiling))`` is ``v`` far below ``ceiling = -log epsilon`` and never above it, so the
    composed density is at most ``exp(a * ceiling)`` times the first and has a normaliser if that has one.

    Args:
        scale: ``a >= 0``.
        ceiling: [kT] in the zero of energy of ``u_2``: energies of the second above it count alike.
    """

    n_members = 2

    def __init__(self, scale: float, ceiling: float) -> None:
        if not scale >= 0:
            raise ValueError(f"the scale of a negation must not be negative, got {scale}")
        self.scale, self.ceiling = scale, ceiling

    def combine(
        self, energies: Float[Tensor, "*batch members"], level: Int[Tensor, "*batch"]
    ) -> Float[Tensor, "*batch"]:
        """See :meth:`Rule.combine`."""
        first, second = energies.unbind(-1)
        return first + self.scale * torch.logaddexp(-second, torch.full_like(second, -self.ceiling))

    def slopes(
        self, energies: Float[Tensor, "*batch members"], level: Int[Tensor, "*batch"]
    ) -> Float[Tensor, "*batch members"]:
        """See :meth:`Rule.slopes`."""
        first, second = energies.unbind(-1)
        return torch.stack([torch.ones_like(first), -self.scale * (self.ceiling - second).sigmoid()], dim=-1)


class ComposedLadder(Ladder):
    """A ladder whose level k is the composition of its members' levels k.

    Args:
        members: ladders on one space, with as many levels each.
        rule: for as many members.
    """

    def __init__(self, members: Sequence[Ladder], rule: Rule) -> None:
        spaces = {(member.event_shape, member.dimension, member.n_levels) for member in members}
        if len(spaces) != 1 or len(members) != rule.n_members:
            raise ValueError(
                f"{len(members)} members for a rule of {rule.n_members}, "
                f"of (event_shape, dimension, levels) {sorted(spaces)}; they must fit and be alike"
            )
        self.members, self.rule = list(members), rule
        self.event_shape, self.dimension, self.n_levels = next(iter(spaces))
        self.dtype, self.device = members[0].dtype, members[0].device

    def energy(self, x: Float[Tensor, "batch *event"], level: Int[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        """See :meth:`Ladder.energy`."""
        return self.rule.combine(torch.stack([member.energy(x, level) for member in self.members], dim=-1), level)

    def energies(self, x: Float[Tensor, "batch *event"]) -> Float[Tensor, "batch levels"]:
        """See :meth:`Ladder.energies`; each member lists its own in the cheapest way it knows."""
        energies = torch.stack([member.energies(x) for member in self.members], dim=-1)
        return self.rule.combine(energies, torch.arange(self.n_levels, device=x.device).expand(len(x), -1))

    def energy_and_force(
        self, x: Float[Tensor, "batch *event"], level: Int[Tensor, " batch"]
    ) -> tuple[Float[Tensor, " batch"], Float[Tensor, "batch *event"]]:
        """See :meth:`Ladder.energy_and_force`."""
        pairs = [member.energy_and_force(x, level) for member in self.members]
        energies = torch.stack([energy for energy, _ in pairs], dim=-1)
        slopes = self.rule.slopes(energies, level)
        force = torch.zeros_like(x)
        for slope, (_, member_force) in zip(slopes.unbind(-1), pairs, strict=True):
            wide = slope.view(-1, *[1] * (x.ndim - 1))
            # A member without weight may have clashing atoms, whose force is no number.
            force = torch.where(wide == 0, force, force + wide * member_force)
        return self.rule.combine(energies, level), force


class ComposedTarget(Target):
    """The composition of targets on one space.

    Args:
        targets: the members.
        rule: for as many members.

    >>> from boltzgen_diffclf.target import GaussianTarget
    >>> pair = [GaussianTarget(1, mean=-1.0), GaussianTarget(1, mean=1.0)]
    >>> ComposedTarget(pair, Product(torch.ones(2, dtype=torch.float64))).energy(torch.zeros(1, 1).double()).item()
    1.0
    """

    def __init__(self, targets: Sequence[Target], rule: Rule) -> None:
        self.ladder = ComposedLadder([SingleLevel(target) for target in targets], rule)
        self.event_shape, self.dimension = self.ladder.event_shape, self.ladder.dimension
        self.dtype, self.device = self.ladder.dtype, self.ladder.device

    def energy(self, x: Float[Tensor, "batch *event"]) -> Float[Tensor, " batch"]:
        """See :meth:`Target.energy`."""
        return self.ladder.energy(x, self._level(x))

    def energy_and_force(
        self, x: Float[Tensor, "batch *event"]
    ) -> tuple[Float[Tensor, " batch"], Float[Tensor, "batch *event"]]:
        """See :meth:`Target.energy_and_force`; the members' own forces are combined."""
        return self.ladder.energy_and_force(x, self._level(x))

    def _level(self, x: Float[Tensor, "batch *event"]) -> Int[Tensor, " batch"]:
        return torch.zeros(len(x), dtype=torch.long, device=x.device)


class TimeEnergyLadder(Ladder):
    """``U(., t_k)`` of a time-dependent energy as a ladder; its parameters are not trained through this.

    Args:
        model: in evaluation state.
        times: ``t_k``, one a level, in the dtype and on the device of the configurations.
        coordinates: numbers in one flat configuration.
        dimension: degrees of freedom, ``3 (atoms - 1)`` for centred positions; ``coordinates`` when None.
    """

    def __init__(
        self, model: TimeEnergy, times: Float[Tensor, " levels"], coordinates: int, dimension: int | None = None
    ) -> None:
        self.model, self.times = model, times
        self.n_levels, self.event_shape = len(times), (coordinates,)
        self.dimension = coordinates if dimension is None else dimension
        self.dtype, self.device = times.dtype, times.device

    def energy(self, x: Float[Tensor, "batch *event"], level: Int[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        """See :meth:`Ladder.energy`."""
        with torch.no_grad():
            return self.model.energy(x, self.times[level]).to(self.dtype)

    def energy_and_force(
        self, x: Float[Tensor, "batch *event"], level: Int[Tensor, " batch"]
    ) -> tuple[Float[Tensor, " batch"], Float[Tensor, "batch *event"]]:
        """See :meth:`Ladder.energy_and_force`; one pass through a model that gives both."""
        if not isinstance(self.model, OnePassEnergy):
            return self.energy(x, level), -self.model.gradient(x.detach(), self.times[level]).detach().to(x)
        with torch.no_grad():
            energy, gradient = self.model.energy_and_gradient(x, self.times[level])
        return energy.to(self.dtype), -gradient.to(x)


class NormalisedLadder(Ladder):
    """A ladder with the free energy of each level taken off, ``u_k - F_k``: normalised as well as ``F_k`` is known.

    Args:
        ladder: of unnormalised levels.
        free_energies: ``F_k = -log Z_k`` [kT] of its levels; see :func:`tied_free_energies`.
    """

    def __init__(self, ladder: Ladder, free_energies: Float[Tensor, " levels"]) -> None:
        if len(free_energies) != ladder.n_levels:
            raise ValueError(f"{len(free_energies)} free energies for {ladder.n_levels} levels; each level needs one")
        self.ladder, self.free_energies = ladder, free_energies
        self.event_shape, self.dimension, self.n_levels = ladder.event_shape, ladder.dimension, ladder.n_levels
        self.dtype, self.device = ladder.dtype, ladder.device

    def energy(self, x: Float[Tensor, "batch *event"], level: Int[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        """See :meth:`Ladder.energy`."""
        return self.ladder.energy(x, level) - self.free_energies[level]

    def energies(self, x: Float[Tensor, "batch *event"]) -> Float[Tensor, "batch levels"]:
        """See :meth:`Ladder.energies`."""
        return self.ladder.energies(x) - self.free_energies

    def energy_and_force(
        self, x: Float[Tensor, "batch *event"], level: Int[Tensor, " batch"]
    ) -> tuple[Float[Tensor, " batch"], Float[Tensor, "batch *event"]]:
        """See :meth:`Ladder.energy_and_force`."""
        energy, force = self.ladder.energy_and_force(x, level)
        return energy - self.free_energies[level], force


def tied_free_energies(
    models: Sequence[TimeEnergy],
    times: Float[Tensor, " levels"],
    noise: Float[Tensor, "samples dim"],
    noise_log_density: Float[Tensor, " samples"],
) -> Float[Tensor, "levels members"]:
    r"""Return ``F_i(t_k)`` [kT] of several models on one zero, the normalised one.

    For :class:`Mixture` and :class:`NormalisedLadder`. Each model's curve is known up to a constant. At the level of
    pure noise every model's density is nearly the noise itself, so ``log Z_i = log E_noise[exp(-U_i) / p_noise]`` is
    cheap there and fixes the constant.

    Args:
        models: on one path.
        times: of the levels; the largest must be close to pure noise.
        noise: independent samples of the distribution at the largest time.
        noise_log_density: its normalised log density there.
    """
    t_noise = times.max()
    columns = []
    for model in models:
        with torch.no_grad():
            log_ratio = -model.energy(noise, t_noise.expand(len(noise))) - noise_log_density
            log_normaliser = log_ratio.double().logsumexp(0) - math.log(len(noise))
            columns.append(model.free_energy(times) - model.free_energy(t_noise) - log_normaliser)
    return torch.stack(columns, dim=-1)
