"""Milliseconds of a training step of a molecule's noised energy, eager and fused, by beads, objective and network.

Synthetic frames about the molecule's own positions: the speed does not depend on what they are. Run with
``python -m benchmarks.molecule_steps``.
"""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Sequence

import torch

import systems
from boltzgen_diffclf.compilation import can_fuse
from boltzgen_diffclf.paths import PATHS
from boltzgen_diffclf.streams import named_generator
from boltzgen_diffclf.training.molecule_model import (
    MoleculeSpec,
    build_molecule_model,
    coordinates_of,
    measure_molecule,
    molecule_pool,
)
from boltzgen_diffclf.training.noised_problem import NoisedProblem, NoisedSettings
from boltzgen_diffclf.training.objectives import NOISED_OBJECTIVES
from systems.beads import bead_atoms, bead_system, bead_types
from systems.molecular import MolecularSystem

OBJECTIVES = ("dsm", "dsm_diffclf", "fokker_planck")
WAYS = ("eager", "fused")
REPEATS = 5


def measure(
    system: MolecularSystem,
    beads: str,
    network: str,
    objective: str,
    *,
    groups: int = 128,
    group_size: int = 4,
    repeats: int = REPEATS,
    ways: Sequence[str] = WAYS,
) -> dict[str, float]:
    """Return milliseconds a step, by way, best of the repeats."""
    spec = MoleculeSpec(bead_types(system, beads), bead_system(system, beads).bonds, network=network)
    still = system.positions[list(bead_atoms(system, beads))]
    frames = still + 0.01 * torch.randn(200, *still.shape, generator=named_generator(0, "frames"), dtype=still.dtype)
    settings = NoisedSettings(steps=1, groups=groups, group_size=group_size)
    chosen = NOISED_OBJECTIVES[objective]
    found = {}
    for way in ways:
        os.environ["BOLTZGEN_EAGER"] = "1" if way == "eager" else ""
        can_fuse.cache_clear()
        # Else the cases before count among the few that a function is fused anew for, and later ones run eagerly.
        torch.compiler.reset()
        statistics = measure_molecule(frames, spec.bonds, named_generator(0, "resolution"))
        model = build_molecule_model(spec, statistics, named_generator(0, "weights"))
        pool = molecule_pool(frames, coordinates_of(model))
        problem = NoisedProblem(chosen, PATHS[spec.path], model.curve.levels, pool, pool, settings)
        batch = problem.draw(model, named_generator(0, "batches"))
        best = float("inf")
        for _ in range(1 + repeats):
            begun = time.perf_counter()
            model.zero_grad(set_to_none=True)
            (problem.weights * problem.losses(model, batch)).sum().backward()
            best = min(best, time.perf_counter() - begun)
        found[way] = 1e3 * best
    return found


def main() -> None:
    system = systems.load("aldp")
    for beads, network, objective in itertools.product(
        ("backbone", "heavy", "all"), ("invariants", "equivariant"), OBJECTIVES
    ):
        found = measure(system, beads, network, objective)
        print(f"{beads:9s} {network:12s} {objective:14s} {found['eager']:9.1f} {found['fused']:9.1f}", flush=True)


if __name__ == "__main__":
    main()
