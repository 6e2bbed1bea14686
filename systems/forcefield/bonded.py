"""Angles, torsions, improper ones and correction maps: energies and gradients of a block of configurations."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn

from systems.forcefield.geometry import Vector, cross, dihedral, dot, join, rows, scale, stored, subtract
from systems.forcefield.parameters import (
    AngleParameters,
    CmapParameters,
    ForceFieldParameters,
    HarmonicTorsionParameters,
    Indices,
    TorsionParameters,
)

# OpenMM's own floor under |a x b| [nm^2]: a straight angle keeps a finite force.
SMALLEST_CROSS = 1e-6


def column(values: object, dtype: torch.dtype) -> Tensor:
    """Return a parameter of each row as ``(rows, 1)``, to be broadcast over lanes."""
    return torch.as_tensor(np.asarray(values), dtype=dtype)[:, None]


class Angles(nn.Module):
    """Harmonic angles."""

    i: Tensor
    j: Tensor
    k: Tensor
    theta0: Tensor
    k_force: Tensor

    def __init__(self, parameters: AngleParameters, dtype: torch.dtype) -> None:
        super().__init__()
        for name, atoms in zip("ijk", parameters.atoms.T, strict=True):
            self.register_buffer(name, torch.as_tensor(atoms.copy()))
        self.register_buffer("theta0", column(parameters.theta0, dtype))
        self.register_buffer("k_force", column(parameters.k, dtype))

    def forward(self, x: Tensor) -> tuple[Tensor, Vector]:
        """Return the energy ``(chunks, angles, lanes)`` and its gradient at the three atoms, joined."""
        corner = rows(x, self.j)
        a, b = subtract(rows(x, self.i), corner), subtract(rows(x, self.k), corner)
        normal = cross(a, b)
        area = torch.sqrt(dot(normal, normal).clamp_min(SMALLEST_CROSS**2))
        cosine = dot(a, b)
        stretch = torch.atan2(area, cosine) - self.theta0
        slope = self.k_force * stretch / area
        along_a = slope * cosine / dot(a, a).clamp_min(SMALLEST_CROSS)
        along_b = slope * cosine / dot(b, b).clamp_min(SMALLEST_CROSS)
        first = subtract(scale(a, along_a), scale(b, slope))
        last = subtract(scale(b, along_b), scale(a, slope))
        middle = (-first[0] - last[0], -first[1] - last[1], -first[2] - last[2])
        return 0.5 * self.k_force * stretch.square(), join(first, middle, last)


class Torsions(nn.Module):
    """Torsions as Fourier series, by recurrence on cosine and sine: no inverse trigonometric function."""

    i: Tensor
    j: Tensor
    k: Tensor
    m: Tensor
    cosine: Tensor
    sine: Tensor

    def __init__(self, parameters: TorsionParameters, dtype: torch.dtype) -> None:
        super().__init__()
        for name, atoms in zip("ijkm", parameters.atoms.T, strict=True):
            self.register_buffer(name, torch.as_tensor(atoms.copy()))
        self.n_orders = parameters.cosine.shape[1]
        self.has_sine = bool(np.any(parameters.sine))
        self.register_buffer("cosine", torch.as_tensor(parameters.cosine.T[:, :, None].copy(), dtype=dtype))
        self.register_buffer("sine", torch.as_tensor(parameters.sine.T[:, :, None].copy(), dtype=dtype))

    def forward(self, x: Tensor) -> tuple[Tensor, Vector]:
        """Return the energy ``(chunks, torsions, lanes)`` and its gradient at the four atoms, joined."""
        angle = dihedral(x, (self.i, self.j, self.k, self.m))
        energy, slope = self.series(angle.cosine, angle.sine)
        return energy, join(*angle.gradient(slope))

    def series(self, cosine: Tensor, sine: Tensor) -> tuple[Tensor, Tensor]:
        """Return the Fourier series and its derivative in the angle."""
        energy = self.cosine[0].expand_as(cosine)
        slope = torch.zeros_like(cosine)
        cosine_n, sine_n = cosine, sine
        for n in range(1, self.n_orders):
            energy = energy + self.cosine[n] * cosine_n
            slope = slope - n * self.cosine[n] * sine_n
            if self.has_sine:
                energy = energy + self.sine[n] * sine_n
                slope = slope + n * self.sine[n] * cosine_n
            cosine_n, sine_n = cosine_n * cosine - sine_n * sine, sine_n * cosine + cosine_n * sine
        return energy, slope


class HarmonicTorsions(nn.Module):
    """Torsions held at an angle, as improper ones are."""

    i: Tensor
    j: Tensor
    k: Tensor
    m: Tensor
    phi0: Tensor
    k_force: Tensor
    period: Tensor
    furthest: Tensor

    def __init__(self, parameters: HarmonicTorsionParameters, dtype: torch.dtype) -> None:
        super().__init__()
        for name, atoms in zip("ijkm", parameters.atoms.T, strict=True):
            self.register_buffer(name, torch.as_tensor(atoms.copy()))
        self.register_buffer("phi0", column(parameters.phi0, dtype))
        self.register_buffer("k_force", column(parameters.k, dtype))
        self.register_buffer("period", column(parameters.period, dtype))
        # A difference of two angles is never as large as 4 pi.
        furthest = np.where(parameters.period > 0, 0.5 * parameters.period, 4 * math.pi)
        self.register_buffer("furthest", column(furthest, dtype))

    def forward(self, x: Tensor) -> tuple[Tensor, Vector]:
        """Return the energy ``(chunks, torsions, lanes)`` and its gradient at the four atoms, joined."""
        angle = dihedral(x, (self.i, self.j, self.k, self.m))
        away = torch.atan2(angle.sine, angle.cosine) - self.phi0
        round_trip = self.period * torch.sign(away) * (away.abs() > self.furthest).to(away.dtype)
        away = away - round_trip
        slope = self.k_force * away
        return 0.5 * slope * away, join(*angle.gradient(slope))


class Cmap(nn.Module):
    """Bicubic correction maps on two torsions."""

    a: Tensor
    b: Tensor
    c: Tensor
    d: Tensor
    e: Tensor
    f: Tensor
    g: Tensor
    h: Tensor
    table: Tensor
    offset: Tensor

    def __init__(self, parameters: CmapParameters, dtype: torch.dtype) -> None:
        super().__init__()
        for name, atoms in zip("abcd", parameters.first.T, strict=True):
            self.register_buffer(name, torch.as_tensor(atoms.copy()))
        for name, atoms in zip("efgh", parameters.second.T, strict=True):
            self.register_buffer(name, torch.as_tensor(atoms.copy()))
        self.grid = parameters.coefficients.shape[1]
        table = parameters.coefficients.reshape(-1, 16).T.copy()
        self.register_buffer("table", torch.as_tensor(table, dtype=dtype))
        self.register_buffer("offset", torch.as_tensor(parameters.map_index * self.grid**2)[:, None])

    def forward(self, x: Tensor) -> tuple[Tensor, Vector]:
        """Return the energy ``(chunks, terms, lanes)`` and its gradient at the eight atoms, joined."""
        first = dihedral(x, (self.a, self.b, self.c, self.d))
        second = dihedral(x, (self.e, self.f, self.g, self.h))
        cell_a, s = self.cell(first.sine, first.cosine)
        cell_b, t = self.cell(second.sine, second.cosine)
        index = self.offset + cell_a * self.grid + cell_b
        energy = slope_s = slope_t = torch.zeros_like(s)
        for power in (3, 2, 1, 0):
            c0, c1, c2, c3 = (self.table[4 * power + q][index] for q in range(4))
            value = ((c3 * t + c2) * t + c1) * t + c0
            slope_s = slope_s * s + energy
            slope_t = slope_t * s + (3 * c3 * t + 2 * c2) * t + c1
            energy = energy * s + value
        per_radian = self.grid / (2 * math.pi)
        return energy, join(*first.gradient(slope_s * per_radian), *second.gradient(slope_t * per_radian))

    def cell(self, sine: Tensor, cosine: Tensor) -> tuple[Tensor, Tensor]:
        """Return the grid cell of an angle and where in the cell it lies, from 0 to 1."""
        place = torch.atan2(sine, cosine) * (self.grid / (2 * math.pi))
        floor = torch.floor(place)
        return torch.remainder(floor, self.grid).to(torch.int64), place - floor


def scatter_plan(atoms: Indices, n_atoms: int) -> Indices:
    """Return, for every atom, which rows of a term's gradient belong to it, padded with a row of zeros behind the last.

    A gather of this table runs several times faster on a CPU than a scatter with atomic additions.
    """
    owners = atoms.T.flatten()
    of_atom = [np.flatnonzero(owners == atom) for atom in range(n_atoms)]
    width = max(len(found) for found in of_atom)
    plan = np.full((width, n_atoms), len(owners), dtype=np.int64)
    for atom, found in enumerate(of_atom):
        plan[: len(found), atom] = found
    return plan


class OnAtoms(nn.Module):
    """A term with its gradient summed up on the atoms."""

    plan: Tensor

    def __init__(self, term: nn.Module, atoms: Indices, n_atoms: int) -> None:
        super().__init__()
        self.term = term
        self.register_buffer("plan", torch.as_tensor(scatter_plan(atoms, n_atoms)))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the energy ``(chunks, lanes)`` and gradient ``(chunks, 3, atoms, lanes)``."""
        energy, by_row = self.term(x)
        return stored(energy).sum(1), torch.stack([part[:, self.plan].sum(1) for part in by_row], dim=1)


