"""Where clean samples come from: a fixed pool, as in life, or a known density without end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from boltzgen_diffclf.errors import InputError
from systems.analytic import AnalyticTarget

SPREAD = 0.5
"""Of configurations beyond fresh samples about these, in the standard deviation of each coordinate."""


class CleanSamples(NamedTuple):
    """Configurations ``x`` of the data and ``grad log p`` there; zeros where no objective asks for it."""

    x: Float[Tensor, "samples dim"]
    score: Float[Tensor, "samples dim"]


@runtime_checkable
class CleanData(Protocol):
    """A source of clean samples."""

    def draw(self, n: int, generator: torch.Generator) -> CleanSamples:
        """Return ``n`` samples, drawn by a CPU stream."""
        ...

    def draw_beyond(self, n: int, generator: torch.Generator) -> CleanSamples:
        """Return ``n`` configurations that spread farther than the data, and the score there.

        Raises:
            InputError: there are none.
        """
        ...


@dataclass(frozen=True, eq=False)
class FixedPool:
    """Samples that are all there is; drawn with replacement.

    Attributes:
        samples: with their scores.
        beyond: see :meth:`CleanData.draw_beyond`; None where there are none.
    """

    samples: CleanSamples
    beyond: CleanSamples | None = None

    def draw(self, n: int, generator: torch.Generator) -> CleanSamples:
        """See :meth:`CleanData.draw`."""
        return _drawn(self.samples, n, generator)

    def draw_beyond(self, n: int, generator: torch.Generator) -> CleanSamples:
        """See :meth:`CleanData.draw_beyond`."""
        if self.beyond is None:
            raise InputError("this objective learns from configurations beyond the data, and there are none here")
        return _drawn(self.beyond, n, generator)


def _drawn(samples: CleanSamples, n: int, generator: torch.Generator) -> CleanSamples:
    index = torch.randint(len(samples.x), (n,), generator=generator).to(samples.x.device)
    return CleanSamples(samples.x[index], samples.score[index])


@dataclass(frozen=True, eq=False)
class FreshSamples:
    """New samples at every draw.

    Attributes:
        target: on the CPU.
    """

    target: AnalyticTarget

    def draw(self, n: int, generator: torch.Generator) -> CleanSamples:
        """See :meth:`CleanData.draw`."""
        x = self.target.sample(n, generator)
        return CleanSamples(x, self.target.score(x))

    def draw_beyond(self, n: int, generator: torch.Generator) -> CleanSamples:
        """See :meth:`CleanData.draw_beyond`: samples under noise of :data:`SPREAD`."""
        x = self.target.sample(n, generator)
        noise = torch.randn(x.shape, generator=generator, dtype=x.dtype)
        x = x + SPREAD * x.std(0, correction=0) * noise
        return CleanSamples(x, self.target.score(x))
