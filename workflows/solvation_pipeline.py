"""``workflows.solvation`` from the first stage to the verdict."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Mapping
from importlib import metadata
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

import systems
from boltzgen_diffclf.errors import InputError
from boltzgen_diffclf.estimators import Estimate, combine_replicates
from boltzgen_diffclf.estimators.replicates import widened_by_misfit
from boltzgen_diffclf.files import atomic_path
from boltzgen_diffclf.free_energy.classical import all_states_mbar, one_sided, subsample, two_state_bar
from boltzgen_diffclf.observables.ramachandran import free_energy_surface
from boltzgen_diffclf.streams import split_seed
from boltzgen_diffclf.training import parallel
from systems.convergence import torsions_of
from systems.molecular import Leg, MolecularSystem
from workflows import trust
from workflows.report.data import Integrand, LegFigures, RamachandranPmf, ReportData, TrainingCurves, WorkValues
from workflows.results import EstimatorRow, LegResult, Published, Role, SolvationResult, judged
from workflows.run_folder import RunFolder, StageResult
from workflows.solvation_cartesian import cartesian, wants_cartesian
from workflows.solvation_stages import OBJECTIVES, SolvationStages

if TYPE_CHECKING:
    from workflows.solvation import SolvationConfig

MBAR_COLUMNS = 30_000
"""Frames of one ensemble that enter MBAR; two-state BAR takes them all."""

YARDSTICK, FULL_LEARNED = "mbar", "dsm_diffclf"
NOTES = {
    "mbar": "all frames of all sampled states at once; the classical yardstick",
    "bar": "two-state BAR of the reference ensembles",
    "fep": "exponential averaging from the first state alone",
    "no_network": "the anchored straight line of energies, nothing learned; does not vote",
    "dsm_only": "neural TI, trained by denoising score matching alone; does not vote",
    "diffclf_only": "neural TI, trained by the classification loss alone; does not vote",
    "dsm_diffclf": "neural TI of the full objective, DSM + DiffCLF; has to agree with the yardstick; its error "
    "includes the distance to exact_ends, the misfit of the model",
    "ais": "annealing along the straight line of the true energies, both directions, BAR of the works",
    "learned_ais": "annealing along the learned path, both directions, BAR of the works: exact for any network",
    "exact_ends": "the classifier with the exact ends as classes, energies frozen (MBAR on path samples)",
    "cartesian": "a message-passing network on positions along whole molecules, exact ends as classes; does not vote",
}


def solve(config: SolvationConfig, folder: RunFolder, device: str) -> ReportData:
    """Return everything the page shows, computing what the folder does not hold yet."""
    begun = time.monotonic()
    torch.set_num_threads(int(folder.remember("threads", lambda: config.threads or os.cpu_count() or 1)))
    torch.set_flush_denormal(True)
    system = systems.load(config.system)
    legs = [system.require_leg(name) for name in config.legs]
    stages = SolvationStages(config, folder, system, device)
    folder.progress.plan(_shares(config, system, legs))
    results: dict[str, LegResult] = {}
    figures: dict[str, LegFigures] = {}
    training: dict[str, TrainingCurves] = {}
    for leg in legs:
        results[leg.name], figures[leg.name], curves = _solve_leg(stages, leg)
        training |= curves
    trustworthy, reasons = trust.overall({name: leg.reasons for name, leg in results.items()})
    result = SolvationResult(
        system=config.system,
        temperature_kelvin=config.temperature_kelvin,
        seed=config.seed,
        preset=config.preset,
        trustworthy=trustworthy,
        reasons=reasons,
        legs=results,
        versions=_versions(device),
        command=config.command,
        settings=config.shown_settings,
        seconds_total=time.monotonic() - begun,
    )
    return ReportData(result, figures, training, _ramachandran(stages, legs[0]))


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


def _shares(config: SolvationConfig, system: MolecularSystem, legs: list[Leg]) -> dict[str, float]:
    """Return the stages with their expected seconds on two cores."""
    states = {state for leg in legs for state in (leg.state_a, leg.state_b)}
    steps = config.walkers * config.exchange_temperatures * config.steps_per_frame
    steps *= config.frames_per_walker + config.equilibration_frames
    shares = {
        f"reference {state}": steps / 50_000
        for state in sorted(states | {system.reweighted.get(state, state) for state in states})
        if state not in system.reweighted and state not in config.trajectory_files
    }
    for leg in legs:
        shares[f"annealed {leg.name}"] = 10.0
        for replicate in range(config.training_seeds):
            n = max(1, len(_objectives(config, leg)))
            shares[f"learned {leg.name} {replicate}"] = 5 + n * config.training_steps * 0.02
            if wants_cartesian(config, leg):
                shares[f"cartesian {leg.name} {replicate}"] = 120 + config.cartesian_steps * 0.2
    return shares


def _objectives(config: SolvationConfig, leg: Leg) -> tuple[str, ...]:
    wanted = [name for name in OBJECTIVES if config.wants(name)]
    if leg.name not in config.ablation_legs:
        wanted = [name for name in wanted if name == FULL_LEARNED]
    return tuple(wanted)


def _solve_leg(stages: SolvationStages, leg: Leg) -> tuple[LegResult, LegFigures, dict[str, TrainingCurves]]:
    rows, figures = _classical(stages, leg)
    learned = [
        stages.learned(leg, replicate, _objectives(stages.config, leg))
        for replicate in range(stages.config.training_seeds)
    ]
    rows |= _learned_rows(learned)
    if wants_cartesian(stages.config, leg):
        rows |= _learned_rows([cartesian(stages, leg, k) for k in range(stages.config.training_seeds)])
    curves = _curves(learned, leg)
    checks = _checks(stages, leg, rows, curves)
    _, reasons = trust.decide(rows.get(YARDSTICK), rows.get(FULL_LEARNED), checks)
    result = LegResult(
        states=(leg.state_a, leg.state_b),
        description=f"{leg.state_a} to {leg.state_b}: F({leg.state_b}) - F({leg.state_a})",
        estimators=rows,
        published=tuple(Published(value.method, value.value, value.stderr, value.source) for value in leg.published),
    )
    integrands = _integrands(learned)
    _write_frames(stages, leg, learned)
    work = figures.work
    if "learned_ais.forward" in learned[0].arrays:
        directions = [
            np.concatenate([part.arrays[f"learned_ais.{way}"] for part in learned]) for way in ("forward", "reverse")
        ]
        work = (*work, WorkValues("AIS, learned path", *directions))
    return (
        judged(result, YARDSTICK, FULL_LEARNED, reasons),
        LegFigures(work, figures.overlap, figures.overlap_labels, integrands),
        curves,
    )


def _classical(stages: SolvationStages, leg: Leg) -> tuple[dict[str, EstimatorRow], LegFigures]:
    """Return the rows of the reference ensembles, and their figures."""
    config, system = stages.config, stages.system
    states = list(system.states)
    row_a, row_b = states.index(leg.state_a), states.index(leg.state_b)
    names = sorted({system.reweighted.get(name, name) for name in (leg.state_a, leg.state_b)})
    if len(names) == 1 and leg.state_b in system.reweighted:
        names = [leg.state_a]
    sampled = {name: stages.sampled(name) for name in names}
    rows: dict[str, EstimatorRow] = {}
    figures = LegFigures()

    def generator(name: str) -> np.random.Generator:
        return np.random.default_rng(split_seed(config.seed, f"{name}/{leg.name}"))

    evaluations = sum(ensemble.energies.size for ensemble in sampled.values())
    if config.wants("mbar"):
        family = [subsample(ensemble, MBAR_COLUMNS) for ensemble in sampled.values()]
        result, seconds = _timed(lambda: all_states_mbar(states, family, generator("mbar")))
        rows["mbar"] = _row(result.between(row_a, row_b), "classical", "mbar", evaluations, seconds)
        figures = LegFigures(overlap=result.overlap_matrix, overlap_labels=tuple(states))
    if len(names) == 2:
        a, b = (stages.sampled(name) for name in (leg.state_a, leg.state_b))
        if config.wants("bar"):
            estimate, seconds = _timed(lambda: two_state_bar(a, b, row_a, row_b, generator("bar")))
            rows["bar"] = _row(estimate, "classical", "bar", 2 * (len(a.group) + len(b.group)), seconds)
        work = WorkValues(
            "reference frames", a.energies[row_b] - a.energies[row_a], b.energies[row_a] - b.energies[row_b]
        )
        figures = LegFigures((work,), figures.overlap, figures.overlap_labels)
    elif config.wants("bar"):
        (a,) = sampled.values()
        estimate, seconds = _timed(lambda: one_sided(a, row_a, row_b))
        rows["fep"] = _row(estimate, "classical", "fep", 2 * len(a.group), seconds)
    if config.wants("ais"):
        annealed = stages.annealed(leg)
        fact = annealed.facts
        estimate = Estimate(fact["value"], fact["stderr"], fact["overlap"], fact["n_effective"], "AIS")
        rows["ais"] = _row(estimate, "classical", "ais", fact["energy_evaluations"], fact["seconds"])
        straight = WorkValues("AIS, straight line", annealed.arrays["forward"], annealed.arrays["reverse"])
        figures = LegFigures((*figures.work, straight), figures.overlap, figures.overlap_labels)
    return rows, figures


def _timed(compute: Callable[[], Any]) -> tuple[Any, float]:
    begun = time.monotonic()
    return compute(), time.monotonic() - begun


def _row(
    estimate: Estimate,
    role: Role,
    name: str,
    energy_evaluations: int,
    seconds: float,
    network_evaluations: int = 0,
    replicates: tuple[float, ...] = (),
) -> EstimatorRow:
    return EstimatorRow(
        value_kT=estimate.value,
        stderr_kT=estimate.stderr,
        overlap=estimate.overlap,
        n_effective=estimate.n_effective,
        energy_evaluations=energy_evaluations,
        network_evaluations=network_evaluations,
        seconds=seconds,
        role=role,
        replicates=replicates,
        note=NOTES.get(name, ""),
    )


def _learned_rows(learned: list[StageResult]) -> dict[str, EstimatorRow]:
    """Return one row an estimator, its error from the scatter of independent replicates."""
    combined = {name: _combine(learned, name) for name in learned[0].facts}
    if FULL_LEARNED in combined:
        integral, classes = combined[FULL_LEARNED], combined["exact_ends"]
        combined[FULL_LEARNED] = widened_by_misfit(integral, classes)
        combined["exact_ends"] = widened_by_misfit(classes, integral)
    rows = {}
    for name, estimate in combined.items():
        facts = [replicate.facts[name] for replicate in learned]
        role: Role = "learned" if name in ("dsm_diffclf", "exact_ends", "learned_ais", "cartesian") else "ablation"
        rows[name] = _row(
            estimate,
            role,
            name,
            sum(fact["energy_evaluations"] for fact in facts),
            sum(fact["seconds"] for fact in facts),
            sum(fact["network_evaluations"] for fact in facts),
            tuple(fact["value"] for fact in facts),
        )
    return rows


def _combine(learned: list[StageResult], name: str) -> Estimate:
    facts = [replicate.facts[name] for replicate in learned]
    return combine_replicates(
        [
            Estimate(fact["value"], fact.get("sampling_stderr", 0.0), fact["overlap"], fact["n_effective"], name)
            for fact in facts
        ],
        name,
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
    if key in learned[0].arrays:
        samples = list(np.concatenate([part.arrays[key] for part in learned], axis=1))
        frames["dHdl"] = dhdl_frame(samples, learned[0].arrays[f"{FULL_LEARNED}.t"], temperature)
    for name, frame in frames.items() if parallel.is_first() else ():
        with atomic_path(stages.folder.path / f"{name}-{leg.name}.parquet") as path:
            frame.to_parquet(path)


def _integrands(learned: list[StageResult]) -> tuple[Integrand, ...]:
    names = [key.removesuffix(".integrand") for key in learned[0].arrays if key.endswith(".integrand")]
    found = []
    for name in names:
        values = np.stack([replicate.arrays[f"{name}.integrand"] for replicate in learned])
        error = values.std(axis=0, ddof=1) / np.sqrt(len(values))
        found.append(Integrand(name, learned[0].arrays[f"{name}.t"], values.mean(axis=0), error))
    return tuple(found)


def _curves(learned: list[StageResult], leg: Leg) -> dict[str, TrainingCurves]:
    curves = {}
    for replicate, result in enumerate(learned):
        for name, weights in OBJECTIVES.items():
            history = {
                key.removeprefix(f"{name}.history."): values
                for key, values in result.arrays.items()
                if key.startswith(f"{name}.history.")
            }
            if not history:
                continue
            shares = {"denoising": weights.denoising, "classification": weights.classification}
            curves[f"{leg.name} {name} {replicate}"] = TrainingCurves(
                step=history["step"],
                train_loss=np.sum([w * history[f"loss.{k}"] for k, w in shares.items()], axis=0),
                heldout_loss=np.sum([w * history[f"held_out.{k}"] for k, w in shares.items()], axis=0),
                components={k: history[f"loss.{k}"] for k, w in shares.items() if w},
                free_energy=history["free_energy.end"],
            )
    return curves


def _checks(
    stages: SolvationStages, leg: Leg, rows: Mapping[str, EstimatorRow], curves: Mapping[str, TrainingCurves]
) -> list[trust.Check]:
    """Return the gates of the ensembles and of the training."""
    checks = []
    sources = (stages.system.reweighted.get(state, state) for state in (leg.state_a, leg.state_b))
    for source in dict.fromkeys(sources):
        r_hat = stages.ensemble(source).diagnostics.get("split_r_hat", {})
        if isinstance(r_hat, Mapping) and r_hat:
            checks.append(trust.check_walkers(source, max(r_hat.values())))
        checks.append(trust.check_samples(source, stages.n_effective(source)))
    if FULL_LEARNED in rows:
        checks.append(trust.check_replicates(FULL_LEARNED, rows[FULL_LEARNED]))
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
