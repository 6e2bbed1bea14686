"""The states of a solvation: a molecule in vacuum, with a surface term, and in implicit solvent."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping

import openmm
from jaxtyping import Float
from openmm import app
from torch import Tensor

from boltzgen_diffclf.errors import InputError
from systems.legs import Basin, Leg, PublishedValue, Quadruple
from systems.molecular import MolecularSystem
from systems.rotatable import side_torsions

BORN_FORCES = (openmm.CustomGBForce, openmm.GBSAOBCForce)
"""Forces that are an implicit solvent."""

LEFT_HANDED, LEFT_HANDED_GLYCINE = (0.0, 2.15), (0.0, math.pi)
"""Arcs of phi [rad] that L-amino acids seldom visit; glycine has no handedness."""

HELICAL = (-2.0, 1.4)
"""Arc of psi [rad]."""


def solvation_states(vacuum: openmm.System, implicit: openmm.System | None) -> dict[str, openmm.System]:
    """Return the Systems by state: ``vacuum``, and with a solvent ``nonpolar`` and ``implicit`` too."""
    if implicit is None:
        return {"vacuum": vacuum}
    return {"vacuum": vacuum, "nonpolar": without_polarisation(implicit), "implicit": implicit}


def solvation_system(
    name: str,
    topology: app.Topology,
    positions: Float[Tensor, "atoms 3"],
    states: Mapping[str, openmm.System],
    torsions: Mapping[str, Quadruple],
    basins: Mapping[str, Basin],
    polar_values: tuple[PublishedValue, ...] = (),
    solvent: str | None = None,
) -> MolecularSystem:
    """Return a molecule with the legs between its states: ``total``, ``nonpolar`` and ``polar``.

    Args:
        name: see :class:`MolecularSystem`.
        topology: see there.
        positions: see there.
        states: of :func:`solvation_states`; a vacuum alone has no legs.
        torsions: see :class:`MolecularSystem`.
        basins: see there.
        polar_values: figures from the literature for the polar leg.
        solvent: see :class:`MolecularSystem`.

    Raises:
        InputError: see :class:`MolecularSystem`.
    """
    legs = (
        Leg("total", "vacuum", "implicit"),
        Leg("nonpolar", "vacuum", "nonpolar"),
        Leg("polar", "nonpolar", "implicit", polar_values),
    )
    is_solvated = len(states) > 1
    return MolecularSystem(
        name=name,
        topology=topology,
        positions=positions,
        openmm_systems=states,
        torsions=torsions,
        side_torsions=side_torsions(topology, positions, torsions.values()),
        legs={leg.name: leg for leg in legs} if is_solvated else {},
        basins=basins,
        reweighted={"nonpolar": "vacuum"} if is_solvated else {},
        solvent=solvent,
    )


def without_polarisation(system: openmm.System) -> openmm.System:
    """Return a copy whose generalised-Born force has no charges: its surface-area term remains.

    The Coulomb interactions of the molecule itself stay as they are.
    """
    return with_polarisation(system, 0.0)


def with_polarisation(system: openmm.System, fraction: float) -> openmm.System:
    """Return a copy with a fraction of the polarisation energy, which goes with the square of the charges.

    The surface-area term and the Coulomb interactions of the molecule itself stay as they are.
    """
    copy = openmm.XmlSerializer.deserialize(openmm.XmlSerializer.serialize(system))
    for force in copy.getForces():
        if isinstance(force, openmm.CustomGBForce):
            _scale_charges(force, math.sqrt(fraction))
        elif isinstance(force, openmm.GBSAOBCForce):
            _scale_charges_of_obc(force, math.sqrt(fraction))
    return copy


def without_solvent(system: openmm.System) -> openmm.System:
    """Return a copy without its generalised-Born forces."""
    copy = openmm.XmlSerializer.deserialize(openmm.XmlSerializer.serialize(system))
    for index in reversed(range(copy.getNumForces())):
        if isinstance(copy.getForce(index), BORN_FORCES):
            copy.removeForce(index)
    return copy


def _scale_charges(force: openmm.CustomGBForce, factor: float) -> None:
    names = [force.getPerParticleParameterName(index) for index in range(force.getNumPerParticleParameters())]
    if "charge" not in names:
        raise InputError(
            f"CustomGBForce has no parameter 'charge' among those of its particles ({', '.join(names)}), so that its "
            "polarisation cannot be told from its surface term: name the charge so"
        )
    charge = names.index("charge")
    for particle in range(force.getNumParticles()):
        values = list(force.getParticleParameters(particle))
        values[charge] *= factor
        force.setParticleParameters(particle, values)


def _scale_charges_of_obc(force: openmm.GBSAOBCForce, factor: float) -> None:
    for particle in range(force.getNumParticles()):
        charge, radius, scale = force.getParticleParameters(particle)
        force.setParticleParameters(particle, factor * charge, radius, scale)


def backbone_torsions(topology: app.Topology) -> dict[str, Quadruple]:
    """Return phi and psi of every residue that has them, by names like ``phi-ALA2``.

    The torsions of the only residue that has both are ``phi`` and ``psi``, as in a dipeptide. Residues are known by
    their atoms N, CA and C and by the bonds between them, and numbered as in the topology; chains by their names, or
    from 1 where two have the same.

    Raises:
        InputError: two residues that have the same name.
    """
    found = {residue: dict(_torsions_of(residue, neighbours)) for residue, neighbours in _neighbours(topology).items()}
    whole = [residue for residue, torsions in found.items() if torsions.keys() == {"phi", "psi"}]
    chains = [chain.id for chain in topology.chains()]
    are_apart = len(set(chains)) == len(chains)
    named: dict[str, Quadruple] = {}
    for residue, torsions in found.items():
        chain = residue.chain.id if are_apart else residue.chain.index + 1
        label = f"{chain}-" if len(chains) > 1 else ""
        place = f"{residue.id}{residue.insertionCode.strip()}"
        for torsion, quadruple in torsions.items():
            name = torsion if whole == [residue] else f"{torsion}-{label}{residue.name}{place}"
            if name in named:
                raise InputError(f"there are two residues {residue.name} {place} in one chain: number them apart")
            named[name] = quadruple
    return named


def backbone_basins(topology: app.Topology, torsions: Mapping[str, Quadruple]) -> dict[str, Basin]:
    """Return the left-handed and the helical basin of every residue with such a torsion; phi of proline is one basin.

    Args:
        topology: of the molecule.
        torsions: of :func:`backbone_torsions`.
    """
    residues = [atom.residue.name for atom in topology.atoms()]
    basins = {}
    for name, (_, _, third, _) in torsions.items():
        residue, suffix = residues[third], name[len("phi") :]
        if name.startswith("psi"):
            basins[f"helical{suffix}"] = Basin(name, *HELICAL)
        elif residue != "PRO":
            basins[f"{name} > 0"] = Basin(name, *(LEFT_HANDED_GLYCINE if residue == "GLY" else LEFT_HANDED))
    return basins


def _neighbours(topology: app.Topology) -> dict[app.topology.Residue, dict[str, int | None]]:
    """Return, of every residue, the carbonyl before it and the nitrogen behind it, each None where there is none."""
    around: dict[app.topology.Residue, dict[str, int | None]] = {
        residue: {"before": None, "behind": None} for residue in topology.residues()
    }
    for bond in topology.bonds():
        for carbon, nitrogen in itertools.permutations((bond[0], bond[1])):
            if (carbon.name, nitrogen.name) == ("C", "N") and carbon.residue is not nitrogen.residue:
                around[carbon.residue]["behind"] = nitrogen.index
                around[nitrogen.residue]["before"] = carbon.index
    return around


def _torsions_of(
    residue: app.topology.Residue, neighbours: Mapping[str, int | None]
) -> Iterator[tuple[str, Quadruple]]:
    own = {atom.name: atom.index for atom in residue.atoms()}
    if not {"N", "CA", "C"} <= own.keys():
        return
    nitrogen, alpha, carbon = own["N"], own["CA"], own["C"]
    before, behind = neighbours["before"], neighbours["behind"]
    if before is not None:
        yield "phi", (before, nitrogen, alpha, carbon)
    if behind is not None:
        yield "psi", (nitrogen, alpha, carbon, behind)
