"""States with a bias that makes a rare basin a common one, and the weights that take the bias away again.

A basin that is 2 % of the frames is 2 % of what a network learns from and 2 % of its particles. Umbrella sampling
(Torrie & Valleau 1977, doi:10.1016/0021-9991(77)90121-8) gives it as many as one likes; the bias is known, so that
weights restore the state without it exactly.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float

from boltzgen_diffclf.coordinates import Arc, TorsionArc
from boltzgen_diffclf.errors import InputError
from boltzgen_diffclf.favouring import arc_bias
from systems.derived_states import FavouredState
from systems.loading import FAVOURED
from systems.molecular import MolecularSystem


@dataclass(frozen=True)
class Favour:
    """A basin that is made deeper.

    Attributes:
        basin: its name.
        depth_kt: by how much [kT]; a negative depth makes it shallower.
    """

    basin: str
    depth_kt: float

    def __post_init__(self) -> None:
        """Refuse a depth that is no number, or none."""
        if not math.isfinite(self.depth_kt) or self.depth_kt == 0:
            raise InputError(f"a basin made {self.depth_kt} kT deeper: give a number that is not zero")


def favoured(system: MolecularSystem, favour: Favour) -> MolecularSystem:
    """Return the molecule with one more state beside each of its own, ``STATE-favoured``.

    Raises:
        InputError: the molecule has no such basin.
    """
    region = _region(system, favour)
    for state in system.states:
        system = system.with_derived(f"{state}{FAVOURED}", FavouredState((state,), region, favour.depth_kt))
    return system


def bias_of(system: MolecularSystem, state: str) -> FavouredState | None:
    """Return a state with a bias, with the name of the one without it among its sources; None for any other."""
    made = system.derived.get(state)
    return made if isinstance(made, FavouredState) else None


def log_weights_without(
    system: MolecularSystem, favour: Favour, positions: Float[np.ndarray, "frames atoms 3"]
) -> Float[np.ndarray, " frames"]:
    """Return the log weights that make frames of a favoured state frames of the state itself.

    Args:
        system: the molecule, or those of its beads that are in the positions.
        favour: the bias.
        positions: frames, in any unit of length.

    Raises:
        InputError: the beads have no such basin.
    """
    found: Float[np.ndarray, " frames"]
    found = arc_bias(_region(system, favour), favour.depth_kt, torch.from_numpy(positions)).numpy()
    return found


def _region(system: MolecularSystem, favour: Favour) -> TorsionArc:
    basin = system.require_basin(favour.basin)
    return TorsionArc(system.torsions[basin.torsion], Arc(basin.low, basin.high))
