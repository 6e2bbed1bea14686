"""What the page is made of: the result, and the arrays behind its figures. Every figure may be missing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float

from workflows.results import SolvationResult


@dataclass(frozen=True)
class WorkValues:
    """Work of switching A to B in both directions [kT].

    Attributes:
        label: whose work it is, e.g. ``two-state BAR``.
        forward: from samples of A, ``u_B - u_A`` or a work along a path.
        reverse: from samples of B towards A, its own sign (about minus the forward one).
    """

    label: str
    forward: Float[np.ndarray, " forward"]
    reverse: Float[np.ndarray, " reverse"]


@dataclass(frozen=True)
class Integrand:
    """Mean of dU/dt along the path [kT], and its standard error, for one method."""

    label: str
    t: Float[np.ndarray, " levels"]
    mean: Float[np.ndarray, " levels"]
    stderr: Float[np.ndarray, " levels"]


@dataclass(frozen=True)
class LegFigures:
    """Arrays behind the figures of one leg.

    Attributes:
        work: pairs of work distributions, one panel each.
        overlap: of each pair of states, ½ where both are the same.
        overlap_labels: names of its states.
        integrands: TI integrands, drawn into one panel.
    """

    work: tuple[WorkValues, ...] = ()
    overlap: Float[np.ndarray, "levels levels"] | None = None
    overlap_labels: tuple[str, ...] = ()
    integrands: tuple[Integrand, ...] = ()


@dataclass(frozen=True)
class TrainingCurves:
    """What one training run logged.

    Attributes:
        step: optimiser step of each entry.
        train_loss: total loss on training batches.
        heldout_loss: total loss on held-out frames; NaN where it was not computed.
        components: name of a loss to its training values.
        free_energy: learned ``F(1) - F(0)`` [kT], whose drift shows a head that lags.
    """

    step: Float[np.ndarray, " entries"]
    train_loss: Float[np.ndarray, " entries"]
    heldout_loss: Float[np.ndarray, " entries"]
    components: Mapping[str, Float[np.ndarray, " entries"]] = field(default_factory=dict)
    free_energy: Float[np.ndarray, " entries"] | None = None


@dataclass(frozen=True)
class RamachandranPmf:
    """Potential of mean force of phi and psi in one state, on a square grid from -180 to 180 degrees.

    Attributes:
        state: name of the state.
        free_energy: ``[i, j]`` at phi bin i, psi bin j [kT], zero at its minimum; NaN where nothing was sampled.
        stderr: its standard error [kT], NaN where unknown.
    """

    state: str
    free_energy: Float[np.ndarray, "bins bins"]
    stderr: Float[np.ndarray, "bins bins"]


@dataclass(frozen=True)
class ReportData:
    """Everything the page shows.

    Attributes:
        result: as in ``results.json``.
        legs: leg name to its arrays; a leg without an entry gets only its table.
        training: name of a training run to its curves.
        ramachandran: the two states to compare.
        notes: further paragraphs of plain text for the section on what was learned.
    """

    result: SolvationResult
    legs: Mapping[str, LegFigures] = field(default_factory=dict)
    training: Mapping[str, TrainingCurves] = field(default_factory=dict)
    ramachandran: tuple[RamachandranPmf, ...] = ()
    notes: tuple[str, ...] = ()
