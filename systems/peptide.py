"""Peptides from their sequence: heavy atoms from torsions, hydrogens and energies from a force field."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from functools import lru_cache

import mdtraj
import numpy as np
import openmm
from jaxtyping import Float
from openmm import app, unit
from torch import Tensor

from systems.force_fields import minimised, parametrised_states, require_force_field, with_hydrogens
from systems.loading import FORCE_FIELD, SOLVENT, peptide_name
from systems.molecular import MolecularSystem, positions_from_quantity
from systems.residue_geometry import build_heavy_atoms
from systems.sequence import VARIANTS, parse_sequence
from systems.solvation_states import backbone_basins, backbone_torsions, solvation_system

Torsions = Mapping[str, Mapping[int, float]]
"""Degrees by torsion (``phi``, ``psi``, ``omega``, ``chi1``, ``chi2``) and residue, counted from 1 with the caps."""

_FrozenTorsions = tuple[tuple[str, tuple[tuple[int, float], ...]], ...]

FAR_DEGREES = 30.0
"""From a torsion that was asked for, beyond which a user is told where it went."""

_log = logging.getLogger(__name__)


def peptide(
    sequence: str,
    forcefield: str = FORCE_FIELD,
    solvent: str = SOLVENT,
    torsions: Torsions | None = None,
    name: str | None = None,
) -> MolecularSystem:
    """Return a peptide, built from its torsions and minimised, with the states of its solvation.

    States: ``vacuum``; ``nonpolar``, the vacuum plus the surface-area energy of the solvent model; ``implicit``, the
    whole model. Solvent ``vacuum`` has the first alone. Ends without caps are charged.

    Args:
        sequence: see :func:`~systems.sequence.parse_sequence`.
        forcefield: one of :data:`~systems.force_fields.FORCE_FIELDS`.
        solvent: one of :data:`~systems.force_fields.SOLVENTS`.
        torsions: of the first configuration; extended where none are given.
        name: of the system; that of :func:`~systems.loading.peptide_name` unless given.

    Raises:
        InputError: an unknown residue, torsion, force field or solvent.

    >>> peptide("ACE-GLY-NME").n_atoms
    19
    """
    require_force_field(forcefield, solvent)
    topology, positions, states = _minimised_peptide(sequence, forcefield, solvent, _frozen(torsions or {}))
    for moved in _moved_torsions(topology, positions, torsions or {}):
        _log.warning("%s", moved)
    named = backbone_torsions(topology)
    return solvation_system(
        name or peptide_name(sequence, forcefield, solvent),
        topology,
        positions.clone(),
        states,
        named,
        backbone_basins(topology, named),
        solvent=solvent,
    )


def built_peptide(
    sequence: str, forcefield: str = FORCE_FIELD, torsions: Torsions | None = None
) -> tuple[app.Topology, unit.Quantity]:
    """Return all atoms of a peptide before its energy is minimised, the heavy ones where its torsions put them.

    Raises:
        InputError: an unknown residue, torsion or force field.
    """
    residues = parse_sequence(sequence)
    variants = [residue if residue in VARIANTS else None for residue in residues]
    return with_hydrogens(*build_heavy_atoms(residues, torsions or {}), forcefield, variants)


@lru_cache(maxsize=16)
def _minimised_peptide(
    sequence: str, forcefield: str, solvent: str, torsions: _FrozenTorsions
) -> tuple[app.Topology, Float[Tensor, "atoms 3"], dict[str, openmm.System]]:
    # Kept, because a workflow asks for its molecule several times and a large one takes seconds.
    topology, built = built_peptide(sequence, forcefield, {name: dict(values) for name, values in torsions})
    states = parametrised_states(topology, forcefield, solvent)
    positions = minimised(states.get("implicit", states["vacuum"]), built)
    return topology, positions_from_quantity(positions), states


def _moved_torsions(topology: app.Topology, positions: Float[Tensor, "atoms 3"], torsions: Torsions) -> Iterator[str]:
    """Yield a sentence for every torsion that the minimisation has turned far from where it was asked for."""
    frame = mdtraj.Trajectory(positions.numpy()[None], mdtraj.Topology.from_openmm(topology))
    for torsion, wanted in torsions.items():
        several, angles = getattr(mdtraj, f"compute_{torsion}")(frame)
        for (_, second, _, _), angle in zip(several, np.degrees(angles[0]), strict=True):
            residue = frame.topology.atom(second).residue
            asked = wanted.get(residue.index + 1)
            if asked is not None and abs((angle - asked + 180.0) % 360.0 - 180.0) > FAR_DEGREES:
                yield (
                    f"{torsion} of {residue} was asked for at {asked:g} degrees, where it does not stay: the first "
                    f"configuration, its energy minimised, has it at {angle:.0f}"
                )


def _frozen(torsions: Torsions) -> _FrozenTorsions:
    return tuple((name, tuple(sorted(values.items()))) for name, values in sorted(torsions.items()))