class Bonded(nn.Module):
    """All terms that are not sums over pairs."""

    def __init__(self, parameters: ForceFieldParameters, dtype: torch.dtype) -> None:
        super().__init__()
        angles, torsions = parameters.angles, parameters.torsions
        terms: list[tuple[nn.Module, Indices]] = []
        if len(angles.k):
            terms.append((Angles(angles, dtype), angles.atoms))
        if len(torsions.atoms):
            terms.append((Torsions(torsions, dtype), torsions.atoms))
        terms += [
            (HarmonicTorsions(harmonic, dtype), harmonic.atoms)
            for harmonic in parameters.harmonic_torsions
            if len(harmonic.k)
        ]
        terms += [(Cmap(cmap, dtype), np.concatenate([cmap.first, cmap.second], axis=1)) for cmap in parameters.cmaps]
        self.terms = nn.ModuleList([OnAtoms(term, atoms, parameters.n_atoms) for term, atoms in terms])

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the energy ``(chunks, lanes)`` and gradient ``(chunks, 3, atoms, lanes)``."""
        chunks, _, _, lanes = x.shape
        energy, gradient = x.new_zeros(chunks, lanes), torch.zeros_like(x)
        for term in self.terms:
            of_term, on_atoms = term(x)
            energy, gradient = energy + of_term, gradient + on_atoms
        return energy, gradient
