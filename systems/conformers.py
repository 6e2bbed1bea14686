"""The named conformers of a molecule: free energies between them, and frames with wrong weights of them."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float, Shaped

from boltzgen_diffclf.errors import InputError
from boltzgen_diffclf.estimators.estimate import Estimate
from boltzgen_diffclf.observables.basins import conformer_free_energy, in_basin
from boltzgen_diffclf.observables.torsions import paired_torsions, torsion_angles
from boltzgen_diffclf.samplers.resampling import stratified
from systems.ensemble import ReferenceEnsemble
from systems.molecular import MolecularSystem


def residue_pairs(system: MolecularSystem) -> dict[str, tuple[str, str]]:
    """Return the names of phi and psi of every residue that has both, by residue, in the order of the chain.

    They belong together where they share N, CA and C. The residue of plain ``phi`` and ``psi`` has the name ``""``.
    """
    names = {kind: [name for name in system.torsions if name.startswith(kind)] for kind in ("phi", "psi")}
    phi, psi = (
        np.array([system.torsions[name] for name in several], dtype=np.int64).reshape(-1, 4)
        for several in names.values()
    )
    pairs = [(names["phi"][row], names["psi"][column]) for row, column in paired_torsions(phi, psi).tolist()]
    return {pair[0].removeprefix("phi").removeprefix("-"): pair for pair in pairs}


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


def overweighted(
    ensemble: ReferenceEnsemble, system: MolecularSystem, basin: str, factor: float, generator: torch.Generator
) -> ReferenceEnsemble:
    """Return as many frames in which a basin is ``factor`` times too likely against the rest, drawn in order of time.

    What learns from them learns wrong weights of conformers, and weights against the true energy have to show it.

    Args:
        ensemble: equilibrium frames.
        system: the molecule.
        basin: one of its basins, by name.
        factor: greater than one, or smaller to make the basin too light.
        generator: of the resampling, stratified because teeth at equal distances may fall in with the order of frames;
            every frame keeps its group.

    Raises:
        InputError: the system has no such basin, or no frame lies in it.
    """
    arc = system.require_basin(basin)
    (angle,) = torsion_angles(ensemble.positions.numpy(), np.array([system.torsions[arc.torsion]])).T
    inside = torch.from_numpy(in_basin(angle.astype(np.float64), arc.low, arc.high))
    if not bool(inside.any()):
        raise InputError(f"none of the {len(ensemble)} frames lies in the basin '{basin}', which was to weigh more")
    chosen = ensemble.select(stratified(torch.where(inside, math.log(factor), 0.0).double(), generator))
    settings = {**ensemble.provenance.settings, "overweighted": f"{basin} times {factor:g}"}
    return replace(chosen, provenance=replace(ensemble.provenance, settings=settings))
