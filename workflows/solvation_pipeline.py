"""``workflows.solvation`` from the first stage to the verdict."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Mapping
from dataclasses import replace
from importlib import metadata
from typing import TYPE_CHECKING

import numpy as np
import torch

from boltzgen_diffclf.errors import InputError
from boltzgen_diffclf.files import atomic_path
from boltzgen_diffclf.observables.ramachandran import free_energy_surface
from boltzgen_diffclf.training import parallel
from systems.convergence import torsions_of
from systems.legs import Leg
from workflows import trust
from workflows.processor import processor_settings
from workflows.report.data import LegFigures, RamachandranPmf, ReportData, TrainingCurves, WorkValues
from workflows.results import LegResult, Published, SolvationResult, judged
from workflows.run_folder import RunFolder, StageResult
from workflows.solvation_cartesian import cartesian, wants_cartesian
from workflows.solvation_classical import classical, takes_the_straight_line
from workflows.solvation_estimators import AFTER_TRAINING, FULL_LEARNED, yardstick
from workflows.solvation_learned import OBJECTIVES, learned_replicate
from workflows.solvation_rows import curves, integrands, learned_rows
from workflows.solvation_stages import SolvationStages
from workflows.system_settings import keep_system

if TYPE_CHECKING:
    from workflows.solvation_settings import SolvationConfig


def solve(config: SolvationConfig, folder: RunFolder, device: str) -> ReportData:
    """Return everything the page shows, computing what the folder does not hold yet."""
    with processor_settings(folder.remember_threads(lambda: config.threads or os.cpu_count() or 1)):
        return _solve(config, folder, device)


def _solve(config: SolvationConfig, folder: RunFolder, device: str) -> ReportData:
    begun = time.monotonic()
    system = config.load()
    keep_system(folder, system)
    legs = [system.require_leg(name) for name in config.legs]
    stages = SolvationStages(config, folder, system, device)
    folder.progress.plan(_shares(stages, legs))
    for state in config.trajectory_files:
        stages.ensemble(state)  # a bad file is refused before anything is sampled
    results: dict[str, LegResult] = {}
    figures: dict[str, LegFigures] = {}
    training: dict[str, TrainingCurves] = {}
    for leg in legs:
        results[leg.name], figures[leg.name], curves = _solve_leg(stages, leg)
        training |= curves
    trustworthy, reasons = trust.overall({name: leg.reasons for name, leg in results.items()})
    result = SolvationResult(
        system=config.system_name,
        temperature_kelvin=config.temperature_kelvin,
        seed=config.seed,
        preset=config.preset,
        trustworthy=trustworthy,
        reasons=reasons,
        legs=results,
        versions=_versions(device),
        command=config.command,
        settings=config.shown_settings,
        seconds_total=folder.seconds_found + time.monotonic() - begun,
    )
    # One replicate of the first leg shows how training goes; the gates have looked at all of them.
    shown = {name: curve for name, curve in training.items() if name.startswith(legs[0].name) and name.endswith(" 0")}
    return ReportData(result, figures, shown, _ramachandran(stages, legs[0]))


def choose_device(wanted: str) -> str:
    """Return ``cpu`` or ``cuda``.

    Raises:
        InputError: a GPU is asked for and there is none.
    """
    if wanted == "cuda" and not torch.cuda.is_available():
        raise InputError("--device cuda: this machine has no CUDA GPU that torch sees; use --device cpu")
    if wanted == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return wanted


def _shares(stages: SolvationStages, legs: list[Leg]) -> dict[str, float]:
    """Return the stages with their expected seconds on two cores."""
    config = stages.config
    states = {state for leg in legs for state in stages.sources(leg)}
    states |= {leg.divides.state for leg in legs if leg.divides is not None}
    shares = {
        f"reference-{state}": stages.reference_share for state in sorted(states) if state not in config.trajectory_files
    }
    for leg in legs:
        if takes_the_straight_line(config, leg):
            shares[f"annealed-{leg.name}"] = 10.0
        objectives = _objectives(config, leg)
        for replicate in _replicates(config, objectives):
            shares[f"learned-{leg.name}-{replicate}"] = 5 + max(1, len(objectives)) * config.training_steps * 0.02
        if wants_cartesian(config, leg):
            for replicate in range(config.training_seeds):
                shares[f"cartesian-{leg.name}-{replicate}"] = 120 + config.cartesian_steps * 0.2
    return shares


def _objectives(config: SolvationConfig, leg: Leg) -> tuple[str, ...]:
    wanted = {name for name in OBJECTIVES if config.wants(name) and leg.name in config.ablation_legs}
    if any(config.wants(name) for name in (FULL_LEARNED, *AFTER_TRAINING)):
        wanted.add(FULL_LEARNED)
    return tuple(name for name in OBJECTIVES if name in wanted)


def _replicates(config: SolvationConfig, objectives: tuple[str, ...]) -> range:
    """Return the replicates of the learned path, none where no row rests on it."""
    return range(config.training_seeds if objectives or config.wants("no_network") else 0)


def _solve_leg(stages: SolvationStages, leg: Leg) -> tuple[LegResult, LegFigures, dict[str, TrainingCurves]]:
    found = classical(stages, leg)
    objectives = _objectives(stages.config, leg)
    learned = [
        learned_replicate(stages, leg, replicate, objectives) for replicate in _replicates(stages.config, objectives)
    ]
    independent = stages.independent_frames(leg)
    rows = found.rows | learned_rows(learned, independent)
    if wants_cartesian(stages.config, leg):
        rows |= learned_rows([cartesian(stages, leg, k) for k in range(stages.config.training_seeds)], independent)
    training = curves(learned, leg)
    checks = _checks(stages, leg, found.rests_on, training)
    _, reasons = trust.decide(rows.get(yardstick(leg.name)), rows.get(FULL_LEARNED), checks)
    about = f"{leg.state_a} to {leg.state_b}: F({leg.state_b}) - F({leg.state_a})"
    result = LegResult(
        states=(leg.state_a, leg.state_b),
        description="; ".join(filter(None, [about, leg.about, *stages.resampled(leg)])),
        estimators=rows,
        published=tuple(
            Published(value.method, value.value, value.stderr, value.source)
            for value in leg.published
            if value.temperature_kelvin == stages.config.temperature_kelvin
        ),
    )
    _write_frames(stages, leg, learned)
    work = found.figures.work
    if learned and "learned_ais.forward" in learned[0].arrays:
        directions = [
            np.concatenate([part.arrays[f"learned_ais.{way}"] for part in learned]) for way in ("forward", "reverse")
        ]
        work = (*work, WorkValues("AIS, learned path", *directions))
    return (
        judged(result, yardstick(leg.name), FULL_LEARNED, reasons),
        replace(found.figures, work=work, integrands=integrands(learned)),
        training,
    )


def _write_frames(stages: SolvationStages, leg: Leg, learned: list[StageResult]) -> None:
    """Write the alchemlyb frames of a leg: ``u_nk`` of both ends, ``dHdl`` along the learned path."""
    from boltzgen_diffclf.estimators.frames import dhdl_frame, u_nk_frame

    temperature = stages.config.temperature_kelvin
    states = list(stages.system.states)
    rows = [states.index(leg.state_a), states.index(leg.state_b)]
    ends = [stages.sampled(state).energies[rows] for state in (leg.state_a, leg.state_b)]
    counts = np.array([part.shape[1] for part in ends])
    frames = {"u_nk": u_nk_frame(np.concatenate(ends, axis=1), counts, np.array([0.0, 1.0]), temperature)}
    key = f"{FULL_LEARNED}.derivatives"
    if learned and key in learned[0].arrays:
        samples = list(np.concatenate([part.arrays[key] for part in learned], axis=1))
        frames["dHdl"] = dhdl_frame(samples, learned[0].arrays[f"{FULL_LEARNED}.t"], temperature)
    for name, frame in frames.items() if parallel.is_first() else ():
        frame.attrs |= {"states": [leg.state_a, leg.state_b], "note": _about_frames(stages, leg)}
        with atomic_path(stages.folder.path / f"{name}-{leg.name}.parquet") as path:
            frame.to_parquet(path)


def _about_frames(stages: SolvationStages, leg: Leg) -> str:
    """Return what a reader of a leg's frames has to know: it travels in their attributes."""
    ends = f"lambda 0 is {leg.state_a}, lambda 1 is {leg.state_b}; the frames of a walker are correlated in time"
    return "; ".join([ends, *stages.resampled(leg)])


