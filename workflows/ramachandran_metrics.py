"""What is told of the samples of a learned energy: one metric at a time, and what a sample shows by itself."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from boltzgen_diffclf.estimators.estimate import Estimate
from boltzgen_diffclf.estimators.reweighting import WeightDiagnostics
from boltzgen_diffclf.observables import Integrity
from boltzgen_diffclf.observables.ramachandran import FreeEnergySurface
from systems.ensemble import ReferenceEnsemble
from workflows.mixing import slowest_relaxation_ps
from workflows.ramachandran_folding import Folding
from workflows.ramachandran_planes import Points
from workflows.ramachandran_samples import Sample


class Measured(NamedTuple):
    """One metric.

    Attributes:
        metric: its name.
        value: the number.
        noise_floor: what frames of the reference score in place of the samples.
        stderr: of the value; of what it is above its floor where it has one.
        shared: error that all seeds have in common, of the frames that were learned from or of those that judge.
    """

    metric: str
    value: float
    noise_floor: float | None = None
    stderr: float | None = None
    shared: float = 0.0

    @property
    def error(self) -> float | None:
        """Both errors together."""
        return None if self.stderr is None else math.hypot(self.stderr, self.shared)


@dataclass(frozen=True, eq=False)
class Findings:
    """What a sample shows.

    Attributes:
        points: of every frame in each plane of the judge.
        surfaces: the free energy over each plane.
        conformers: ``F_B - F_A`` [kT] of each basin by name, or why there is none.
        integrity: which frames are no molecule.
        folding: who is folded; None where the beads have no fold.
    """

    points: Sequence[Points]
    surfaces: Sequence[FreeEnergySurface]
    conformers: Mapping[str, Estimate | str]
    integrity: Integrity
    folding: Folding | None


def own_metrics(sample: Sample, findings: Findings) -> Iterator[Measured]:
    """Yield what a sample shows by itself, whatever it is compared with."""
    yield from conformer_metrics(sample.label, findings.conformers)
    if findings.folding is not None:
        yield from folding_metrics(sample.label, findings.folding)
    for fault in ("stretched", "clashing", "mirrored"):
        share = float(sample.weights @ getattr(findings.integrity, fault))
        yield Measured(f"{sample.label}_{fault}", share)


def conformer_metrics(label: str, found: Mapping[str, Estimate | str]) -> Iterator[Measured]:
    """Yield ``F_B - F_A`` [kT] of every basin where both were seen."""
    for name, one in found.items():
        if isinstance(one, Estimate):
            yield Measured(f"{label}_delta_f[{name}]", one.value, None, one.stderr)


def folding_metrics(label: str, found: Folding) -> Iterator[Measured]:
    """Yield the share of the folded, and ``F_folded - F_rest`` [kT] where both were seen."""
    yield Measured(f"{label}_folded_fraction", found.folded.value, None, found.folded.stderr)
    if isinstance(found.free_energy, Estimate):
        yield Measured(f"{label}_folding_delta_f", found.free_energy.value, None, found.free_energy.stderr)


def chain_metrics(label: str, frames: ReferenceEnsemble) -> Iterator[Measured]:
    """Yield how long chains are, together and each, their split R-hat, and how long the slowest basin is remembered."""
    whole_ps = len(frames) * frames.frame_interval_ps
    yield Measured(f"{label}_aggregate_ns", 1e-3 * whole_ps)
    yield Measured(f"{label}_chain_ps", whole_ps / frames.n_groups)
    mixing = frames.diagnostics.get("split_r_hat")
    if mixing:
        yield Measured(f"{label}_r_hat", max(mixing.values()))
    slowest = slowest_relaxation_ps(frames)
    if slowest is not None and math.isfinite(slowest[1]):
        yield Measured(f"{label}_relaxation_ps", slowest[1])


def weight_metrics(when: str, worth: WeightDiagnostics) -> Iterator[Measured]:
    """Yield what weights of families are worth, before or after the bridge."""
    yield Measured(f"ess_fraction_{when}", worth.effective_fraction)
    yield Measured(f"pareto_k_{when}", worth.pareto_k)
    yield Measured(f"maximum_weight_{when}", worth.maximum_weight)
    yield Measured(f"families_{when}", float(worth.n_samples - worth.n_zero))
    yield Measured(f"clipped_{when}", float(worth.n_clipped))
