"""CHARMM36: what its forces are, compiled, beside OpenMM; its caps, ends and protonations."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import openmm
import pytest
import torch
from openmm import app, unit

from boltzgen_diffclf.errors import InputError, UnsupportedSystemError
from systems.charmm import CHARMM36, with_types_in_order
from systems.fingerprints import hash_system
from systems.force_field_pair import force_field_pair
from systems.force_fields import SOLVENTS, force_field, parametrised_states
from systems.forcefield import compile_system
from systems.loading import SystemSource
from systems.molecular import MolecularSystem
from systems.peptide import peptide
from systems.sequence import ONE_LETTER
from tests.test_forcefield import assert_agrees, atoms_only, reference
from tests.test_loading import charge_of, write_pdb

pytestmark = pytest.mark.usefixtures("eager_mode")

EVERY_RESIDUE = "ACE-" + "-".join(ONE_LETTER.values()) + "-HID-HIE-HIP-ASH-GLH-LYN-NME"


def shaken(molecule: MolecularSystem, widths: np.ndarray) -> torch.Tensor:
    """Its configuration with noise of several widths [nm]."""
    generator = np.random.default_rng(0)
    ground = molecule.positions.numpy()
    return torch.tensor(np.array([ground + width * generator.normal(size=ground.shape) for width in widths]))


@pytest.mark.parametrize(
    ("solvent", "dtype"), [*((solvent, torch.float64) for solvent in SOLVENTS), ("obc2", torch.float32)]
)
def test_energies_and_forces_are_those_of_openmm(solvent, dtype):
    molecule = peptide("ACE-ALA-ALA-NME", "charmm36", solvent)
    x = shaken(molecule, np.linspace(0.002, 0.06, 8))
    for state in {"vacuum", "implicit"} & set(molecule.states):
        assert_agrees(molecule.openmm_system(state), x, dtype)


def test_every_residue_has_the_energy_of_openmm_and_its_charge():
    molecule = peptide(EVERY_RESIDUE, "charmm36", "vacuum")
    assert charge_of(molecule) == pytest.approx(1.0, abs=1e-6)  # of HIP
    assert_agrees(molecule.openmm_system("vacuum"), shaken(molecule, np.linspace(0.0, 0.05, 4)))


def test_the_forces_are_all_there():
    system = peptide("ACE-ALA-ALA-NME", "charmm36").openmm_system("vacuum")
    forces = {type(force).__name__ for force in system.getForces()}
    assert forces >= {"CMAPTorsionForce", "CustomNonbondedForce", "CustomBondForce", "CustomTorsionForce"}


@pytest.mark.parametrize(
    ("sequence", "charge"),
    [
        ("ACE-ALA-NME", 0), ("ACE-GLY-NME", 0), ("ACE-PRO-NME", 0), ("ALA-HIE", 0), ("HIP-PRO", 1), ("GLY-ASP", -1),
        ("PRO-LYS", 1), ("GLH-ASH", 0), ("LYN-CYS", 0), ("ACE-GLU", -2), ("ALA-NME", 1),
    ],
)  # fmt: skip
def test_ends_and_protonations_are_told_by_their_bonds(sequence, charge):
    molecule = peptide(sequence, "charmm36", "vacuum")
    assert charge_of(molecule) == pytest.approx(charge, abs=1e-6)


def test_caps_of_their_own_and_charged_ends_are_those_of_openmm_s_file():
    """There a cap is patched to the amino acid: one residue."""
    whole = app.ForceField(CHARMM36)
    for sequence in ("ACE-SER-GLY-NME", "LYS-HID-GLY"):
        molecule = peptide(sequence, "charmm36", "vacuum")
        system = whole.createSystem(with_patched_caps(molecule.topology), constraints=None)
        x = shaken(molecule, np.linspace(0.0, 0.05, 3))
        own, theirs = reference(molecule.openmm_system("vacuum"), x), reference(system, x)
        np.testing.assert_allclose(own[0], theirs[0], rtol=1e-12)
        np.testing.assert_allclose(own[1], theirs[1], rtol=1e-9, atol=1e-9)


def with_patched_caps(topology: app.Topology) -> app.Topology:
    copy, atoms = app.Topology(), {}
    for chain in topology.chains():
        own = copy.addChain(chain.id)
        residues = list(chain.residues())
        for number, residue in enumerate(residues):
            if residue.name == "ACE":
                patched = copy.addResidue(residues[1].name, own)
            elif residue.name != "NME" and not (number == 1 and residues[0].name == "ACE"):
                patched = copy.addResidue(residue.name, own)
            for atom in residue.atoms():
                atoms[atom] = copy.addAtom(f"{residue.name}{atom.name}", atom.element, patched)
    for first, second in topology.bonds():
        copy.addBond(atoms[first], atoms[second])
    return copy


@pytest.mark.parametrize(
    ("sequence", "group", "k"),
    [
        ("GLY-ALA", "C CA O OXT", 401.664),
        ("GLY-PRO", "C CA O OXT", 401.664),
        ("ACE-ASP-NME", "CG CB OD1 OD2", 401.664),
        ("ACE-ASH-NME", "CG CB OD1 OD2", 418.4),
        ("ACE-GLH-NME", "CD CG OE1 OE2", 418.4),
    ],
)
def test_carboxyl_groups_are_held_flat(sequence, group, k):
    molecule = peptide(sequence, "charmm36", "vacuum")
    system = molecule.openmm_system("vacuum")
    (force,) = [force for force in system.getForces() if isinstance(force, openmm.CustomTorsionForce)]
    names = [atom.name if atom.residue.index == 1 else "" for atom in molecule.topology.atoms()]
    torsions = [force.getTorsionParameters(index) for index in range(force.getNumTorsions())]
    held = [list(torsion[4]) for torsion in torsions if {names[atom] for atom in torsion[:4]} == set(group.split())]
    assert held == [[k, 0.0]]


def test_disulfide_bridges_of_a_pdb_file(tmp_path):
    """Two chains side by side; hydrogens come from the force field."""
    molecule = peptide("ACE-CYS-NME", "charmm36", "vacuum")
    names = [(atom.residue.name, atom.name) for atom in molecule.topology.atoms()]
    pair = app.Modeller(molecule.topology, molecule.positions.numpy() * unit.nanometer)
    sulfur = names.index(("CYS", "SG"))
    mirrored = molecule.positions.numpy() * np.array([-1.0, -1.0, 1.0])  # a half turn about z
    away = molecule.positions.numpy()[sulfur] + np.array([0.205, 0.0, 0.0]) - mirrored[sulfur]
    pair.add(molecule.topology, (mirrored + away) * unit.nanometer)
    pair.delete([atom for atom in pair.topology.atoms() if atom.element is app.element.hydrogen])
    path = tmp_path / "bridge.pdb"
    write_pdb(path, pair.topology, pair.positions.value_in_unit(unit.nanometer))
    bridged = SystemSource(pdb=str(path), forcefield="charmm36", solvent="vacuum").load()
    assert bridged.n_atoms == 2 * molecule.n_atoms - 2
    assert charge_of(bridged) == pytest.approx(0.0, abs=1e-6)
    assert_agrees(bridged.openmm_system("vacuum"), shaken(bridged, np.linspace(0.0, 0.05, 3)))


def test_a_pdb_file_with_the_names_of_charmm_is_read(tmp_path):
    molecule = peptide("ACE-HIE-ALA-NME", "charmm36", "obc1")
    path = tmp_path / "mine.pdb"
    write_pdb(path, molecule.topology, molecule.positions.numpy())
    text = path.read_text().replace("HIS", "HSE").replace("  H   HSE", "  HN  HSE").replace("  H   ALA", "  HN  ALA")
    path.write_text(text)
    assert "HSE" in text
    source = SystemSource(pdb=str(path), forcefield="CHARMM36", solvent="obc1")
    assert source.name == "mine-charmm36-obc1"
    read = source.load()
    assert read.elements == molecule.elements
    x = shaken(molecule, np.linspace(0.0, 0.05, 3))
    for state in molecule.states:
        np.testing.assert_allclose(read.target(state).energy(x), molecule.target(state).energy(x), rtol=1e-9)


def test_a_residue_that_it_does_not_know_is_named():
    topology, other = app.Topology(), peptide("ACE-SER-NME").topology
    atoms = {}
    for residue in other.residues():
        kept = topology.addResidue(residue.name, next(topology.chains(), None) or topology.addChain())
        for atom in residue.atoms():
            if (residue.name, atom.name) != ("SER", "HG"):
                atoms[atom] = topology.addAtom(atom.name, atom.element, kept)
    for first, second in other.bonds():
        if first in atoms and second in atoms:
            topology.addBond(atoms[first], atoms[second])
    with pytest.raises(InputError, match="charmm36: No template found for residue SER 2 of chain 1") as refusal:
        parametrised_states(topology, "charmm36", "obc2")
    assert "\n" not in str(refusal.value)


def test_amber_and_charmm_are_two_states_of_one_molecule():
    molecule = peptide("ACE-ALA-NME")
    pair = force_field_pair(molecule, "implicit", "charmm36")
    own = parametrised_states(molecule.topology, "charmm36", "obc2")["implicit"]
    x = shaken(molecule, np.array([0.005, 0.01]))
    np.testing.assert_allclose(pair.target("implicit-charmm36").energy(x), reference(own, x)[0], rtol=1e-6)
    with pytest.raises(InputError, match="has the force field charmm36 already"):
        force_field_pair(peptide("ACE-ALA-NME", "charmm36"), "implicit", "charmm36")


def test_types_in_another_order_leave_the_same_fingerprint():
    """OpenMM numbers them in another order in every process."""
    topology = peptide("ACE-SER-NME", "charmm36").topology
    system = force_field("charmm36").createSystem(topology, nonbondedMethod=app.NoCutoff, constraints=None)
    (force,) = [force for force in system.getForces() if isinstance(force, openmm.CustomNonbondedForce)]
    expected = hash_system(with_types_in_order(system))
    n = force.getTabulatedFunction(0).getFunctionParameters()[0]
    for atom in range(force.getNumParticles()):
        force.setParticleParameters(atom, [n - 1 - force.getParticleParameters(atom)[0]])
    for index in range(force.getNumTabulatedFunctions()):
        table = force.getTabulatedFunction(index)
        table.setFunctionParameters(n, n, table.getFunctionParameters()[2][::-1])
    assert hash_system(system) != expected
    assert hash_system(with_types_in_order(system)) == expected


def test_force_is_minus_the_derivative_of_the_eager_energy():
    molecule = peptide("ACE-ALA-ALA-NME", "charmm36")
    target = compile_system(molecule.openmm_system("implicit"))
    x = shaken(molecule, np.linspace(0.0, 0.06, 6)).requires_grad_(True)
    (gradient,) = torch.autograd.grad(target.energy_eager(x).sum(), x)
    torch.testing.assert_close(-gradient, target.energy_and_force(x)[1], rtol=1e-8, atol=1e-6)


class TestCustomForces:
    """Other spellings of the same terms, as CharmmPsfFile and charmm36_2024.xml have them, and what is no such term."""

    @pytest.fixture
    def positions(self) -> torch.Tensor:
        generator = np.random.default_rng(3)
        return torch.tensor(0.25 * generator.normal(size=(16, 9, 3)))

    def nonbonded(self, energy: str, globals_: Mapping[str, float] | None = None) -> openmm.CustomNonbondedForce:
        force = openmm.CustomNonbondedForce(energy)
        generator = np.random.default_rng(4)
        for name in ("acoef", "bcoef"):  # of pairs of types, each with values of its own: NBFIX
            table = generator.uniform(1e-3, 1.0, size=(3, 3))
            force.addTabulatedFunction(name, openmm.Discrete2DFunction(3, 3, (table + table.T).ravel()))
        force.addPerParticleParameter("type")
        for name, value in (globals_ or {}).items():
            force.addGlobalParameter(name, value)
        for atom in range(9):
            force.addParticle([atom % 3])
        for pair in ((0, 1), (5, 4), (2, 8)):
            force.addExclusion(*pair)
        return force

    def system(self, *forces: openmm.Force) -> openmm.System:
        system = atoms_only(9)
        for force in forces:
            system.addForce(force)
        return system

    def refusal(self, force: openmm.Force) -> str:
        with pytest.raises(UnsupportedSystemError) as caught:
            compile_system(self.system(force))
        assert "\n" not in str(caught.value)
        return str(caught.value)

    @pytest.mark.parametrize(
        "energy",
        [
            "acoef(type1, type2)/r^12 - bcoef(type1, type2)/r^6;",
            "(a/r6)^2-b/r6; r6=r^6; a=acoef(type1, type2); b=bcoef(type1, type2)",
            "scale*4*epsilon*((sigma/r)^12-(sigma/r)^6); epsilon=bcoef(type1, type2); sigma=0.3*acoef(type1, type2)",
        ],
    )
    def test_lennard_jones_in_any_spelling(self, energy, positions):
        assert_agrees(self.system(self.nonbonded(energy, {"scale": 0.7})), positions)

    def test_lennard_jones_of_single_pairs_adds_up(self, positions):
        force = openmm.CustomBondForce("4*epsilon*((sigma/r)^12-(sigma/r)^6)")
        force.addPerBondParameter("sigma")
        force.addPerBondParameter("epsilon")
        for pair in ((1, 0), (0, 1), (3, 7)):
            force.addBond(*pair, [0.2 + 0.01 * pair[1], 0.4])
        assert_agrees(self.system(force, self.nonbonded("acoef(type1,type2)/r^12-bcoef(type1,type2)/r^6")), positions)

    @pytest.mark.parametrize(
        "energy",
        [
            "k*(theta-theta0)^2",
            f"k*min(dtheta, 2*pi-dtheta)^2; dtheta = abs(theta-theta0); pi = {np.pi}",
            "k*min(dtheta, 2*pi-dtheta)^2; dtheta = abs(theta-theta0); pi = 3.141593",
        ],
    )
    def test_harmonic_torsions_round_the_circle_or_not(self, energy, positions):
        force = openmm.CustomTorsionForce(energy)
        force.addPerTorsionParameter("k")
        force.addPerTorsionParameter("theta0")
        for atoms, k, theta0 in (
            ((0, 1, 2, 3), 80.0, 0.0),
            ((4, 5, 6, 7), 30.0, np.pi),
            ((8, 3, 1, 6), 0.0, 1.0),
            ((2, 0, 8, 4), 9.0, -2.5),
        ):
            force.addTorsion(*atoms, [k, theta0])
        assert_agrees(self.system(force), positions)

    def test_what_is_no_lennard_jones_term_is_refused(self):
        coulomb = self.nonbonded("acoef(type1, type2)/r^12 - bcoef(type1, type2)/r^6 + 1/r")
        assert "(CustomNonbondedForce) has the energy 'acoef" in self.refusal(coulomb)
        one_sided = self.nonbonded("acoef(type1, type2)/r^12*(1 + type1)")
        assert "only lj12 / r^12" in self.refusal(one_sided)
        assert "unknown function 'erf'" in self.refusal(self.nonbonded("acoef(type1, type2)*erf(r)"))
        cut = self.nonbonded("acoef(type1, type2)/r^12")
        cut.setNonbondedMethod(openmm.CustomNonbondedForce.CutoffNonPeriodic)
        assert "has a cutoff" in self.refusal(cut)
        grouped = self.nonbonded("acoef(type1, type2)/r^12")
        grouped.addInteractionGroup([0], [1])
        assert "interaction groups" in self.refusal(grouped)
        bond = openmm.CustomBondForce("r^2")
        bond.addBond(0, 1, [])
        assert "(CustomBondForce) has the energy 'r^2'" in self.refusal(bond)

    def test_what_is_no_harmonic_torsion_is_refused(self):
        for energy, words in (
            ("k*(theta-theta0)^4", "only k (theta - theta0)^2 is computed"),
            ("-k*(theta-theta0)^2", "only k (theta - theta0)^2 is computed"),
            ("k*sinh(theta-theta0)", "unknown function 'sinh'"),
            ("k*(theta-other)^2", "no parameter 'theta0'"),
        ):
            force = openmm.CustomTorsionForce(energy)
            force.addPerTorsionParameter("k")
            force.addPerTorsionParameter("other" if "other" in energy else "theta0")
            force.addTorsion(0, 1, 2, 3, [2.0, 0.1])
            assert words in self.refusal(force)
