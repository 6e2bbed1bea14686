r"""Sequential Monte Carlo along the noising reversed: steps by the score, weights by the energy.

A particle goes from ``y_t`` to ``y_s``, ``s < t``, by a Gaussian ``q(y_s | y_t)`` about what the score says, and its
weight takes

.. math:: \frac{e^{-U(y_s, s)}\, p(y_t | y_s)}{e^{-U(y_t, t)}\, q(y_s | y_t)}

with the exact kernel ``p`` of the noising. Then the weighted particles stand for ``exp(-U(., s))`` at every level,
whatever the steps were: a poor score costs effective samples and no bias. Annealing by moves that leave each level
invariant needs them to cross between modes; here the score carries particles into all of them as they part.

Where the last step takes the energy of a target instead of ``U(., s)``, the particles stand for the target, and the
learned energy too costs effective samples only: the particle denoising diffusion sampler.

References:
    Del Moral, Doucet & Jasra 2006, J. R. Stat. Soc. B 68, 411, eq. 12, for backward kernels; He, Hernandez-Lobato, Du &
    Vargas 2025, arXiv:2506.05668, for the ratio of the two kernels of a diffusion; Phillips et al. 2024,
    arXiv:2402.06320, for the target at the end.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from boltzgen_diffclf.paths import DiffusionPath, forward_kernel, unknown_share
from boltzgen_diffclf.samplers.resampling import Resampling, log_mean_exp, robust_moments, select, systematic
from boltzgen_diffclf.samplers.reverse import reverse_step
from boltzgen_diffclf.samplers.state import TensorState
from boltzgen_diffclf.target import Target

EnergyAndGradient = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""``(y, t) -> U [kT], dU/dy``, shapes ``(batch, dim)``, ``(batch,)`` to ``(batch,)``, ``(batch, dim)``."""

