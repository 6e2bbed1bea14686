"""Temperatures of replica exchange, and how often replicas of a molecule would trade them."""

from __future__ import annotations

import itertools

from scipy.special import betainc

FEW_SWAPS = 0.05
"""Acceptance below which a ladder costs more than it helps."""

WANTED_SWAPS = 0.2
"""Acceptance that is worth its cost (Rathore, Chopra & de Pablo 2005, doi:10.1063/1.1831273)."""

FEWEST = 4
"""Temperatures of a ladder where nobody says how many."""


def geometric_ladder(lowest_kelvin: float, highest_kelvin: float, count: int) -> tuple[float, ...]:
    """Return ``count`` temperatures [K] with one ratio between neighbours.

    >>> geometric_ladder(300.0, 1200.0, 3)
    (300.0, 600.0, 1200.0)
    """
    ratio, last = highest_kelvin / lowest_kelvin, max(1, count - 1)
    return tuple(lowest_kelvin * ratio ** (k / last) for k in range(count))


def ladder_for(
    n_atoms: int, lowest_kelvin: float, highest_kelvin: float, count: int | None = None
) -> tuple[float, ...]:
    """Return a geometric ladder [K] of ``count`` temperatures.

    Where none is given there are :data:`FEWEST`, or as many as it takes a molecule of this size to trade them often
    enough (:data:`WANTED_SWAPS`): the more atoms, the closer together.

    >>> [len(ladder_for(n_atoms, 300.0, 800.0)) for n_atoms in (5, 22, 53, 138)]
    [4, 4, 6, 9]
    """
    if count is not None:
        return geometric_ladder(lowest_kelvin, highest_kelvin, count)
    for count in itertools.count(FEWEST):
        ladder = geometric_ladder(lowest_kelvin, highest_kelvin, count)
        if expected_acceptance(n_atoms, ladder[1] / ladder[0]) >= WANTED_SWAPS:
            break
    return ladder


def expected_acceptance(n_atoms: int, ratio: float) -> float:
    """Return how often swaps would be accepted between two temperatures if the molecule were a set of springs.

    Args:
        n_atoms: of the molecule, whose ``3 n_atoms - 6`` degrees of freedom hold ``kT / 2`` each.
        ratio: of the temperatures, above one.

    References:
        Predescu, Predescu & Ciobanu 2004, J. Chem. Phys. 120:4119, eq. 10.
    """
    half = 0.5 * max(3 * n_atoms - 6, 1)
    return float(2 * betainc(half, half, 1 / (1 + ratio)))


def advice(n_atoms: int, temperatures_kelvin: tuple[float, ...]) -> str:
    """Return a sentence where a ladder is too steep for a molecule, and how steep it may be; else nothing."""
    ratios = [hot / cold for cold, hot in itertools.pairwise(temperatures_kelvin)]
    if not ratios or expected_acceptance(n_atoms, max(ratios)) >= FEW_SWAPS:
        return ""
    lowest, count = temperatures_kelvin[0], len(temperatures_kelvin)
    hottest = lowest
    while expected_acceptance(n_atoms, (1.02 * hottest / lowest) ** (1 / (count - 1))) >= WANTED_SWAPS:
        hottest *= 1.02
    share = 100 * expected_acceptance(n_atoms, max(ratios))
    often = f"{share:.2g} %" if share >= 0.01 else "less than 0.01 %"
    return (
        f"{n_atoms} atoms would trade temperatures {often} of the time on {count} from {lowest:.0f} to "
        f"{temperatures_kelvin[-1]:.0f} K: {hottest:.0f} K is as hot as {count} allow ({100 * WANTED_SWAPS:.0f} %); "
        "lower --highest-temperature-kelvin, or raise --exchange-temperatures"
    )
