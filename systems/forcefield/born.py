"""Generalised Born energies and gradients of a block of configurations."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from systems.forcefield.bonded import column
from systems.forcefield.geometry import stored
from systems.forcefield.pairs import Distances, pair_table
from systems.forcefield.parameters import Array, BornParameters, Indices


@dataclass(frozen=True)
class Descreening:
    """What one atom of each pair takes from the other: the integral and its derivative in the distance."""

    value: Tensor
    slope: Tensor


class OrderedPairs(nn.Module):
    """The descreening integral of ``atom`` by ``other``, for all pairs in one order.

    References:
        Hawkins, Cramer & Truhlar 1996, doi:10.1021/jp961710n, eq. 8-13; the neck: Mongan et al. 2007,
        doi:10.1021/ct600085e, eq. 10-11.
    """

    offset_radius: Tensor
    scaled_radius: Tensor
    distance: Tensor
    depth: Tensor
    cutoff: Tensor

    def __init__(self, born: BornParameters, atom: Indices, other: Indices, dtype: torch.dtype) -> None:
        super().__init__()
        self.register_buffer("offset_radius", column(born.offset_radius[atom], dtype))
        self.register_buffer("scaled_radius", column(born.scaled_radius[other], dtype))
        self.engulfing = born.engulfing
        self.has_neck = born.neck is not None
        if born.neck is not None:
            self.register_buffer("distance", column(born.neck.distance[atom, other], dtype))
            self.register_buffer("depth", column(born.neck.depth[atom, other], dtype))
            self.register_buffer("cutoff", column(born.neck.cutoff[atom, other], dtype))

    def forward(self, distances: Distances) -> Descreening:
        """Return the integral over the neighbour's sphere, and the neck where the model has one."""
        r, inverse = distances.r, distances.inverse
        inner, reach = self.offset_radius, self.scaled_radius
        far = r + reach
        active = far >= inner
        upper = torch.maximum(far, inner)
        gap = torch.abs(r - reach)
        lower = torch.maximum(gap, inner)
        per_both = torch.reciprocal(lower * upper)
        per_lower, per_upper = upper * per_both, lower * per_both
        bulge = 0.25 * (r - reach * reach * inverse)
        squares = per_upper * per_upper - per_lower * per_lower
        logarithm = 0.5 * torch.log(lower * per_upper) * inverse
        value = per_lower - per_upper + bulge * squares + logarithm
        slope = 0.25 * (1 + (reach * inverse).square()) * squares - logarithm * inverse
        by_upper = per_upper * (per_upper - 2 * bulge * per_upper * per_upper - 0.5 * inverse)
        by_lower = per_lower * (2 * bulge * per_lower * per_lower + 0.5 * inverse - per_lower)
        outside = (gap > inner).to(r.dtype) * torch.sign(r - reach)
        slope = slope + by_upper + outside * by_lower
        if self.engulfing:
            inside = (inner < reach - r).to(r.dtype)
            value = value + inside * 2 * (torch.reciprocal(inner) - per_lower)
            slope = slope - inside * 2 * per_lower * per_lower
        zero = torch.zeros_like(r)
        value, slope = torch.where(active, 0.5 * value, zero), torch.where(active, 0.5 * slope, zero)
        if self.has_neck:
            neck, neck_slope = self.neck(r)
            value, slope = value + neck, slope + neck_slope
        return Descreening(value, slope)

    def neck(self, r: Tensor) -> tuple[Tensor, Tensor]:
        """Return the neck integral and its derivative."""
        away = r - self.distance
        square = away.square()
        fourth = square * square
        per = torch.reciprocal(1 + 100 * square + 3e5 * fourth * square)
        value = self.depth * per * (r <= self.cutoff).to(r.dtype)
        return value, -value * per * away * (200 + 1.8e6 * fourth)


