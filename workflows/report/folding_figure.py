"""Pictures of a fold: contact maps beside that of the reference, and who is folded as time goes on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib as mpl
import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from boltzgen_diffclf.observables import contact_pairs
from workflows.ramachandran import REFERENCE
from workflows.report.figures import BLUE, ORANGE, STYLE


@mpl.rc_context(STYLE)
def contacts_figure(maps: Mapping[str, Float[np.ndarray, " pairs"]], titles: Mapping[str, str], n_beads: int) -> Figure:
    """Return the share of every contact, a panel an origin: above the diagonal its own, below it the reference's.

    Args:
        maps: share of each of the contact pairs by label, that of the reference among them.
        titles: of the labels.
        n_beads: of the chain.
    """
    figure = Figure(figsize=(3.1 * len(maps) + 1.0, 3.5), layout="constrained")
    axes: Sequence[Axes] = figure.subplots(1, len(maps), squeeze=False, sharey=True)[0]
    first, second = contact_pairs(n_beads).T
    for axis, (label, found) in zip(axes, maps.items(), strict=True):
        shares = np.full((n_beads, n_beads), np.nan)
        shares[first, second] = found
        shares[second, first] = maps[REFERENCE]
        axis.set_facecolor("#e9ebee")
        image = axis.imshow(
            shares.T, origin="lower", extent=(0.5, n_beads + 0.5) * 2, cmap="magma_r", vmin=0, vmax=1, aspect="equal"
        )
        axis.plot([0.5, n_beads + 0.5], [0.5, n_beads + 0.5], color="#9aa3ad", linewidth=0.8)
        axis.set(title=titles.get(label, label), xlabel="residue")
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes[0].set_ylabel("residue")
    figure.colorbar(image, ax=list(axes), label="share in contact", shrink=0.9, pad=0.02)
    return figure


@mpl.rc_context(STYLE)
def starts_figure(by_start: Mapping[str, Float[np.ndarray, " frames"]], frame_interval_ps: float) -> Figure:
    """Return the share of walkers that are folded against time, and its running mean, for either start.

    Args:
        by_start: share at every frame, by how the walkers began.
        frame_interval_ps: between frames [ps]; 0 where unknown, and the axis counts frames.
    """
    figure = Figure(figsize=(7.6, 3.2), layout="constrained")
    axis = figure.subplots()
    for (name, shares), colour in zip(by_start.items(), (BLUE, ORANGE), strict=False):
        frames = np.arange(len(shares))
        time = frames * frame_interval_ps if frame_interval_ps else frames
        axis.plot(time, shares, color=colour, linewidth=0.8, alpha=0.5)
        axis.plot(time, np.cumsum(shares) / (frames + 1), color=colour, linewidth=2.0, label=f"{name}, mean so far")
    axis.set(
        ylim=(-0.02, 1.02),
        xlabel="time [ps]" if frame_interval_ps else "frame",
        ylabel="folded fraction",
    )
    axis.legend(loc="best")
    return figure
