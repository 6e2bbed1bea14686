"""From an ``openmm.System`` to :class:`ForceFieldParameters`; what is not understood is refused by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import openmm
from openmm import unit

from boltzgen_diffclf.errors import UnsupportedSystemError
from systems.forcefield.cmap import read_cmaps
from systems.forcefield.custom_gb import read_custom_gb
from systems.forcefield.custom_pairs import read_custom_bonds, read_custom_nonbonded
from systems.forcefield.custom_torsions import read_custom_torsions
from systems.forcefield.generalised_born import COULOMB_CONSTANT, read_gbsa_obc
from systems.forcefield.parameters import (
    AngleParameters,
    BornParameters,
    CmapParameters,
    ForceFieldParameters,
    HarmonicTorsionParameters,
    PairParameters,
)
from systems.forcefield.refusal import INSTEAD, refuse
from systems.forcefield.torsions import TorsionTable

IGNORED = ("CMMotionRemover",)


class Reader:
    """Collects the terms of a System force by force."""

    def __init__(self, n_atoms: int) -> None:
        self.n_atoms = n_atoms
        shape = (n_atoms, n_atoms)
        self.lj12, self.lj6, self.coulomb = np.zeros(shape), np.zeros(shape), np.zeros(shape)
        # A sum of harmonics on one distance is one harmonic: its moments are k and k r0. The constant that
        # completes the square is kept apart.
        self.bond_k, self.bond_k_r0, self.bond_k_r0_r0 = np.zeros(shape), np.zeros(shape), np.zeros(shape)
        self.angles: list[tuple[int, int, int, float, float]] = []
        self.torsions = TorsionTable()
        self.harmonic_torsions: list[HarmonicTorsionParameters] = []
        self.cmaps: list[CmapParameters] = []
        self.born: list[BornParameters] = []
        self.readers: dict[str, Callable[[int, Any], None]] = {
            "HarmonicBondForce": self.read_bonds,
            "HarmonicAngleForce": self.read_angles,
            "PeriodicTorsionForce": self.read_periodic_torsions,
            "RBTorsionForce": self.read_rb_torsions,
            "CMAPTorsionForce": self.read_cmap_torsions,
            "NonbondedForce": self.read_nonbonded,
            "GBSAOBCForce": self.read_gbsa_obc,
            "CustomGBForce": self.read_custom_gb,
            "CustomNonbondedForce": self.read_custom_nonbonded,
            "CustomBondForce": self.read_custom_bonds,
            "CustomTorsionForce": self.read_custom_torsions,
        }

    def read(self, index: int, force: openmm.Force) -> None:
        """Take in one force.

        Raises:
            UnsupportedSystemError: when the force is not one of those that the compiler computes.
        """
        kind = type(force).__name__
        if kind in IGNORED:
            return
        if kind not in self.readers:
            refuse(index, force, "is not a force that the compiler computes")
        if hasattr(force, "getNumParticles") and force.getNumParticles() != self.n_atoms:
            refuse(index, force, f"has {force.getNumParticles()} particles where the System has {self.n_atoms}")
        self.readers[kind](index, force)
        if force.usesPeriodicBoundaryConditions():
            refuse(index, force, "uses periodic boundary conditions")

    def read_bonds(self, index: int, force: Any) -> None:
        """Add harmonic bonds to the table of pairs."""
        for bond in range(force.getNumBonds()):
            i, j, r0, k = force.getBondParameters(bond)
            pair = (min(i, j), max(i, j))
            length = r0.value_in_unit(unit.nanometer)
            strength = k.value_in_unit(unit.kilojoule_per_mole / unit.nanometer**2)
            self.bond_k[pair] += strength
            self.bond_k_r0[pair] += strength * length
            self.bond_k_r0_r0[pair] += strength * length**2

    def read_angles(self, index: int, force: Any) -> None:
        """Add harmonic angles."""
        for angle in range(force.getNumAngles()):
            i, j, k, theta0, strength = force.getAngleParameters(angle)
            per_square = unit.kilojoule_per_mole / unit.radian**2
            self.angles.append((i, j, k, theta0.value_in_unit(unit.radian), strength.value_in_unit(per_square)))

    def read_periodic_torsions(self, index: int, force: Any) -> None:
        """Add ``k (1 + cos(n phi - phase))``."""
        for torsion in range(force.getNumTorsions()):
            *atoms, order, phase, k = force.getTorsionParameters(torsion)
            strength = k.value_in_unit(unit.kilojoule_per_mole)
            self.torsions.add_periodic(atoms, order, phase.value_in_unit(unit.radian), strength)

    def read_rb_torsions(self, index: int, force: Any) -> None:
        """Add Ryckaert-Bellemans torsions."""
        for torsion in range(force.getNumTorsions()):
            *atoms, c0, c1, c2, c3, c4, c5 = force.getTorsionParameters(torsion)
            powers = [c.value_in_unit(unit.kilojoule_per_mole) for c in (c0, c1, c2, c3, c4, c5)]
            self.torsions.add_ryckaert_bellemans(atoms, powers)

    def read_cmap_torsions(self, index: int, force: Any) -> None:
        """Add bicubic correction maps."""
        self.cmaps += read_cmaps(force)

    def read_nonbonded(self, index: int, force: Any) -> None:
        """Add Lennard-Jones and Coulomb terms of all pairs, exceptions in place of what they replace."""
        check_nonbonded(index, force)
        n = self.n_atoms
        particles = np.array([[strip(value) for value in force.getParticleParameters(i)] for i in range(n)])
        charge, sigma, epsilon = particles.T
        upper = np.triu(np.ones((n, n), dtype=bool), k=1)
        coulomb = np.outer(charge, charge)
        sigma = 0.5 * (sigma[:, None] + sigma)
        epsilon = np.sqrt(np.outer(epsilon, epsilon))
        for exception in range(force.getNumExceptions()):
            i, j, *values = force.getExceptionParameters(exception)
            pair = (min(i, j), max(i, j))
            coulomb[pair], sigma[pair], epsilon[pair] = (strip(value) for value in values)
        self.coulomb += COULOMB_CONSTANT * coulomb * upper
        self.lj12 += 4 * epsilon * sigma**12 * upper
        self.lj6 += 4 * epsilon * sigma**6 * upper

    def read_gbsa_obc(self, index: int, force: Any) -> None:
        """Add OpenMM's built-in OBC model."""
        self.born.append(read_gbsa_obc(index, force))

    def read_custom_gb(self, index: int, force: Any) -> None:
        """Add a generalised Born model written as expressions."""
        self.born.append(read_custom_gb(index, force))

    def read_custom_nonbonded(self, index: int, force: Any) -> None:
        """Add Lennard-Jones terms written as an expression, of all pairs."""
        lj12, lj6 = read_custom_nonbonded(index, force)
        self.lj12 += lj12
        self.lj6 += lj6

    def read_custom_bonds(self, index: int, force: Any) -> None:
        """Add Lennard-Jones terms written as an expression, of some pairs."""
        lj12, lj6 = read_custom_bonds(index, force, self.n_atoms)
        self.lj12 += lj12
        self.lj6 += lj6

    def read_custom_torsions(self, index: int, force: Any) -> None:
        """Add harmonic torsions."""
        self.harmonic_torsions.append(read_custom_torsions(index, force))

    def parameters(self) -> ForceFieldParameters:
        """Return all terms collected."""
        first, second = np.triu_indices(self.n_atoms, k=1)
        pair = (first, second)
        k, k_r0 = self.bond_k[pair], self.bond_k_r0[pair]
        r0 = np.divide(k_r0, k, out=np.zeros_like(k), where=k != 0)
        constant = 0.5 * float(np.sum(self.bond_k_r0_r0[pair] - k_r0 * r0))
        angles = np.array([angle[:3] for angle in self.angles], dtype=np.int64).reshape(-1, 3)
        theta0, strength = np.array([angle[3:] for angle in self.angles]).reshape(-1, 2).T
        return ForceFieldParameters(
            n_atoms=self.n_atoms,
            constant=constant,
            pairs=PairParameters(
                first, second, self.lj12[pair], self.lj6[pair], self.coulomb[pair], bond_k=k, bond_r0=r0
            ),
            angles=AngleParameters(angles, theta0, strength),
            torsions=self.torsions.parameters(),
            harmonic_torsions=tuple(self.harmonic_torsions),
            cmaps=tuple(self.cmaps),
            born=tuple(self.born),
        )


