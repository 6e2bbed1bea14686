"""A user's own trajectory of a state, or of some beads of it, read by mdtraj and checked against the topology."""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import struct
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import mdtraj
import numpy as np
import torch
from jaxtyping import Float, Int
from tables.exceptions import NodeError
from torch import Tensor

from boltzgen_diffclf.errors import InputError, first_line
from boltzgen_diffclf.estimators.groups import block_labels
from boltzgen_diffclf.observables.chirality import handedness, reference_handedness, stereocentres
from systems.beads import bead_atoms, bead_stereocentres, bead_system
from systems.convergence import FRAMES_FOR_R_HAT, measure_convergence
from systems.ensemble import Provenance, ReferenceEnsemble, energies_of
from systems.molecular import MolecularSystem, require_temperature
from systems.store import holds_ensemble, read_ensemble

_LOSSLESS = (".h5", ".hdf5", ".dcd", ".nc", ".netcdf", ".ncdf", ".trr", ".dtr")
_ROUNDED = (".xtc", ".gro", ".pdb", ".cif", ".mdcrd", ".crd", ".lh5", ".xyz")
_log = logging.getLogger(__name__)
WEIGHTS = "weights"
"""Setting that names the file with the weights of samples, which are no frames of their state without."""

_BLOCKS = 20
"""Contiguous pieces that a plain trajectory is cut into."""


def read_user_trajectory(
    path: Path,
    system: MolecularSystem,
    state: str,
    temperature_kelvin: float = 300.0,
    blocks: int = _BLOCKS,
    rounded: Sequence[str] = (),
) -> ReferenceEnsemble:
    """Return the frames of a trajectory that the user vouches to be equilibrium samples of ``state``.

    A file written by this package keeps its own energies and groups. Any other is taken as one simulation: it is
    cut into ``blocks`` contiguous pieces, which serve as the independent groups, and its energies are computed.

    Args:
        path: HDF5, DCD, NetCDF, TRR or DTR.
        system: the system.
        state: the state that was simulated.
        temperature_kelvin: of the simulation [K].
        blocks: number of contiguous pieces.
        rounded: endings of formats that round coordinates and are taken all the same.

    Raises:
        InputError: missing or unreadable file, any other rounding format, other atoms, a broken molecule.
    """
    temperature = _admit(path, system, state, temperature_kelvin, rounded)
    if holds_ensemble(path):
        return _own_ensemble(path, system, state, temperature)
    positions = _load_positions(path, system, blocks)
    # Blocks of one length, from the end: what is left over is the least equilibrated.
    positions = positions[len(positions) % blocks :]
    order = torch.arange(len(positions))
    ensemble = ReferenceEnsemble(
        provenance=Provenance(
            system=system.name,
            state=state,
            temperature_kelvin=temperature,
            system_hash=system.system_hash(state),
            settings={"trajectory": path.name, "blocks": blocks},
        ),
        positions=positions,
        energies=energies_of(system, state, temperature, positions),
        group=torch.from_numpy(block_labels(len(positions), blocks)),
        frame=order,
    )
    return ensemble.with_diagnostics(measure_convergence(ensemble, system))


def read_frames(
    path: Path, system: MolecularSystem, beads: str, state: str, temperature_kelvin: float = 300.0
) -> ReferenceEnsemble:
    """Return the frames of a trajectory of all atoms of a system, or of some beads of it alone.

    The latter are an ensemble of :func:`~systems.beads.bead_system`, without energies: what a coarse-grained density is
    learned from may be of any force field, and of water that is not there. A file of beads may be in XTC, which rounds.
    Only heavy beads show their hand: a mirror image of others is not refused.

    Args:
        path: see :func:`read_user_trajectory`.
        system: all atoms.
        beads: one of :data:`~systems.beads.BEADS`.
        state: that was simulated.
        temperature_kelvin: of the simulation [K].

    Raises:
        InputError: see :func:`read_user_trajectory`; no such beads.
    """
    n_beads, found = len(bead_atoms(system, beads)), _atoms_in(path)
    if found not in (None, n_beads, system.n_atoms):
        raise InputError(
            f"{path} has {found} atoms: give all {system.n_atoms} of '{system.name}', or the {n_beads} of --beads "
            f"{beads}"
        )
    if n_beads == system.n_atoms or found != n_beads:
        return read_user_trajectory(path, system, state, temperature_kelvin)
    alone = bead_system(system, beads)
    frames = read_user_trajectory(path, alone, state, temperature_kelvin, rounded=(".xtc",))
    _require_hands(path, alone, frames.positions, bead_stereocentres(system, beads))
    return frames


