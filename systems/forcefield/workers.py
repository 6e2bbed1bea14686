"""Any ``openmm.System`` as a Target: OpenMM contexts in worker processes, for what the compiler refuses."""

from __future__ import annotations

import os
from concurrent.futures import BrokenExecutor, ProcessPoolExecutor
from multiprocessing import get_context
from types import TracebackType
from typing import Any

import numpy as np
import openmm
import torch
from jaxtyping import Float
from torch import Tensor

from boltzgen_diffclf.errors import InputError, RunFailedError, nearest_name
from boltzgen_diffclf.target import Target
from boltzgen_diffclf.units import thermal_energy_kj_per_mol
from systems.forcefield.autograd import EnergyWithForce
from systems.forcefield.parameters import Array
from systems.forcefield.worker_process import evaluate, start

DEFAULT_PLATFORM = "CPU"


class OpenMMWorkerTarget(Target):
    """Energy [kT] and force [kT/nm] of any System through OpenMM, one context in each worker process.

    Constraints and virtual sites are OpenMM's business: forces are those of the energy, without what holds
    constraints; each constraint takes one from ``dimension``. A script that makes this Target needs
    ``if __name__ == "__main__":``, because workers import it. Use it as a context manager, or call :meth:`close`.

    Args:
        openmm_system: any System.
        temperature_kelvin: of the kT that energies are in [K].
        platform: of OpenMM; ``CPU`` (mixed precision) unless given, ``Reference`` for double precision.
        workers: processes; one for each core unless given.

    Raises:
        InputError: when OpenMM has no such platform.
    """

    def __init__(
        self,
        openmm_system: openmm.System,
        *,
        temperature_kelvin: float = 300.0,
        platform: str | None = None,
        workers: int | None = None,
    ) -> None:
        n_atoms = openmm_system.getNumParticles()
        self.event_shape = (n_atoms, 3)
        self.dimension = 3 * (n_atoms - 1) - openmm_system.getNumConstraints()
        self.dtype, self.device = torch.float64, torch.device("cpu")
        self.thermal_energy = thermal_energy_kj_per_mol(temperature_kelvin)
        self.platform = known_platform(platform or DEFAULT_PLATFORM)
        self.workers = workers or os.cpu_count() or 1
        xml = openmm.XmlSerializer.serialize(openmm_system)
        self._pool: ProcessPoolExecutor | None = ProcessPoolExecutor(
            self.workers, mp_context=get_context("spawn"), initializer=start, initargs=(xml, self.platform)
        )

    def energy_and_force(
        self, x: Float[Tensor, "batch atoms 3"]
    ) -> tuple[Float[Tensor, " batch"], Float[Tensor, "batch atoms 3"]]:
        """See :meth:`Target.energy_and_force`.

        Raises:
            RunFailedError: when a worker died, or OpenMM could not evaluate a configuration.
        """
        positions = x.detach().to("cpu", torch.float64).numpy()
        if not len(positions):
            return torch.zeros(0, dtype=torch.float64), torch.zeros(0, *self.event_shape, dtype=torch.float64)
        parts = np.array_split(positions, min(self.workers, len(positions)))
        energies, forces = zip(*self._map(parts), strict=True)
        per_kt = 1.0 / self.thermal_energy
        return per_kt * torch.from_numpy(np.concatenate(energies)), per_kt * torch.from_numpy(np.concatenate(forces))

    def _map(self, parts: list[Array]) -> list[tuple[Array, Array]]:
        if self._pool is None:
            raise RunFailedError("the OpenMM workers were closed; make a new OpenMMWorkerTarget")
        try:
            return list(self._pool.map(evaluate, parts))
        except BrokenExecutor as error:
            self._pool = None
            raise RunFailedError(
                f"an OpenMM worker process died (platform {self.platform}, {self.workers} workers): it ran out "
                "of memory, was killed, or could not start; lower workers, or guard the script with "
                "if __name__ == '__main__'"
            ) from error
        except openmm.OpenMMException as error:
            raise RunFailedError(f"OpenMM could not evaluate a configuration on {self.platform}: {error}") from error

    def energy(self, x: Float[Tensor, "batch atoms 3"]) -> Float[Tensor, " batch"]:
        """Return ``u(x)`` [kT], once differentiable: the derivative is the force of the same evaluation."""
        energy: Tensor = EnergyWithForce.apply(x, self)
        return energy

    def close(self) -> None:
        """End the workers; evaluating afterwards is an error."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
            self._pool = None

    def __enter__(self) -> OpenMMWorkerTarget:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def known_platform(name: str) -> str:
    """Return the name of an OpenMM platform that is installed.

    Raises:
        InputError: when it is not.
    """
    platforms: list[Any] = [openmm.Platform.getPlatform(i) for i in range(openmm.Platform.getNumPlatforms())]
    names = [platform.getName() for platform in platforms]
    if name not in names:
        raise InputError(
            f"OpenMM has no platform {name!r} here{nearest_name(name, names)}; choose one of {', '.join(names)}"
        )
    return name
