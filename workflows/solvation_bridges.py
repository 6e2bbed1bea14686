"""States between the ends of a leg, added where neighbours share too little for MBAR to be believed."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from jaxtyping import Float

from boltzgen_diffclf.estimators import Estimate, bar
from boltzgen_diffclf.estimators.family import Family
from boltzgen_diffclf.free_energy.classical import SampledState
from systems.bridges import polar_state
from workflows.trust import SMALLEST_OVERLAP

WANTED_OVERLAP = 1.5 * SMALLEST_OVERLAP
"""Of two neighbours alone: MBAR over all states, of fewer frames, then has what its error bar needs."""

MOST_BRIDGES = 8
"""States between at most; each costs as much as an end."""

SMALLEST_FRACTION = 1 / 16
"""Below this the state next to an end that is off the line is the beginning of the line."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Way:
    """A line of states ``(1 - fraction) u_low + fraction u_high`` from one end of a leg to the other.

    Attributes:
        low: state at fraction zero.
        high: state at fraction one, the second end.
        before: the first end where it is off the line, next to ``low``; None where ``low`` is the first end.
        share: what a fraction is of, in words.
        name: of the state with a fraction.
    """

    low: str
    high: str
    before: str | None
    share: str
    name: Callable[[float], str]

    @property
    def first(self) -> str:
        """The first end."""
        return self.before or self.low

    def energies(
        self, frames: SampledState, fraction: float | None, states: Sequence[str]
    ) -> Float[np.ndarray, " frames"]:
        """Return the energies [kT] of frames in a state on the way; None is the end before the line."""
        if fraction is None:
            return frames.energies[states.index(str(self.before))]
        low, high = (frames.energies[states.index(name)] for name in (self.low, self.high))
        return (1 - fraction) * low + fraction * high


SOLVATION = Way("nonpolar", "implicit", "vacuum", "the polarisation", polar_state)
"""From the vacuum; the polar energy goes with the square of the charges, so that the line is exact."""


@dataclass(frozen=True, eq=False)
class Rung:
    """A sampled state on a way.

    Attributes:
        fraction: where on the line; None before it.
        sampled: its frames, with energies in the states of the molecule.
    """

    fraction: float | None
    sampled: SampledState


@dataclass(frozen=True, eq=False)
class Bridged:
    """The states of a molecule and those between, with the frames of all that were sampled.

    Attributes:
        way: from one end to the other; None where there is none, and nothing is added.
        states: names, in the order of the way: MBAR begins with steps between neighbours.
        known: those of the molecule, in the order of the energies of the frames.
        rungs: the sampled ones, from end to end.
        unbridged_overlap: of the two ends.
    """

    way: Way | None
    states: tuple[str, ...]
    known: tuple[str, ...]
    rungs: tuple[Rung, ...]
    unbridged_overlap: float

    @property
    def bridges(self) -> tuple[Rung, ...]:
        """The sampled states between the ends."""
        return self.rungs[1:-1]

    @property
    def note(self) -> str:
        """What was added and why, for a row's remark; empty where nothing was."""
        if self.way is None or not self.bridges:
            return ""
        shares = ", ".join(f"{rung.fraction:g}" for rung in self.bridges)
        return (
            f"{len(self.bridges)} states between were added, with {shares} of {self.way.share}, because the ends share "
            f"{self.unbridged_overlap:.2g} (wanted {WANTED_OVERLAP:g})"
        )

    def family(self, samples: Callable[[SampledState], SampledState]) -> list[SampledState]:
        """Return the sampled states with their energies in all of :attr:`states`.

        Args:
            samples: may thin the frames.
        """
        return [samples(self._in_all_states(rung.sampled)) for rung in self.rungs]

    def _in_all_states(self, frames: SampledState) -> SampledState:
        if self.way is None:
            return frames
        fractions = {rung.sampled.name: rung.fraction for rung in self.bridges}
        rows = [
            self.way.energies(frames, fractions[name], self.known)
            if name in fractions
            else frames.energies[self.known.index(name)]
            for name in self.states
        ]
        return replace(frames, energies=np.stack(rows))

    def estimate(self, family: Family, a: str, b: str) -> Estimate:
        """Return ``F_b - F_a``; the overlap is that of the weakest link of the strongest chain over states between."""
        names = [a, b, *(rung.sampled.name for rung in self.bridges)]
        nodes = [self.states.index(name) for name in names]
        links = family.overlap_matrix[np.ix_(nodes, nodes)]
        for k in range(2, len(nodes)):
            links = np.maximum(links, np.minimum(links[:, k, None], links[None, k, :]))
        return replace(family.between(nodes[0], nodes[1]), overlap=float(links[0, 1]))


def bridged(
    way: Way,
    states: Sequence[str],
    first: SampledState,
    last: SampledState,
    sample: Callable[[float], SampledState],
) -> Bridged:
    """Return the two ends, and states between wherever neighbours overlap by less than MBAR needs.

    Of two neighbours that share least the middle is added, until all share enough or there are :data:`MOST_BRIDGES`.

    Args:
        way: from one end to the other.
        states: of the molecule, those of the way among them, in the order of the energies.
        first: frames of the first end.
        last: frames of the second.
        sample: returns frames of the state with a fraction.
    """
    rungs = [Rung(None if way.before else 0.0, first), Rung(1.0, last)]
    names = tuple(states)
    overlaps = [_overlap(way, rungs[0], rungs[1], names)]
    unbridged = overlaps[0]
    while min(overlaps) < WANTED_OVERLAP and len(rungs) < MOST_BRIDGES + 2:
        worst = int(np.argmin(overlaps))
        fraction = _between(rungs[worst].fraction, rungs[worst + 1].fraction)
        if fraction is None:
            break
        _log.info(
            "neighbouring states overlap by %.2g (wanted %.2g): sampling the one with %g of %s",
            overlaps[worst],
            WANTED_OVERLAP,
            fraction,
            way.share,
        )
        rungs.insert(worst + 1, Rung(fraction, sample(fraction)))
        overlaps = [_overlap(way, one, other, names) for one, other in pairwise(rungs)]
    in_order = (*(name for name in names if name != way.high), *(rung.sampled.name for rung in rungs[1:]))
    return Bridged(way, in_order, names, tuple(rungs), unbridged)


def _between(low: float | None, high: float | None) -> float | None:
    """Return the fraction between two neighbours, None where there is none."""
    if low is None:
        if not high:
            return None
        return high / 2 if high > SMALLEST_FRACTION else 0.0
    return (low + float(high or 0.0)) / 2


def _overlap(way: Way, one: Rung, other: Rung, states: Sequence[str]) -> float:
    forward = way.energies(one.sampled, other.fraction, states) - way.energies(one.sampled, one.fraction, states)
    reverse = way.energies(other.sampled, one.fraction, states) - way.energies(other.sampled, other.fraction, states)
    return float(bar(forward, reverse).overlap or 0.0)