def judge_user_trajectory(
    path: Path, system: MolecularSystem, state: str, temperature_kelvin: float = 300.0, blocks: int = _BLOCKS
) -> int:
    """Return how many independent groups :func:`read_user_trajectory` would give, without computing an energy.

    Raises:
        InputError: whatever reading would refuse.
    """
    temperature = _admit(path, system, state, temperature_kelvin)
    if holds_ensemble(path):
        return _own_ensemble(path, system, state, temperature).n_groups
    _load_positions(path, system, blocks)
    return blocks


def _own_ensemble(path: Path, system: MolecularSystem, state: str, temperature: float) -> ReferenceEnsemble:
    """Return the frames of a file of this package, which have to be those of a simulation of this very molecule."""
    frames = read_ensemble(path, system, state, temperature)
    settings = frames.provenance.settings
    if "model_hash" in settings:
        raise InputError(f"{path} holds samples of a learned energy, which nothing can be judged by: give frames")
    if WEIGHTS in settings:
        raise InputError(
            f"{path} holds samples whose weights are in {settings[WEIGHTS]}, and as they stand no frames of the state: "
            "give frames of a simulation"
        )
    _require_hands(path, system, frames.positions[:1], stereocentres(system.elements, system.bonds))
    return frames


def _admit(
    path: Path, system: MolecularSystem, state: str, temperature_kelvin: float, rounded: Sequence[str] = ()
) -> float:
    system.require_state(state)
    temperature = require_temperature(temperature_kelvin)
    if not path.exists():
        raise InputError(f"there is no trajectory {path}: check the path")
    if path.suffix.lower() not in rounded:
        _require_lossless(path)
    return temperature


def _atoms_in(path: Path) -> int | None:
    """Return of how many atoms a trajectory is; None where it cannot be read, which its reader explains."""
    if path.suffix.lower() not in (*_LOSSLESS, ".xtc"):
        return None
    try:
        with _silenced(), mdtraj.open(str(path)) as file:
            first = file.read(1)
    except (OSError, ValueError, RuntimeError, EOFError, NodeError, KeyError):
        return None
    return int((first[0] if isinstance(first, tuple) else first).shape[1])


def _require_lossless(path: Path) -> None:
    """Refuse a format that rounds coordinates, or none that is known, by the file's name."""
    suffix = path.suffix.lower()
    if suffix in _ROUNDED:
        raise InputError(
            f"{path} is a {suffix} file, whose rounded coordinates change energies by up to several kT: "
            f"reweighting needs the unrounded frames; run again writing one of {', '.join(_LOSSLESS)}"
        )
    if suffix not in _LOSSLESS:
        raise InputError(f"{path} has an unknown trajectory format '{suffix}': give one of {', '.join(_LOSSLESS)}")


def _load_positions(path: Path, system: MolecularSystem, blocks: int) -> Float[Tensor, "frames atoms 3"]:
    topology = mdtraj.Topology.from_openmm(system.topology)
    try:
        if path.suffix.lower() in (".h5", ".hdf5"):
            trajectory = mdtraj.load_hdf5(str(path))
            _require_same_atoms(path, trajectory.topology, topology)
        else:
            with _silenced():
                trajectory = mdtraj.load(str(path), top=topology)
            if path.suffix.lower() == ".dcd":
                _tell_missing_frames(path, trajectory.n_frames)
    except (OSError, ValueError, RuntimeError, EOFError, KeyError, NodeError) as error:
        raise InputError(
            f"{path} cannot be read as a trajectory of the {system.n_atoms} atoms of '{system.name}' "
            f"({first_line(error)}): check the file and the order of its atoms"
        ) from error
    centred = trajectory.xyz - trajectory.xyz.mean(axis=1, keepdims=True)
    positions = torch.from_numpy(np.ascontiguousarray(centred, dtype=np.float32))
    _require_whole_molecules(path, system, positions)
    _require_hands(path, system, positions, stereocentres(system.elements, system.bonds))
    if len(positions) < FRAMES_FOR_R_HAT * blocks:
        raise InputError(
            f"{path} has {len(positions)} frames, fewer than the {FRAMES_FOR_R_HAT * blocks} that its convergence can "
            "be judged by: give a longer trajectory"
        )
    if bool((positions == positions[0]).all()):
        raise InputError(f"{path} has {len(positions)} times the same frame: give frames of a simulation")
    return positions


