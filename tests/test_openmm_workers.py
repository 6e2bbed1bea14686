"""OpenMM contexts in worker processes, for systems that the compiler refuses."""

from __future__ import annotations

import os
import signal

import numpy as np
import openmm
import pytest
import torch
from openmm import app, unit
from openmmtools import testsystems

from boltzgen_diffclf.errors import InputError, RunFailedError
from systems.forcefield import OpenMMWorkerTarget
from tests.test_forcefield import reference


@pytest.fixture(scope="module")
def constrained() -> tuple[openmm.System, torch.Tensor]:
    peptide = testsystems.AlanineDipeptideVacuum(constraints=None)
    system = app.ForceField("amber14-all.xml", "implicit/obc2.xml").createSystem(
        peptide.topology, constraints=app.HBonds
    )
    ground = peptide.positions.value_in_unit(unit.nanometer)
    noise = np.random.default_rng(0).normal(size=(5, *ground.shape))
    return system, torch.tensor(ground + 0.01 * noise)


def test_agrees_with_openmm_and_is_differentiable(constrained):
    system, x = constrained
    with OpenMMWorkerTarget(system, temperature_kelvin=350.0, platform="Reference", workers=2) as target:
        assert target.event_shape == (22, 3)
        assert target.dimension == 63 - 12
        energy, force = target.energy_and_force(x)
        position = x.clone().requires_grad_(True)
        (gradient,) = torch.autograd.grad(target.energy(position).sum(), position)
        empty, _ = target.energy_and_force(x[:0])
    expected_energy, expected_force = reference(system, x, 350.0)
    assert energy.dtype == force.dtype == torch.float64
    np.testing.assert_allclose(energy, expected_energy, rtol=1e-12)
    np.testing.assert_allclose(force, expected_force, rtol=1e-9, atol=1e-9)
    assert torch.equal(gradient, -force)
    assert len(empty) == 0


def test_dead_and_closed_workers_are_a_failed_run(constrained):
    system, x = constrained
    target = OpenMMWorkerTarget(system, platform="Reference", workers=1)
    target.energy(x)
    assert target._pool is not None
    (worker,) = target._pool._processes.values()
    os.kill(worker.pid, signal.SIGKILL)
    worker.join()
    with pytest.raises(RunFailedError, match="worker process died"):
        target.energy(x)
    target.close()
    with pytest.raises(RunFailedError, match="closed"):
        target.energy(x)


def test_unknown_platform_is_bad_input(constrained):
    with pytest.raises(InputError, match="did you mean 'Reference'"):
        OpenMMWorkerTarget(constrained[0], platform="Referense")
