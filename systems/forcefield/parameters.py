"""What a force field is made of, as plain arrays: the common ground between OpenMM and the batched kernels.

Energies are in kJ/mol and lengths in nm; :meth:`ForceFieldParameters.reduced` divides the energies by kT.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import NDArray

Array = NDArray[np.float64]
Indices = NDArray[np.int64]


@dataclass(frozen=True)
class PairParameters:
    """Terms that depend on one distance, one row for every pair of atoms ``i < j``.

    ``u(r) = lj12 / r^12 - lj6 / r^6 + coulomb / r + bond_k / 2 (r - bond_r0)^2``; a pair without a term has zeros.
    """

    first: Indices
    second: Indices
    lj12: Array
    lj6: Array
    coulomb: Array
    bond_k: Array
    bond_r0: Array


@dataclass(frozen=True)
class AngleParameters:
    """Harmonic angles ``u = k / 2 (theta - theta0)^2`` on atoms ``(i, j, k)``, ``j`` the corner."""

    atoms: Int[Indices, "angles 3"]
    theta0: Array
    k: Array


@dataclass(frozen=True)
class TorsionParameters:
    """Torsions as Fourier series ``u = sum_n cosine_n cos(n phi) + sine_n sin(n phi)``, one row per four atoms."""

    atoms: Int[Indices, "torsions 4"]
    cosine: Float[Array, "torsions orders"]
    sine: Float[Array, "torsions orders"]


@dataclass(frozen=True)
class HarmonicTorsionParameters:
    """Harmonic torsions ``u = k / 2 (phi - phi0)^2``, ``phi`` between -pi and pi.

    Attributes:
        atoms: of each torsion.
        phi0: where its energy is least [rad].
        k: its strength.
        period: what a difference of more than half of it is brought back by [rad]; 0 where it is taken as it is.
    """

    atoms: Int[Indices, "torsions 4"]
    phi0: Array
    k: Array
    period: Array


@dataclass(frozen=True)
class CmapParameters:
    """Bicubic correction maps on two torsions; ``coefficients[m, a, b]`` is the 4 x 4 polynomial of a grid cell.

    All maps share one grid size; ``map_index`` picks the map of each torsion pair.
    """

    first: Int[Indices, "terms 4"]
    second: Int[Indices, "terms 4"]
    map_index: Int[Indices, " terms"]
    coefficients: Float[Array, "maps grid grid 16"]


@dataclass(frozen=True)
class NeckParameters:
    """The neck correction of GBn and GBn2 to the descreening integral, a value for every ordered pair.

    ``neck(r) = depth / (1 + 100 (r - d)^2 + 3e5 (r - d)^6)`` up to ``r = cutoff``; the scale is inside ``depth``.

    References:
        Mongan et al. 2007, doi:10.1021/ct600085e, eq. 10-11.
    """

    distance: Float[Array, "atoms atoms"]
    depth: Float[Array, "atoms atoms"]
    cutoff: Float[Array, "atoms atoms"]


@dataclass(frozen=True)
class BornParameters:
    """A generalised Born model.

    Born radii: ``1/B = 1/offset_radius - tanh(a psi - b psi^2 + c psi^3) / radius`` with
    ``psi = offset_radius * I`` (``rescaled``), or ``1/B = 1/offset_radius - I`` (HCT, not ``rescaled``).

    Attributes:
        charge: of each atom [e].
        offset_radius: intrinsic radius less the offset [nm].
        scaled_radius: offset radius times the descreening factor [nm].
        radius: intrinsic radius [nm].
        rescaling: ``(a, b, c)`` of each atom.
        engulfing: whether an atom wholly inside another is corrected for, as GBSAOBCForce does.
        prefactor: Coulomb constant [kJ/mol nm/e^2] of ``-prefactor (1/in - exp(-kappa f)/out) q q / f``.
        surface: ``gamma_i`` of the ACE surface term ``gamma_i (radius/B)^6`` [kJ/mol]; zeros where it is off.

    References:
        Hawkins, Cramer & Truhlar 1996, doi:10.1021/jp961710n; Onufriev, Bashford & Case 2004,
        doi:10.1002/prot.20033, eq. 6; Schaefer, Bartels & Karplus 1998, doi:10.1006/jmbi.1998.2172.
    """

    charge: Array
    offset_radius: Array
    scaled_radius: Array
    radius: Array
    rescaling: Float[Array, "atoms 3"]
    rescaled: bool
    engulfing: bool
    prefactor: float
    solute_dielectric: float
    solvent_dielectric: float
    kappa: float
    surface: Array
    neck: NeckParameters | None = None


@dataclass(frozen=True)
class ForceFieldParameters:
    """All terms of one system."""

    n_atoms: int
    constant: float
    pairs: PairParameters
    angles: AngleParameters
    torsions: TorsionParameters
    harmonic_torsions: tuple[HarmonicTorsionParameters, ...] = field(default=())
    cmaps: tuple[CmapParameters, ...] = field(default=())
    born: tuple[BornParameters, ...] = field(default=())

    def reduced(self, thermal_energy: float) -> ForceFieldParameters:
        """Return the same terms with every energy divided by ``thermal_energy`` [kJ/mol]."""
        beta = 1.0 / thermal_energy
        pairs, angles, torsions = self.pairs, self.angles, self.torsions
        return replace(
            self,
            constant=beta * self.constant,
            pairs=replace(
                pairs,
                lj12=beta * pairs.lj12,
                lj6=beta * pairs.lj6,
                coulomb=beta * pairs.coulomb,
                bond_k=beta * pairs.bond_k,
            ),
            angles=replace(angles, k=beta * angles.k),
            torsions=replace(torsions, cosine=beta * torsions.cosine, sine=beta * torsions.sine),
            harmonic_torsions=tuple(replace(harmonic, k=beta * harmonic.k) for harmonic in self.harmonic_torsions),
            cmaps=tuple(replace(cmap, coefficients=beta * cmap.coefficients) for cmap in self.cmaps),
            born=tuple(
                replace(born, prefactor=beta * born.prefactor, surface=beta * born.surface) for born in self.born
            ),
        )
