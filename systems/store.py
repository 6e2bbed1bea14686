"""Trajectory files: mdtraj's HDF5 layout, with double-precision energies and provenance inside.

``mdtraj.load`` reads them. Positions are single precision [nm]; ``reducedEnergy`` holds ``u`` [kT] of exactly
those rounded positions, so that reweighting loses nothing. Every array carries checksums.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import h5py
import mdtraj
import numpy as np
import torch
from mdtraj.formats import HDF5TrajectoryFile
from openmm.app import Topology

from boltzgen_diffclf.errors import InputError, first_line
from boltzgen_diffclf.files import atomic_path
from systems.convergence import measure_convergence
from systems.ensemble import Provenance, ReferenceEnsemble
from systems.molecular import MolecularSystem, require_temperature

SCHEMA_VERSION = 1

_UNITS = {
    "coordinates": "nanometers",
    "time": "picoseconds",
    "reducedEnergy": "kT",
    "group": "dimensionless",
    "frame": "dimensionless",
}

_LAYOUT = {
    "conventions": "Pande",
    "conventionVersion": "1.1",
    "program": "boltzgen-diffclf",
    "programVersion": str(SCHEMA_VERSION),
    "application": "boltzgen-diffclf",
}
"""Attributes by which mdtraj's HDF5 files are known."""


def write_ensemble(path: Path | str, ensemble: ReferenceEnsemble, topology: Topology) -> None:
    """Write an ensemble whole or not at all.

    Raises:
        RunFailedError: the disk refuses.
        ValueError: the ensemble is of other atoms than the topology.
    """
    if ensemble.positions.shape[1] != topology.getNumAtoms():
        raise ValueError(
            f"an ensemble of {ensemble.positions.shape[1]} atoms has no topology of {topology.getNumAtoms()}"
        )
    arrays: dict[str, np.ndarray] = {
        "coordinates": ensemble.positions.numpy().astype(np.float32, copy=False),
        "time": (ensemble.frame.numpy() * ensemble.frame_interval_ps).astype(np.float32),
        "reducedEnergy": ensemble.energies.numpy().astype(np.float64, copy=False),
        "group": ensemble.group.numpy().astype(np.int64, copy=False),
        "frame": ensemble.frame.numpy().astype(np.int64, copy=False),
    }
    with atomic_path(Path(path)) as temporary:
        temporary.write_bytes(_file_image(arrays, {**_header(ensemble), **_LAYOUT}, _topology_json(topology)))


def _file_image(arrays: dict[str, np.ndarray], header: dict[str, str], topology: bytes) -> bytes:
    # Built in memory, because the HDF5 library does not survive a full disk.
    with h5py.File("ensemble", "w", driver="core", backing_store=False) as file:
        for name, array in arrays.items():
            dataset = file.create_dataset(name, data=array, chunks=True, fletcher32=True)
            dataset.attrs["units"] = np.bytes_(_UNITS[name])
        file.create_dataset("topology", data=np.array([topology], dtype=np.bytes_))
        for key, value in header.items():
            file.attrs[key] = np.bytes_(value)
        file.flush()
        return file.id.get_file_image()


def read_ensemble(
    path: Path | str, system: MolecularSystem, state: str, temperature_kelvin: float = 300.0
) -> ReferenceEnsemble:
    """Return the ensemble in a file, after checking that it is whole and belongs to this state.

    Raises:
        InputError: missing, truncated or corrupt file; another system, state or temperature; no energies.
    """
    ensemble = load_ensemble(path)
    found = ensemble.provenance
    system.require_state(state)
    temperature = require_temperature(temperature_kelvin)
    if found.system != system.name or found.state != state:
        raise InputError(
            f"{path} holds state '{found.state}' of system '{found.system}', not state '{state}' of "
            f"'{system.name}': give the right file"
        )
    if found.system_hash != system.system_hash(state):
        raise InputError(
            f"{path} was made with other parameters of '{system.name}' ({found.system_hash[:12]}, here "
            f"{system.system_hash(state)[:12]}): its energies do not fit; generate it again"
        )
    if abs(found.temperature_kelvin - temperature) > 1e-9 * temperature:
        raise InputError(
            f"{path} was sampled at {found.temperature_kelvin:g} K, not {temperature:g} K: "
            "give a file of this temperature or generate one"
        )
    measured = ensemble.diagnostics
    if "split_r_hat" in measured and not {f"cos_{name}" for name in system.side_torsions} <= set(
        measured["split_r_hat"]
    ):
        # Of a time when side chains were not watched.
        return ensemble.with_diagnostics({**measured, **measure_convergence(ensemble, system)})
    return ensemble


