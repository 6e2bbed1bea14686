"""Reference sampling in walker-steps a second: batched Langevin dynamics against OpenMM's, as ratios in one run.

Run with ``python -m benchmarks.sampling [SYSTEM] [STATE]``. Both do Langevin dynamics of the same unconstrained
state; a walker-step is one force evaluation. OpenMM runs one walker, on its CPU platform with the best number of
threads and on its Reference platform.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable

import openmm
import torch

import systems
from systems.hydrogen_mass import masses_with_hydrogens
from systems.molecular import MolecularSystem
from systems.reference import ReferenceSettings
from systems.replica_dynamics import ReplicaExchangeDynamics

SECONDS = 5.0


def measure(system: MolecularSystem, state: str = "implicit", seconds: float = SECONDS) -> dict[str, float]:
    """Return walker-steps a second of each way to run, and ours over OpenMM's best.

    Keys: ``batched float32``, ``batched float64``, ``openmm CPU`` (best thread count), ``openmm CPU threads``,
    ``openmm Reference``, ``ratio float32``, ``ratio float64``.
    """
    rates = {f"batched {name}": batched_rate(system, state, name, seconds) for name in ("float32", "float64")}
    by_threads = {
        threads: openmm_rate(system, state, "CPU", threads, seconds) for threads in range(1, (os.cpu_count() or 1) + 1)
    }
    best = max(by_threads, key=by_threads.__getitem__)
    rates |= {"openmm CPU": by_threads[best], "openmm CPU threads": float(best)}
    rates["openmm Reference"] = openmm_rate(system, state, "Reference", 1, seconds)
    yardstick = max(rates["openmm CPU"], rates["openmm Reference"])
    return rates | {f"ratio {name}": rates[f"batched {name}"] / yardstick for name in ("float32", "float64")}


def batched_rate(system: MolecularSystem, state: str, precision: str, seconds: float) -> float:
    """Return walker-steps a second of our dynamics, compilation excluded."""
    settings = ReferenceSettings(precision=precision, hot_start_steps=10)
    dtype = {"float32": torch.float32, "float64": torch.float64}[precision]
    dynamics = ReplicaExchangeDynamics(
        target=system.target(state, settings.temperatures_kelvin[0], dtype),
        exact_target=system.target(state, settings.temperatures_kelvin[0]),
        starts=system.positions[None],
        masses=masses_with_hydrogens(system, settings.hydrogen_mass_amu),
        settings=settings,
        stream="benchmark",
    )
    dynamics.start()
    walkers = settings.walkers * len(settings.temperatures_kelvin)
    return walkers * settings.steps_per_frame * calls_per_second(dynamics.advance, seconds)


def openmm_rate(system: MolecularSystem, state: str, platform: str, threads: int, seconds: float) -> float:
    """Return steps a second of one OpenMM walker."""
    integrator = openmm.LangevinMiddleIntegrator(300.0, 1.0, 0.001)
    properties = {"Threads": str(threads)} if platform == "CPU" else {}
    context = openmm.Context(
        system.openmm_system(state), integrator, openmm.Platform.getPlatformByName(platform), properties
    )
    context.setPositions(system.positions.numpy())
    context.setVelocitiesToTemperature(300.0, 1)
    steps = 100
    return steps * calls_per_second(lambda: integrator.step(steps), seconds)


def calls_per_second(call: Callable[[], object], seconds: float) -> float:
    """Return calls a second, after one that warms up."""
    call()
    begun, calls = time.perf_counter(), 0
    while time.perf_counter() - begun < seconds:
        call()
        calls += 1
    return calls / (time.perf_counter() - begun)


def main() -> None:
    name, state = (*sys.argv[1:], *("aldp", "implicit")[len(sys.argv) - 1 :])
    for key, value in measure(systems.load(name), state).items():
        print(f"{key:20s} {value:12.1f}")


if __name__ == "__main__":
    main()
