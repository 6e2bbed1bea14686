"""Systems by name, their states and legs, and what is refused."""

import numpy as np
import openmm
import pytest
import torch
from openmm import app, unit

import systems
from boltzgen_diffclf.errors import InputError, UnsupportedSystemError
from systems.fingerprints import hash_system
from systems.legs import Basin, Leg
from systems.molecular import MolecularSystem, require_temperature
from systems.solvation_states import without_polarisation


@pytest.fixture(scope="module")
def aldp():
    return systems.load("aldp")


def reference_energy(openmm_system, positions):
    context = openmm.Context(
        openmm_system, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatformByName("Reference")
    )
    context.setPositions(positions.numpy())
    return context.getState(getEnergy=True).getPotentialEnergy().value_in_unit(unit.kilojoule_per_mole)


def perturbed(system, seed=0, scale=0.005):
    generator = torch.Generator().manual_seed(seed)
    return system.positions + scale * torch.randn(system.positions.shape, generator=generator, dtype=torch.float64)


def born_parameters(openmm_system):
    """Offset and scaled radii [nm] of the atoms, and the three constants of the Born radii."""
    for force in openmm_system.getForces():
        if isinstance(force, openmm.CustomGBForce):
            parameters = np.array([force.getParticleParameters(i) for i in range(force.getNumParticles())])
            return parameters[:, 1], parameters[:, 2], (0.0, 0.8, 2.909125)
        if isinstance(force, openmm.GBSAOBCForce):
            parameters = [force.getParticleParameters(i) for i in range(force.getNumParticles())]
            offset_radius = np.array([radius.value_in_unit(unit.nanometer) - 0.009 for _, radius, _ in parameters])
            return offset_radius, offset_radius * [scale for _, _, scale in parameters], (-0.8, 1.0, 4.85)
    raise AssertionError("no Born model")


def surface_energy(openmm_system, positions):
    """The ACE term alone, from the definition and the Born radii that OBC1 or OBC2 give."""
    offset_radius, scaled, (square, linear, cube) = born_parameters(openmm_system)
    r = torch.cdist(positions, positions).numpy() + np.diag(np.full(len(positions), np.nan))
    rho = offset_radius[:, None]
    lower, upper = np.maximum(rho, np.abs(r - scaled)), r + scaled
    integral = 0.5 * (
        1 / lower
        - 1 / upper
        + 0.25 * (r - scaled**2 / r) * (1 / upper**2 - 1 / lower**2)
        + 0.5 * np.log(lower / upper) / r
    )
    psi = np.nansum(np.where(r + scaled > rho, integral, 0.0), axis=1) * offset_radius
    radius = offset_radius + 0.009
    born = 1 / (1 / offset_radius - np.tanh(linear * psi + square * psi**2 + cube * psi**3) / radius)
    return float(np.sum(28.3919551 * (radius + 0.14) ** 2 * (radius / born) ** 6))


def test_aldp_is_the_molecule_of_openmmtools(aldp):
    from openmmtools import testsystems

    assert aldp.states == ("vacuum", "nonpolar", "implicit")
    assert aldp.n_atoms == aldp.topology.getNumAtoms() == 22
    assert len(aldp.bonds) == 21
    assert aldp.elements.count("H") == 12
    implicit = testsystems.AlanineDipeptideImplicit(constraints=None)
    vacuum = testsystems.AlanineDipeptideVacuum(constraints=None)
    assert aldp.system_hash("implicit") == hash_system(implicit.system)
    assert aldp.system_hash("vacuum") == hash_system(vacuum.system)
    np.testing.assert_allclose(aldp.positions, implicit.positions.value_in_unit(unit.nanometer), atol=1e-12)


@pytest.mark.parametrize("name", ["aldp", "aldp-ildn"])
def test_torsions_are_phi_and_psi_of_the_alanine(name):
    dipeptide = systems.load(name)
    names = [f"{atom.residue.name}-{atom.name}" for atom in dipeptide.topology.atoms()]
    assert [names[index] for index in dipeptide.torsions["phi"]] == ["ACE-C", "ALA-N", "ALA-CA", "ALA-C"]
    assert [names[index] for index in dipeptide.torsions["psi"]] == ["ALA-N", "ALA-CA", "ALA-C", "NME-N"]


@pytest.mark.parametrize("name", ["aldp", "aldp-ildn"])
def test_nonpolar_is_vacuum_plus_the_surface_term(name):
    dipeptide = systems.load(name)
    for seed in range(3):
        positions = perturbed(dipeptide, seed)
        energy = {state: reference_energy(dipeptide.openmm_system(state), positions) for state in dipeptide.states}
        surface = surface_energy(dipeptide.openmm_system("implicit"), positions)
        assert energy["nonpolar"] - energy["vacuum"] == pytest.approx(surface, rel=1e-6)
        assert abs(energy["implicit"] - energy["nonpolar"]) > 10.0


def test_the_ildn_dipeptide_has_the_solvent_of_its_publications():
    """OBC2 as OpenMM's own force writes it, each atom with its own charge, and no other torsion than ILDN's."""
    system = systems.load("aldp-ildn").openmm_system("implicit")
    forces = {type(force).__name__: force for force in system.getForces()}
    solvent, nonbonded = forces["GBSAOBCForce"], forces["NonbondedForce"]
    assert (solvent.getSolventDielectric(), solvent.getSoluteDielectric()) == (78.3, 1.0)
    for atom in range(22):
        assert solvent.getParticleParameters(atom)[0] == nonbonded.getParticleParameters(atom)[0]
    assert systems.load("aldp-ildn").elements == systems.load("aldp").elements
    assert systems.load("aldp-ildn").bonds == systems.load("aldp").bonds


