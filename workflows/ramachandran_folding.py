"""Who is folded: deviation from the native chain, contacts, folding free energy, and whether the reference knows it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from boltzgen_diffclf.errors import NotTrustworthyError
from boltzgen_diffclf.estimators.estimate import Estimate
from boltzgen_diffclf.estimators.reweighting import WeightedMean
from boltzgen_diffclf.estimators.time_series import split_r_hat
from boltzgen_diffclf.observables import (
    contact_shares,
    contacts,
    fractions_by_start,
    state_free_energy,
    state_population,
)
from systems.ensemble import ReferenceEnsemble
from systems.folds import is_folded
from systems.molecular import MolecularSystem
from workflows import trust, trust_generators
from workflows.ramachandran_samples import Sample


@dataclass(frozen=True, eq=False)
class Folding:
    """What a sample shows of a fold.

    Attributes:
        contacts: which frames have which contact of the CA atoms.
        contact_map: share of each contact.
        folded: share of the folded frames.
        free_energy: ``F_folded - F_rest`` [kT], or why there is none.
    """

    contacts: Bool[np.ndarray, "frames pairs"]
    contact_map: Float[np.ndarray, " pairs"]
    folded: WeightedMean
    free_energy: Estimate | str


def folding_of(beads: MolecularSystem, sample: Sample) -> Folding | None:
    """Return what a sample shows of the fold of its beads; None where they have none."""
    if beads.fold is None:
        return None
    positions = sample.frames.positions.numpy()
    inside = is_folded(beads, positions)
    touching = contacts(positions[:, list(beads.fold.atoms)])
    try:
        free_energy: Estimate | str = state_free_energy(inside, "the fold", groups=sample.groups, log_w=sample.log_w)
    except NotTrustworthyError as error:
        free_energy = str(error)
    folded = state_population(inside, groups=sample.groups, log_w=sample.log_w)
    return Folding(touching, contact_shares(touching, sample.log_w), folded, free_energy)


@dataclass(frozen=True, eq=False)
class FoldedStarts:
    """The folded fraction of the walkers of a reference, by how they began.

    Attributes:
        folded: whether each frame of each walker is.
        frame_interval_ps: between frames [ps]; 0 where unknown.
    """

    folded: Bool[np.ndarray, "walkers frames"]
    frame_interval_ps: float

    @property
    def fractions(self) -> tuple[Float[np.ndarray, " folded"], Float[np.ndarray, " unfolded"]]:
        """Share of the frames of each walker that began folded, and of each that did not."""
        return fractions_by_start(self.folded)

    def check(self) -> trust.Check:
        """Return the gate on walkers from both starts agreeing."""
        folded, unfolded = self.fractions
        # Halves of fewer frames have no variance, and show nothing.
        r_hat = split_r_hat(self.folded.astype(np.float64)) if self.folded.shape[1] >= 4 else math.inf
        return trust_generators.check_fold(folded.tolist(), unfolded.tolist(), r_hat)

    @property
    def by_start(self) -> dict[str, Float[np.ndarray, " frames"]]:
        """Mean over the walkers at every frame, of either start that there is."""
        begun = self.folded[:, 0]
        several = {"began folded": self.folded[begun], "began unfolded": self.folded[~begun]}
        return {name: rows.mean(axis=0) for name, rows in several.items() if len(rows)}


def folded_starts(system: MolecularSystem, reference: ReferenceEnsemble) -> FoldedStarts | None:
    """Return who is folded of the walkers of a reference, cut to the length of the shortest.

    None where the molecule has no fold.
    """
    if system.fold is None:
        return None
    inside = is_folded(system, reference.positions.numpy())
    order = np.lexsort((reference.frame.numpy(), reference.group.numpy()))
    _, counts = np.unique(reference.group.numpy(), return_counts=True)
    walkers = np.split(inside[order], np.cumsum(counts)[:-1])
    return FoldedStarts(np.stack([one[: counts.min()] for one in walkers]), reference.frame_interval_ps)
