"""``workflows.ramachandran`` from trained energies to its table: each training and each sampling a stage."""

from __future__ import annotations

import csv
import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float

from boltzgen_diffclf.errors import InputError
from boltzgen_diffclf.files import atomic_path
from boltzgen_diffclf.observables import ramachandran_jensen_shannon, ramachandran_pmf_error
from boltzgen_diffclf.observables.ramachandran import FreeEnergySurface, free_energy_surface
from boltzgen_diffclf.streams import split_seed
from systems.convergence import torsions_of
from systems.ensemble import ReferenceEnsemble
from systems.molecular import MolecularSystem
from systems.store import load_ensemble
from workflows.molecule_stages import MoleculeStages, stage_of_training
from workflows.ramachandran import ALL_SEEDS, RamachandranConfig, RamachandranResult, RamachandranRow
from workflows.sample import sampled

SAMPLERS = ("reverse", "langevin")
"""Where samples come from, in the order of the page."""

LABELS = {"reverse": "iid", "langevin": "langevin"}
"""What the metrics of a sampler begin with."""

DIVERGENCES: Mapping[str, Callable[[np.ndarray, np.ndarray], float]] = {
    "js": ramachandran_jensen_shannon,
    "pmf_error": ramachandran_pmf_error,
}
"""Of two sets of (phi, psi), by name."""

PUBLISHED: Mapping[tuple[str, str], float] = {
    ("dsm", "iid_js"): 0.0081,
    ("dsm", "langevin_js"): 0.0695,
    ("dsm", "iid_pmf_error"): 0.095,
    ("dsm", "langevin_pmf_error"): 1.047,
    ("fokker_planck", "iid_js"): 0.0082,
    ("fokker_planck", "langevin_js"): 0.0090,
    ("fokker_planck", "iid_pmf_error"): 0.098,
    ("fokker_planck", "langevin_pmf_error"): 0.104,
    ("dsm_diffclf", "iid_js"): 0.0068,
    ("dsm_diffclf", "langevin_js"): 0.0092,
    ("dsm_diffclf", "iid_pmf_error"): 0.070,
    ("dsm_diffclf", "langevin_pmf_error"): 0.094,
}
"""Of five beads of alanine dipeptide under amber99sb-ildn and OBC, limits of the histograms taken from the data
(talk on arXiv:2601.21025)."""

BINS = 48
"""A side of the maps on the page."""

Torsions = Float[np.ndarray, "samples 2"]

Measured = tuple[str, float, float | None]
"""Name, value and noise floor of a metric."""


def compute(
    config: RamachandranConfig, stages: MoleculeStages
) -> tuple[RamachandranResult, dict[str, dict[str, FreeEnergySurface]]]:
    """Return the table, and the surfaces to show: by objective, those of the reference and of each sampler."""
    runs = [(objective, seed) for objective in config.objectives for seed in config.seeds]
    stages.folder.progress.plan(_shares(runs))
    rows: list[RamachandranRow] = []
    maps: dict[str, dict[str, FreeEnergySurface]] = {}
    learned, held_out = (
        _torsions(_as_beads(stages, half), stages.beads) for half in (stages.training, stages.held_out)
    )
    for objective, seed in runs:
        file = stages.folder.path / "models" / f"{objective}-seed{seed}.safetensors"
        model, training = stages.trained(objective, seed, file)
        metrics: list[Measured] = [("training_seconds", float(training.facts["training_seconds"]), None)]
        surfaces = {"reference": free_energy_surface(*held_out.T, groups=stages.held_out.group.numpy(), bins=BINS)}
        for sampler in SAMPLERS:
            stage = _stage(sampler, objective, seed)
            samples = stages.folder.path / "samples" / f"{objective}-seed{seed}-{sampler}.h5"
            counts = sampled(stages.folder, stage, sampler, samples, model, config, seed, stages.device).facts
            ensemble = load_ensemble(samples)
            torsions = _torsions(ensemble, stages.beads)
            metrics += _divergences(sampler, torsions, held_out, learned, seed)
            metrics.append((f"{LABELS[sampler]}_broken", _broken_share(counts), None))
            surfaces[sampler] = free_energy_surface(*torsions.T, groups=ensemble.group.numpy(), bins=BINS)
        rows += [_row(config, objective, str(seed), *metric) for metric in metrics]
        maps.setdefault(objective, surfaces)
    table = (*rows, *_means(rows))
    write_csv(table, stages.folder.path / "results.csv")
    return RamachandranResult(config, table, stages.folder.path), maps


def _shares(runs: Sequence[tuple[str, int]]) -> dict[str, float]:
    shares: dict[str, float] = {}
    for run in runs:
        shares |= {stage_of_training(*run): 4.0, **{_stage(sampler, *run): 1.0 for sampler in SAMPLERS}}
    return shares


def _stage(sampler: str, objective: str, seed: int) -> str:
    return f"{sampler}-{objective}-seed{seed}"


def _as_beads(stages: MoleculeStages, frames: ReferenceEnsemble) -> ReferenceEnsemble:
    return dataclasses.replace(frames, positions=stages.positions(frames).float())


def _torsions(ensemble: ReferenceEnsemble, beads: MolecularSystem) -> Torsions:
    found = torsions_of(ensemble, beads)
    if not {"phi", "psi"} <= found.keys():
        raise InputError(f"system '{beads.name}' has no torsions phi and psi, and a Ramachandran map is of these")
    return np.stack([found["phi"].numpy(), found["psi"].numpy()], axis=1)


def _divergences(
    sampler: str, torsions: Torsions, held_out: Torsions, learned: Torsions, seed: int
) -> Iterator[Measured]:
    """Yield each divergence and its floor, all between equally many samples."""
    generator = np.random.default_rng(split_seed(seed, f"thinning {sampler}"))
    size = min(map(len, (torsions, held_out, learned)))
    one, other, floor = (
        part[generator.choice(len(part), size, replace=False)] for part in (torsions, held_out, learned)
    )
    for name, divergence in DIVERGENCES.items():
        yield f"{LABELS[sampler]}_{name}", divergence(one, other), divergence(floor, other)


def _broken_share(counts: Mapping[str, int]) -> float:
    broken = counts.get("exploded_chains", counts.get("broken_samples", 0))
    return broken / counts.get("chains", counts.get("samples", 1))


def _row(
    config: RamachandranConfig, objective: str, seed: str, metric: str, value: float, floor: float | None
) -> RamachandranRow:
    published = PUBLISHED.get((objective, metric)) if config.beads == "backbone" else None
    return RamachandranRow(config.system_name, config.beads, objective, seed, metric, value, floor, published)


def _means(rows: Sequence[RamachandranRow]) -> Iterator[RamachandranRow]:
    """Yield the mean over the seeds of every objective and metric."""
    together: dict[tuple[str, str], list[RamachandranRow]] = {}
    for row in rows:
        together.setdefault((row.objective, row.metric), []).append(row)
    for several in together.values():
        floors = [row.noise_floor for row in several if row.noise_floor is not None]
        yield dataclasses.replace(
            several[0],
            seed=ALL_SEEDS,
            value=float(np.mean([row.value for row in several])),
            noise_floor=float(np.mean(floors)) if floors else None,
        )


def write_csv(rows: Sequence[RamachandranRow], path: Path) -> None:
    """Write the table in long form, one number a line; a number that is not known is an empty cell."""
    with atomic_path(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as handle:
        writer = csv.DictWriter(handle, [field.name for field in dataclasses.fields(RamachandranRow)])
        writer.writeheader()
        writer.writerows(dataclasses.asdict(row) for row in rows)
