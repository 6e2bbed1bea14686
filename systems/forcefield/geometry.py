"""Vectors of a block of configurations, held as three tensors ``(chunks, rows, lanes)``.

Configurations lie in the last axis, so operations run over adjacent numbers; ``chunks`` is what threads share.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

Vector = tuple[Tensor, Tensor, Tensor]


def rows(x: Tensor, index: Tensor) -> Vector:
    """Return the positions of the atoms ``index`` from ``(chunks, 3, atoms, lanes)``."""
    return x[:, 0, index], x[:, 1, index], x[:, 2, index]


def subtract(a: Vector, b: Vector) -> Vector:
    """Return ``a - b``."""
    return a[0] - b[0], a[1] - b[1], a[2] - b[2]


def dot(a: Vector, b: Vector) -> Tensor:
    """Return the scalar product."""
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


def cross(a: Vector, b: Vector) -> Vector:
    """Return the vector product."""
    return a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]


def scale(a: Vector, factor: Tensor) -> Vector:
    """Return ``factor * a``."""
    return a[0] * factor, a[1] * factor, a[2] * factor


def smallest_square(dtype: torch.dtype) -> float:
    """Return the floor [nm^4] under squared cross products, below which a torsion has no meaning."""
    return 1e-24 if dtype == torch.float64 else 1e-14


def stored(values: Tensor) -> Tensor:
    """Return ``values``, kept in memory where ``torch.compile`` would compute them again for each reader."""
    return torch.as_strided(values, values.shape, values.stride())


def join(*vectors: Vector) -> Vector:
    """Return vectors one after the other along the rows, and a row of zeros behind the last."""
    nothing = torch.zeros_like(vectors[0][0][:, :1])
    x, y, z = zip(*vectors, (nothing, nothing, nothing), strict=True)
    return torch.cat(x, dim=1), torch.cat(y, dim=1), torch.cat(z, dim=1)


@dataclass(frozen=True)
class Dihedral:
    """Cosine and sine of a dihedral angle and what its gradient needs."""

    cosine: Tensor
    sine: Tensor
    normal_a: Vector
    normal_b: Vector
    per_a: Tensor
    per_b: Tensor
    along_a: Tensor
    along_b: Tensor

    def gradient(self, slope: Tensor) -> tuple[Vector, Vector, Vector, Vector]:
        """Return ``slope * d phi / d x``, all first atoms, then all second ones, and so on.

        References:
            Blondel & Karplus 1996, doi:10.1002/(SICI)1096-987X(19960715)17:9<1132::AID-JCC5>3.0.CO;2-T, eq. 27.
        """
        first = scale(self.normal_a, slope * self.per_a)
        last = scale(self.normal_b, -slope * self.per_b)
        shift = subtract(scale(first, self.along_a), scale(last, self.along_b))
        second = subtract(shift, first)
        third = subtract((-shift[0], -shift[1], -shift[2]), last)
        return first, second, third, last


def dihedral(x: Tensor, atoms: tuple[Tensor, Tensor, Tensor, Tensor]) -> Dihedral:
    """Return the dihedral angles of four atoms each, IUPAC sign."""
    i, j, k, m = (rows(x, index) for index in atoms)
    a, axis, b = subtract(i, j), subtract(k, j), subtract(k, m)
    normal_a, normal_b = cross(a, axis), cross(axis, b)
    floor = smallest_square(x.dtype)
    inverse_a = torch.reciprocal(dot(normal_a, normal_a).clamp_min(floor))
    inverse_b = torch.reciprocal(dot(normal_b, normal_b).clamp_min(floor))
    inverse_norms = torch.sqrt(inverse_a * inverse_b)
    axis_square = dot(axis, axis).clamp_min(floor)
    axis_length = torch.sqrt(axis_square)
    per_axis = torch.reciprocal(axis_square)
    return Dihedral(
        cosine=dot(normal_a, normal_b) * inverse_norms,
        sine=axis_length * dot(a, normal_b) * inverse_norms,
        normal_a=normal_a,
        normal_b=normal_b,
        per_a=axis_length * inverse_a,
        per_b=axis_length * inverse_b,
        along_a=dot(a, axis) * per_axis,
        along_b=dot(b, axis) * per_axis,
    )
