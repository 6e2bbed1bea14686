"""The stage of a molecule's training that makes frames beyond its ensemble, kept in the run folder."""

from __future__ import annotations

import hashlib
import itertools
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from boltzgen_diffclf.coordinates import remove_mean
from boltzgen_diffclf.errors import RunFailedError
from boltzgen_diffclf.streams import named_generator, split_seed
from systems.hot_frames import HOTTER, HotWalk, Walked
from systems.mean_forces import Felt, MeanForces
from systems.molecular import MolecularSystem
from workflows.resumable import carry_on
from workflows.run_folder import RunFolder, StageResult

_log = logging.getLogger(__name__)

ATOMS = 20_000
"""Atoms of all walkers of one temperature that begin at frames to learn from."""

HELD_OUT = 0.125
"""Walkers that begin at held-out frames, in those that begin at the others."""

SHARE = 1.0
"""Of the work, where a training is 8."""


class Beyond(NamedTuple):
    """Configurations that spread farther than an ensemble, and what the ensemble's density says of them.

    Attributes:
        positions: of the beads [nm].
        forces: mean forces on them [kT/nm].
    """

    positions: Float[Tensor, "hot beads 3"]
    forces: Float[Tensor, "hot beads 3"]


class HotterFrames(NamedTuple):
    """Hotter frames from those that are learned from, and from those held out; None where nobody asks."""

    learned: Beyond | None = None
    held_out: Beyond | None = None


@dataclass(frozen=True, eq=False)
class BeadEnsemble:
    """Whose forces are learned: some atoms of a molecule in one of its states.

    Attributes:
        system: all atoms.
        state: of the frames.
        temperature_kelvin: of the ensemble [K].
        atoms: those that are learned.
    """

    system: MolecularSystem
    state: str
    temperature_kelvin: float
    atoms: Sequence[int]


def hotter_frames(
    folder: RunFolder,
    ensemble: BeadEnsemble,
    halves: tuple[Float[Tensor, "learned atoms 3"], Float[Tensor, "held_out atoms 3"]],
    seed: int,
    device: torch.device,
) -> HotterFrames:
    """Return the frames of a :class:`~systems.hot_frames.HotWalk` for both halves, from the folder or made now.

    Killed, the same call goes on.

    Args:
        folder: of the run.
        ensemble: whose forces are wanted there.
        halves: frames of all atoms [nm] to begin at, learned from and held out.
        seed: of the training.
        device: where they are made.

    Raises:
        InputError: unknown state.
        RunFailedError: all walkers fell apart, or the disk refuses.
        UnsupportedSystemError: the System is not compiled.
    """
    stage, most = f"hotter-frames-{len(ensemble.atoms)}-seed{seed}", max(2, ATOMS // ensemble.system.n_atoms)
    walkers = most, max(2, round(HELD_OUT * most))
    unfinished = [
        _Unfinished(*(folder.path / f"{stage}-{name}-{what}-unfinished.safetensors" for what in _Unfinished._fields))
        for name in HotterFrames._fields
    ]
    folder.progress.add(stage, SHARE)

    def make() -> StageResult:
        arrays: dict[str, np.ndarray] = {}
        # Of each walker, dynamics and then forces.
        with folder.progress.stage(stage, 2 * sum(walkers)) as advance:
            for name, start, n, files in zip(HotterFrames._fields, halves, walkers, unfinished, strict=True):
                stream = split_seed(seed, f"hotter, {name}")
                made = _beyond(ensemble, start, n, stream, device, files, advance)
                arrays |= {f"{name}_{field}": value.numpy() for field, value in made._asdict().items()}
        return StageResult(arrays)

    found = folder.stage(stage, make).arrays
    for file in itertools.chain(*unfinished):
        file.unlink(missing_ok=True)
    several = [
        [torch.from_numpy(found[f"{name}_{field}"]) for field in Beyond._fields] for name in HotterFrames._fields
    ]
    return HotterFrames(*(Beyond(*tensors) for tensors in several))


class _Unfinished(NamedTuple):
    """Files of what is done of one half."""

    frames: Path
    forces: Path


def _beyond(
    ensemble: BeadEnsemble,
    start: Float[Tensor, "frames atoms 3"],
    walkers: int,
    seed: int,
    device: torch.device,
    files: _Unfinished,
    advance: Callable[[float], None],
) -> Beyond:
    system, state, temperature = ensemble.system, ensemble.state, ensemble.temperature_kelvin
    walk = HotWalk(system, state, start, temperature, walkers, device)
    walked = carry_on(
        walk,
        Walked,
        walk.init,
        named_generator(seed, "hot walk", device),
        files.frames,
        {"walkers": walkers, "seed": seed},
        lambda state, factor: advance(walkers / len(HOTTER)),
    )
    frames = walk.frames(walked)
    pull = MeanForces(system, state, frames, ensemble.atoms, temperature, device)
    felt = carry_on(
        pull,
        Felt,
        pull.init,
        named_generator(seed, "mean forces", device),
        files.forces,
        {"frames": hashlib.sha256(frames.numpy().tobytes()).hexdigest(), "seed": seed},
        lambda state, done: advance(walkers * done / len(frames)),
    )
    forces = felt.forces.cpu()
    known = forces.isfinite().all(-1).all(-1)
    if not bool(known.any()):
        raise RunFailedError(f"no hotter frame of {system.name} holds together while its other atoms move")
    if not bool(known.all()):
        _log.warning("%.2g of the hotter frames have no mean force and are left out", 1 - float(known.double().mean()))
    return Beyond(remove_mean(frames[known][:, list(ensemble.atoms)]), forces[known])
