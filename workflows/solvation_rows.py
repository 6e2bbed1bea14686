"""From the stages' results to the rows of the table, and to the arrays of its figures."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from boltzgen_diffclf.estimators import Estimate, combine_replicates
from boltzgen_diffclf.estimators.replicates import student_factor, widened_by_misfit
from systems.legs import Leg
from workflows.report.data import Integrand, TrainingCurves
from workflows.results import EstimatorRow, Role
from workflows.run_folder import StageResult
from workflows.solvation_estimators import AFTER_TRAINING, FULL_LEARNED
from workflows.solvation_learned import OBJECTIVES

LEARNED = (FULL_LEARNED, *AFTER_TRAINING, "cartesian")
"""Rows of the full objective; the other trained ones are ablations."""

NOTES = {
    "mbar": "all frames of all sampled states at once; the classical yardstick",
    "population": "the share of frames in the basin while the whole state is sampled; the classical yardstick",
    "bar": "two-state BAR of the reference ensembles",
    "fep": "exponential averaging from the first state alone",
    "no_network": "the anchored straight line of energies, nothing learned; does not vote",
    "dsm_only": "neural TI, trained by denoising score matching alone; does not vote",
    "diffclf_only": "neural TI, trained by the classification loss alone; does not vote",
    "dsm_diffclf": "neural TI of the full objective, DSM + DiffCLF; has to agree with the yardstick; its error "
    "includes the distance to exact_ends, the misfit of the model, and the overlap is that of those",
    "ais": "annealing along the straight line of the true energies, both directions, BAR of the works",
    "learned_ais": "annealing along the learned path, both directions, BAR of the works: exact for any network",
    "exact_ends": "the classifier with the exact ends as classes, energies frozen (MBAR on path samples)",
    "relaxed_mbar": "path configurations moved by MALA on the learned energies, then MBAR over the levels; its error "
    "includes how far that moved exact_ends",
    "cartesian": "a message-passing network on positions along whole molecules, exact ends as classes; does not vote",
}


def make_row(
    estimate: Estimate,
    role: Role,
    name: str,
    energy_evaluations: int,
    seconds: float,
    network_evaluations: int = 0,
    replicates: tuple[float, ...] = (),
) -> EstimatorRow:
    """Return the row of an estimate, with what it cost and its remark."""
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


def learned_rows(learned: list[StageResult], independent: float) -> dict[str, EstimatorRow]:
    """Return one row an estimator, its error from the scatter of independent replicates.

    Args:
        learned: one result a replicate.
        independent: frames of both ends; a path has any number of configurations, and no more information than they.
    """
    combined = {name: _combine(learned, name) for name in (learned[0].facts if learned else ())}
    if FULL_LEARNED in combined:
        integral, classes = combined[FULL_LEARNED], combined["exact_ends"]
        # Classes that give no value, or one that nothing determines, show no misfit: the integral has no error bar.
        judge = classes if math.isfinite(classes.stderr) else replace(classes, value=math.nan)
        combined[FULL_LEARNED] = replace(widened_by_misfit(integral, judge), overlap=classes.overlap)
        combined["exact_ends"] = widened_by_misfit(classes, integral)
        if "relaxed_mbar" in combined:
            combined["relaxed_mbar"] = widened_by_misfit(combined["relaxed_mbar"], classes)
    if "cartesian" in combined:
        integrals = [replicate.facts["cartesian"]["integral"] for replicate in learned]
        integral = replace(combined["cartesian"], value=float(np.mean(integrals)))
        combined["cartesian"] = widened_by_misfit(combined["cartesian"], integral)
    rows = {}
    for name, estimate in combined.items():
        facts = [replicate.facts[name] for replicate in learned]
        role: Role = "learned" if name in LEARNED else "ablation"
        rows[name] = make_row(
            replace(estimate, n_effective=float(np.fmin(estimate.n_effective, independent))),
            role,
            name,
            sum(fact["energy_evaluations"] for fact in facts),
            sum(fact["seconds"] for fact in facts),
            sum(fact["network_evaluations"] for fact in facts),
            tuple(fact["value"] for fact in facts),
        )
    return rows


def _combine(learned: list[StageResult], name: str) -> Estimate:
    """Return the mean of the replicates; few that agree by chance do not undercut their own sampling errors.

    Where a replicate has no value the row has none.
    """
    facts = [replicate.facts[name] for replicate in learned]
    estimates = [
        Estimate(fact["value"], fact["sampling_stderr"], fact["overlap"], fact["n_effective"], name) for fact in facts
    ]
    if not all(math.isfinite(estimate.value) for estimate in estimates):
        return Estimate(math.nan, math.nan, 0.0, 0.0, name)
    combined = combine_replicates(estimates, name)
    sampling = float(np.sqrt(np.sum([estimate.stderr**2 for estimate in estimates])) / len(estimates))
    return replace(combined, stderr=max(combined.stderr, sampling))


def integrands(learned: list[StageResult]) -> tuple[Integrand, ...]:
    """Return the mean integrand of each method over the replicates, with the error of their scatter.

    As in the rows, few replicates that agree by chance do not undercut their own sampling errors.
    """
    names = [
        key.removesuffix(".integrand") for key in (learned[0].arrays if learned else ()) if key.endswith(".integrand")
    ]
    found = []
    for name in names:
        values, sampling = (
            np.stack([replicate.arrays[f"{name}.{key}"] for replicate in learned])
            for key in ("integrand", "integrand_stderr")
        )
        scatter = student_factor(len(values)) * values.std(axis=0, ddof=1)
        error = np.maximum(scatter, np.sqrt(np.square(sampling).mean(axis=0))) / np.sqrt(len(values))
        found.append(Integrand(name, learned[0].arrays[f"{name}.t"], values.mean(axis=0), error))
    return tuple(found)


def curves(learned: list[StageResult], leg: Leg) -> dict[str, TrainingCurves]:
    """Return what each training run of a leg logged, by leg, objective and replicate."""
    found = {}
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
            found[f"{leg.name} {name} {replicate}"] = TrainingCurves(
                step=history["step"],
                train_loss=np.sum([w * history[f"loss.{k}"] for k, w in shares.items()], axis=0),
                heldout_loss=np.sum([w * history[f"held_out.{k}"] for k, w in shares.items()], axis=0),
                components={k: history[f"loss.{k}"] for k, w in shares.items() if w},
                free_energy=history["free_energy.end"],
            )
    return found