Proposal = Callable[[DiffusionPath, Tensor, Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]
"""``(path, y, dU/dy, t, s) -> mean, variance`` of the normal ``q(y_s | y_t)``; ``t`` and ``s`` hold one time each."""


@dataclass(frozen=True)
class MarginalProposal:
    """The reverse kernel of data that is one Gaussian of the width ``resolution`` about what the score says.

    Args:
        resolution: width of the modes of the data: the steps then have the spread of a mode as well as that of the
            noise, so that fewer levels do.
    """

    resolution: float = 0.0

    def __call__(self, path: DiffusionPath, y: Tensor, gradient: Tensor, t: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
        """See :data:`Proposal`."""
        return _reverse_normal(path, y, gradient, t, s, self.resolution)


@dataclass(frozen=True, eq=False)
class ReverseSmcState(TensorState):
    """Weighted particles on their way back.

    Attributes:
        position: at the level ``stage`` before the last.
        energy: ``U`` there, or the target's at the end of the way [kT].
        gradient: ``dU/dy`` there; at the end of a way to a target that of the level before, which nothing needs.
        stage: levels come down so far.
        log_weights: since the last resampling.
        log_normaliser: log ratio of normalisers banked by the resamplings so far.
        root: which of the particles at the start each descends from.
        aside: log weights that resampling has not looked at, see :attr:`ReverseSmc.largest_gain`.
    """

    position: Float[Tensor, "batch dim"]
    energy: Float[Tensor, " batch"]
    gradient: Float[Tensor, "batch dim"]
    stage: Int[Tensor, ""]
    log_weights: Float[Tensor, " batch"]
    log_normaliser: Float[Tensor, ""]
    root: Int[Tensor, " batch"]
    aside: Float[Tensor, " batch"]

    @property
    def whole_log_weights(self) -> Float[Tensor, " batch"]:
        """What the particles stand for the energy by: with what was put aside."""
        return self.log_weights + self.aside


@dataclass(frozen=True, eq=False)
class ReverseSmcInfo:
    """What happened at one level.

    Attributes:
        effective_sample_size: of the weights on arrival, before any resampling.
        log_normaliser_increment: banked by the resampling of this stage; zero where none was needed.
    """

    effective_sample_size: Float[Tensor, ""]
    log_normaliser_increment: Float[Tensor, ""]


class Moved(NamedTuple):
    """Particles after one move, and what their log weights gain by it."""

    position: Tensor
    energy: Tensor
    gradient: Tensor
    log_gain: Tensor


@dataclass(frozen=True, eq=False)
class ReverseSmc:
    """One pass down the levels: move by the score, weigh by the energy, resample if needed.

    Attributes:
        path: the noising.
        times: growing; they are visited from the last to the first.
        target: what the particles stand for at the first time in place of ``U``, on flat configurations; its energy
            alone is evaluated. None stays with ``U``.
        proposal: of the moves.
        resample_below: resample when the effective sample size falls below this fraction; None never does.
        resampling: the scheme.
        largest_gain: what a log weight gains at a level, at most, above the median of all, in standard deviations;
            the rest is put aside until the end. Where an energy falls faster than its slope says, one particle would
            else displace all others, though the next levels, or the target at the end, take its weight away again.
            None puts nothing aside.
    """

    path: DiffusionPath
    times: Float[Tensor, " levels"]
    target: Target | None = None
    proposal: Proposal = MarginalProposal()
    resample_below: float | None = 0.5
    resampling: Resampling = systematic
    largest_gain: float | None = None

    def __post_init__(self) -> None:
        """Refuse levels that lead nowhere."""
        if len(self.times) < 2 or not bool((self.times.diff() > 0).all()):
            raise ValueError(f"the way back needs two or more growing times, got {self.times.tolist()}")

    def init(self, energy_and_gradient: EnergyAndGradient, start: Float[Tensor, "batch dim"]) -> ReverseSmcState:
        """Return particles at the last time, where they are samples of ``exp(-U)``."""
        with torch.no_grad():
            energy, gradient = energy_and_gradient(start, self.times[-1].expand(len(start)))
        zeros = torch.zeros(len(start), dtype=torch.float64, device=start.device)
        stage = torch.zeros((), dtype=torch.long, device=start.device)
        root = torch.arange(len(start), device=start.device)
        return ReverseSmcState(start, energy, gradient, stage, zeros, zeros.new_zeros(()), root, zeros)

    def step(
        self, energy_and_gradient: EnergyAndGradient, state: ReverseSmcState, generator: torch.Generator
    ) -> tuple[ReverseSmcState, ReverseSmcInfo]:
        """Return the particles one level down, and what happened.

        Raises:
            ValueError: when the first time has been reached.
            RunFailedError: when weights to resample are not finite.
        """
        later = len(self.times) - 1 - int(state.stage)
        if later == 0:
            raise ValueError(f"the particles already are at the first time {float(self.times[0])}")
        t, s = self.times[later, None], self.times[later - 1, None]
        noise = torch.randn(
            state.position.shape, generator=generator, dtype=state.position.dtype, device=state.position.device
        )
        target = self.target if later == 1 else None
        with torch.no_grad():
            moved = self.move(energy_and_gradient, state, t, s, noise, target)
        rest = self._put_aside(moved.log_gain)
        chosen = select(state.log_weights + moved.log_gain - rest, self.resample_below, self.resampling, generator)
        after = ReverseSmcState(
            position=moved.position[chosen.ancestors],
            energy=moved.energy[chosen.ancestors],
            gradient=moved.gradient[chosen.ancestors],
            stage=state.stage + 1,
            log_weights=chosen.log_weights,
            log_normaliser=state.log_normaliser + chosen.banked,
            root=state.root[chosen.ancestors],
            aside=(state.aside + rest)[chosen.ancestors],
        )
        return after, ReverseSmcInfo(chosen.effective_sample_size, chosen.banked)

    def _put_aside(self, log_gain: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        """Return the part of the gains that resampling does not look at now: none of those that are not finite."""
        finite = log_gain.isfinite()
        if self.largest_gain is None or not bool(finite.any()):
            return torch.zeros_like(log_gain)
        middle, deviation = robust_moments(log_gain[finite])
        above = (log_gain - middle - self.largest_gain * deviation).clamp(min=0)
        return torch.where(finite, above, 0.0)

    def move(
        self,
        energy_and_gradient: EnergyAndGradient,
        state: ReverseSmcState,
        t: Float[Tensor, " 1"],
        s: Float[Tensor, " 1"],
        noise: Float[Tensor, "batch dim"],
        target: Target | None,
    ) -> Moved:
        """Return the particles moved from ``t`` to ``s`` by this noise, weighed by the target where there is one."""
        y = state.position
        mean, variance = self.proposal(self.path, y, state.gradient, t, s)
        moved = mean + variance.sqrt() * noise
        if target is None:
            energy, gradient = energy_and_gradient(moved, s.expand(len(y)))
        else:
            energy, gradient = target.energy(moved.to(target.dtype)), state.gradient
        scale, spread = forward_kernel(self.path, s, t)
        kernels = _log_normal(y, scale * moved, spread.square()) - _log_normal(moved, mean, variance)
        log_gain = kernels.double() - energy.double() + state.energy.double()
        # A particle of infinite energy, or of none, has no weight, now and at all levels to come.
        log_gain = torch.where(log_gain.isfinite(), log_gain, -torch.inf)
        return Moved(moved, energy.to(state.energy), gradient, log_gain)


@dataclass(frozen=True, eq=False)
class WeightedSamples:
    """Weighted samples of the first level.

    Attributes:
        position: of the samples.
        log_weights: since the last resampling.
        log_normaliser: estimate of ``log Z_first - log Z_last`` of ``exp(-U)``, unbiased for the ratio itself.
        effective_sample_size: on arrival at each level after the last.
    """

    position: Float[Tensor, "batch dim"]
    log_weights: Float[Tensor, " batch"]
    log_normaliser: Float[Tensor, ""]
    effective_sample_size: Float[Tensor, " stages"]


def sample_reverse_weighted(
    energy_and_gradient: EnergyAndGradient,
    path: DiffusionPath,
    times: Float[Tensor, " levels"],
    start: Float[Tensor, "batch dim"],
    generator: torch.Generator,
    *,
    target: Target | None = None,
    resolution: float = 0.0,
    resample_below: float | None = 0.5,
    resampling: Resampling = systematic,
) -> WeightedSamples:
    """Return weighted samples of ``exp(-U)`` at the first level, or of a target there, from equilibrium at the last.

    To save between the levels, or to propose otherwise, make a :class:`ReverseSmc` and call ``init`` and ``step``.

    Args:
        energy_and_gradient: of the model or an oracle.
        path: the noising.
        times: growing; they are visited from the last to the first.
        start: samples of ``exp(-U)`` at the last time.
        generator: on the device of ``start``.
        target: see :class:`ReverseSmc`; ``Z_first`` then is that of the target.
        resolution: see :class:`MarginalProposal`.
        resample_below: resample when the effective sample size falls below this fraction; None never does.
        resampling: the scheme.

    Raises:
        ValueError: times that do not grow.
        RunFailedError: weights to resample that are not finite.
    """
    smc = ReverseSmc(path, times, target, MarginalProposal(resolution), resample_below, resampling)
    state, sizes = smc.init(energy_and_gradient, start), []
    for _ in times[1:]:
        state, info = smc.step(energy_and_gradient, state, generator)
        sizes.append(info.effective_sample_size)
    log_normaliser = state.log_normaliser + log_mean_exp(state.whole_log_weights)
    return WeightedSamples(state.position, state.whole_log_weights, log_normaliser, torch.stack(sizes))


def _reverse_normal(
    path: DiffusionPath, y: Tensor, gradient: Tensor, t: Tensor, s: Tensor, resolution: float
) -> tuple[Tensor, Tensor]:
    """Return mean and variance of ``y_s`` given ``y_t``, exact where the data is one Gaussian of that width."""
    alpha_t, alpha_s, sigma_t, sigma_s = path.alpha(t), path.alpha(s), path.sigma(t), path.sigma(s)
    clean = (y - sigma_t.square() * gradient) / alpha_t
    fresh = sigma_s.square() * unknown_share(path, s, t)
    kept = (sigma_s.square() - fresh).sqrt() / sigma_t
    unknown = (sigma_t * resolution).square() / (sigma_t.square() + (alpha_t * resolution).square())
    n = len(y)
    mean = reverse_step(path, y, clean, t.expand(n), s.expand(n), torch.zeros_like(y), churn=1.0)
    return mean, fresh + (alpha_s - kept * alpha_t).square() * unknown


def _log_normal(x: Float[Tensor, "batch dim"], mean: Tensor, variance: Tensor) -> Float[Tensor, " batch"]:
    return -0.5 * ((x - mean).square() / variance + (2 * math.pi * variance).log()).sum(-1)
