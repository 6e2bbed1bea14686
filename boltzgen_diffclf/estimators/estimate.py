"""What every estimator returns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple


@dataclass(frozen=True)
class Estimate:
    """A free-energy difference F_B - F_A with what is needed to believe it.

    Attributes:
        value: F_B - F_A [kT].
        stderr: standard error [kT].
        overlap: of the neighbours that share least, the MBAR overlap element of the two alone at equal numbers of
            samples, ½ where they are the same; None where it has no meaning (TI).
        n_effective: effective number of independent samples.
        method: name of the estimator.
    """

    value: float
    stderr: float
    overlap: float | None
    n_effective: float
    method: str


class Measurement(NamedTuple):
    """A value that was measured on samples, and its standard error, both in the same unit."""

    value: float
    stderr: float
