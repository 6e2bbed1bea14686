"""Alanine dipeptide, the field's smallest peptide: in vacuum, with a surface term, in implicit solvent."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import openmm
from jaxtyping import Float
from openmm import app
from torch import Tensor

from boltzgen_diffclf.errors import InputError
from systems.legs import Basin, PublishedValue
from systems.molecular import MolecularSystem, positions_from_quantity
from systems.solvation_states import HELICAL, LEFT_HANDED, solvation_states, solvation_system

_FEAT = "arXiv:2504.11516, table 1, sign reversed to B minus A"
_DIFFCLF = "talk on arXiv:2601.21025, sign reversed to B minus A"

_POLAR_VALUES = (
    PublishedValue(-29.43, 0.01, "MBAR over 11 states", _FEAT),
    PublishedValue(-29.47, 0.22, "target-FEP", _FEAT),
    PublishedValue(-29.38, 0.04, "FEAT", _FEAT),
    PublishedValue(-27.30, 0.45, "neural TI without DiffCLF", _DIFFCLF),
    PublishedValue(-29.02, 0.41, "neural TI with DiffCLF", _DIFFCLF),
)

_CONFORMER_VALUES = (
    PublishedValue(4.25, 0.05, "reference", _FEAT),
    PublishedValue(4.78, 0.32, "target-FEP", _FEAT),
    PublishedValue(4.56, 0.08, "FEAT", _FEAT),
)

_ILDN = "amber99sbildn.xml"


def alanine_dipeptide() -> MolecularSystem:
    """Return ACE-ALA-NME with Amber ff96, 22 atoms, no constraints.

    States: ``vacuum``; ``nonpolar``, the vacuum plus the ACE surface-area energy; ``implicit``, OBC1 generalised
    Born with the same surface term. The published -29.43 kT is the ``polar`` leg, not the whole of the solvation.

    Raises:
        InputError: the parameter files of openmmtools are missing.

    References:
        Onufriev, Bashford & Case 2004, doi:10.1002/prot.20033 (OBC1).
        Schaefer, Bartels & Karplus 1998, doi:10.1006/jmbi.1998.2172 (ACE).
    """
    parameters, positions = _of_openmmtools()
    vacuum = parameters.createSystem(implicitSolvent=None, constraints=None)
    implicit = parameters.createSystem(implicitSolvent=app.OBC1, constraints=None)
    molecule = parameters.topology, positions, vacuum, implicit
    return _molecule("aldp", *molecule, "obc1", _POLAR_VALUES, _CONFORMER_VALUES)


def alanine_dipeptide_ildn() -> MolecularSystem:
    """Return ACE-ALA-NME with Amber ff99SB-ILDN, in the atoms and their order of :func:`alanine_dipeptide`.

    States: ``vacuum``; ``nonpolar``, the vacuum plus the ACE surface-area energy; ``implicit``, the
    ``amber99_obc.xml`` of OpenMM: OBC2 generalised Born with that surface term, radii after Tinker, and a dielectric
    constant of 78.3. The score-based models of alanine dipeptide are published for ``implicit``.

    Raises:
        InputError: the parameter files of openmmtools are missing.

    References:
        Lindorff-Larsen et al. 2010, doi:10.1002/prot.22711 (ff99SB-ILDN).
        Onufriev, Bashford & Case 2004, doi:10.1002/prot.20033 (OBC2).
    """
    parameters, positions = _of_openmmtools()
    in_vacuum, in_solvent = app.ForceField(_ILDN), app.ForceField(_ILDN, "amber99_obc.xml")
    vacuum, implicit = (field.createSystem(parameters.topology, constraints=None) for field in (in_vacuum, in_solvent))
    return _molecule("aldp-ildn", parameters.topology, positions, vacuum, implicit, "obc2")


def _molecule(
    name: str,
    topology: app.Topology,
    positions: Float[Tensor, "atoms 3"],
    vacuum: openmm.System,
    implicit: openmm.System,
    solvent: str,
    polar_values: tuple[PublishedValue, ...] = (),
    conformer_values: tuple[PublishedValue, ...] = (),
) -> MolecularSystem:
    return solvation_system(
        name,
        topology,
        positions,
        solvation_states(vacuum, implicit),
        torsions={"phi": (4, 6, 8, 14), "psi": (6, 8, 14, 16)},
        basins={
            "phi > 0": Basin("phi", *LEFT_HANDED, {"nonpolar": conformer_values}),
            "helical": Basin("psi", *HELICAL),
        },
        polar_values=polar_values,
        solvent=solvent,
    )


def _of_openmmtools() -> tuple[app.AmberPrmtopFile, Float[Tensor, "atoms 3"]]:
    folder = _parameter_folder()
    positions = app.AmberInpcrdFile(str(folder / "alanine-dipeptide.crd")).getPositions()
    return app.AmberPrmtopFile(str(folder / "alanine-dipeptide.prmtop")), positions_from_quantity(positions)


def _parameter_folder() -> Path:
    # Found without importing openmmtools, which costs seconds and prints banners.
    spec = importlib.util.find_spec("openmmtools")
    if spec is None or spec.origin is None:
        raise InputError("the parameters of alanine dipeptide come with openmmtools: pip install openmmtools")
    return Path(spec.origin).parent / "data" / "alanine-dipeptide-gbsa"