def strip(quantity: Any) -> float:
    """Return a quantity as a number in OpenMM's own units (nm, kJ/mol, e)."""
    return float(quantity.value_in_unit_system(unit.md_unit_system))


def check_nonbonded(index: int, force: Any) -> None:
    """Refuse cutoffs, Ewald sums and parameters that vary.

    Raises:
        UnsupportedSystemError: naming what is there.
    """
    if force.getNonbondedMethod() != openmm.NonbondedForce.NoCutoff:
        names = ("NoCutoff", "CutoffNonPeriodic", "CutoffPeriodic", "Ewald", "PME", "LJPME")
        refuse(index, force, f"has the method {names[force.getNonbondedMethod()]}, and only NoCutoff is computed")
    if not force.getIncludeDirectSpace():
        refuse(index, force, "leaves out the direct space, which here is all there is")
    if force.getNumParticleParameterOffsets() or force.getNumExceptionParameterOffsets():
        refuse(index, force, "has parameter offsets")


def check_particles(system: openmm.System) -> None:
    """Refuse what is not a force and would still change the energy or the dynamics.

    Raises:
        UnsupportedSystemError: for constraints, virtual sites or particles without mass.
    """
    if system.getNumConstraints():
        count = system.getNumConstraints()
        raise UnsupportedSystemError(f"the System has {count} constraints, which the compiler does not know; {INSTEAD}")
    for atom in range(system.getNumParticles()):
        if system.isVirtualSite(atom):
            raise UnsupportedSystemError(f"particle {atom} is a virtual site, unknown to the compiler; {INSTEAD}")
        if system.getParticleMass(atom) == 0 * unit.dalton:
            raise UnsupportedSystemError(f"particle {atom} has no mass, unknown to the compiler; {INSTEAD}")


def read_system(system: openmm.System) -> ForceFieldParameters:
    """Return all terms of a System [kJ/mol, nm].

    Raises:
        UnsupportedSystemError: naming the first thing that the compiler does not compute.
    """
    if system.getNumParticles() < 2:
        raise UnsupportedSystemError(
            f"the System has {system.getNumParticles()} particles and the compiler needs two; choose another system"
        )
    check_particles(system)
    reader = Reader(system.getNumParticles())
    for index, force in enumerate(system.getForces()):
        reader.read(index, force)
    return reader.parameters()
