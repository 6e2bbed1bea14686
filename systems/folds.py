"""How far configurations are from the fold of their molecule."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float

from boltzgen_diffclf.observables import native_deviation
from systems.molecular import Fold, MolecularSystem


def deviation(system: MolecularSystem, positions: Float[np.ndarray, "frames atoms 3"]) -> Float[np.ndarray, " frames"]:
    """Return the deviation [nm] of the CA atoms of configurations from those of a system that has a fold.

    Raises:
        ValueError: it has none.
    """
    atoms = list(_fold_of(system).atoms)
    return native_deviation(positions[:, atoms], system.positions.numpy()[atoms])


def is_folded(system: MolecularSystem, positions: Float[np.ndarray, "frames atoms 3"]) -> Bool[np.ndarray, " frames"]:
    """Return which configurations are folded.

    Raises:
        ValueError: the system has no fold.
    """
    return deviation(system, positions) < _fold_of(system).folded_nm


def _fold_of(system: MolecularSystem) -> Fold:
    if system.fold is None:
        raise ValueError(f"'{system.name}' has no fold to deviate from")
    return system.fold
