"""The differences between states of a molecule, its basins, and the figures that the literature has of either."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

Quadruple = tuple[int, int, int, int]
"""Atom indices of a torsion."""


@dataclass(frozen=True)
class PublishedValue:
    """A figure from the literature [kT], already in the sign of the leg it is filed under (B minus A)."""

    value: float
    stderr: float | None
    method: str
    source: str
    temperature_kelvin: float = 300.0


@dataclass(frozen=True)
class Division:
    """A state that is cut in two by a basin of its molecule."""

    state: str
    basin: str


@dataclass(frozen=True)
class Leg:
    """A free-energy difference ``F(state_b) - F(state_a)`` with a name.

    Attributes:
        name: of the leg.
        state_a: first end.
        state_b: second end.
        published: figures from the literature.
        divides: what the ends are parts of, B the basin and A the rest; None for two states of their own.
        about: what a reader should know about the ends, a few words.
    """

    name: str
    state_a: str
    state_b: str
    published: tuple[PublishedValue, ...] = ()
    divides: Division | None = None
    about: str = ""


@dataclass(frozen=True)
class Basin:
    """An arc of a named torsion [rad], from ``low`` up to ``high``, through pi where low > high.

    Attributes:
        torsion: name of the torsion.
        low: lower end.
        high: upper end.
        published: of each state, figures for the free energy of the basin (B) against all the rest (A).
    """

    torsion: str
    low: float
    high: float
    published: Mapping[str, tuple[PublishedValue, ...]] = field(default_factory=dict)
