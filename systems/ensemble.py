"""Reference ensembles: frames of one state with their energies, and what can be done with them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from boltzgen_diffclf.samplers.resampling import systematic
from boltzgen_diffclf.target import Target
from systems.molecular import MolecularSystem

_ENERGY_BATCH = 1024


@dataclass(frozen=True)
class Provenance:
    """What an ensemble is of and how it was made; written into its file.

    Attributes:
        system: name of the system.
        state: name of the thermodynamic state.
        temperature_kelvin: [K].
        system_hash: fingerprint of the state's energy function.
        seed: root seed, or None for frames that were not made here.
        settings: of the generator, plain values.
    """

    system: str
    state: str
    temperature_kelvin: float
    system_hash: str
    seed: int | None = None
    settings: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class ReferenceEnsemble:
    """Frames of one state at one temperature, ordered by time, then by group.

    Attributes:
        provenance: what they are and how they were made.
        positions: as stored [nm], centred, in single precision.
        energies: ``u`` [kT] of exactly these positions, in double precision.
        group: label of the independent simulation that a frame belongs to. Under replica exchange that is a whole
            ladder of temperatures, because its walkers exchange.
        frame: index of the frame within its group.
        frame_interval_ps: simulated time between frames [ps]; 0 where unknown.
        diagnostics: measured while sampling, plain values.
    """

    provenance: Provenance
    positions: Float[Tensor, "frames atoms 3"]
    energies: Float[Tensor, " frames"]
    group: Int[Tensor, " frames"]
    frame: Int[Tensor, " frames"]
    frame_interval_ps: float = 0.0
    diagnostics: Mapping[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        """Return the number of frames."""
        return len(self.energies)

    @property
    def n_groups(self) -> int:
        """Number of independent simulations."""
        return len(torch.unique(self.group))

    @property
    def largest_group_share(self) -> float:
        """Share of the frames that the group with the most of them has."""
        return float(self.group.unique(return_counts=True)[1].max()) / len(self)

    def select(self, index: Int[Tensor, " selected"]) -> ReferenceEnsemble:
        """Return the frames at ``index``, in that order."""
        return replace(
            self,
            positions=self.positions[index],
            energies=self.energies[index],
            group=self.group[index],
            frame=self.frame[index],
        )

    def with_diagnostics(self, diagnostics: Mapping[str, object]) -> ReferenceEnsemble:
        """Return the same frames with these diagnostics."""
        return replace(self, diagnostics=dict(diagnostics))

    def group_indices(self, n: int) -> list[Int[Tensor, " selected"]]:
        """Return the frame indices of ``n`` disjoint sets of whole groups, of nearly equal size.

        Raises:
            ValueError: there are fewer groups than sets.
        """
        labels = np.unique(self.group.numpy())
        if not 1 <= n <= len(labels):
            raise ValueError(f"cannot split {len(labels)} independent groups into {n} sets")
        parts = np.array_split(labels, n)
        return [torch.from_numpy(np.flatnonzero(np.isin(self.group.numpy(), part))) for part in parts]

    def disjoint_groups(self, n: int) -> list[ReferenceEnsemble]:
        """Return ``n`` ensembles that share no group, for error bars that correlated frames cannot fool."""
        return [self.select(index) for index in self.group_indices(n)]

    def by_group(self, values: Float[Tensor, " frames"]) -> Float[Tensor, "groups time"]:
        """Return a quantity of every frame as one row a group, in order of time.

        Raises:
            ValueError: the groups have different lengths.
        """
        _, counts = torch.unique(self.group, return_counts=True)
        if int(counts.min()) != int(counts.max()):
            raise ValueError("groups of different lengths have no common time axis")
        order = np.lexsort((self.frame.numpy(), self.group.numpy()))
        return values[torch.from_numpy(order)].reshape(len(counts), -1)


def energies_of(
    system: MolecularSystem, state: str, temperature_kelvin: float, positions: Float[Tensor, "frames atoms 3"]
) -> Float[Tensor, " frames"]:
    """Return ``u`` [kT] of positions [nm] in double precision."""
    return evaluate(system.target(state, temperature_kelvin=temperature_kelvin, dtype=torch.float64), positions)


def evaluate(target: Target, positions: Float[Tensor, "frames atoms 3"]) -> Float[Tensor, " frames"]:
    """Return ``u`` [kT] of positions [nm] in the target's precision, a batch at a time, detached."""
    with torch.no_grad():
        batches = positions.split(_ENERGY_BATCH)
        return torch.cat([target.energy(batch.to(target.device, target.dtype)).cpu() for batch in batches])


def reweight(ensemble: ReferenceEnsemble, system: MolecularSystem, state: str) -> Float[Tensor, " frames"]:
    """Return the log weights that turn an ensemble into one of another ``state``, normalised to sum to one.

    Args:
        ensemble: frames of any state of ``system``.
        system: the system they belong to.
        state: the state wanted; the temperature stays.

    Returns:
        ``log w_i = u_from(x_i) - u_to(x_i) - log sum_j exp(...)``.
    """
    energies = energies_of(system, state, ensemble.provenance.temperature_kelvin, ensemble.positions)
    return torch.log_softmax(ensemble.energies - energies, dim=0)


def resample(
    ensemble: ReferenceEnsemble, system: MolecularSystem, state: str, generator: torch.Generator
) -> ReferenceEnsemble:
    """Return as many unweighted frames of another ``state``, drawn by systematic resampling, one group after another.

    A group so keeps its share of the weights in frames, up to one; in the order of time that share would be a matter of
    chance. Every frame keeps its group, so that groups stay independent; a frame of large weight appears more than
    once, and of the effective frames that the diagnostics tell there are fewer by the effective fraction of the weights
    (Kish).
    """
    log_weights = reweight(ensemble, system, state)
    by_group = torch.from_numpy(np.lexsort((ensemble.frame.numpy(), ensemble.group.numpy())))
    drawn = by_group[systematic(log_weights[by_group], generator)]
    chosen = ensemble.select(drawn.sort().values)
    kept = float(torch.exp(-torch.logsumexp(2 * log_weights, 0))) / len(ensemble)
    frames = ensemble.diagnostics.get("effective_frames")
    if isinstance(frames, Mapping):
        fewer = {name: kept * float(value) for name, value in frames.items()}
        chosen = chosen.with_diagnostics({**chosen.diagnostics, "effective_frames": fewer})
    provenance = replace(
        ensemble.provenance,
        state=state,
        system_hash=system.system_hash(state),
        settings={**ensemble.provenance.settings, "reweighted_from": ensemble.provenance.state},
    )
    energies = energies_of(system, state, provenance.temperature_kelvin, chosen.positions)
    return replace(chosen, provenance=provenance, energies=energies)
