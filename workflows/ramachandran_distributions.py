"""Which distributions the Ramachandran page shows: energies, and of the others the one that is farthest off."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from boltzgen_diffclf.observables import Histogram, angle_triples, histogram, marginal_divergences, reference_edges
from workflows.ramachandran import REFERENCE
from workflows.ramachandran_measures import Judge
from workflows.ramachandran_samples import Sample

UNITS = {
    "energy": ("energy [kT]", 1.0),
    "bond": ("length [nm]", 1.0),
    "angle": ("angle [degrees]", 180 / np.pi),
    "distance": ("distance [nm]", 1.0),
    "rmsd": ("RMSD [nm]", 1.0),
    "end_to_end": ("distance [nm]", 1.0),
}
"""Label of the axis of each quantity, and its unit there."""

WHOLE = {"rmsd": "CA, from native", "end_to_end": "end to end"}
"""Titles of what there is one of in a chain."""

BINS = 60


@dataclass(frozen=True)
class Distributions:
    """Histograms of one quantity.

    Attributes:
        title: which quantity.
        axis: its name and unit.
        histograms: by label of the sample; the bins are those of the reference.
    """

    title: str
    axis: str
    histograms: Mapping[str, Histogram]


def distributions(judge: Judge, samples: Mapping[str, Sample]) -> list[Distributions]:
    """Return the distribution of energies, and of the bond, the angle and the distance of CA beads that are worst.

    Args:
        judge: of the samples.
        samples: by label, the reference among them; the worst ones are those of the first other one there is.
    """
    values = {label: judge.geometry(sample) for label, sample in samples.items()}
    reference = judge.geometry(judge.reference)
    first = next((several for label, several in values.items() if label != REFERENCE), reference)
    found = []
    for name, (axis, unit) in UNITS.items():
        if name not in reference or reference[name].shape[1] == 0:
            continue
        worst = int(np.argmax(marginal_divergences(first[name], reference[name], bins=BINS)))
        edges = reference_edges(unit * reference[name][:, worst], BINS)
        histograms = {
            label: histogram(unit * several[name][:, worst].astype(np.float64), edges, samples[label].log_w)
            for label, several in values.items()
        }
        found.append(Distributions(_title(judge, name, worst), axis, histograms))
    return found


def _title(judge: Judge, name: str, index: int) -> str:
    beads = judge.beads
    if name == "energy":
        return "true energy" if judge.selection == "all" else "learned energy"
    if name in WHOLE:
        return WHOLE[name]
    pairs = list(itertools.combinations(range(beads.n_atoms), 2))
    chosen = {"bond": beads.bonds, "angle": angle_triples(beads.bonds).tolist(), "distance": pairs}[name][index]
    return f"{name} " + "–".join(_bead_names(judge)[atom] for atom in chosen)


def _bead_names(judge: Judge) -> list[str]:
    """Return the residue of CA beads, else the element and number of each."""
    if judge.selection == "ca":
        return [f"{atom.residue.name}{atom.residue.id}" for atom in judge.beads.topology.atoms()]
    return [f"{element}{atom}" for atom, element in enumerate(judge.beads.elements)]
