"""The batched force field against OpenMM's Reference platform, and what it refuses."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import numpy as np
import openmm
import pytest
import torch
from openmm import app, unit
from openmmtools import testsystems

from boltzgen_diffclf.compilation import can_fuse
from boltzgen_diffclf.errors import UnsupportedSystemError
from boltzgen_diffclf.units import thermal_energy_kj_per_mol
from systems.forcefield import compile_system
from systems.forcefield.expressions import Expression, ExpressionError
from systems.forcefield.target import with_own_code

GB_MODELS = ("hct", "obc1", "obc2", "gbn", "gbn2")


@pytest.fixture
def eager(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("BOLTZGEN_EAGER", "1")
    can_fuse.cache_clear()
    yield
    can_fuse.cache_clear()


@pytest.fixture(scope="module")
def peptide() -> testsystems.TestSystem:
    return testsystems.AlanineDipeptideVacuum(constraints=None)


@pytest.fixture(scope="module")
def positions(peptide: testsystems.TestSystem) -> torch.Tensor:
    """From the minimum to 0.06 nm of noise on every coordinate, then single pairs driven into one another."""
    ground = peptide.positions.value_in_unit(unit.nanometer)
    generator = np.random.default_rng(0)
    noisy = [ground + width * generator.normal(size=ground.shape) for width in np.linspace(0.0, 0.06, 20)]
    for distance in (0.05, 0.01, 1e-3, 1e-5):
        clash = ground.copy()
        clash[21] = clash[0] + distance * np.array([0.6, 0.0, 0.8])
        noisy.append(clash)
    return torch.tensor(np.array(noisy))


def reference(
    system: openmm.System, positions: torch.Tensor, temperature_kelvin: float = 300.0
) -> tuple[np.ndarray, ...]:
    platform = openmm.Platform.getPlatform("Reference")
    context = openmm.Context(system, openmm.VerletIntegrator(0.001), platform)
    energies, forces = [], []
    for configuration in positions.double().numpy():
        context.setPositions(configuration)
        state = context.getState(getEnergy=True, getForces=True)
        energies.append(state.getPotentialEnergy().value_in_unit(unit.kilojoule_per_mole))
        forces.append(state.getForces(asNumpy=True).value_in_unit(unit.kilojoule_per_mole / unit.nanometer))
    kt = thermal_energy_kj_per_mol(temperature_kelvin)
    return np.array(energies) / kt, np.array(forces) / kt


def assert_agrees(system: openmm.System, positions: torch.Tensor, dtype: torch.dtype = torch.float64) -> None:
    energy, force = compile_system(system, dtype=dtype).energy_and_force(positions.to(dtype))
    assert energy.dtype == force.dtype == dtype
    expected_energy, expected_force = reference(system, positions.to(dtype))
    relative, absolute, force_relative = (1e-6, 1e-9, 1e-5) if dtype == torch.float64 else (1e-5, 2e-3, 1e-4)
    np.testing.assert_allclose(energy.double(), expected_energy, rtol=relative, atol=absolute)
    error = np.linalg.norm(force.double().numpy() - expected_force, axis=(1, 2))
    assert np.all(error <= force_relative * np.linalg.norm(expected_force, axis=(1, 2)))


def built(peptide: testsystems.TestSystem, *files: str, **options: object) -> openmm.System:
    return app.ForceField(*files).createSystem(peptide.topology, **options)


@pytest.mark.usefixtures("eager")
class TestAgreement:
    @pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
    @pytest.mark.parametrize("state", ["Vacuum", "Implicit"])
    def test_alanine_dipeptide_of_openmmtools(self, state, dtype, positions):
        system = getattr(testsystems, f"AlanineDipeptide{state}")(constraints=None).system
        sane = positions[:20] if dtype == torch.float32 else positions
        assert_agrees(system, sane, dtype)

    @pytest.mark.parametrize("model", GB_MODELS)
    def test_born_models_with_surface_term(self, model, peptide, positions):
        assert_agrees(built(peptide, "amber14-all.xml", f"implicit/{model}.xml"), positions)

    @pytest.mark.parametrize("model", GB_MODELS)
    def test_born_models_with_salt_and_no_surface_term(self, model, peptide, positions):
        options = {"implicitSolventKappa": 1.3, "sasaMethod": None, "soluteDielectric": 2.0}
        assert_agrees(built(peptide, "amber14-all.xml", f"implicit/{model}.xml", **options), positions)

    def test_built_in_obc_force(self, peptide, positions):
        system = built(peptide, "amber96.xml", "amber96_obc.xml")
        assert "GBSAOBCForce" in [type(force).__name__ for force in system.getForces()]
        assert_agrees(system, positions)

    def test_correction_maps_of_ff19sb(self, peptide, positions):
        system = built(peptide, "amber19-all.xml")
        assert "CMAPTorsionForce" in [type(force).__name__ for force in system.getForces()]
        assert_agrees(system, positions)

    def test_correction_maps_of_several_sizes(self, positions):
        generator = np.random.default_rng(1)
        system, force = atoms_only(22), openmm.CMAPTorsionForce()
        for size in (5, 24, 5):
            force.addMap(size, generator.normal(size=size * size))
        for term in range(12):
            atoms = generator.choice(22, size=8, replace=False)
            force.addTorsion(term % 3, *map(int, atoms))
        system.addForce(force)
        assert_agrees(system, positions[:20])

    def test_torsions_with_any_phase_and_polynomial_torsions(self, positions):
        generator = np.random.default_rng(2)
        system = atoms_only(22)
        periodic, polynomial = openmm.PeriodicTorsionForce(), openmm.RBTorsionForce()
        for order in range(1, 7):
            atoms = [int(atom) for atom in generator.choice(22, size=4, replace=False)]
            periodic.addTorsion(*atoms, order, generator.uniform(-3, 3), generator.normal())
            periodic.addTorsion(*atoms[::-1], order + 1, generator.uniform(-3, 3), generator.normal())
            polynomial.addTorsion(*atoms, *generator.normal(size=6))
        system.addForce(periodic)
        system.addForce(polynomial)
        assert_agrees(system, positions[:20])

    def test_two_bonds_on_one_pair_add_up(self, positions):
        system, force = atoms_only(22), openmm.HarmonicBondForce()
        force.addBond(3, 7, 0.2, 100.0)
        force.addBond(7, 3, 0.4, 300.0)
        system.addForce(force)
        assert_agrees(system, positions)

    def test_an_atom_swallowed_by_another(self):
        """GBSAOBCForce treats it unlike the CustomGBForce models."""
        positions = torch.tensor([[[0.0, 0, 0], [distance, 0, 0]] for distance in (0.01, 0.1, 0.25, 0.5)]).double()
        system, force = atoms_only(2), openmm.GBSAOBCForce()
        force.addParticle(0.5, 0.1, 0.8)
        force.addParticle(-0.3, 0.3, 0.9)
        system.addForce(force)
        assert_agrees(system, positions)

    def test_surface_term_without_charges(self, positions):
        system = testsystems.AlanineDipeptideImplicit(constraints=None).system
        (solvent,) = [force for force in system.getForces() if isinstance(force, openmm.CustomGBForce)]
        for atom in range(22):
            _, *others = solvent.getParticleParameters(atom)
            solvent.setParticleParameters(atom, [0.0, *others])
        assert_agrees(system, positions)

    def test_temperature_divides_energies(self, peptide, positions):
        at_300 = compile_system(peptide.system).energy(positions)
        at_600 = compile_system(peptide.system, temperature_kelvin=600.0).energy(positions)
        torch.testing.assert_close(at_300, 2 * at_600)


def atoms_only(n_atoms: int) -> openmm.System:
    system = openmm.System()
    for _ in range(n_atoms):
        system.addParticle(12.0)
    return system


@pytest.mark.usefixtures("eager")
class TestTarget:
    def test_shape_and_dimension(self, peptide):
        target = compile_system(peptide.system)
        assert target.event_shape == (22, 3)
        assert target.dimension == 63

    def test_energy_is_differentiable_and_its_gradient_is_minus_the_force(self, positions):
        target = compile_system(testsystems.AlanineDipeptideImplicit(constraints=None).system)
        x = positions[:5].requires_grad_(True)
        weights = torch.arange(1.0, 6.0, dtype=torch.float64)
        (gradient,) = torch.autograd.grad((weights * target.energy(x)).sum(), x)
        _, force = target.energy_and_force(x)
        torch.testing.assert_close(gradient, -weights[:, None, None] * force)

    def test_force_is_minus_the_derivative_of_the_eager_energy(self, peptide, positions):
        """An independent derivative of everything: automatic differentiation against the analytic force."""
        target = compile_system(built(peptide, "amber19-all.xml", "implicit/gbn2.xml", implicitSolventKappa=0.8))
        x = positions[:20].clone().requires_grad_(True)
        energy = target.energy_eager(x)
        (gradient,) = torch.autograd.grad(energy.sum(), x)
        expected, force = target.energy_and_force(x)
        torch.testing.assert_close(energy, expected, rtol=1e-12, atol=1e-9)
        torch.testing.assert_close(-gradient, force, rtol=1e-8, atol=1e-6)

    def test_eager_energy_has_second_derivatives(self, positions):
        target = compile_system(testsystems.AlanineDipeptideImplicit(constraints=None).system)
        x = positions[3:4].clone().requires_grad_(True)
        (gradient,) = torch.autograd.grad(target.energy_eager(x).sum(), x, create_graph=True)
        direction = torch.randn(gradient.shape, generator=torch.Generator().manual_seed(0), dtype=x.dtype)
        (curvature,) = torch.autograd.grad((gradient * direction).sum(), x)
        step = 1e-6
        _, ahead = target.energy_and_force(x + step * direction)
        _, behind = target.energy_and_force(x - step * direction)
        torch.testing.assert_close(curvature, (behind - ahead) / (2 * step), rtol=1e-5, atol=1e-2)

    @pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
    def test_atoms_on_one_spot_or_in_a_line_give_large_finite_numbers(self, dtype, peptide, positions):
        target = compile_system(testsystems.AlanineDipeptideImplicit(constraints=None).system, dtype=dtype)
        on_one_spot, in_a_line, all_on_one_spot = positions[:3].to(dtype).clone()
        on_one_spot[21] = on_one_spot[0]
        in_a_line[:] = 0.15 * torch.arange(22, dtype=dtype)[:, None] * torch.tensor([1.0, 0, 0], dtype=dtype)
        all_on_one_spot[:] = 0
        energy, force = target.energy_and_force(torch.stack([on_one_spot, in_a_line, all_on_one_spot]))
        assert torch.isfinite(energy).all()
        assert torch.isfinite(force).all()
        assert (energy > 1e3).all()
        assert energy[0] > 1e15

    def test_not_a_number_stays_not_a_number(self, peptide, positions):
        x = positions[:3].clone()
        x[1, 4, 2] = torch.nan
        energy, _ = compile_system(peptide.system).energy_and_force(x)
        assert torch.isnan(energy).tolist() == [False, True, False]

    def test_any_batch_size_gives_the_same_numbers(self, peptide, positions):
        target = compile_system(peptide.system)
        many = positions[:20].repeat(60, 1, 1)
        energy, force = target.energy_and_force(many)
        for size in (0, 1, 20, 1025):
            part_energy, part_force = target.energy_and_force(many[:size])
            torch.testing.assert_close(part_energy, energy[:size], rtol=1e-13, atol=1e-11)
            torch.testing.assert_close(part_force, force[:size], rtol=1e-12, atol=1e-8)


FUSED_AGAINST_EAGER = """
import os, torch
from openmm import unit
from openmmtools import testsystems
from boltzgen_diffclf.compilation import can_fuse
from systems.forcefield import compile_system

