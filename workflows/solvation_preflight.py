"""What can be wrong with a run of ``workflows.solvation``, judged before its folder keeps anything."""

from __future__ import annotations

from typing import TYPE_CHECKING

from boltzgen_diffclf.errors import InputError
from boltzgen_diffclf.training import parallel
from systems.forcefield.reader import read_system
from systems.internal import internal_coordinates
from systems.user_trajectory import judge_user_trajectory
from workflows.run_folder import RunFolder
from workflows.solvation_cartesian import GROUPS, wants_cartesian

if TYPE_CHECKING:
    from systems.molecular import MolecularSystem
    from workflows.solvation_settings import SolvationConfig


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
        raise InputError(
            f"{system.name} has the state {', '.join(system.states)} alone, and a solvation is from one state to "
            "another: give a --solvent, or a System with a generalised-Born force"
        )
    # What cannot be compiled, or has no internal coordinates, would end the run after hours of sampling.
    for openmm_system in system.openmm_systems.values():
        read_system(openmm_system)
    internal_coordinates(system)


def _judge_trajectories(config: SolvationConfig, system: MolecularSystem) -> None:
    wanted = config.training_seeds * (2 if config.wants("learned_ais") else 1)
    for state, file in config.trajectory_files.items():
        n_groups = judge_user_trajectory(file, system, state, config.temperature_kelvin)
        if n_groups < wanted:
            raise InputError(
                f"--trajectory {state}={file} holds {n_groups} independent groups, and --training-seeds "
                f"{config.training_seeds} want {wanted}: lower --training-seeds"
            )


def _judge_processes(config: SolvationConfig, system: MolecularSystem) -> None:
    n = parallel.size()
    if config.batch_groups % n:
        raise InputError(f"--batch-groups {config.batch_groups} cannot be shared by {n} processes: choose a multiple")
    if any(wants_cartesian(config, system.require_leg(name)) for name in config.legs) and GROUPS % n:
        raise InputError(
            f"the {GROUPS} groups of a Cartesian batch cannot be shared by {n} processes: start another number, or add "
            "--cartesian-steps 0"
        )
