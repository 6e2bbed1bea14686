"""What is measured of the samples of a learned energy, against frames that it never saw."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from boltzgen_diffclf.errors import NotTrustworthyError
from boltzgen_diffclf.estimators.estimate import Estimate
from boltzgen_diffclf.estimators.reweighting import WeightDiagnostics
from boltzgen_diffclf.observables import (
    Integrity,
    angle_triples,
    bond_angles,
    distances,
    divergence_above_floor,
    integrity,
    marginal_divergences,
    surface_agreement,
)
from boltzgen_diffclf.observables.ramachandran import FreeEnergySurface
from boltzgen_diffclf.streams import split_seed
from systems.beads import bead_stereocentres
from systems.conformers import basin_free_energy
from systems.molecular import MolecularSystem
from workflows.ramachandran_planes import Plane, Points, TorsionPlane
from workflows.ramachandran_samples import Sample


class Measured(NamedTuple):
    """One metric.

    Attributes:
        metric: its name.
        value: the number.
        noise_floor: what frames of the reference score in place of the samples.
        stderr: of the value; of what it is above its floor where it has one.
    """

    metric: str
    value: float
    noise_floor: float | None = None
    stderr: float | None = None


@dataclass(frozen=True, eq=False)
class Findings:
    """What a sample shows.

    Attributes:
        points: of every frame in each plane of the judge.
        surfaces: the free energy over each plane.
        conformers: ``F_B - F_A`` [kT] of each basin by name, or why there is none.
        integrity: which frames are no molecule.
    """

    points: Sequence[Points]
    surfaces: Sequence[FreeEnergySurface]
    conformers: Mapping[str, Estimate | str]
    integrity: Integrity


@dataclass(frozen=True, eq=False)
class Judge:
    """Frames that no network has learned from, and what is compared with them.

    Attributes:
        system: the molecule, all atoms.
        beads: what of it is learned, as a system.
        selection: name of the beads.
        reference: frames of the beads.
        planes: that maps are drawn over, those of residues first.
        seed: of thinning and halving.
    """

    system: MolecularSystem
    beads: MolecularSystem
    selection: str
    reference: Sample
    planes: Sequence[Plane]
    seed: int = 0

    @property
    def residues(self) -> list[TorsionPlane]:
        """The planes that are of phi and psi."""
        return [plane for plane in self.planes if isinstance(plane, TorsionPlane)]

    @cached_property
    def findings(self) -> Findings:
        """Those of the reference itself."""
        return self.look_at(self.reference)

    def look_at(self, sample: Sample) -> Findings:
        """Return maps, conformers and integrity of a sample."""
        points = [plane.points(sample.frames.positions.numpy()) for plane in self.planes]
        surfaces = [plane.surface(sample, found) for plane, found in zip(self.planes, points, strict=True)]
        conformers = {name: self._conformer(sample, name) for name in self.beads.basins}
        return Findings(points, surfaces, conformers, self._integrity(sample))

    def measure(self, sample: Sample, findings: Findings) -> Iterator[Measured]:
        """Yield every metric of a sample against the reference, in the order of the table."""
        for index in range(len(self.planes)):
            yield from self._map_metrics(sample, findings, index)
        yield from conformer_metrics(sample.label, findings)
        yield from self._geometry(sample)
        yield from integrity_metrics(sample, findings.integrity)

    def unvisited(self, sample: Sample, findings: Findings) -> float:
        """Return the largest share of the reference, of all planes, that lies where no frame of a sample has weight."""
        counted = sample.weights > 0
        several = zip(self.planes, findings.points, self.findings.points, strict=True)
        return max((plane.unvisited(ours[counted], theirs) for plane, ours, theirs in several), default=0.0)

    def geometry(self, sample: Sample) -> dict[str, Float[np.ndarray, "frames quantities"]]:
        """Return bond lengths [nm], bond angles [rad] and energies [kT] of every frame."""
        positions, bonds = sample.frames.positions.numpy(), self.beads.bonds
        return {
            "bond": distances(positions, np.array(bonds, dtype=np.int64).reshape(-1, 2)),
            "angle": bond_angles(positions, angle_triples(bonds)),
            "energy": np.nan_to_num(sample.frames.energies.numpy(), nan=np.inf)[:, None],
        }

    def _map_metrics(self, sample: Sample, findings: Findings, index: int) -> Iterator[Measured]:
        """Yield how far a sample is from the reference in one plane."""
        plane, reference = self.planes[index], self.reference
        for name, divergence in plane.divergences.items():
            metric = f"{sample.label}_{plane.metric(name)}"
            found = divergence_above_floor(
                divergence,
                findings.points[index],
                self.findings.points[index],
                reference.frames.group.numpy(),
                self._generator(f"{sample.label} {plane.metric(name)}"),
                sample.log_w,
            )
            yield Measured(metric, found.value, found.floor, found.stderr)
        agreement = surface_agreement(self.findings.surfaces[index], findings.surfaces[index])
        yield Measured(f"{sample.label}_{plane.metric('bins_within_2_stderr')}", agreement.within)
        yield Measured(f"{sample.label}_{plane.metric('largest_deviation')}", agreement.largest)

    def _geometry(self, sample: Sample) -> Iterator[Measured]:
        """Yield the mean divergence [nats] of bond lengths, angles and energies from one half of the reference."""
        here, there = (self.reference.select(index.numpy()) for index in self.reference.frames.group_indices(2))
        generator, size = self._generator(f"{sample.label} geometry"), min(map(len, (sample.frames, here.frames)))
        ours, floor = (one.thinned(size, generator) for one in (sample, here))
        theirs = self.geometry(there)
        floors = self.geometry(floor)
        for name, values in self.geometry(ours).items():
            if theirs[name].shape[1] == 0:
                continue
            found = marginal_divergences(values, theirs[name], ours.log_w)
            least = marginal_divergences(floors[name], theirs[name])
            yield Measured(f"{sample.label}_{name}_js", float(found.mean()), float(least.mean()))

    def _conformer(self, sample: Sample, basin: str) -> Estimate | str:
        try:
            return basin_free_energy(self.beads, basin, sample.frames.positions.numpy(), sample.groups, sample.log_w)
        except NotTrustworthyError as error:
            return str(error)

    def _integrity(self, sample: Sample) -> Integrity:
        beads = self.beads
        return integrity(
            sample.frames.positions.numpy(),
            beads.positions.numpy(),
            beads.elements,
            beads.bonds,
            bead_stereocentres(self.system, self.selection),
        )

    def _generator(self, purpose: str) -> np.random.Generator:
        return np.random.default_rng(split_seed(self.seed, purpose))


def conformer_metrics(label: str, findings: Findings) -> Iterator[Measured]:
    """Yield the free energy [kT] of each basin against all the rest, where both were seen."""
    for name, found in findings.conformers.items():
        if isinstance(found, Estimate):
            yield Measured(f"{label}_delta_f[{name}]", found.value, None, found.stderr)


def integrity_metrics(sample: Sample, found: Integrity) -> Iterator[Measured]:
    """Yield the weighted shares of frames that are no molecule."""
    for name in ("stretched", "clashing", "mirrored"):
        yield Measured(f"{sample.label}_{name}", float(sample.weights @ getattr(found, name)))


def weight_metrics(when: str, worth: WeightDiagnostics) -> Iterator[Measured]:
    """Yield what weights of families are worth, before or after the bridge."""
    yield Measured(f"ess_fraction_{when}", worth.effective_fraction)
    yield Measured(f"pareto_k_{when}", worth.pareto_k)
    yield Measured(f"maximum_weight_{when}", worth.maximum_weight)
    yield Measured(f"families_{when}", float(worth.n_samples - worth.n_zero))