peptide = testsystems.AlanineDipeptideImplicit(constraints=None)
ground = torch.tensor(peptide.positions.value_in_unit(unit.nanometer))
noise = torch.randn(200, 22, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
many = ground + 0.01 * noise
target = compile_system(peptide.system)
energy, force = target.energy_and_force(many)
one_energy, one_force = target.energy_and_force(many[37:38])
target.energy(many[:130].clone().requires_grad_(True)).sum().backward()
graphs = torch._dynamo.utils.counters["stats"]["unique_graphs"]
assert graphs == 1, graphs
# Bitwise: a configuration must not depend on its neighbours in a block.
assert torch.equal(one_energy[0], energy[37])
assert torch.equal(one_force[0], force[37])
os.environ["BOLTZGEN_EAGER"] = "1"
can_fuse.cache_clear()
eager_energy, eager_force = compile_system(peptide.system).energy_and_force(many)
torch.testing.assert_close(energy, eager_energy, rtol=1e-12, atol=1e-10)
torch.testing.assert_close(force, eager_force, rtol=1e-10, atol=1e-7)
"""


class TestFusing:
    def test_fused_agrees_with_eager_and_compiles_once_for_all_batch_sizes(self):
        """In a process of its own: the run-time type checks of pytest would cut the compiled graph to pieces."""
        if not can_fuse("cpu"):
            pytest.skip("no C++ compiler")
        environment = {name: value for name, value in os.environ.items() if name != "BOLTZGEN_EAGER"}
        script = [sys.executable, "-c", FUSED_AGAINST_EAGER]
        done = subprocess.run(script, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr

    def test_many_force_fields_are_each_compiled(self):
        class Doubling(torch.nn.Module):
            def __init__(self, factor: float) -> None:
                super().__init__()
                self.factor = factor

            def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
                return self.factor * x, x

        torch._dynamo.utils.counters.clear()
        for factor in range(12):
            doubled, _ = torch.compile(with_own_code(Doubling(factor)), backend="eager")(torch.ones(2))
            assert doubled.tolist() == [factor, factor]
        assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 12


class TestRefusals:
    def refusal(self, system: openmm.System) -> str:
        with pytest.raises(UnsupportedSystemError) as caught:
            compile_system(system)
        message = str(caught.value)
        assert "\n" not in message
        assert "OpenMMWorkerTarget" in message
        return message

    def test_constraints(self, peptide):
        assert "12 constraints" in self.refusal(built(peptide, "amber14-all.xml", constraints=app.HBonds))

    @pytest.mark.parametrize("method", [app.CutoffNonPeriodic, app.PME])
    def test_cutoffs_and_ewald_sums(self, method, peptide):
        peptide.topology.setUnitCellDimensions(openmm.Vec3(3, 3, 3))
        message = self.refusal(built(peptide, "amber14-all.xml", nonbondedMethod=method))
        peptide.topology.setPeriodicBoxVectors(None)
        assert "NonbondedForce" in message
        assert str(method) in message

    def test_cutoff_of_a_born_model(self, peptide):
        system = built(peptide, "amber14-all.xml", "implicit/obc2.xml")
        for force in system.getForces():
            if isinstance(force, openmm.CustomGBForce):
                force.setNonbondedMethod(openmm.CustomGBForce.CutoffNonPeriodic)
        assert "(CustomGBForce) has a cutoff" in self.refusal(system)

    @pytest.mark.parametrize(
        ("force", "named"),
        [
            (openmm.MonteCarloBarostat(1.0, 300.0), "force 0 (MonteCarloBarostat)"),
            (openmm.CustomExternalForce("x^2"), "force 0 (CustomExternalForce)"),
            (openmm.CustomAngleForce("theta"), "force 0 (CustomAngleForce)"),
        ],
    )
    def test_unknown_forces(self, force, named):
        system = atoms_only(2)
        system.addForce(force)
        assert named in self.refusal(system)

    def test_virtual_sites_and_particles_without_mass(self):
        system = atoms_only(3)
        system.setParticleMass(2, 0.0)
        assert "particle 2 has no mass" in self.refusal(system)
        system.setVirtualSite(2, openmm.TwoParticleAverageSite(0, 1, 0.5, 0.5))
        assert "particle 2 is a virtual site" in self.refusal(system)

    def test_direct_space_left_out(self, peptide):
        system = built(peptide, "amber14-all.xml")
        (nonbonded,) = [force for force in system.getForces() if isinstance(force, openmm.NonbondedForce)]
        nonbonded.setIncludeDirectSpace(False)
        assert "leaves out the direct space" in self.refusal(system)

    def test_parameter_offsets(self, peptide):
        system = built(peptide, "amber14-all.xml")
        (nonbonded,) = [force for force in system.getForces() if isinstance(force, openmm.NonbondedForce)]
        nonbonded.addGlobalParameter("scale", 0.5)
        nonbonded.addParticleParameterOffset("scale", 0, 0.1, 0.0, 0.0)
        assert "parameter offsets" in self.refusal(system)

    def test_periodic_bonded_forces(self, peptide):
        system = built(peptide, "amber14-all.xml")
        system.getForce(0).setUsesPeriodicBoundaryConditions(True)
        assert "periodic boundary conditions" in self.refusal(system)

    def test_one_particle(self):
        with pytest.raises(UnsupportedSystemError, match="1 particles"):
            compile_system(atoms_only(1))

    @pytest.mark.parametrize(
        ("which", "old", "new"),
        [
            ("computed", "0.25*", "0.26*"),
            ("computed", "4.85", "4.86"),
            ("energy", "^6", "^5"),
            ("energy", "/(4*B1*B2)", "/(3*B1*B2)"),
        ],
    )
    def test_changed_expressions_are_named(self, which, old, new, peptide):
        system = built(peptide, "amber14-all.xml", "implicit/obc2.xml")
        force = edited(system, which, old, new)
        assert f"({type(force).__name__}) has the" in (message := self.refusal(system))
        assert new in message

    def test_an_extra_energy_term(self, peptide):
        system = built(peptide, "amber14-all.xml", "implicit/obc2.xml")
        force = edited(system, "energy", "^6", "^6")
        force.addEnergyTerm("0.01*B1*B2*r", openmm.CustomGBForce.ParticlePair)
        assert "the energy of pairs" in self.refusal(system)


def edited(system: openmm.System, which: str, old: str, new: str) -> openmm.CustomGBForce:
    """Return the CustomGBForce of a system after a replacement in its expressions."""
    (force,) = [force for force in system.getForces() if isinstance(force, openmm.CustomGBForce)]
    if which == "computed":
        for index in range(force.getNumComputedValues()):
            name, text, kind = force.getComputedValueParameters(index)
            force.setComputedValueParameters(index, name, text.replace(old, new), kind)
    else:
        for index in range(force.getNumEnergyTerms()):
            text, kind = force.getEnergyTermParameters(index)
            force.setEnergyTermParameters(index, text.replace(old, new), kind)
    return force


@pytest.mark.usefixtures("eager")
class TestRecognition:
    def test_other_spelling_of_a_known_model(self, peptide, positions):
        system = built(peptide, "amber14-all.xml", "implicit/obc2.xml")
        force = edited(system, "computed", "D=abs(r-sr2)", "D = max(r - sr2, sr2 - r)")
        text, kind = force.getEnergyTermParameters(0)
        force.setEnergyTermParameters(0, "0.25*(" + text.replace(";", ");", 1), kind)
        force.addEnergyTerm("0.75*(" + text.replace(";", ");", 1), kind)
        assert_agrees(system, positions)

    def test_dielectric_constants_as_global_parameters(self, peptide, positions):
        system = built(peptide, "amber14-all.xml", "implicit/obc1.xml", soluteDielectric=1.7)
        expected, _ = reference(system, positions)
        force = edited(system, "energy", "soluteDielectric=1.7;", "")
        force.addGlobalParameter("soluteDielectric", 1.7)
        np.testing.assert_allclose(compile_system(system).energy(positions), expected, rtol=1e-9)


class TestExpression:
    def test_arithmetic_with_definitions(self):
        expression = Expression("select(step(r-1), -a^2, or/2e0); a=r*2; or=3")
        np.testing.assert_array_equal(expression.evaluate({"r": np.array([0.5, 2.0])}), [1.5, -16.0])

    @pytest.mark.parametrize(
        "text",
        [
            "k*dt^2; dt=min(dt, 6.283185307179586-dt); dt=abs(theta-theta0)",
            "k*theta^2; theta=theta-theta0",
            "k*a; a=b+1; b=theta",
            "k*theta; spare=unknown*2",
        ],
    )
    def test_definitions_are_read_as_openmm_reads_them(self, text):
        system, angle = atoms_only(4), 3.0
        force = openmm.CustomTorsionForce(text)
        force.addPerTorsionParameter("k")
        force.addPerTorsionParameter("theta0")
        force.addTorsion(0, 1, 2, 3, [2.0, -3.0])
        system.addForce(force)
        context = openmm.Context(system, openmm.VerletIntegrator(1e-3), openmm.Platform.getPlatformByName("Reference"))
        context.setPositions(np.array([[1, 0, 0], [0, 0, 0], [0, 0, 1], [np.cos(angle), np.sin(angle), 1]]))
        expected = context.getState(getEnergy=True).getPotentialEnergy().value_in_unit(unit.kilojoule_per_mole)
        found = Expression(text).evaluate({"theta": angle, "theta0": -3.0, "k": 2.0})
        assert float(found) == pytest.approx(expected)

    @pytest.mark.parametrize("text", ["1+", "a", "sin(1)", "a; b", "x = 1", "().__class__", "1 if 2 else 3"])
    def test_what_is_not_understood_is_an_error(self, text):
        with pytest.raises(ExpressionError):
            Expression(text).evaluate({})


def test_a_block_on_a_gpu_is_as_wide_as_the_batch() -> None:
    target = compile_system(testsystems.AlanineDipeptideImplicit(constraints=None).system)
    target.device, target.is_fused, target._block_shape = torch.device("cuda"), True, (1, 4096)
    for batch, shape in ((1, (1, 64)), (65, (1, 128)), (5000, (2, 4096))):
        blocks = target._blocks(torch.randn(batch, 22, 3))
        assert (blocks.shape[0], blocks.shape[-1]) == shape