def test_polarisation_vanishes_without_charges(aldp):
    implicit = aldp.openmm_system("implicit")
    charged = [force for force in implicit.getForces() if isinstance(force, openmm.CustomGBForce)]
    for index in reversed(range(implicit.getNumForces())):
        if not isinstance(implicit.getForce(index), openmm.CustomGBForce):
            implicit.removeForce(index)
    assert len(charged) == 1
    stripped = without_polarisation(implicit)
    positions = perturbed(aldp)
    assert reference_energy(stripped, positions) == pytest.approx(surface_energy(implicit, positions), rel=1e-6)


def test_targets_agree_with_openmm_and_are_kept(aldp, monkeypatch):
    monkeypatch.setenv("BOLTZGEN_EAGER", "1")
    positions = perturbed(aldp)
    for state in aldp.states:
        target = aldp.target(state, temperature_kelvin=310.0)
        expected = reference_energy(aldp.openmm_system(state), positions) / (0.00831446261815324 * 310.0)
        assert target.energy(positions[None]).item() == pytest.approx(expected, rel=1e-6)
        assert aldp.target(state, temperature_kelvin=310.0) is target
        assert aldp.target(state, temperature_kelvin=320.0) is not target


def test_a_constrained_state_is_evaluated_by_workers_when_asked(aldp):
    rigid = aldp.openmm_system("vacuum")
    rigid.addConstraint(0, 1, 0.109)
    system = MolecularSystem(
        name="rigid", topology=aldp.topology, positions=aldp.positions, openmm_systems={"vacuum": rigid}
    )
    with pytest.raises(UnsupportedSystemError, match="constraint"):
        system.target("vacuum")
    with system.worker_target("vacuum", 310.0, workers=1) as target:
        energy = target.energy(aldp.positions[None]).item()
    expected = reference_energy(rigid, aldp.positions) / (0.00831446261815324 * 310.0)
    assert energy == pytest.approx(expected, rel=1e-5)


def test_legs_are_b_minus_a_and_add_up(aldp):
    ends = {name: (leg.state_a, leg.state_b) for name, leg in aldp.legs.items()}
    assert ends == {
        "total": ("vacuum", "implicit"),
        "nonpolar": ("vacuum", "nonpolar"),
        "polar": ("nonpolar", "implicit"),
    }
    assert aldp.reweighted == {"nonpolar": "vacuum"}
    assert aldp.require_leg("polar").published[0].value == -29.43
    assert aldp.require_basin("phi > 0").published["nonpolar"][0].value == 4.25


def test_hash_changes_with_parameters_and_not_with_bookkeeping(aldp):
    changed = aldp.openmm_system("vacuum")
    changed.addForce(openmm.CMMotionRemover())
    changed.getForce(0).setForceGroup(3)
    changed.getForce(0).setName("bonds")
    assert hash_system(changed) == aldp.system_hash("vacuum")
    bonds = changed.getForce(0)
    first, second, length, constant = bonds.getBondParameters(0)
    bonds.setBondParameters(0, first, second, length * 1.0001, constant)
    assert hash_system(changed) != aldp.system_hash("vacuum")


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda aldp: systems.load("aldq"), ["aldq", "aldp", "did you mean"]),
        (lambda aldp: systems.load("aldp", forcefield="x"), ["no option 'forcefield'"]),
        (
            lambda aldp: aldp.target("implict"),
            ["vacuum, nonpolar, implicit", "did you mean 'implicit'"],
        ),
        (lambda aldp: aldp.target("vacuum", temperature_kelvin=-3.0), ["-3.0 K"]),
        (lambda aldp: require_temperature(float("nan")), ["nan K"]),
        (lambda aldp: aldp.require_leg("polr"), ["did you mean 'polar'"]),
        (lambda aldp: aldp.system_hash("water"), ["no state 'water'"]),
    ],
)
def test_unknown_names_and_temperatures_are_refused_in_one_line(aldp, call, words):
    with pytest.raises(InputError) as caught:
        call(aldp)
    assert "\n" not in str(caught.value)
    assert all(word in str(caught.value) for word in words)


def test_pieces_that_do_not_fit_are_refused(aldp):
    pieces = {
        "name": "broken",
        "topology": aldp.topology,
        "positions": aldp.positions,
        "openmm_systems": aldp.openmm_systems,
    }
    other = app.Topology()
    with pytest.raises(InputError, match="topology of 0 atoms"):
        MolecularSystem(**{**pieces, "topology": other})
    with pytest.raises(InputError, match="positions have 21 atoms"):
        MolecularSystem(**{**pieces, "positions": aldp.positions[1:]})
    with pytest.raises(InputError, match="torsion 'chi' names atom 22"):
        MolecularSystem(**pieces, torsions={"chi": (0, 1, 2, 22)})
    with pytest.raises(InputError, match="basin 'left' names torsion 'phi'"):
        MolecularSystem(**pieces, basins={"left": Basin("phi", 0.0, 1.0)})
    with pytest.raises(InputError, match="no state 'water'"):
        MolecularSystem(**pieces, legs={"total": Leg("total", "vacuum", "water")})
    with pytest.raises(InputError, match="no state 'water'"):
        MolecularSystem(**pieces, reweighted={"vacuum": "water"})
    left = Basin("chi", 0.0, 1.0, {"water": ()})
    with pytest.raises(InputError, match="no state 'water'"):
        MolecularSystem(**pieces, torsions={"chi": (0, 1, 2, 3)}, basins={"left": left})
