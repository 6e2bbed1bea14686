"""Weighted samples of a molecule at its true energy, and what their weights are worth."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float

from boltzgen_diffclf.estimators.frames import generated_u_kn, write_u_kn
from boltzgen_diffclf.estimators.reweighting import WeightDiagnostics, diagnose_weights
from systems.ensemble import ReferenceEnsemble
from systems.molecular import MolecularSystem
from systems.store import write_ensemble
from systems.user_trajectory import WEIGHTS


@dataclass(frozen=True, eq=False)
class WeightedEnsemble:
    """What a generator leaves of a state.

    Attributes:
        frames: of all atoms with their true energies [kT]; the group of a frame is its family.
        log_w: unnormalised log weight of each; none for the wrong hand, which no force field tells from the right one.
        before: log weights of families where the true energy weighs at one stroke.
        after: the same at the end of the bridge.
        mirrored: share of the weight that the wrong hand had at the end, before it was taken away.
    """

    frames: ReferenceEnsemble
    log_w: Float[np.ndarray, " frames"]
    before: Float[np.ndarray, " roots"]
    after: Float[np.ndarray, " roots"]
    mirrored: float

    @property
    def n_families(self) -> int:
        """Families with weight at the end."""
        return int(np.isfinite(self.after).sum())

    @property
    def worth(self) -> dict[str, WeightDiagnostics]:
        """What the weights of families are worth ``before`` and ``after`` the bridge; nothing where all are zero."""
        several = {"before": self.before, "after": self.after}
        return {when: diagnose_weights(log_w) for when, log_w in several.items() if np.isfinite(log_w).any()}

    def save(self, frames_file: Path, u_kn_file: Path, system: MolecularSystem) -> None:
        """Write what has weight, and its weights as pymbar takes them; nothing where nothing has weight.

        Args:
            frames_file: trajectory, ``.h5``.
            u_kn_file: ``.npz``; the energies of the first state, that which all samples stand for before they are
                weighed, are those of the second and the log weights.
            system: the molecule.

        Raises:
            RunFailedError: the disk refuses.
        """
        counted = np.isfinite(self.log_w)
        if not counted.any():
            return
        frames, made = self.frames.select(torch.from_numpy(np.flatnonzero(counted))), self.frames.provenance
        told = replace(made, settings={**made.settings, WEIGHTS: u_kn_file.name})
        write_ensemble(frames_file, replace(frames, provenance=told), system.topology)
        u_kn, n_k = generated_u_kn(self.log_w[counted], frames.energies.numpy())
        states = ["unweighted samples", made.state]
        write_u_kn(u_kn_file, u_kn, n_k, states, made.temperature_kelvin, frames.group.numpy())
