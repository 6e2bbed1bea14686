"""Free energies between the named conformers of a molecule, from frames of any origin."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Shaped

from boltzgen_diffclf.estimators.estimate import Estimate
from boltzgen_diffclf.observables.basins import conformer_free_energy
from boltzgen_diffclf.observables.torsions import torsion_angles
from systems.molecular import MolecularSystem


def basin_free_energy(
    system: MolecularSystem,
    basin: str,
    positions: Float[np.ndarray, "frames atoms 3"],
    groups: Shaped[np.ndarray, " frames"] | None = None,
    log_w: Float[np.ndarray, " frames"] | None = None,
) -> Estimate:
    """Return ``F_B - F_A`` [kT]: B is the named basin, A every other configuration.

    Args:
        system: the molecule.
        basin: one of its basins, by name.
        positions: all atoms, in any unit of length.
        groups: independent simulation of every frame.
        log_w: unnormalised log weights.

    Raises:
        InputError: the system has no such basin; the message lists the valid ones.
        NotTrustworthyError: one of the two conformers was never seen.
    """
    arc = system.require_basin(basin)
    (angle,) = torsion_angles(positions, np.array([system.torsions[arc.torsion]])).T
    return conformer_free_energy(angle.astype(np.float64), arc.low, arc.high, groups=groups, log_w=log_w)
