"""A few configurations to be turned by hand: the data of ``viewer.js``, and a picture where no script may run."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import matplotlib as mpl
import numpy as np
import torch
from jaxtyping import Float
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from boltzgen_diffclf.coordinates import kabsch_align
from boltzgen_diffclf.observables.integrity import COVALENT_RADII_NM
from systems.molecular import MolecularSystem
from workflows.ramachandran_samples import Sample
from workflows.report.figures import STYLE
from workflows.report.page import Picture, picture

FRAMES = 6
"""Configurations of each origin."""

BALL = 0.45
"""Radius of a ball, in covalent radii."""

BEAD_NM = 0.09
"""Radius of a bead that stands for a residue."""

ELEMENTS: Mapping[str, str] = {"C": "#6b7480", "N": "#2f62c9", "O": "#d43a2f", "H": "#d9dde3", "S": "#d9b21f"}
OTHER = "#b05fc0"
"""Of an element without a colour of its own."""


@dataclass(frozen=True, eq=False)
class Conformations:
    """Configurations of a molecule, laid on one another.

    Attributes:
        colours: of each atom.
        sizes: radius of each [nm].
        bonds: pairs of atoms.
        sets: by origin, configurations [nm].
        radius: of all of the first origin about the middle [nm].
    """

    colours: Sequence[str]
    sizes: Sequence[float]
    bonds: Sequence[tuple[int, int]]
    sets: Mapping[str, Float[np.ndarray, "frames atoms 3"]]

    @property
    def radius(self) -> float:
        """Largest distance from the middle among the configurations of the first origin [nm]."""
        first = next(iter(self.sets.values()))
        return float(np.linalg.norm(first, axis=-1).max()) + max(self.sizes)

    @property
    def data(self) -> str:
        """What ``viewer.js`` reads; it cannot end the element that it is in."""
        sets = [
            {"label": label, "frames": [[round(float(x), 3) for x in frame.flat] for frame in several]}
            for label, several in self.sets.items()
        ]
        values = {
            "colours": self.colours,
            "sizes": self.sizes,
            "bonds": self.bonds,
            "radius": self.radius,
            "sets": sets,
        }
        return json.dumps(values, separators=(",", ":")).replace("<", "\\u003c")


@dataclass(frozen=True, eq=False)
class Viewer:
    """A view on its way into the page.

    Attributes:
        data: that the script reads.
        fallback: shown where no script may run.
    """

    data: str
    fallback: Picture


def viewer(name: str, caption: str, shown: Conformations) -> Viewer:
    """Return the view of some configurations, and the same as a picture."""
    return Viewer(shown.data, picture(name, "Configurations", caption, conformations_figure(shown)))


def conformations(beads: MolecularSystem, samples: Mapping[str, Sample], by_residue: bool) -> Conformations:
    """Return a few configurations of each origin, all laid on the first one, which faces the reader.

    Args:
        beads: what they are of.
        samples: by the name of their origin; the first decides the size of the picture.
        by_residue: colours tell the place along the chain, not the element.
    """
    chosen = {label: sample.frames.positions[few(sample)].double() for label, sample in samples.items()}
    base = _facing(next(iter(chosen.values()))[:1])
    sets = {label: kabsch_align(positions, base).numpy() for label, positions in chosen.items()}
    if by_residue:
        places = np.linspace(0, 1, beads.n_atoms)
        colours = [to_hex(colour) for colour in mpl.colormaps["viridis"](places)]
        return Conformations(colours, [BEAD_NM] * beads.n_atoms, beads.bonds, sets)
    colours = [ELEMENTS.get(element, OTHER) for element in beads.elements]
    sizes = [round(BALL * COVALENT_RADII_NM.get(element, 0.1), 4) for element in beads.elements]
    return Conformations(colours, sizes, beads.bonds, sets)


def few(sample: Sample) -> list[int]:
    """Return the indices of a few different frames, drawn by their weights, the same at every call."""
    weights = sample.weights
    size = min(FRAMES, int((weights > 0).sum()))
    # At equal distances they might all be of one walker: frames of walkers take turns.
    return np.random.default_rng(0).choice(len(weights), size, replace=False, p=weights).tolist()


def _facing(frame: Float[torch.Tensor, "1 atoms 3"]) -> Float[torch.Tensor, "1 atoms 3"]:
    """Return a configuration turned so that it is widest across and thinnest in depth."""
    centred = frame - frame.mean(dim=1, keepdim=True)
    axes = torch.linalg.svd(centred[0], full_matrices=False).Vh
    # A rotation, no mirror.
    axes[2] *= torch.linalg.det(axes).sign()
    return centred @ axes.T


@mpl.rc_context(STYLE)
def conformations_figure(shown: Conformations) -> Figure:
    """Return the same configurations side by side, a row an origin."""
    columns = max(map(len, shown.sets.values()))
    figure = Figure(figsize=(1.5 * columns + 0.5, 1.5 * len(shown.sets)), layout="constrained")
    grid = figure.subplots(len(shown.sets), columns, squeeze=False)
    # Points across an axis of 1.5 inches, twice the radius wide.
    scale = 1.4 * 72 / (2 * shown.radius)
    for row, (label, frames) in zip(grid, shown.sets.items(), strict=True):
        for axis in row:
            axis.set(xticks=[], yticks=[], aspect="equal")
            axis.set(xlim=(-shown.radius, shown.radius), ylim=(-shown.radius, shown.radius))
            for side in axis.spines.values():
                side.set_visible(False)
        row[0].set_ylabel(label, fontsize=8)
        for axis, frame in zip(row, frames, strict=False):
            for first, second in shown.bonds:
                depth = float(frame[[first, second], 2].mean())
                axis.plot(*frame[[first, second], :2].T, color="#8a929c", linewidth=1.6, zorder=depth)
            for place, colour, size in zip(frame, shown.colours, shown.sizes, strict=True):
                axis.plot(
                    *place[:2], "o", color=colour, markersize=2 * scale * size, mew=0.3, mec="#1d2430", zorder=place[2]
                )
    return figure
