"""Where clean samples come from: a fixed pool, as in life, or a known density without end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from systems.analytic import AnalyticTarget


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


@dataclass(frozen=True, eq=False)
class FixedPool:
    """Samples that are all there is; drawn with replacement.

    Attributes:
        samples: with their scores.
    """

    samples: CleanSamples

    def draw(self, n: int, generator: torch.Generator) -> CleanSamples:
        """See :meth:`CleanData.draw`."""
        index = torch.randint(len(self.samples.x), (n,), generator=generator).to(self.samples.x.device)
        return CleanSamples(self.samples.x[index], self.samples.score[index])


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
