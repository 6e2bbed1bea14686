"""What can be wrong with a run of ``workflows.solvation``, judged before its folder keeps anything."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from boltzgen_diffclf.errors import InputError
from boltzgen_diffclf.observables import angle_triples, bond_angles
from boltzgen_diffclf.training import parallel
from systems.forcefield.reader import read_system
from systems.internal import internal_coordinates
from systems.user_trajectory import judge_user_trajectory
from workflows.run_folder import RunFolder
from workflows.solvation_cartesian import GROUPS, wants_cartesian
from workflows.solvation_estimators import CLASSICAL, ESTIMATORS, yardstick
from workflows.solvation_settings import STATES

if TYPE_CHECKING:
    from systems.molecular import MolecularSystem
    from workflows.solvation_settings import SolvationConfig


STRAIGHT_DEGREES = 160.0
"""Beyond this the bond angle of an energy minimum is that of a nitrile or an alkyne."""


def judge(config: SolvationConfig) -> None:
    """Refuse what would end the run once its folder holds the settings, and so refuse the corrected command too.

    Raises:
        InputError: a molecule or a trajectory that cannot be used, or processes that cannot share a batch.
    """
    system = config.load()
    _judge_molecule(config, system)
    _judge_trajectories(config, system)
    _judge_processes(config, system)


def keep_device(folder: RunFolder, device: str) -> None:
    """Keep the device that was chosen with the run, however it was asked for.

    Raises:
        InputError: the run was started on another one.
    """
    kept = folder.remember("device", lambda: device)
    if kept != device:
        raise InputError(
            f"{folder.path} was started on {kept}, and this would go on on {device}: give --device {kept}, or choose "
            "another --out"
        )


def _judge_molecule(config: SolvationConfig, system: MolecularSystem) -> None:
    if not system.legs:
        advice = "give a --solvent" if config.openmm_system is None else "give a System with a generalised-Born force"
        raise InputError(
            f"{system.name} has the state {', '.join(system.states)} alone, and a solvation is from one state to "
            f"another: {advice}"
        )
    # What cannot be compiled, or has no internal coordinates, would end the run after hours of sampling.
    for openmm_system in system.openmm_systems.values():
        read_system(openmm_system)
    try:
        internal_coordinates(system)
    except InputError as error:
        raise InputError(
            f"the learned path of a solvation is in internal coordinates, which {system.name} does not have "
            f"({str(error).split(';')[0]}): give one molecule of at least 4 atoms"
        ) from error
    if any(map(config.wants, set(ESTIMATORS) - set(CLASSICAL))):
        _refuse_straight_angles(config, system)


def _refuse_straight_angles(config: SolvationConfig, system: MolecularSystem) -> None:
    """Refuse a molecule that noise of the learned path would bend beyond a straight line, where coordinates end."""
    triples = angle_triples(system.bonds)
    angles = np.rad2deg(bond_angles(system.positions.numpy()[None], triples)[0])
    if angles.max() > STRAIGHT_DEGREES:
        names = [atom.name for atom in system.topology.atoms()]
        worst = int(angles.argmax())
        raise InputError(
            f"the atoms {'-'.join(names[index] for index in triples[worst])} of {system.name} are in a straight line "
            f"({angles[worst]:.0f} degrees), where the internal coordinates of the learned path end: take classical "
            f"rows alone, --estimators {yardstick(config.leg)}"
        )


def _judge_trajectories(config: SolvationConfig, system: MolecularSystem) -> None:
    used = _states_used(config, system)
    for state, file in config.trajectory_files.items():
        if state not in used:
            raise InputError(
                f"--trajectory {state}={file} is of a state that --leg {config.leg} does not use "
                f"({', '.join(sorted(used))}): leave it out"
            )
        n_groups = judge_user_trajectory(file, system, state, config.temperature_kelvin)
        if n_groups < config.walkers_wanted:
            raise InputError(
                f"--trajectory {state}={file} holds {n_groups} independent groups, and --training-seeds "
                f"{config.training_seeds} want {config.walkers_wanted}: lower --training-seeds, or give frames of more "
                "walkers"
            )


def _states_used(config: SolvationConfig, system: MolecularSystem) -> set[str]:
    """Return the states that frames may be given of."""
    legs = [system.require_leg(name) for name in config.legs]
    ends = {state for leg in legs for state in (leg.state_a, leg.state_b)}
    sources = {system.reweighted[state] for state in ends if state in system.reweighted}
    divided = {leg.divides.state for leg in legs if leg.divides is not None}
    return (ends | sources | divided) & set(STATES)


def _judge_processes(config: SolvationConfig, system: MolecularSystem) -> None:
    n = parallel.size()
    if config.batch_groups % n:
        raise InputError(f"--batch-groups {config.batch_groups} cannot be shared by {n} processes: choose a multiple")
    if any(wants_cartesian(config, system.require_leg(name)) for name in config.legs) and GROUPS % n:
        raise InputError(
            f"the {GROUPS} groups of a Cartesian batch cannot be shared by {n} processes: start another number, or add "
            "--cartesian-steps 0"
        )
