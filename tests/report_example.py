"""A made-up result with every figure, for the tests of the page."""

from __future__ import annotations

import numpy as np

from workflows.report.data import (
    Integrand,
    LegFigures,
    RamachandranPmf,
    ReportData,
    TrainingCurves,
    WorkValues,
)
from workflows.results import EstimatorRow, LegResult, Published, SolvationResult, judged


def rows(value: float) -> dict[str, EstimatorRow]:
    return {
        "bar": EstimatorRow(value, 0.0091, 0.0412, 25600.0, 102400, 0, 41.7, "classical", (), "two states"),
        "ais": EstimatorRow(
            value - 0.07, 0.061, 0.11, 512.0, 1000000, 0, 92.5, "classical", (value - 0.1, value - 0.04), ""
        ),
        "dsm_diffclf": EstimatorRow(
            value + 0.04,
            0.043,
            None,
            8192.0,
            60000,
            4500000,
            131.2,
            "learned",
            (value, value + 0.02, value + 0.11),
            "full objective, three training seeds",
        ),
        "dsm_only": EstimatorRow(
            value - 0.19, 0.03, None, 8192.0, 60000, 4000000, 120.0, "ablation", (value - 0.2, value - 0.18), ""
        ),
        "no_network": EstimatorRow(
            float("nan"), float("nan"), 0.0, float("nan"), 60000, 0, 3.0, "ablation", (), "fail"
        ),
    }


def leg(states: tuple[str, str], value: float, published: tuple[Published, ...] = ()) -> LegResult:
    one = LegResult(states, f"From {states[0]} to {states[1]}.", rows(value), published=published)
    return judged(one, "bar", "dsm_diffclf", ())


def result(reasons: tuple[str, ...] = ()) -> SolvationResult:
    polar = (
        Published("FEAT reference (MBAR, 11 states)", -29.43, 0.01, "arXiv:2504.11516, table 1, sign turned"),
        Published("DiffCLF TI", -29.02, 0.41, "DiffCLF talk, sign turned"),
    )
    legs = {
        "total": leg(("vacuum", "implicit"), -22.4063),
        "polar": leg(("nonpolar", "implicit"), -29.4112, polar),
        "nonpolar": leg(("vacuum", "nonpolar"), 7.0052),
    }
    if reasons:
        legs["total"] = judged(legs["total"], "bar", "dsm_diffclf", reasons)
    return SolvationResult(
        system="aldp",
        temperature_kelvin=300.0,
        seed=7,
        preset="quick",
        trustworthy=not reasons,
        reasons=tuple(f"total: {reason}" for reason in reasons),
        legs=legs,
        versions={"boltzgen-diffclf": "0.1.0", "torch": "2.13.0"},
        command="python -m workflows.solvation --system aldp --seed 7",
        settings={"system": "aldp", "threads": None, "hidden": [64, 64], "timestep_fs": 1.0},
        seconds_total=612.25,
    )


def report(reasons: tuple[str, ...] = ()) -> ReportData:
    draws = np.random.default_rng(0)
    levels = np.linspace(0, 1, 21)
    mean = -22.4 + 8 * np.sin(2 * np.pi * levels)
    work = WorkValues(
        "two-state BAR", -22.4 + 2.2 + 2.1 * draws.normal(size=5000), 22.4 + 2.2 + 2.1 * draws.normal(size=5000)
    )
    slow = WorkValues(
        "AIS, 50 levels", -22.4 + 0.6 + 1.1 * draws.normal(size=256), 22.4 + 0.6 + 1.1 * draws.normal(size=256)
    )
    figures = LegFigures(
        (work, slow),
        _overlap(6),
        tuple(f"{x:.1f}" for x in np.linspace(0, 1, 6)),
        (
            Integrand("DSM + DiffCLF", levels, mean, np.full(21, 0.25)),
            Integrand("DSM only", levels, mean - 0.8 * levels, np.full(21, 0.2)),
            Integrand("no network", levels, mean + 3 * levels * (1 - levels), np.full(21, 0.15)),
        ),
    )
    two = LegFigures((work,), np.array([[0.5, 0.04], [0.04, 0.5]]), ("nonpolar", "implicit"))
    return ReportData(
        result(reasons),
        {"total": figures, "polar": two},
        {f"seed {seed}": _curves(draws) for seed in range(3)},
        (_pmf("vacuum", draws), _pmf("implicit", draws)),
    )


def _overlap(n_levels: int) -> np.ndarray:
    distance = np.abs(np.subtract.outer(np.arange(n_levels), np.arange(n_levels)))
    return 0.5 * np.exp(-0.9 * distance)


def _curves(draws: np.random.Generator) -> TrainingCurves:
    step = np.arange(0.0, 3000.0, 20.0)
    fall = np.exp(-step / 400)
    train = 2.0 + 40 * np.exp(-step / 60) + 1.5 * fall + 0.05 * draws.normal(size=len(step))
    heldout = np.where(np.arange(len(step)) % 10 == 0, train + 0.05, np.nan)
    parts = {"DSM": 0.8 * train, "DiffCLF": 0.2 + fall}
    return TrainingCurves(step, train, heldout, parts, -22.4 - 3 * fall + 0.03 * draws.normal(size=len(step)))


def _pmf(state: str, draws: np.random.Generator) -> RamachandranPmf:
    angle = np.deg2rad(np.linspace(-177, 177, 60))
    phi, psi = np.meshgrid(angle, angle, indexing="ij")
    density = np.exp(3 * np.cos(phi + 1.4) + 2 * np.cos(psi - 2.6)) + 0.2 * np.exp(5 * np.cos(phi - 1) + np.cos(psi))
    counts = draws.poisson(25600 * density / density.sum()).astype(float)
    counts[counts == 0] = np.nan
    free_energy = -np.log(counts / np.nanmax(counts))
    return RamachandranPmf(state, free_energy, 1 / np.sqrt(counts))