class Born(nn.Module):
    """A generalised Born model: Born radii, polar energy, surface term."""

    first: Tensor
    second: Tensor
    partners: Tensor
    joining: Tensor
    joining_ordered: Tensor
    offset_radius: Tensor
    radius: Tensor
    a: Tensor
    b: Tensor
    c: Tensor
    surface: Tensor
    self_charge: Tensor
    pair_charge: Tensor

    def __init__(self, born: BornParameters, first: Indices, second: Indices, dtype: torch.dtype) -> None:
        super().__init__()
        self.of_first = OrderedPairs(born, first, second, dtype)
        self.of_second = OrderedPairs(born, second, first, dtype)
        self.register_buffer("first", torch.as_tensor(first))
        self.register_buffer("second", torch.as_tensor(second))
        partners, joining = pair_table(len(born.radius), self.first, self.second)
        self.register_buffer("partners", partners)
        self.register_buffer("joining", joining)
        # Descreening is kept for both orders of a pair, one after the other.
        is_second = partners < torch.arange(len(born.radius))
        self.register_buffer("joining_ordered", joining + is_second * len(first))
        self.register_buffer("offset_radius", column(born.offset_radius, dtype))
        self.register_buffer("radius", column(born.radius, dtype))
        for name, values in zip("abc", born.rescaling.T, strict=True):
            self.register_buffer(name, column(values, dtype))
        self.register_buffer("surface", column(born.surface, dtype))
        self.register_buffer("self_charge", column(0.5 * born.prefactor * born.charge**2, dtype))
        pair_charge: Array = born.prefactor * born.charge[first] * born.charge[second]
        self.register_buffer("pair_charge", column(pair_charge, dtype))
        self.rescaled, self.kappa = born.rescaled, born.kappa
        self.per_solute, self.per_solvent = 1 / born.solute_dielectric, 1 / born.solvent_dielectric
        # A surface term alone (no charges) needs no pair energies: half of the work.
        self.is_polar = bool(np.any(born.charge)) and (born.kappa > 0 or self.per_solute != self.per_solvent)

    def forward(self, distances: Distances) -> tuple[Tensor, Tensor]:
        """Return the energy ``(chunks, lanes)`` and the slope over distance ``u'(r) / r`` of every pair."""
        by_second, by_first = self.of_first(distances), self.of_second(distances)
        slope_second, slope_first = stored(by_second.slope), stored(by_first.slope)
        integral = torch.cat([by_second.value, by_first.value], dim=1)[:, self.joining_ordered].sum(1)
        per_b, per_b_slope = self.inverse_radii(integral)
        per_b = stored(per_b)
        b = stored(torch.reciprocal(per_b))
        single, by_radius = self.single(per_b)
        energy, slope = single.sum(1), torch.zeros_like(distances.r)
        if self.is_polar:
            polar, slope, by_product = self.polar(distances.square, b, per_b)
            energy = energy + stored(polar).sum(1)
            by_radius = by_radius + (stored(by_product)[:, self.joining] * b[:, self.partners]).sum(1)
        by_integral = stored(-by_radius * b * b * per_b_slope)
        chain = by_integral[:, self.first] * slope_second + by_integral[:, self.second] * slope_first
        return energy, slope + chain * distances.inverse

    def inverse_radii(self, integral: Tensor) -> tuple[Tensor, Tensor]:
        """Return ``1/B`` of every atom and the derivative of ``1/B`` in the descreening integral."""
        per_offset = torch.reciprocal(self.offset_radius)
        if not self.rescaled:
            return per_offset - integral, -torch.ones_like(integral)
        psi = integral * self.offset_radius
        hyperbolic = torch.tanh(psi * (self.a + psi * (psi * self.c - self.b)))
        inner = self.a + psi * (3 * self.c * psi - 2 * self.b)
        per_radius = torch.reciprocal(self.radius)
        slope = -(1 - hyperbolic * hyperbolic) * inner * self.offset_radius * per_radius
        return per_offset - hyperbolic * per_radius, slope

    def interaction(self, f: Tensor, per_f: Tensor) -> tuple[Tensor, Tensor]:
        """Return ``-(1/in - exp(-kappa f)/out)/f`` and its derivative in f."""
        if self.kappa == 0:
            strength = self.per_solute - self.per_solvent
            return -strength * per_f, strength * per_f * per_f
        screened = self.per_solvent * torch.exp(-self.kappa * f)
        value = (screened - self.per_solute) * per_f
        return value, -(value + self.kappa * screened) * per_f

    def single(self, per_b: Tensor) -> tuple[Tensor, Tensor]:
        """Return the energy of every atom by itself and the derivative in its Born radius."""
        b = torch.reciprocal(per_b)
        ratio = self.radius * per_b
        cube = ratio * ratio * ratio
        energy = self.surface * cube * cube
        slope = -6 * energy * per_b
        if self.is_polar:
            value, derivative = self.interaction(b, per_b)
            energy, slope = energy + self.self_charge * value, slope + self.self_charge * derivative
        return energy, slope

    def polar(self, square: Tensor, b: Tensor, per_b: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the polar energy of every pair, its slope over distance, and its derivative in ``B_i B_j``.

        References:
            Still et al. 1990, doi:10.1021/ja00172a038, eq. 2.
        """
        product = b[:, self.first] * b[:, self.second]
        exponent = 0.25 * square * per_b[:, self.first] * per_b[:, self.second]
        decay = torch.exp(-exponent)
        f_square = square + product * decay
        f = torch.sqrt(f_square)
        per_f = torch.reciprocal(f)
        value, derivative = self.interaction(f, per_f)
        by_square = 0.5 * self.pair_charge * derivative * per_f
        return (
            self.pair_charge * value,
            2 * by_square * (1 - 0.25 * decay),
            by_square * decay * (1 + exponent),
        )
