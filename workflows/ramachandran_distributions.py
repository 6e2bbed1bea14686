"""Which distributions the Ramachandran page shows: energies, and the bond and the angle that are farthest off."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from boltzgen_diffclf.observables import Histogram, angle_triples, histogram, marginal_divergences, reference_edges
from workflows.ramachandran_measures import Judge
from workflows.ramachandran_samples import Sample

UNITS = {"energy": ("energy [kT]", 1.0), "bond": ("length [nm]", 1.0), "angle": ("angle [degrees]", 180 / np.pi)}
"""Label of the axis of each quantity, and its unit there."""

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


def distributions(judge: Judge, samples: Mapping[str, Sample], chosen_by: str = "iid") -> list[Distributions]:
    """Return the distribution of energies, of one bond and of one angle.

    Args:
        judge: of the samples.
        samples: by label.
        chosen_by: label of the sample whose worst bond and worst angle are shown.
    """
    values = {label: judge.geometry(sample) for label, sample in samples.items()}
    reference = judge.geometry(judge.reference)
    found = []
    for name, (axis, unit) in UNITS.items():
        if reference[name].shape[1] == 0:
            continue
        worst = int(np.argmax(marginal_divergences(values[chosen_by][name], reference[name], bins=BINS)))
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
    atoms = beads.bonds[index] if name == "bond" else angle_triples(beads.bonds)[index].tolist()
    return f"{name} " + "–".join(f"{beads.elements[atom]}{atom}" for atom in atoms)
