"""Energy and force in batches against OpenMM one at a time: microseconds a configuration, as ratios in one run.

Run with ``python -m benchmarks.target_energy``. All ways are timed in turns, round after round, so that other work on
the machine slows all of them; the best round of each counts.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import openmm
import torch

from boltzgen_diffclf.compilation import can_fuse
from systems.forcefield import ForceFieldTarget, compile_system

ROUNDS = 8
# Calls in a row, so that the caches are as warm as in dynamics.
CALLS = 2
OPENMM_CONFIGURATIONS = 32


@dataclass(frozen=True)
class Measurement:
    """What one system costs.

    Attributes:
        microseconds: by name of the way, a configuration, energy and force.
        ratios: best OpenMM time over each of ours.
        compile_seconds: until the first fused result.
        evidence: what bounds the fused evaluation: pair terms and elementary functions a second and a core, beside
            what the same functions reach by themselves on data in cache.
    """

    system: str
    batch: int
    threads: int
    microseconds: dict[str, float]
    ratios: dict[str, float]
    compile_seconds: dict[str, float]
    evidence: dict[str, float]


def measure(
    system_name: str, openmm_system: openmm.System, positions: np.ndarray, batch: int = 1024, rounds: int = ROUNDS
) -> Measurement:
    """Time our energies, fused and eager, float32 and float64, and OpenMM's.

    Args:
        system_name: for the report.
        openmm_system: what :func:`~systems.forcefield.compile_system` accepts.
        positions: one configuration ``(atoms, 3)`` [nm]; the batch is this with 0.005 nm of noise.
        batch: configurations at a time.
        rounds: interleaved repetitions.
    """
    noise = np.random.default_rng(0).normal(size=(batch, *positions.shape))
    x = torch.tensor(positions + 0.005 * noise)
    ways: dict[str, tuple[Callable[[], object], int]] = {}
    compile_seconds = {}
    for name, dtype in (("float32", torch.float32), ("float64", torch.float64)):
        fused, eager = compile_system(openmm_system, dtype=dtype), eager_target(openmm_system, dtype)
        start = time.perf_counter()
        fused.energy_and_force(x[:1])
        compile_seconds[name] = time.perf_counter() - start
        ways[f"fused {name}"] = (partial(fused.energy_and_force, x.to(dtype)), batch)
        ways[f"eager {name}"] = (partial(eager.energy_and_force, x.to(dtype)), batch)
    for threads in range(1, (os.cpu_count() or 1) + 1):
        ways[f"OpenMM CPU, {threads} threads"] = openmm_way(openmm_system, x, "CPU", threads)
    ways["OpenMM Reference"] = openmm_way(openmm_system, x, "Reference", 1)
    microseconds = interleaved(ways, rounds)
    best = min(value for name, value in microseconds.items() if name.startswith("OpenMM"))
    ratios = {name: best / value for name, value in microseconds.items() if not name.startswith("OpenMM")}
    evidence = bounds(microseconds, positions.shape[0], has_born(openmm_system))
    return Measurement(system_name, batch, torch.get_num_threads(), microseconds, ratios, compile_seconds, evidence)


def eager_target(openmm_system: openmm.System, dtype: torch.dtype) -> ForceFieldTarget:
    """Return the target as it runs where there is no C++ compiler."""
    before = os.environ.get("BOLTZGEN_EAGER")
    os.environ["BOLTZGEN_EAGER"] = "1"
    can_fuse.cache_clear()
    target = compile_system(openmm_system, dtype=dtype)
    can_fuse.cache_clear()
    if before is None:
        del os.environ["BOLTZGEN_EAGER"]
    else:
        os.environ["BOLTZGEN_EAGER"] = before
    return target


def openmm_way(
    openmm_system: openmm.System, x: torch.Tensor, platform_name: str, threads: int
) -> tuple[Callable[[], object], int]:
    """Return a function that evaluates configurations one by one, and how many."""
    platform = openmm.Platform.getPlatform(platform_name)
    properties = {"Threads": str(threads)} if platform_name == "CPU" else {}
    context = openmm.Context(openmm_system, openmm.VerletIntegrator(0.001), platform, properties)
    configurations = x[:OPENMM_CONFIGURATIONS].numpy()

    def evaluate() -> None:
        for configuration in configurations:
            context.setPositions(configuration)
            state = context.getState(getEnergy=True, getForces=True)
            state.getPotentialEnergy()
            state.getForces(asNumpy=True)

    return evaluate, len(configurations)


def interleaved(ways: dict[str, tuple[Callable[[], object], int]], rounds: int) -> dict[str, float]:
    """Return microseconds a configuration of each way, the best of all rounds after one to warm up."""
    best = dict.fromkeys(ways, float("inf"))
    for round_number in range(rounds + 1):
        for name, (run, count) in ways.items():
            for _ in range(CALLS):
                start = time.perf_counter()
                run()
                elapsed = time.perf_counter() - start
                if round_number:
                    best[name] = min(best[name], 1e6 * elapsed / count)
    return best


def has_born(openmm_system: openmm.System) -> bool:
    """Return whether a generalised Born force is there."""
    return any(isinstance(force, openmm.CustomGBForce | openmm.GBSAOBCForce) for force in openmm_system.getForces())


def bounds(microseconds: dict[str, float], n_atoms: int, born: bool) -> dict[str, float]:
    """Return, for each precision, pairs a second and the share of time that elementary functions alone would take.

    A generalised Born pair needs two logarithms, one exponential, two square roots and five reciprocals; a pair
    without needs one square root and one reciprocal.
    """
    pairs = n_atoms * (n_atoms - 1) // 2
    counts = {"log": 2, "exp": 1, "sqrt": 2, "reciprocal": 5} if born else {"sqrt": 1, "reciprocal": 1}
    evidence = {}
    for name, dtype in (("float32", torch.float32), ("float64", torch.float64)):
        used = microseconds[f"fused {name}"]
        evidence[f"million pairs/s, {name}"] = pairs / used
        alone = sum(count * microseconds_per_element(function, dtype) for function, count in counts.items())
        evidence[f"share of elementary functions, {name}"] = pairs * alone / used
    return evidence


def microseconds_per_element(function: str, dtype: torch.dtype) -> float:
    """Return the time of one element of an elementary function on all threads, data in cache."""
    values = torch.rand(65536, dtype=dtype) + 0.5
    out = torch.empty_like(values)
    run = getattr(torch, function)
    times = []
    for _ in range(200):
        start = time.perf_counter()
        run(values, out=out)
        times.append(time.perf_counter() - start)
    return 1e6 * min(times) / len(values)


def report(measurement: Measurement) -> str:
    """Return the measurement as lines of text."""
    lines = [f"{measurement.system}, batch {measurement.batch}, {measurement.threads} threads"]
    for name, value in measurement.microseconds.items():
        ratio = f"   {measurement.ratios[name]:7.1f} x OpenMM's best" if name in measurement.ratios else ""
        lines.append(f"  {name:24s} {value:10.2f} us{ratio}")
    lines += [f"  compiled {name} in {value:.0f} s" for name, value in measurement.compile_seconds.items()]
    return "\n".join(lines + [f"  {name}: {value:.3g}" for name, value in measurement.evidence.items()])


def main() -> None:
    from openmm import unit
    from openmmtools import testsystems

    for state in ("Implicit", "Vacuum"):
        peptide = getattr(testsystems, f"AlanineDipeptide{state}")(constraints=None)
        positions = np.array(peptide.positions.value_in_unit(unit.nanometer))
        print(report(measure(f"alanine dipeptide, {state.lower()}", peptide.system, positions)), flush=True)


if __name__ == "__main__":
    main()
