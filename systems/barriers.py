"""Which bias would let walkers cross between a basin and the rest, read off the frames that they have left.

Along its torsion the basin is made as deep as the rest, and what is then highest between the two is made lower, but not
lower than what is crossed within picoseconds. Where no frame lies the free energy is no less than where one does: the
frames of the first bias show the rest of a barrier, and may advise another.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float, Int

from boltzgen_diffclf.observables.basins import in_basin
from systems.convergence import torsions_of
from systems.ensemble import ReferenceEnsemble
from systems.favoured import NARROWEST, Favour, bias_of, region_of
from systems.molecular import MolecularSystem

BIN_DEGREES = 5.0
"""Width of a bin of the torsion [degrees]."""

CROSSED_SOON_KT = 2.0
"""Height of a barrier [kT] that is crossed within picoseconds."""

DEEPEST_KT = 15.0
"""Of the advice [kT]: what is higher is of frames that a chemist should look at first."""


def lowered_barrier(system: MolecularSystem, ensemble: ReferenceEnsemble, basin: str) -> tuple[Favour, ...]:
    """Return the biases that would join a basin to the rest of its torsion; none where they are joined already.

    None too where no frame lies in the basin, or none outside: the profile of its torsion has one side alone.

    Args:
        system: with the state of the frames.
        ensemble: frames of the state, perhaps with a bias, which is taken away first.
        basin: its name.
    """
    place = system.basins[basin]
    angle = torsions_of(ensemble, system)[place.torsion].numpy()
    made, positions = bias_of(system, ensemble.provenance.state), ensemble.positions.double()
    log_w = torch.zeros(len(ensemble)).double() if made is None else made.log_weights_without(positions)
    free, centres = _profile(angle, torch.softmax(log_w, 0).numpy())
    inside = in_basin(np.radians(centres), place.low, place.high)
    if not (np.isfinite(free[inside]).any() and np.isfinite(free[~inside]).any()):
        return ()
    free = np.where(np.isfinite(free), free, free[np.isfinite(free)].max() + 1.0)
    deeper = free[inside].min() - free[~inside].min()
    level = free - deeper * inside
    level -= level.min()
    way = _easier_way(level, inside)
    depth = _half(min(level[way].max() - CROSSED_SOON_KT, DEEPEST_KT))
    if depth <= 0:
        return ()
    low, high = _arc_above(level, way, 0.5 * depth)
    basins = [Favour(basin, _half(deeper))] if _half(deeper) > 0 else []
    return (*basins, Favour(f"{place.torsion} in {low:g}..{high:g}", depth))


def advice(system: MolecularSystem, ensemble: ReferenceEnsemble, basin: str, favours: Sequence[Favour] = ()) -> str:
    """Return :func:`lowered_barrier` as options of a command; nothing where there is nothing to advise.

    Args:
        system: see there.
        ensemble: see there.
        basin: its name.
        favours: biases that the frames have: those on other torsions remain.
    """
    advised = lowered_barrier(system, ensemble, basin)
    if not advised:
        return ""
    turned = system.torsions[system.basins[basin].torsion]
    several = [*(one for one in favours if region_of(system, one.where).atoms != turned), *advised]
    where = " ".join(f"'{one.where}'" for one in several)
    return f"--favour {where} --favour-kt {' '.join(f'{one.depth_kt:g}' for one in several)}"


def _profile(
    angle: Float[np.ndarray, " frames"], weight: Float[np.ndarray, " frames"]
) -> tuple[Float[np.ndarray, " bins"], Float[np.ndarray, " bins"]]:
    """Return the free energy [kT] of every bin of a torsion, infinite where no frame is, and the middles [degrees]."""
    edges = np.linspace(-180, 180, round(360 / BIN_DEGREES) + 1)
    share, _ = np.histogram(np.degrees(angle), edges, weights=weight)
    with np.errstate(divide="ignore"):
        return -np.log(share), 0.5 * (edges[:-1] + edges[1:])


def _easier_way(level: Float[np.ndarray, " bins"], inside: Bool[np.ndarray, " bins"]) -> Int[np.ndarray, " way"]:
    """Return the bins from the bottom of the basin to that of the rest, round the circle where the barrier is lower."""
    ends = [int(np.where(side, level, np.inf).argmin()) for side in (inside, ~inside)]
    forward = np.arange(ends[0], ends[0] + (ends[1] - ends[0]) % len(level) + 1) % len(level)
    backward = np.arange(ends[0], ends[0] - (ends[0] - ends[1]) % len(level) - 1, -1) % len(level)
    return min((forward, backward), key=lambda way: (level[way].max(), level[way].sum()))


def _arc_above(level: Float[np.ndarray, " bins"], way: Int[np.ndarray, " way"], height: float) -> tuple[float, float]:
    """Return the ends [degrees] of the arc about the top of a way that is above a height, wide enough for a bias."""
    n, top = len(level), int(way[level[way].argmax()])
    low = high = top
    while level[(low - 1) % n] > height and high - low < n // 2:
        low -= 1
    while level[(high + 1) % n] > height and high - low < n // 2:
        high += 1
    missing = math.ceil(NARROWEST / BIN_DEGREES) - (high + 1 - low)
    low, high = low - max(0, (missing + 1) // 2), high + max(0, (missing + 1) // 2)
    return BIN_DEGREES * (low % n) - 180, BIN_DEGREES * ((high + 1) % n) - 180


def _half(value: float) -> float:
    return round(2 * value) / 2
