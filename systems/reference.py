"""Reference ensembles by batched Langevin dynamics under temperature replica exchange."""

from __future__ import annotations

import logging
from dataclasses import asdict
from pathlib import Path

import torch

from boltzgen_diffclf.errors import InputError
from systems.ensemble import Provenance, ReferenceEnsemble
from systems.hydrogen_mass import masses_with_hydrogens
from systems.molecular import MolecularSystem, require_temperature
from systems.recording import Advance, record
from systems.replica_dynamics import ReferenceSettings, ReplicaExchangeDynamics
from systems.starts import begun_at, walker_starts
from systems.temperature_ladder import advice, geometric_ladder

__all__ = ["ReferenceEnsemble", "ReferenceSettings", "generate", "geometric_ladder"]

_log = logging.getLogger(__name__)

_DTYPES = {"float32": torch.float32, "float64": torch.float64}


def generate(
    system: MolecularSystem,
    state: str,
    temperature_kelvin: float,
    settings: ReferenceSettings,
    path: Path,
    progress: Advance = lambda frames: None,
    device: torch.device | str = "cpu",
) -> ReferenceEnsemble:
    """Return the reference ensemble of a state, sampling what is missing in ``path``.

    The same call after a kill goes on where it was, with the same random stream: the file comes out the same.

    Args:
        system: the system.
        state: one of its states.
        temperature_kelvin: of the ensemble [K].
        settings: how to sample.
        path: the trajectory file; unfinished work lies beside it.
        progress: told of every frame done (of ``equilibration_frames + frames_per_walker``).
        device: where the dynamics run.

    Raises:
        InputError: unknown state, impossible temperature, or a file of another run.
        UnsupportedSystemError: the state holds something that is not compiled; the OpenMM engine takes it.
        RunFailedError: the dynamics blew up, or the disk refuses.
    """
    temperature = require_temperature(temperature_kelvin)
    if settings.temperatures_kelvin[0] != temperature:
        raise InputError(
            f"the ladder begins at {settings.temperatures_kelvin[0]:g} K, the ensemble is wanted at "
            f"{temperature:g} K: begin temperatures_kelvin there"
        )
    if too_steep := advice(system.n_atoms, settings.temperatures_kelvin):
        _log.warning("%s", too_steep)
    # A wall is kept by refusing steps; energies are those of the whole state, finite on both of its sides.
    whole = system.unconfined(state)
    source = ReplicaExchangeDynamics(
        target=system.target(whole, temperature, _DTYPES[settings.precision], device),
        exact_target=system.target(whole, temperature),
        starts=walker_starts(system, state),
        masses=masses_with_hydrogens(system, settings.hydrogen_mass_amu),
        settings=settings,
        stream=f"reference/{system.name}/{state}",
        region=system.region(state),
    )
    provenance = Provenance(
        system=system.name,
        state=state,
        temperature_kelvin=temperature,
        system_hash=system.system_hash(state),
        seed=settings.seed,
        settings={"engine": "replica exchange", **asdict(settings), **begun_at(system, state)},
    )
    return record(source, system, provenance, path, progress)
