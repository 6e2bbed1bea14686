"""Frames of one origin with their groups and weights, as the Ramachandran page compares them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from boltzgen_diffclf.estimators.reweighting import sample_weights
from systems.ensemble import ReferenceEnsemble


@dataclass(frozen=True, eq=False)
class Sample:
    """Frames of one origin.

    Attributes:
        label: what its metrics begin with.
        frames: of the beads; energies [kT] are the true ones where the beads are all atoms, else the learned ones.
        independent: whether each frame is a draw of its own, and not each group.
        log_w: unnormalised log weights.
        of_a_network: whether they stand for what a network has learned, and not for the true energy.
        learned: energies [kT] that the network gives the frames; None where nothing asks for them.
    """

    label: str
    frames: ReferenceEnsemble
    independent: bool = False
    log_w: Float[np.ndarray, " frames"] | None = None
    of_a_network: bool = False
    learned: Float[Tensor, " frames"] | None = None

    @property
    def groups(self) -> Int[np.ndarray, " frames"] | None:
        """What errors treat as one draw; None where each frame is one."""
        return None if self.independent else self.frames.group.numpy()

    @property
    def weights(self) -> Float[np.ndarray, " frames"]:
        """Of the frames; they sum to one."""
        return sample_weights(self.log_w, len(self.frames))

    def select(self, index: Int[np.ndarray, " selected"]) -> Sample:
        """Return these frames."""
        return replace(
            self,
            frames=self.frames.select(torch.from_numpy(index)),
            log_w=None if self.log_w is None else self.log_w[index],
            learned=None if self.learned is None else self.learned[torch.from_numpy(index)],
        )

    def thinned(self, size: int, generator: np.random.Generator) -> Sample:
        """Return so many of the frames at random, or all where there are fewer."""
        return self.select(np.sort(generator.permutation(len(self.frames))[:size]))
