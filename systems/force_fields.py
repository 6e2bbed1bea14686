"""Force fields and solvent models by name, and a molecule's hydrogens and states by them."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from types import MappingProxyType

import numpy as np
import openmm
from openmm import app, unit

from boltzgen_diffclf.errors import InputError, first_line, nearest_name
from systems.charmm import CHARMM36, charmm_force_field, with_types_in_order
from systems.residue_checks import told
from systems.solvation_states import solvation_states

FORCE_FIELDS: Mapping[str, str] = MappingProxyType(
    {
        "amber99sb-ildn": "amber99sbildn.xml",
        "ff14sb": "amber14/protein.ff14SB.xml",
        "ff96": "amber96.xml",
        "charmm36": CHARMM36,
    }
)
"""OpenMM's file of each force field."""

SOLVENTS: Mapping[str, str | None] = MappingProxyType(
    {
        "obc2": "implicit/obc2.xml",
        "obc1": "implicit/obc1.xml",
        "hct": "implicit/hct.xml",
        "gbn": "implicit/gbn.xml",
        "gbn2": "implicit/gbn2.xml",
        "vacuum": None,
    }
)
"""OpenMM's file of each solvent model, surface term included; ``vacuum`` has none."""

OWN_SOLVENTS: Mapping[tuple[str, str], str] = MappingProxyType(
    {
        ("amber99sb-ildn", "obc2"): "amber99_obc.xml",
        ("ff96", "obc2"): "amber96_obc.xml",
    }
)
"""Where OpenMM has parameters of a solvent model for one force field: they are taken in place of the general ones."""

INSIDE = ("ASH", "GLH", "LYN")
"""Variants that Amber's force fields do not have at a charged end."""

_PH = 7.0

_NO_MINIMUM = (
    "the energy cannot be minimised from the positions given: atoms may coincide, or a parameter of the System be no "
    "number"
)


def require_force_field(name: str, solvent: str) -> None:
    """Raise an InputError that lists the valid names unless both are known, and together."""
    if name not in FORCE_FIELDS:
        raise InputError(
            f"unknown force field '{name}': choose one of {', '.join(FORCE_FIELDS)}"
            f"{nearest_name(name.lower(), list(FORCE_FIELDS))}"
        )
    if solvent not in SOLVENTS:
        raise InputError(
            f"force field {name} has no solvent model '{solvent}': choose one of {', '.join(SOLVENTS)}"
            f"{nearest_name(solvent.lower(), list(SOLVENTS))}"
        )


@lru_cache
def force_field(name: str, solvent: str = "vacuum") -> app.ForceField:
    """Return OpenMM's force field with a solvent model.

    Raises:
        InputError: see :func:`require_force_field`.
    """
    require_force_field(name, solvent)
    file = OWN_SOLVENTS.get((name, solvent), SOLVENTS[solvent])
    if FORCE_FIELDS[name] == CHARMM36:
        return charmm_force_field(file)
    return app.ForceField(FORCE_FIELDS[name], *([file] if file else []))


def parametrised_states(topology: app.Topology, name: str, solvent: str) -> dict[str, openmm.System]:
    """Return the Systems of a molecule, hydrogens included, by state; no constraints, no cutoffs.

    Raises:
        InputError: an unknown name, or a residue that the force field does not know; the line names it.
    """
    require_force_field(name, solvent)
    vacuum = _create_system(topology, name, "vacuum")
    return solvation_states(vacuum, None if solvent == "vacuum" else _create_system(topology, name, solvent))


def _create_system(topology: app.Topology, name: str, solvent: str) -> openmm.System:
    with one_line_of(name, topology):
        system = force_field(name, solvent).createSystem(topology, nonbondedMethod=app.NoCutoff, constraints=None)
    return with_types_in_order(system)


def with_hydrogens(
    topology: app.Topology, positions: unit.Quantity, name: str, variants: Sequence[str | None] | None = None
) -> tuple[app.Topology, unit.Quantity]:
    """Return a molecule with the hydrogens that it lacks, at pH 7 where no variant says otherwise.

    Args:
        topology: with all heavy atoms.
        positions: of them.
        name: of the force field that turns the hydrogens where they belong.
        variants: protonation of each residue, None for the usual one.

    Raises:
        InputError: a residue that the force field does not know, or not at the end of a chain.
    """
    for residue, variant in zip(topology.residues(), variants or [], strict=bool(variants)):
        is_end = residue.index in _ends(topology)
        if is_end and variant in INSIDE and name != "charmm36":
            raise InputError(
                f"force field {name} has {variant} inside of a chain alone, and {told(residue)} is a "
                "charged end: cap that end, or take charmm36"
            )
    modeller = app.Modeller(topology, positions)
    # One thread in double precision: the same molecule every time.
    platform = openmm.Platform.getPlatformByName("Reference")
    with one_line_of(name, topology), _repeatable_choices():
        modeller.addHydrogens(force_field(name), pH=_PH, variants=variants, platform=platform)
    return modeller.topology, modeller.positions


def _ends(topology: app.Topology) -> set[int]:
    """Return the places of the first and the last residue of every chain."""
    chains = [[residue.index for residue in chain.residues()] for chain in topology.chains()]
    return {end for residues in chains for end in (residues[0], residues[-1])}


def minimised(
    system: openmm.System, positions: unit.Quantity, tolerance_kj_per_mol_nm: float = 10.0, steps: int = 2000
) -> unit.Quantity:
    """Return positions moved downhill to a local minimum, the same every time.

    Args:
        system: whose energy falls.
        positions: where to begin.
        tolerance_kj_per_mol_nm: root-mean-square force to stop at [kJ/mol/nm].
        steps: at most.

    Raises:
        InputError: an energy that is not finite there.
    """
    platform = openmm.Platform.getPlatformByName("CPU")
    repeatable = {"Threads": "1", "DeterministicForces": "true"}
    try:
        context = openmm.Context(system, openmm.VerletIntegrator(1e-3), platform, repeatable)
    except openmm.OpenMMException as error:
        raise InputError(f"OpenMM cannot compute this System ({first_line(error)}): mend its file") from error
    try:
        context.setPositions(positions)
        openmm.LocalEnergyMinimizer.minimize(context, tolerance_kj_per_mol_nm, steps)
        found = context.getState(getPositions=True).getPositions()
    except openmm.OpenMMException as error:
        raise InputError(f"{_NO_MINIMUM} ({str(error).split('. ')[0]})") from error
    if not np.isfinite(found.value_in_unit(unit.nanometer)).all():
        raise InputError(_NO_MINIMUM)
    return found


@contextmanager
def one_line_of(name: str, topology: app.Topology) -> Iterator[None]:
    """Turn what OpenMM says of a residue that it does not know into one line, which calls it as its file does."""
    try:
        yield
    except (ValueError, KeyError, openmm.OpenMMException) as error:
        said = str(error).split("For more information")[0].replace("You may be able to add it", "It can be added")
        residues = list(topology.residues())
        called = re.sub(r"residue (\d+) \(\w+\)", lambda found: told(residues[int(found[1])]), said)
        raise InputError(f"force field {name}: {' '.join(called.split())}") from error


@contextmanager
def _repeatable_choices() -> Iterator[None]:
    # OpenMM shakes new hydrogens with Python's own generator, whose state is the caller's.
    kept = random.getstate()
    random.seed(0)
    try:
        yield
    finally:
        random.setstate(kept)
