"""Training steps a second, eager against fused, in both coordinate systems, as ratios in one run.

Synthetic path configurations of the molecule's size: the speed does not depend on what they are. Run with
``python -m benchmarks.training_steps``.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

import systems
from boltzgen_diffclf.compilation import fuse
from boltzgen_diffclf.energy import AnchoredEnergyModel, EnergyModel, UnanchoredEnergyModel
from boltzgen_diffclf.nets import DenseEnergyNet, TorsionEnergyNet
from boltzgen_diffclf.nets.flat_molecule import FlatMoleculeNet
from boltzgen_diffclf.paths import arcsine_levels
from boltzgen_diffclf.training import PathBatch, path_losses
from systems.molecular import MolecularSystem

REPEATS = 10


def measure(system: MolecularSystem, groups: int = 128, size: int = 4) -> dict[str, float]:
    """Return milliseconds a step by way, and the ratios eager over fused, best of :data:`REPEATS` interleaved."""
    results: dict[str, float] = {}
    for name, (model, dimension, n_groups) in _models(system, groups).items():
        batch = _batch(n_groups, size, model_dimension(system, name))
        ways = {way: _step(function, model, batch, dimension) for way, function in _ways().items()}
        for step in ways.values():
            step()
        best = dict.fromkeys(ways, float("inf"))
        for _ in range(REPEATS):
            for way, step in ways.items():
                begun = time.perf_counter()
                step()
                best[way] = min(best[way], time.perf_counter() - begun)
        results |= {f"{name} {way} [ms]": 1e3 * seconds for way, seconds in best.items()}
        results[f"{name} ratio"] = best["eager"] / best["fused"]
    return results


def model_dimension(system: MolecularSystem, name: str) -> int:
    """Return how many flat coordinates a configuration has."""
    return 3 * system.n_atoms - 6 if name == "internal" else 3 * system.n_atoms


def _models(system: MolecularSystem, groups: int) -> dict[str, tuple[EnergyModel, int, int]]:
    n = system.n_atoms
    levels = arcsine_levels(33).float()
    generator = torch.Generator().manual_seed(0)
    mask = torch.zeros(3 * n - 6, dtype=torch.bool)
    mask[-7:] = True
    torsions = TorsionEnergyNet(mask, torch.ones(3 * n - 6, dtype=torch.long), generator)
    elements = sorted(set(system.elements))
    dense = DenseEnergyNet([elements.index(e) for e in system.elements], system.bonds, generator)
    return {
        "internal": (AnchoredEnergyModel(torsions, levels), 3 * n - 6, groups),
        "cartesian": (UnanchoredEnergyModel(FlatMoleculeNet(dense), levels), 3 * n - 3, max(1, groups // 8)),
    }


def _batch(groups: int, size: int, dim: int) -> PathBatch:
    generator = torch.Generator().manual_seed(1)

    def normal(*shape: int) -> torch.Tensor:
        return 0.1 * torch.randn(groups, size, *shape, generator=generator)

    t = torch.rand(groups, size, generator=generator)
    gamma = torch.ones(groups, size, dim)
    return PathBatch(t, normal(dim), normal(dim), gamma, normal(2), normal(2, dim), normal(2, dim))


def _ways() -> dict[str, Callable[..., object]]:
    return {"eager": path_losses, "fused": fuse(path_losses, "cpu")}


def _step(function: Callable[..., object], model: EnergyModel, batch: PathBatch, dimension: int) -> Callable[[], None]:
    def step() -> None:
        losses = function(model, batch, dimension)
        model.zero_grad(set_to_none=True)
        (losses.denoising + losses.classification).backward()  # type: ignore[attr-defined]

    return step


if __name__ == "__main__":
    for key, value in measure(systems.load("aldp")).items():
        print(f"{key:28s} {value:10.2f}")
