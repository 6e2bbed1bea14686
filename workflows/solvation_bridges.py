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
from workflows.trust import SMALLEST_OVERLAP

MOST_BRIDGES = 8
"""States between at most; each costs as much as an end."""

SMALLEST_FRACTION = 1 / 16
"""Of the polarisation: below this the state next to the vacuum is the one without any, which has the surface term."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Rung:
    """A sampled state on the way from the vacuum over ``nonpolar`` to ``implicit``.

    Attributes:
        fraction: of the polarisation; None is the vacuum, which lacks the surface term too.
        sampled: its frames, with energies in the states of the molecule.
    """

    fraction: float | None
    sampled: SampledState


@dataclass(frozen=True, eq=False)
class Bridged:
    """The states of a molecule and those between, with the frames of all that were sampled.

    Attributes:
        states: names, in the order of the way: MBAR begins with steps between neighbours.
        known: those of the molecule, in the order of the energies of the frames.
        rungs: the sampled ones, from the vacuum to ``implicit``.
        unbridged_overlap: of the two ends.
    """

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
        if not self.bridges:
            return ""
        shares = ", ".join(f"{rung.fraction:g}" for rung in self.bridges)
        return (
            f"{len(self.bridges)} states between were added, with {shares} of the polarisation, because the ends share "
            f"{self.unbridged_overlap:.2g} (wanted {SMALLEST_OVERLAP:g})"
        )

    def family(self, samples: Callable[[SampledState], SampledState]) -> list[SampledState]:
        """Return the sampled states with their energies in all of :attr:`states`.

        Args:
            samples: may thin the frames.
        """
        return [samples(self._in_all_states(rung.sampled)) for rung in self.rungs]

    def _in_all_states(self, frames: SampledState) -> SampledState:
        fractions = {rung.sampled.name: rung.fraction for rung in self.bridges}
        rows = [
            _energies(frames, fractions[name], self.known)
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
    states: Sequence[str],
    vacuum: SampledState,
    implicit: SampledState,
    sample: Callable[[float], SampledState],
) -> Bridged:
    """Return the two ends, and states between wherever neighbours overlap by less than MBAR needs.

    Of two neighbours that share least the middle is added, until all share enough or there are :data:`MOST_BRIDGES`.

    Args:
        states: of the molecule, ``nonpolar`` and ``implicit`` among them, in the order of the energies.
        vacuum: frames of the vacuum.
        implicit: frames of the implicit solvent.
        sample: returns frames of the state with a fraction of the polarisation.
    """
    rungs = [Rung(None, vacuum), Rung(1.0, implicit)]
    names = tuple(states)
    overlaps = [_overlap(rungs[0], rungs[1], names)]
    unbridged = overlaps[0]
    while min(overlaps) < SMALLEST_OVERLAP and len(rungs) < MOST_BRIDGES + 2:
        worst = int(np.argmin(overlaps))
        fraction = _between(rungs[worst].fraction, rungs[worst + 1].fraction)
        if fraction is None:
            break
        _log.info(
            "neighbouring states overlap by %.2g (wanted %.2g): sampling the one with %g of the polarisation",
            overlaps[worst],
            SMALLEST_OVERLAP,
            fraction,
        )
        rungs.insert(worst + 1, Rung(fraction, sample(fraction)))
        overlaps = [_overlap(one, other, names) for one, other in pairwise(rungs)]
    way = (*(name for name in names if name != "implicit"), *(rung.sampled.name for rung in rungs[1:]))
    return Bridged(way, names, tuple(rungs), unbridged)


def _between(low: float | None, high: float | None) -> float | None:
    """Return the fraction between two neighbours, None where there is none."""
    if low is None:
        if not high:
            return None
        return high / 2 if high > SMALLEST_FRACTION else 0.0
    return (low + float(high or 0.0)) / 2


def _overlap(one: Rung, other: Rung, states: Sequence[str]) -> float:
    forward = _energies(one.sampled, other.fraction, states) - _energies(one.sampled, one.fraction, states)
    reverse = _energies(other.sampled, one.fraction, states) - _energies(other.sampled, other.fraction, states)
    return float(bar(forward, reverse).overlap or 0.0)


def _energies(frames: SampledState, fraction: float | None, states: Sequence[str]) -> Float[np.ndarray, " frames"]:
    """Return the energies [kT] of frames in a state on the way; exact, for the polar energy goes with the charges."""
    if fraction is None:
        return frames.energies[states.index("vacuum")]
    nonpolar, implicit = (frames.energies[states.index(name)] for name in ("nonpolar", "implicit"))
    return (1 - fraction) * nonpolar + fraction * implicit