@contextlib.contextmanager
def _silenced() -> Iterator[None]:
    """Keep what a reader written in C prints off the terminal: what is wrong with a file is told in one line."""
    flush = ctypes.CDLL(None).fflush  # of C's own buffers, where the terminal is a file or a pipe
    sys.stdout.flush()
    flush(None)
    kept = os.dup(1)
    try:
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), 1)
        yield
    finally:
        flush(None)
        os.dup2(kept, 1)
        os.close(kept)


def _tell_missing_frames(path: Path, n_frames: int) -> None:
    """Say so where the header of a DCD file counts more frames than are in it, of a stopped run or a cut file."""
    with path.open("rb") as file:
        head = file.read(16)
    # Records begin with their length, in four bytes or in eight, of either order.
    marker = head.find(b"CORD")
    order = "<" if marker > 0 and head[0] else ">"
    counted = struct.unpack_from(order + "i", head, marker + 4)[0] if marker in (4, 8) else 0
    if counted > n_frames:
        _log.warning(
            "%s holds %d of the %d frames that it counts: the run was stopped, or the file is cut; those are used",
            path,
            n_frames,
            counted,
        )


def _require_same_atoms(path: Path, found: mdtraj.Topology, wanted: mdtraj.Topology) -> None:
    if found.n_atoms != wanted.n_atoms:
        raise InputError(f"{path} has {found.n_atoms} atoms, the system {wanted.n_atoms}: give a file of this system")
    for a, b in zip(_atom_names(found), _atom_names(wanted), strict=True):
        if a != b:
            raise InputError(f"{path} has atom {a} where the system has {b}: reorder the atoms of the trajectory")


def _atom_names(topology: mdtraj.Topology) -> Sequence[str]:
    return [f"{atom.index} {atom.residue.name}-{atom.name}" for atom in topology.atoms]


def _require_whole_molecules(path: Path, system: MolecularSystem, positions: Float[Tensor, "frames atoms 3"]) -> None:
    broken = ~torch.isfinite(positions).flatten(1).all(1)
    if bool(broken.any()):
        raise InputError(f"{path}, frame {int(broken.nonzero()[0])}: positions are not finite: remove such frames")
    # Wrong units, another order of atoms and molecules cut by a periodic box all show as impossible bonds.
    first, second = torch.tensor(system.bonds, dtype=torch.long).reshape(-1, 2).T
    lengths = (positions[:, first] - positions[:, second]).norm(dim=-1).to(torch.float64)
    expected = (system.positions[first] - system.positions[second]).norm(dim=-1)
    ratio = lengths / expected
    strange = (ratio > 1.5) | (ratio < 0.6)
    if bool(strange.any()):
        frame, bond = (int(value) for value in strange.nonzero()[0])
        raise InputError(
            f"{path}, frame {frame}: the bond of atoms {int(first[bond])} and {int(second[bond])} is "
            f"{float(lengths[frame, bond]):.3f} nm long, expected {float(expected[bond]):.3f} nm: check the units "
            "(nm), the order of atoms, and that the molecules and the file are whole"
        )


def _require_hands(
    path: Path,
    system: MolecularSystem,
    positions: Float[Tensor, "frames atoms 3"],
    centres: Int[np.ndarray, "centres 4"],
) -> None:
    # No dynamics turn a hand round: such frames are of another molecule, whose energies are the same.
    hands = reference_handedness(system.positions.numpy(), centres)
    mirrored = handedness(positions.numpy(), centres) != hands
    if mirrored.any():
        frame, centre = (int(value) for value in np.argwhere(mirrored)[0])
        raise InputError(
            f"{path}, frame {frame}: atom {int(centres[centre, 0])} has the other chirality than in '{system.name}': "
            "give frames of this molecule, not of its mirror image"
        )
