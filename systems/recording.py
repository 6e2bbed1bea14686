"""Recording a simulation so that a kill at any moment costs little and changes nothing.

Frames go to part files, each a readable trajectory of its own, beside a checkpoint from which the simulation goes
on bit for bit. When the last frame is there, the parts become one file and disappear; the checkpoint stays beside it,
and more frames of the same run are added to those that are there.
"""

from __future__ import annotations

import json
import logging
import shutil
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from boltzgen_diffclf.errors import InputError, OtherRunError, RunFailedError, first_line
from boltzgen_diffclf.files import atomic_path
from systems.convergence import measure_convergence
from systems.ensemble import Provenance, ReferenceEnsemble
from systems.molecular import MolecularSystem
from systems.store import load_ensemble, read_ensemble, write_ensemble

Advance = Callable[[float], None]
"""Told how many frames of each group have been done since the last call."""

LENGTHS = frozenset({"frames_per_walker", "frames_per_chain"})
"""The settings that say how long a run is: all before its end is the same in a longer one."""

_log = logging.getLogger(__name__)
_CONFIGURATIONS_PER_PART = 1024
_CHECKPOINT = "checkpoint.safetensors"


class FrameSource(ABC):
    """A simulation of independent groups that yields one frame of each at a time and can be put to sleep.

    Attributes:
        n_groups: independent simulations.
        n_discarded: frames of equilibration before the first one kept.
        n_frames: frames kept of each group.
        frame_interval_ps: simulated time between frames [ps].
        device_type: where its random stream lives.
    """

    device_type: str = "cpu"
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
    """Return the ensemble in ``path``, simulating what is missing of it: all of it, or frames beyond its last.

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
    parts, end = path.with_name(path.name + ".parts"), path.with_name(path.name + ".checkpoint")
    found, in_file = None, source.n_discarded
    if path.exists():
        found = read_ensemble(path, system, provenance.state, provenance.temperature_kelvin)
        require_same_run(path, found.provenance, provenance, longer=True)
        in_file += int(found.by_group(found.energies).shape[1])
        _keep_the_end(parts, end, in_file)
        if in_file == source.n_discarded + source.n_frames:
            progress(float(in_file))
            return found
    _simulate(source, system, provenance, parts, _going_on_from(path, parts, end, in_file), progress)
    ensemble = _join(source, system, provenance, found, parts)
    write_ensemble(path, ensemble, system.topology)
    _keep_the_end(parts, end, source.n_discarded + source.n_frames)
    return ensemble


def _keep_the_end(parts: Path, end: Path, total: int) -> None:
    """Put the last checkpoint of a file of ``total`` frames a group beside it, and drop the parts that are in the file.

    Parts of a continuation that was stopped stay.
    """
    checkpoint = parts / _CHECKPOINT
    if checkpoint.exists():
        if int(_read_checkpoint(checkpoint)[1]["done"]) != total:
            return
        checkpoint.replace(end)
    shutil.rmtree(parts, ignore_errors=True)


def _going_on_from(path: Path, parts: Path, end: Path, in_file: int) -> Path | None:
    """Return the checkpoint that goes on from the ``in_file`` frames a group before the first part; None for a start.

    Raises:
        InputError: the parts or the checkpoint are not of this file.
    """
    checkpoint = parts / _CHECKPOINT
    if checkpoint.exists():
        first = min(parts.glob("part-*.h5"), default=_part_path(parts, in_file))
        if first != _part_path(parts, in_file):
            raise InputError(f"{parts} does not go on from what {path} holds: delete it to start again")
        return checkpoint
    shutil.rmtree(parts, ignore_errors=True)
    if not path.exists():
        return None
    if not end.exists() or int(_read_checkpoint(end)[1]["done"]) != in_file:
        raise InputError(f"{path} has no checkpoint of its last frame to go on from: choose another file")
    return end


def require_same_run(path: Path, found: Provenance, wanted: Provenance, *, longer: bool = False) -> None:
    """Raise an InputError that names the first setting in which two runs differ.

    Args:
        path: of the run that was found.
        found: its provenance.
        wanted: that of the run asked for.
        longer: whether more frames of each walker may be asked for.
    """
    there, here = _flat(found), _flat(wanted)
    for key in sorted(there.keys() | here.keys()):
        if longer and key in LENGTHS and there[key] < here[key]:
            continue
        if there.get(key) != here.get(key):
            way_out = (
                "ask for as many or more" if longer and key in LENGTHS else "choose another file, or delete this one"
            )
            raise OtherRunError(
                f"{path} was made with {key} = {there.get(key)}, now {here.get(key)} is asked for: {way_out}"
            )


def _flat(provenance: Provenance) -> dict[str, Any]:
    # Through JSON, because a stored run has lists where a fresh one has tuples.
    values = json.loads(json.dumps(asdict(provenance)))
    return {**values.pop("settings"), **values}


def _simulate(
    source: FrameSource,
    system: MolecularSystem,
    provenance: Provenance,
    parts: Path,
    last: Path | None,
    progress: Advance,
) -> None:
    """Write the parts that are missing after the checkpoint ``last``, or all of them."""
    checkpoint, done = parts / _CHECKPOINT, 0
    if last is not None:
        done = _restore(source, last, provenance)
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


def _join(
    source: FrameSource,
    system: MolecularSystem,
    provenance: Provenance,
    found: ReferenceEnsemble | None,
    parts: Path,
) -> ReferenceEnsemble:
    pieces = [*([] if found is None else [found]), *(load_ensemble(file) for file in sorted(parts.glob("part-*.h5")))]
    ensemble = ReferenceEnsemble(
        provenance=provenance,
        positions=torch.cat([piece.positions for piece in pieces]),
        energies=torch.cat([piece.energies for piece in pieces]),
        group=torch.cat([piece.group for piece in pieces]),
        frame=torch.cat([piece.frame for piece in pieces]),
        frame_interval_ps=pieces[0].frame_interval_ps,
    )
    if len(ensemble) != source.n_groups * source.n_frames:
        raise InputError(f"{parts} lacks frames: delete it to start again")
    return ensemble.with_diagnostics({**source.diagnostics(), **measure_convergence(ensemble, system)})


def _save(source: FrameSource, checkpoint: Path, provenance: Provenance, done: int) -> None:
    tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in source.tensors().items()}
    metadata = {
        "provenance": json.dumps(asdict(provenance)),
        "done": str(done),
        "threads": str(torch.get_num_threads()),
        "device": source.device_type,
    }
    with atomic_path(checkpoint) as temporary:
        try:
            save_file(tensors, temporary, metadata=metadata)
        except SafetensorError as error:
            raise OSError(None, str(error)) from error


def _read_checkpoint(checkpoint: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        with safe_open(checkpoint, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata()  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        way_out = (
            f"delete {checkpoint.parent} to start again"
            if checkpoint.name == _CHECKPOINT
            else "the frames beside it are whole, but none can be added: choose another file for more"
        )
        raise InputError(f"{checkpoint} is damaged ({first_line(error)}): {way_out}") from error


def _whole(checkpoint: Path) -> Path:
    """Return what is of no use without a checkpoint: the parts that it lies among, or itself beside a file."""
    return checkpoint.parent if checkpoint.name == _CHECKPOINT else checkpoint


def _restore(source: FrameSource, checkpoint: Path, provenance: Provenance) -> int:
    tensors, metadata = _read_checkpoint(checkpoint)
    require_same_run(_whole(checkpoint), Provenance(**json.loads(metadata["provenance"])), provenance, longer=True)
    if metadata.get("device", source.device_type) != source.device_type:
        raise InputError(
            f"{_whole(checkpoint)} was begun on {metadata['device']}, whose random stream does not go on on "
            f"{source.device_type}: choose that device, or another file"
        )
    if int(metadata["threads"]) != torch.get_num_threads():
        _log.warning(
            "%s was begun with %s threads and goes on with %d: rounding may differ from an uninterrupted run",
            checkpoint.parent.name,
            metadata["threads"],
            torch.get_num_threads(),
        )
    source.restore(tensors)
    return int(metadata["done"])
