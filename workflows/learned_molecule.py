"""What a trained energy of a molecule is of: its atoms, its units, and which of its samples are molecules."""

from __future__ import annotations

import copy

import torch
from jaxtyping import Float, Int
from torch import Tensor

from boltzgen_diffclf.errors import FallenApartError, InputError
from boltzgen_diffclf.molecule_target import LearnedMoleculeTarget
from boltzgen_diffclf.noised_energy import NoisedEnergyModel
from boltzgen_diffclf.training.molecule_model import MoleculeModel
from systems.beads import bead_system
from systems.chains import radius
from systems.ensemble import Provenance
from systems.loading import SystemSource
from systems.molecular import MolecularSystem

REACH = 20.0
"""A molecule has fallen apart where an atom is so many units of length from the centroid; about 1.7 are usual."""


def beads_of(model: MoleculeModel) -> MolecularSystem:
    """Return what a model is of, as a system without forces.

    Raises:
        InputError: see :func:`molecule_of`.
    """
    return bead_system(molecule_of(model), model.origin["beads"])


def molecule_of(model: MoleculeModel) -> MolecularSystem:
    """Return the molecule that a model is of, all atoms.

    Raises:
        InputError: a file that it came from is gone, or has changed since the training.
    """
    origin = model.origin
    # Models older than other sources of molecules are of registered ones.
    system = SystemSource.from_plain(origin.get("source", {"system": origin["system"]})).load()
    # Models of before have the hash of the energies alone.
    if any(origin.get(key, value) != value for key, value in system.identity(origin["state"]).items()):
        raise InputError(f"the files of {origin['system']} have changed since the model was trained: put them back")
    return system


def least_noise(model: MoleculeModel) -> float:
    """Return the earliest time that the model knows."""
    return float(model.model.curve.levels[0])


def learned_target(model: MoleculeModel) -> LearnedMoleculeTarget:
    """Return the energy at the least noise as a target on positions [nm], in double precision."""
    return LearnedMoleculeTarget(model.model, model.coordinates, least_noise(model))


def single_precision(model: MoleculeModel, device: torch.device) -> NoisedEnergyModel:
    """Return the energy in the precision of sampling, on its device."""
    return copy.deepcopy(model.model).float().to(device)


def reach_nm(model: MoleculeModel) -> float:
    """Return how far from the centroid [nm] an atom of a molecule that has not fallen apart may be."""
    return REACH * model.statistics.length_nm


def whole_samples(
    model: MoleculeModel, positions: Float[Tensor, "samples beads 3"], energies: Float[Tensor, " samples"]
) -> Int[Tensor, " whole"]:
    """Return the indices of samples that have an energy and have not fallen apart.

    Raises:
        FallenApartError: there is one at most, of which nothing can be said.
    """
    whole = (energies.isfinite() & (radius(positions) < reach_nm(model))).nonzero()[:, 0]
    if len(whole) < 2:
        fallen = len(positions) - len(whole)
        raise FallenApartError(
            f"{fallen} of {len(positions)} samples of the model have fallen apart: train for more steps"
        )
    return whole


def provenance_of(model: MoleculeModel, seed: int, settings: dict[str, object]) -> Provenance:
    """Return what a file of samples has to say of where they come from."""
    beads, origin = beads_of(model), model.origin
    return Provenance(
        system=beads.name,
        state=origin["state"],
        temperature_kelvin=origin["temperature_kelvin"],
        system_hash=beads.system_hash(origin["state"]),
        seed=seed,
        settings={**settings, "model": f"{origin['objective']} seed {origin['seed']}", "model_hash": model.fingerprint},
    )
