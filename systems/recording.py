"""Recording a simulation so that a kill at any moment costs little and changes nothing.

Frames go to part files, each a readable trajectory of its own, beside a checkpoint from which the simulation goes
on bit for bit. When the last frame is there, the parts become one file and disappear.
"""

from __future__ import annotations

import json
import logging
import shutil
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import torch
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from boltzgen_diffclf.errors import InputError, RunFailedError
from boltzgen_diffclf.files import atomic_path
from systems.convergence import measure_convergence
from systems.ensemble import Provenance, ReferenceEnsemble
from systems.molecular import MolecularSystem
from systems.store import load_ensemble, read_ensemble, write_ensemble

Advance = Callable[[float], None]
"""Told how many frames of each group have been done since the last call."""

_log = logging.getLogger(__name__)
_CONFIGURATIONS_PER_PART = 1024


class FrameSource(ABC):
    """A simulation of independent groups that yields one frame of each at a time and can be put to sleep.

    Attributes:
        n_groups: independent simulations.
        n_discarded: frames of equilibration before the first one kept.
        n_frames: frames kept of each group.
        frame_interval_ps: simulated time between frames [ps].
    """

    n_groups: int
    n_discarded: int
    n_frames: int
    frame_interval_ps: float

    @abstractmethod
    def start(self) -> None:
        """Prepare the walkers."""

    @abstractmethod
    def advance(self) -> Float[Tensor, "groups atoms 3"]:
        """Simulate up to the next frame and return it [nm]."""

    @abstractmethod
    def energies(self, positions: Float[Tensor, "frames atoms 3"]) -> Float[Tensor, " frames"]:
        """Return ``u`` [kT] of single-precision positions in double precision."""

    @abstractmethod
    def tensors(self) -> dict[str, Tensor]:
        """Return everything needed to go on, generators included."""

    @abstractmethod
    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Go on from what :meth:`tensors` returned."""

    def diagnostics(self) -> dict[str, object]:
        """Return plain values measured by the simulation itself."""
        return {}


def record(
    source: FrameSource, system: MolecularSystem, provenance: Provenance, path: Path, progress: Advance
) -> ReferenceEnsemble:
    """Return the ensemble in ``path``, simulating what is missing of it.

    Args:
        source: the simulation; not touched where the file is already there.
        system: the system simulated.
        provenance: what the file must hold; its settings must be those of the source.
        path: the trajectory file.
        progress: told of every frame done, and at the start of those found.

    Raises:
        InputError: the file or its parts come from other settings, or are damaged.
        RunFailedError: the disk refuses, or energies are not finite.
    """
    parts = path.with_name(path.name + ".parts")
    if path.exists():
        ensemble = read_ensemble(path, system, provenance.state, provenance.temperature_kelvin)
        require_same_run(path, ensemble.provenance, provenance)
        progress(float(source.n_discarded + source.n_frames))
    else:
        _simulate(source, system, provenance, parts, progress)
        ensemble = _join(source, system, parts)
        write_ensemble(path, ensemble, system.topology)
    shutil.rmtree(parts, ignore_errors=True)
    return ensemble


def require_same_run(path: Path, found: Provenance, wanted: Provenance) -> None:
    """Raise an InputError that names the first setting in which two runs differ."""
    there, here = _flat(found), _flat(wanted)
    for key in sorted(there.keys() | here.keys()):
        if there.get(key) != here.get(key):
            raise InputError(
                f"{path} was made with {key} = {there.get(key)}, now {here.get(key)} is asked for: choose another "
                "file, or delete this one"
            )


def _flat(provenance: Provenance) -> dict[str, object]:
    # Through JSON, because a stored run has lists where a fresh one has tuples.
    values = json.loads(json.dumps(asdict(provenance)))
    return {**values.pop("settings"), **values}


def _simulate(
    source: FrameSource, system: MolecularSystem, provenance: Provenance, parts: Path, progress: Advance
) -> None:
    checkpoint = parts / "checkpoint.safetensors"
    done = 0
    if checkpoint.exists():
        done = _restore(source, checkpoint, provenance)
        _log.info("%s: resumed after %d frames of each group", parts.name, done)
    else:
        source.start()
    total = source.n_discarded + source.n_frames
    progress(float(done))
    while done < total:
        # Part boundaries follow from the settings alone: a resumed run computes energies in the same batches.
        end = _part_end(source, done)
        positions = []
        for _ in range(done, end):
            positions.append(_centred(source.advance()))
            progress(1.0)
        if end > source.n_discarded:
            part = _part(source, provenance, positions, done - source.n_discarded)
            write_ensemble(_part_path(parts, done), part, system.topology)
        done = end
        _save(source, checkpoint, provenance, done)


def _part_end(source: FrameSource, done: int) -> int:
    length = max(1, _CONFIGURATIONS_PER_PART // source.n_groups)
    if done < source.n_discarded:
        return min(done + length, source.n_discarded)
    return min(done + length, source.n_discarded + source.n_frames)


def _part_path(parts: Path, done: int) -> Path:
    return parts / f"part-{done:08d}.h5"


def _centred(positions: Float[Tensor, "groups atoms 3"]) -> Float[Tensor, "groups atoms 3"]:
    return (positions - positions.mean(dim=1, keepdim=True)).to("cpu", torch.float32)


def _part(
    source: FrameSource,
    provenance: Provenance,
    positions: list[Float[Tensor, "groups atoms 3"]],
    first_frame: int,
) -> ReferenceEnsemble:
    frames, stacked = len(positions), torch.cat(positions)
    energies = source.energies(stacked)
    if not bool(torch.isfinite(energies).all()):
        raise RunFailedError(
            f"{int((~torch.isfinite(energies)).sum())} energies of frames {first_frame} to "
            f"{first_frame + frames - 1} are not finite: the simulation blew up; choose a smaller "
            "timestep and another file"
        )
    return ReferenceEnsemble(
        provenance=provenance,
        positions=stacked,
        energies=energies,
        group=torch.arange(source.n_groups).repeat(frames),
        frame=torch.arange(first_frame, first_frame + frames).repeat_interleave(source.n_groups),
        frame_interval_ps=source.frame_interval_ps,
    )


def _join(source: FrameSource, system: MolecularSystem, parts: Path) -> ReferenceEnsemble:
    pieces = [load_ensemble(file) for file in sorted(parts.glob("part-*.h5"))]
    ensemble = ReferenceEnsemble(
        provenance=pieces[0].provenance,
        positions=torch.cat([piece.positions for piece in pieces]),
        energies=torch.cat([piece.energies for piece in pieces]),
        group=torch.cat([piece.group for piece in pieces]),
        frame=torch.cat([piece.frame for piece in pieces]),
        frame_interval_ps=pieces[0].frame_interval_ps,
    )
    return ensemble.with_diagnostics({**source.diagnostics(), **measure_convergence(ensemble, system)})


def _save(source: FrameSource, checkpoint: Path, provenance: Provenance, done: int) -> None:
    tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in source.tensors().items()}
    metadata = {
        "provenance": json.dumps(asdict(provenance)),
        "done": str(done),
        "threads": str(torch.get_num_threads()),
    }
    with atomic_path(checkpoint) as temporary:
        try:
            save_file(tensors, temporary, metadata=metadata)
        except SafetensorError as error:
            raise OSError(None, str(error)) from error


def _restore(source: FrameSource, checkpoint: Path, provenance: Provenance) -> int:
    try:
        with safe_open(checkpoint, framework="pt") as file:
            metadata = file.metadata()
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise InputError(
            f"{checkpoint} is damaged ({str(error).splitlines()[0]}): delete {checkpoint.parent} to start again"
        ) from error
    require_same_run(checkpoint.parent, Provenance(**json.loads(metadata["provenance"])), provenance)
    if int(metadata["threads"]) != torch.get_num_threads():
        _log.warning(
            "%s was begun with %s threads and goes on with %d: rounding may differ from an uninterrupted run",
            checkpoint.parent.name,
            metadata["threads"],
            torch.get_num_threads(),
        )
    source.restore(tensors)
    return int(metadata["done"])
