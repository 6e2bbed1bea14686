r"""The probability flow: samples without noise on the way, and the density of the model at any configuration.

In the log signal-to-noise ratio ``l`` as time, the flow of a score is

.. math:: \frac{dy}{dl} = \frac{\sigma^2}{2} s(y) + \frac{f}{2 (f - d \log \sigma / dt)} y ,

and ``log p`` changes along it by minus the divergence of the right-hand side. For a score that is not the gradient of
its own marginals, this is the density of what the flow makes, which may differ from ``exp(-U)``.

References:
    Song et al. 2021, arXiv:2011.13456, section 4.3; Chen et al. 2018, arXiv:1806.07366, for the change of density.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from boltzgen_diffclf.divergence import directional_slopes
from boltzgen_diffclf.paths import DiffusionPath

Score = Callable[[Tensor, Tensor], Tensor]
"""``(y, t) -> grad log p_t(y)``, shapes ``(batch, dim)`` and ``(batch,)``; torch.func differentiates it."""


@runtime_checkable
class Divergence(Protocol):
    """How a divergence is made of slopes along directions that stay the same on the whole way."""

    def directions(
        self, y: Float[Tensor, "batch dim"], generator: torch.Generator
    ) -> Float[Tensor, "directions batch dim"]:
        """Return the directions."""
        ...

    def combine(
        self, slopes: Float[Tensor, "directions batch"]
    ) -> tuple[Float[Tensor, " batch"], Float[Tensor, " batch"]]:
        """Return the divergence, or its integral, and its standard error."""
        ...


@dataclass(frozen=True)
class ExactDivergence:
    """The sum over the axes: one derivative a coordinate, for small dimension; nothing is drawn."""

    def directions(
        self, y: Float[Tensor, "batch dim"], generator: torch.Generator
    ) -> Float[Tensor, "directions batch dim"]:
        """See :meth:`Divergence.directions`."""
        return torch.eye(y.shape[1], dtype=y.dtype, device=y.device)[:, None].expand(-1, len(y), -1)

    def combine(
        self, slopes: Float[Tensor, "directions batch"]
    ) -> tuple[Float[Tensor, " batch"], Float[Tensor, " batch"]]:
        """See :meth:`Divergence.combine`; without error."""
        return slopes.sum(0), torch.zeros_like(slopes[0])


@dataclass(frozen=True)
class Hutchinson:
    """The mean over random signs, unbiased whatever the dimension.

    Args:
        n_probes: two or more, so that their scatter tells the error.

    Raises:
        ValueError: fewer than two probes.

    References:
        Grathwohl et al. 2019, arXiv:1810.01367, for probes that are held fixed on the way.
    """

    n_probes: int = 8

    def __post_init__(self) -> None:
        """Refuse an estimate without an error."""
        if self.n_probes < 2:
            raise ValueError(f"an error needs two probes or more, got {self.n_probes}")

    def directions(
        self, y: Float[Tensor, "batch dim"], generator: torch.Generator
    ) -> Float[Tensor, "directions batch dim"]:
        """See :meth:`Divergence.directions`."""
        bits = torch.randint(2, (self.n_probes, *y.shape), generator=generator, device=y.device)
        return (2 * bits - 1).to(y.dtype)

    def combine(
        self, slopes: Float[Tensor, "directions batch"]
    ) -> tuple[Float[Tensor, " batch"], Float[Tensor, " batch"]]:
        """See :meth:`Divergence.combine`."""
        return slopes.mean(0), slopes.std(0) / math.sqrt(self.n_probes)


@dataclass(frozen=True, eq=False)
class LogLikelihood:
    """Log densities.

    Attributes:
        log_density: ``log p(x)`` at the first time.
        stderr: of the probes of the divergence; zero where it is exact.
    """

    log_density: Float[Tensor, " batch"]
    stderr: Float[Tensor, " batch"]


@dataclass(frozen=True, eq=False)
class FlowSamples(LogLikelihood):
    """Samples of the first time with their own log densities.

    Attributes:
        position: of the samples.
    """

    position: Float[Tensor, "batch dim"]


@dataclass(frozen=True)
class ProbabilityFlow:
    """The way between the noise and the data, and how exactly it is followed.

    Attributes:
        path: the noising; its ``t_min`` and ``t_max`` stand in for times that are None.
        divergence: exact or from probes.
        t_first: where densities are wanted; there must be noise.
        t_last: where the density is known.
        tolerance: relative and absolute, of a step of the solver (Dormand and Prince's of fifth order).
    """

    path: DiffusionPath
    divergence: Divergence = ExactDivergence()
    t_first: float | None = None
    t_last: float | None = None
    tolerance: float = 1e-5

    def log_likelihood(
        self,
        score: Score,
        x: Float[Tensor, "batch dim"],
        prior_log_density: Callable[[Tensor], Tensor],
        generator: torch.Generator,
    ) -> LogLikelihood:
        """Return ``log p(x)`` at the first time under the flow of a score.

        Args:
            score: of the model or an oracle.
            x: configurations at the first time.
            prior_log_density: normalised, of configurations at the last time.
            generator: of the probes; on the device of ``x``.

        Raises:
            ValueError: no noise at the first time.
        """
        first, last = self._ends(x)
        y, slopes = self._follow(score, x, (first, last), generator)
        volume, stderr = self.divergence.combine(slopes)
        return LogLikelihood(prior_log_density(y) + volume, stderr)

    def sample(
        self,
        score: Score,
        start: Float[Tensor, "batch dim"],
        start_log_density: Float[Tensor, " batch"],
        generator: torch.Generator,
    ) -> FlowSamples:
        """Return what the flow makes of samples of the last time, with their log densities at the first.

        Args:
            score: of the model or an oracle.
            start: samples at the last time.
            start_log_density: normalised, of these samples there.
            generator: of the probes; on the device of ``start``.

        Raises:
            ValueError: no noise at the first time.
        """
        first, last = self._ends(start)
        position, slopes = self._follow(score, start, (last, first), generator)
        volume, stderr = self.divergence.combine(slopes)
        return FlowSamples(start_log_density - volume, stderr, position)

    def _ends(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """Return the log signal-to-noise ratios of the first and the last time."""
        first = self.path.t_min if self.t_first is None else self.t_first
        last = self.path.t_max if self.t_last is None else self.t_last
        ends = self.path.log_snr(y.new_tensor([first, last]))
        if not bool(ends.isfinite().all()):
            raise ValueError(f"there is no noise at t_first = {first}: choose a later one")
        return ends[0], ends[1]

    def _follow(
        self, score: Score, start: Tensor, ends: tuple[Tensor, Tensor], generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Return where the flow leads from the first of ``ends``, and the slopes along the directions integrated."""
        from torchdiffeq import odeint

        directions = self.divergence.directions(start, generator)

        def rates(log_snr: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
            def velocity(y: Tensor) -> Tensor:
                return self._velocity(score, log_snr, y)

            return velocity(state[0]), directional_slopes(velocity, state[0], directions)

        with torch.no_grad():
            beginning = (start, start.new_zeros(len(directions), len(start)))
            y, slopes = odeint(rates, beginning, torch.stack(ends), rtol=self.tolerance, atol=self.tolerance)
        return y[-1], slopes[-1]

    def _velocity(self, score: Score, log_snr: Tensor, y: Tensor) -> Tensor:
        t = self.path.time_at_log_snr(log_snr.to(y)[None])
        shrinking = 0.5 * self.path.d_log_alpha(t) / (self.path.d_log_alpha(t) - self.path.d_log_sigma(t))
        return shrinking * y + 0.5 * self.path.sigma(t).square() * score(y, t.expand(len(y)))
