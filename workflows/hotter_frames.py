"""The stage of a molecule's training that makes frames beyond its ensemble, kept in the run folder."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from boltzgen_diffclf.streams import split_seed
from systems.hot_frames import FRAMES, HOTTER, hot_frames
from systems.molecular import MolecularSystem
from workflows.run_folder import RunFolder, StageResult

ATOMS = 20_000
"""Atoms of all walkers of one temperature that begin at frames to learn from."""

HELD_OUT = 0.125
"""Walkers that begin at held-out frames, in those that begin at the others."""

SHARE = 0.1
"""Of the work of a training, as the progress tells it."""


class HotterFrames(NamedTuple):
    """Hotter frames [nm] from those that are learned from, and from those held out; None where nobody asks.

    Attributes:
        learned: to learn from.
        held_out: never learned from.
    """

    learned: Float[Tensor, "hot atoms 3"] | None = None
    held_out: Float[Tensor, "few atoms 3"] | None = None


def hotter_frames(
    folder: RunFolder,
    system: MolecularSystem,
    state: str,
    temperature_kelvin: float,
    halves: tuple[Float[Tensor, "learned atoms 3"], Float[Tensor, "held_out atoms 3"]],
    seed: int,
    device: torch.device,
) -> HotterFrames:
    """Return the frames of :func:`~systems.hot_frames.hot_frames` for both halves, from the folder or made now.

    Args:
        folder: of the run.
        system: all atoms.
        state: of the frames.
        temperature_kelvin: of the ensemble [K].
        halves: frames [nm] to begin at, learned from and held out.
        seed: of the training.
        device: where they are made.

    Raises:
        InputError: unknown state.
        RunFailedError: all walkers fell apart, or the disk refuses.
        UnsupportedSystemError: the System is not compiled.
    """
    stage, walkers = f"hotter-frames-seed{seed}", ATOMS // system.n_atoms
    folder.progress.add(stage, SHARE)

    def make() -> StageResult:
        with folder.progress.stage(stage, len(halves) * len(HOTTER) * FRAMES) as advance:
            made = {
                name: hot_frames(
                    system,
                    state,
                    start,
                    temperature_kelvin,
                    max(2, round(share * walkers)),
                    split_seed(seed, f"hotter, {name}"),
                    device,
                    advance,
                )
                for name, start, share in zip(HotterFrames._fields, halves, (1.0, HELD_OUT), strict=True)
            }
        return StageResult({name: frames.float().numpy() for name, frames in made.items()})

    found = folder.stage(stage, make)
    return HotterFrames(*(torch.from_numpy(found.arrays[name]).double() for name in HotterFrames._fields))