def _checks(
    stages: SolvationStages, leg: Leg, rests_on: tuple[str, ...], curves: Mapping[str, TrainingCurves]
) -> list[trust.Check]:
    """Return the gates of the ensembles, those of states between and of an undivided state too, and of the training."""
    checks = []
    for source in dict.fromkeys([*stages.sources(leg), *rests_on]):
        r_hat = stages.ensemble(source).diagnostics.get("split_r_hat", {})
        if isinstance(r_hat, Mapping) and r_hat:
            checks.append(trust.check_walkers(source, r_hat))
        checks.append(trust.check_samples(source, stages.n_effective(source)))
    for name, curve in curves.items():
        if FULL_LEARNED in name:
            checks += [check(name, curve.heldout_loss.tolist()) for check in (trust.check_trained, trust.check_overfit)]
    return checks


def _ramachandran(stages: SolvationStages, leg: Leg) -> tuple[RamachandranPmf, ...]:
    found = []
    for state in (leg.state_a, leg.state_b):
        ensemble = stages.ensemble(state)
        torsions = torsions_of(ensemble, stages.system)
        if not {"phi", "psi"} <= set(torsions):
            return ()
        surface = free_energy_surface(
            torsions["phi"].numpy(), torsions["psi"].numpy(), groups=ensemble.group.numpy(), bins=48
        )
        found.append(RamachandranPmf(state, surface.free_energy, surface.stderr))
    return tuple(found)


def _versions(device: str) -> dict[str, str]:
    names = ("boltzgen-diffclf", "torch", "openmm", "openmmtools", "mdtraj", "pymbar", "alchemlyb", "numpy")
    versions = {name: metadata.version(name) for name in names}
    return {"python": platform.python_version(), **versions, "device": device}
