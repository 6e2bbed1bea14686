"""Torsions of any kind gathered into one Fourier series for every four atoms."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.polynomial import chebyshev

from systems.forcefield.parameters import Array, TorsionParameters


class TorsionTable:
    """Torsions under construction; the same four atoms, read from either end, share a row."""

    def __init__(self) -> None:
        self.series: dict[tuple[int, ...], tuple[Array, Array]] = {}

    def add(self, atoms: Sequence[int], cosine: Array, sine: Array) -> None:
        """Add ``sum_n cosine_n cos(n phi) + sine_n sin(n phi)``."""
        key = min(tuple(atoms), tuple(reversed(atoms)))
        if key in self.series:
            old_cosine, old_sine = self.series[key]
            cosine, sine = padded_sum(old_cosine, cosine), padded_sum(old_sine, sine)
        self.series[key] = (cosine, sine)

    def add_periodic(self, atoms: Sequence[int], order: int, phase: float, k: float) -> None:
        """Add ``k (1 + cos(order phi - phase))``."""
        cosine, sine = np.zeros(order + 1), np.zeros(order + 1)
        cosine[0] += k
        cosine[order] += k * math.cos(phase)
        # A phase of pi, rounded, would leave a sine of 1e-16 k and switch the whole sine series on.
        if abs(math.sin(phase)) > 1e-12:
            sine[order] += k * math.sin(phase)
        self.add(atoms, cosine, sine)

    def add_ryckaert_bellemans(self, atoms: Sequence[int], powers: Sequence[float]) -> None:
        """Add ``sum_n powers_n cos^n(phi - pi)``."""
        signed = np.array(powers) * (-1.0) ** np.arange(len(powers))
        cosine = chebyshev.poly2cheb(signed)
        self.add(atoms, cosine, np.zeros_like(cosine))

    def parameters(self) -> TorsionParameters:
        """Return the series of all torsions that are not zero throughout."""
        kept = {atoms: both for atoms, both in self.series.items() if np.any(both[0]) or np.any(both[1])}
        orders = max((len(cosine) for cosine, _ in kept.values()), default=1)
        shape = (len(kept), orders)
        cosines, sines = np.zeros(shape), np.zeros(shape)
        for row, (cosine, sine) in enumerate(kept.values()):
            cosines[row, : len(cosine)], sines[row, : len(sine)] = cosine, sine
        atoms = np.array(list(kept), dtype=np.int64).reshape(-1, 4)
        return TorsionParameters(atoms, cosines, sines)


def padded_sum(a: Array, b: Array) -> Array:
    """Return ``a + b``, the shorter one filled with zeros."""
    total = np.zeros(max(len(a), len(b)))
    total[: len(a)] += a
    total[: len(b)] += b
    return total