def load_ensemble(path: Path | str) -> ReferenceEnsemble:
    """Return the ensemble in a file of any system, after checking that it is whole.

    Raises:
        InputError: missing, truncated or corrupt file, or one that this package did not write.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"there is no file {path}: check the path, or generate the ensemble first")
    try:
        with h5py.File(path, "r") as file:
            _require_schema(path, file)
            arrays = {name: torch.from_numpy(file[name][()]) for name in _UNITS}
            header = {key: value.decode() for key, value in file.attrs.items() if isinstance(value, bytes)}
    except OSError as error:
        raise InputError(
            f"{path} is truncated, corrupt or no HDF5 file ({first_line(error)}): delete it and repeat the command"
        ) from error
    try:
        ensemble = _assemble(arrays, header)
    except (KeyError, ValueError, TypeError) as error:
        raise InputError(f"{path} does not say what it is of ({first_line(error)}): generate it again") from error
    if not bool(torch.isfinite(ensemble.energies).all() and torch.isfinite(ensemble.positions).all()):
        raise InputError(f"{path} holds numbers that are not finite: delete it and repeat the command")
    return ensemble


def holds_ensemble(path: Path) -> bool:
    """Return whether a file was written by :func:`write_ensemble` (a plain or broken trajectory was not)."""
    if not h5py.is_hdf5(path):
        return False
    try:
        with h5py.File(path, "r") as file:
            return "schemaVersion" in file.attrs
    except OSError:  # truncated: whoever reads it says so
        return False


def _require_schema(path: Path, file: h5py.File) -> None:
    if "schemaVersion" not in file.attrs:
        raise InputError(
            f"{path} is a trajectory without energies or provenance: give it as a user's own (--trajectory), "
            "and its energies are computed"
        )
    version = file.attrs["schemaVersion"]
    version = version.decode() if isinstance(version, bytes) else str(version)
    if version != str(SCHEMA_VERSION):
        raise InputError(
            f"{path} has schema version {version}, this program reads {SCHEMA_VERSION}: install the version that "
            "wrote it, or generate it again"
        )
    missing = [name for name in _UNITS if name not in file]
    if missing:
        raise InputError(f"{path} has no {', '.join(missing)}: it cannot be reweighted; generate it again")
    lengths = {name: len(file[name]) for name in _UNITS}
    if len(set(lengths.values())) != 1 or 0 in lengths.values():
        raise InputError(f"{path} has arrays of different or no length ({lengths}): generate it again")


def _header(ensemble: ReferenceEnsemble) -> dict[str, str]:
    provenance = ensemble.provenance
    return {
        "title": f"{provenance.system}, state {provenance.state}, {provenance.temperature_kelvin:g} K",
        "schemaVersion": str(SCHEMA_VERSION),
        "provenance": json.dumps(asdict(provenance), sort_keys=True),
        "diagnostics": json.dumps(dict(ensemble.diagnostics), sort_keys=True),
        "frameIntervalPicoseconds": repr(ensemble.frame_interval_ps),
    }


def _assemble(arrays: dict[str, torch.Tensor], header: dict[str, str]) -> ReferenceEnsemble:
    return ReferenceEnsemble(
        provenance=Provenance(**json.loads(header["provenance"])),
        positions=arrays["coordinates"],
        energies=arrays["reducedEnergy"],
        group=arrays["group"],
        frame=arrays["frame"],
        frame_interval_ps=float(header["frameIntervalPicoseconds"]),
        diagnostics=json.loads(header["diagnostics"]),
    )


def _topology_json(topology: Topology) -> bytes:
    converted = mdtraj.Topology.from_openmm(topology)
    return json.dumps(HDF5TrajectoryFile.convert_topology_to_dict(converted, bond_metadata=False)).encode("ascii")
