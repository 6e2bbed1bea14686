"""What every registered system keeps, whoever wrote it; a new one is tested by its line in the registry."""

from __future__ import annotations

import itertools

import numpy as np
import openmm
import pytest
import torch
from openmm import unit

import systems
from boltzgen_diffclf.errors import InputError
from boltzgen_diffclf.observables import conformer_free_energy, in_basin, population, torsion_angles
from boltzgen_diffclf.units import thermal_energy_kj_per_mol
from systems.conformers import basin_free_energy
from systems.molecular import MolecularSystem

TEMPERATURE_KELVIN = 310.0


@pytest.fixture(scope="module", params=systems.names())
def system(request) -> MolecularSystem:
    return systems.load(request.param)


@pytest.fixture(scope="module")
def positions(system) -> torch.Tensor:
    noise = torch.randn(5, *system.positions.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return system.positions + torch.linspace(0, 0.03, 5)[:, None, None] * noise


def by_openmm(openmm_system: openmm.System, positions: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Energies [kT] and forces [kT/nm] of the Reference platform."""
    platform = openmm.Platform.getPlatform("Reference")
    context = openmm.Context(openmm_system, openmm.VerletIntegrator(0.001), platform)
    energies, forces = [], []
    for configuration in positions.numpy():
        context.setPositions(configuration)
        state = context.getState(getEnergy=True, getForces=True)
        energies.append(state.getPotentialEnergy().value_in_unit(unit.kilojoule_per_mole))
        forces.append(state.getForces(asNumpy=True).value_in_unit(unit.kilojoule_per_mole / unit.nanometer))
    kt = thermal_energy_kj_per_mol(TEMPERATURE_KELVIN)
    return np.array(energies) / kt, np.array(forces) / kt


@pytest.mark.usefixtures("eager_mode")
def test_every_state_is_compiled_and_agrees_with_openmm(system, positions):
    for state in system.states:
        openmm_system = system.openmm_system(state)
        assert openmm_system.getNumConstraints() == 0
        energy, force = system.target(state, TEMPERATURE_KELVIN).energy_and_force(positions)
        expected, expected_force = by_openmm(openmm_system, positions)
        np.testing.assert_allclose(energy, expected, rtol=1e-6, atol=1e-9)
        np.testing.assert_allclose(force, expected_force, rtol=1e-5, atol=1e-5 * np.abs(expected_force).max())


def test_it_is_loaded_by_its_own_name_with_states_that_differ(system):
    assert system.name in systems.names()
    assert {"vacuum", "implicit"} <= set(system.states)
    for one, other in itertools.combinations(system.states, 2):
        assert system.system_hash(one) != system.system_hash(other)
    others = [systems.load(name) for name in systems.names() if name != system.name]
    assert system.system_hash("implicit") not in [other.system_hash("implicit") for other in others]


def test_its_first_configuration_is_a_molecule(system):
    first, second = np.array(system.bonds).T
    lengths = (system.positions[first] - system.positions[second]).norm(dim=-1)
    assert 0.09 < lengths.min() < lengths.max() < 0.22
    assert set(first) | set(second) == set(range(system.n_atoms))


def test_its_torsions_follow_bonds_and_its_basins_share_them_out(system):
    bonds = set(system.bonds)
    for quadruple in system.torsions.values():
        assert all((min(pair), max(pair)) in bonds for pair in itertools.pairwise(quadruple))
    for basin in system.basins.values():
        angles = np.linspace(-np.pi, np.pi, 1001)
        assert 0 < population(angles, basin.low, basin.high).value < 1
        atoms = np.array([system.torsions[basin.torsion]])
        angle = torsion_angles(system.positions.numpy()[None], atoms)[0]
        assert in_basin(angle, basin.low, basin.high) != in_basin(angle, basin.high, basin.low)


def test_its_legs_form_a_cycle(system):
    """``vacuum`` to ``implicit`` in one leg, and by way of ``nonpolar``."""
    ends = {name: (leg.state_a, leg.state_b) for name, leg in system.legs.items()}
    assert ends["total"] == (ends["nonpolar"][0], ends["polar"][1])
    assert ends["nonpolar"][1] == ends["polar"][0]


def test_its_conformers_are_compared_by_name(system):
    frames = np.random.default_rng(0).normal(size=(400, system.n_atoms, 3))
    log_w, labels = np.linspace(-1, 1, 400), np.arange(400) % 20
    for name, basin in system.basins.items():
        found = basin_free_energy(system, name, frames, labels, log_w)
        angle = torsion_angles(frames, np.array([system.torsions[basin.torsion]]))[:, 0]
        assert found == conformer_free_energy(angle, basin.low, basin.high, groups=labels, log_w=log_w)
    with pytest.raises(InputError, match=f"has no basin 'helix': choose one of {', '.join(system.basins)}"):
        basin_free_energy(system, "helix", frames)
