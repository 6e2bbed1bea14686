"""What is measured of the samples of a learned energy, against frames that it never saw."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float, Shaped

from boltzgen_diffclf.errors import NotTrustworthyError
from boltzgen_diffclf.estimators.estimate import Estimate
from boltzgen_diffclf.observables import (
    Integrity,
    angle_triples,
    bond_angles,
    contact_difference,
    distance_features,
    distances,
    divergence_above_floor,
    half_of_walkers,
    integrity,
    marginal_divergences,
    surface_agreement,
)
from boltzgen_diffclf.streams import split_seed
from systems.beads import bead_stereocentres
from systems.conformers import basin_free_energy
from systems.folds import deviation
from systems.molecular import MolecularSystem
from workflows.ramachandran_folding import folding_of
from workflows.ramachandran_metrics import Findings, Measured, conformer_metrics, folding_metrics, own_metrics
from workflows.ramachandran_planes import Plane, TorsionPlane
from workflows.ramachandran_samples import Sample
from workflows.ramachandran_slow import SlowPlane

HALVINGS = 8
"""Of the reference, to see in how many bins its halves agree."""

SUNKEN_KT = 10.0
"""How far [kT] below every frame of the reference a learned energy has to be to lie in a hole, where no frame is."""


@dataclass(frozen=True, eq=False)
class Judge:
    """Frames that no network has learned from, and what is compared with them.

    Attributes:
        system: the molecule, all atoms.
        beads: what of it is learned, as a system.
        selection: name of the beads.
        reference: frames of the beads.
        planes: that maps are drawn over, those of residues first.
        learned_from: frames of the beads; None where nothing was learned.
        seed: of thinning and halving.
    """

    system: MolecularSystem
    beads: MolecularSystem
    selection: str
    reference: Sample
    planes: Sequence[Plane]
    learned_from: Sample | None = None
    seed: int = 0

    @property
    def residues(self) -> list[TorsionPlane]:
        """The planes that are of phi and psi."""
        return [plane for plane in self.planes if isinstance(plane, TorsionPlane)]

    @property
    def slow(self) -> SlowPlane | None:
        """The plane of the slow coordinates, where there is one."""
        return next((plane for plane in self.planes if isinstance(plane, SlowPlane)), None)

    @cached_property
    def findings(self) -> Findings:
        """Those of the reference itself."""
        return self.look_at(self.reference)

    def look_at(self, sample: Sample) -> Findings:
        """Return maps, conformers and integrity of a sample."""
        points = [plane.points(sample.frames.positions.numpy()) for plane in self.planes]
        surfaces = [plane.surface(sample, found) for plane, found in zip(self.planes, points, strict=True)]
        conformers = {name: self._conformer(sample, name) for name in self.beads.basins}
        return Findings(points, surfaces, conformers, self._integrity(sample), folding_of(self.beads, sample))

    def measure(self, sample: Sample, findings: Findings) -> Iterator[Measured]:
        """Yield every metric of a sample against the reference, in the order of the table."""
        for index in range(len(self.planes)):
            yield from self._map_metrics(sample, findings, index)
        yield from self._geometry(sample)
        if findings.folding is not None and self.findings.folding is not None:
            yield self._above_floor(
                sample,
                "contact_difference",
                contact_difference,
                findings.folding.contacts,
                self.findings.folding.contacts,
            )
        for told in own_metrics(sample, findings):
            yield self._as_learned(sample, told)
        if sample.learned is not None and self.reference.learned is not None:
            sunken = sample.learned < self.reference.learned.min() - SUNKEN_KT
            yield Measured(f"{sample.label}_sunken", float(sample.weights @ sunken.numpy()))

    @cached_property
    def learned(self) -> dict[str, Measured]:
        """What the frames learned from say of conformers and of a fold, by metric without the label of a sample.

        Of frames of one group there is nothing: they have no error.
        """
        frames = self.learned_from
        if frames is None or frames.frames.n_groups < 2:
            return {}
        told = [*conformer_metrics("", {name: self._conformer(frames, name) for name in self.beads.basins})]
        folding = folding_of(self.beads, frames)
        told += [] if folding is None else folding_metrics("", folding)
        return {one.metric.removeprefix("_"): one for one in told}

    @cached_property
    def _agreement_of_halves(self) -> list[tuple[float, float, float] | tuple[()]]:
        """The noise floor of the share of bins that agree, and its errors, by plane; nothing where groups are too few.

        Bins of one basin are right or wrong together, so that the share of two halves scatters from halving to halving.
        """
        groups, generator = self.reference.frames.group.numpy(), self._generator("agreement of halves")
        if self.reference.frames.n_groups < 4:
            return [() for _ in self.planes]
        floors: list[tuple[float, float, float] | tuple[()]] = []
        for plane, points in zip(self.planes, self.findings.points, strict=True):
            shares = []
            for _ in range(HALVINGS):
                half = half_of_walkers(groups, len(points), generator)
                here, there = (
                    plane.surface(self.reference.select(np.flatnonzero(side)), points[side]) for side in (half, ~half)
                )
                shares.append(surface_agreement(here, there).within)
            floors.append((float(np.mean(shares)), 0.0, float(np.std(shares, ddof=1))))
        return floors

    def _as_learned(self, sample: Sample, told: Measured) -> Measured:
        """Return what a sample says; a network knows no more of a conformer than the frames that it learned from."""
        if not sample.of_a_network or self.learned_from is None or told.stderr is None:
            return told
        known = self.learned.get(told.metric.removeprefix(f"{sample.label}_"))
        return told._replace(shared=math.inf if known is None or known.stderr is None else known.stderr)

    def unvisited(self, sample: Sample, findings: Findings) -> float:
        """Return the largest share of the reference, of all planes, that lies where no frame of a sample has weight."""
        counted = sample.weights > 0
        several = zip(self.planes, findings.points, self.findings.points, strict=True)
        return max((plane.unvisited(ours[counted], theirs) for plane, ours, theirs in several), default=0.0)

    def geometry(self, sample: Sample) -> dict[str, Float[np.ndarray, "frames quantities"]]:
        """Return bond lengths [nm], angles [rad] and energies [kT] of every frame, and distances [nm] of chains."""
        positions, bonds = sample.frames.positions.numpy(), self.beads.bonds
        found = {
            "bond": distances(positions, np.array(bonds, dtype=np.int64).reshape(-1, 2)),
            "angle": bond_angles(positions, angle_triples(bonds)),
            "energy": np.nan_to_num(sample.frames.energies.numpy(), nan=np.inf)[:, None],
        }
        if self.selection == "ca":
            found["distance"] = distance_features(positions)
        if self.beads.fold is not None:
            ends = positions[:, [self.beads.fold.atoms[0], self.beads.fold.atoms[-1]]]
            found["end_to_end"] = distance_features(ends)
            found["rmsd"] = deviation(self.beads, positions)[:, None]
        return found

    def _map_metrics(self, sample: Sample, findings: Findings, index: int) -> Iterator[Measured]:
        """Yield how far a sample is from the reference in one plane."""
        plane = self.planes[index]
        for name, divergence in plane.divergences.items():
            points = findings.points[index], self.findings.points[index]
            yield self._above_floor(sample, plane.metric(name), divergence, *points)
        agreement = surface_agreement(self.findings.surfaces[index], findings.surfaces[index])
        yield Measured(
            f"{sample.label}_{plane.metric('bins_within_2_stderr')}",
            agreement.within,
            *self._agreement_of_halves[index],
        )
        yield Measured(f"{sample.label}_{plane.metric('largest_deviation')}", agreement.largest)

    def _above_floor(
        self,
        sample: Sample,
        name: str,
        divergence: Callable[..., float],
        ours: Shaped[np.ndarray, "sampled values"],
        theirs: Shaped[np.ndarray, "frames values"],
    ) -> Measured:
        """Return a distance of a sample from the reference beside that of the reference from itself."""
        generator, groups = self._generator(f"{sample.label} {name}"), self.reference.frames.group.numpy()
        found = divergence_above_floor(divergence, ours, theirs, groups, generator, sample.log_w)
        # From halving to halving of the reference, which is one and the same for all seeds.
        return Measured(f"{sample.label}_{name}", found.value, found.floor, 0.0, shared=found.stderr)

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
