"""Whether an ensemble's independent groups agree, and how many independent frames it is worth."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict

import numpy as np
import torch

from boltzgen_diffclf.confinement import Region
from boltzgen_diffclf.coordinates import Arc, TorsionArc
from boltzgen_diffclf.estimators.time_series import effective_frames, relaxation_time, split_r_hat, walker_scatter
from boltzgen_diffclf.observables.basins import in_basin
from boltzgen_diffclf.observables.torsions import torsion_angles
from systems.ensemble import ReferenceEnsemble
from systems.folds import is_folded
from systems.legs import Basin, Quadruple
from systems.molecular import MolecularSystem

FOLDED = "folded"
"""What the population of the folded is called, beside those of basins."""

FRAMES_FOR_R_HAT = 4
"""Frames of each group that split R-hat needs."""


def torsions_of(ensemble: ReferenceEnsemble, system: MolecularSystem) -> dict[str, torch.Tensor]:
    """Return every named torsion of every frame [rad]."""
    return _angles(ensemble, system.torsions)


def _angles(ensemble: ReferenceEnsemble, torsions: Mapping[str, Quadruple]) -> dict[str, torch.Tensor]:
    if not torsions:
        return {}
    angles = torsion_angles(ensemble.positions.numpy(), np.array(list(torsions.values()))).astype(np.float64)
    return {name: torch.from_numpy(angles[:, column]) for column, name in enumerate(torsions)}


def measure_convergence(ensemble: ReferenceEnsemble, system: MolecularSystem) -> dict[str, object]:
    """Return plain values that say how far the groups agree; empty where there are too few of them.

    Keys: ``populations`` of the system's basins with their scatter between groups, and ``relaxation_frames``, how long
    each is remembered; ``split_r_hat`` and ``effective_frames`` of the reduced energy, of the sine and cosine of each
    torsion, those of side chains too, of who is folded, and of each basin, but for one that the state is confined to
    or kept out of: there is nothing that its walkers could agree about.
    """
    if ensemble.n_groups < 2 or len(ensemble) < FRAMES_FOR_R_HAT * ensemble.n_groups:
        return {}
    torsions = torsions_of(ensemble, system)
    # Frames of beads alone have no energies.
    series = {"reduced_energy": ensemble.energies} if bool(ensemble.energies.any()) else {}
    for name, angle in (torsions | _angles(ensemble, system.side_torsions)).items():
        series |= {f"cos_{name}": angle.cos(), f"sin_{name}": angle.sin()}
    visits: dict[str, torch.Tensor] = {}
    for name, basin in system.basins.items():
        inside = torch.from_numpy(in_basin(torsions[basin.torsion].numpy(), basin.low, basin.high))
        visits[name] = ensemble.by_group(inside.double()) > 0
        if not _settled_by(system.region(ensemble.provenance.state), basin, system):
            series[name] = inside.double()
    if system.fold is not None:
        folded = torch.from_numpy(is_folded(system, ensemble.positions.numpy())).double()
        visits[FOLDED] = ensemble.by_group(folded) > 0
        series[FOLDED] = folded
    if not series:
        return {}
    rows = {name: ensemble.by_group(values).numpy() for name, values in series.items()}
    return {
        "populations": {name: asdict(walker_scatter(inside.numpy())) for name, inside in visits.items()},
        "relaxation_frames": {name: relaxation_time(inside.numpy()) for name, inside in visits.items()},
        "split_r_hat": {name: split_r_hat(row) for name, row in rows.items()},
        "effective_frames": {name: effective_frames(row) for name, row in rows.items()},
    }


def _settled_by(region: Region | None, basin: Basin, system: MolecularSystem) -> bool:
    """Return whether a confinement alone says that every frame is in the basin, or that none is."""
    if not isinstance(region, TorsionArc) or region.atoms != system.torsions[basin.torsion]:
        return False
    inside = Arc(basin.low, basin.high)
    return inside.covers(region.arc) or inside.rest.covers(region.arc)
