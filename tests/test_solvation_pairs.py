"""Two conformers and two force fields as pairs of states: what they are, what is refused, and what their rows say."""

from __future__ import annotations

import json
import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import openmm
import pytest
import torch
from openmm import app, unit

import systems
from boltzgen_diffclf.coordinates import Arc
from boltzgen_diffclf.errors import InputError
from boltzgen_diffclf.estimators import Estimate
from boltzgen_diffclf.observables.basins import in_basin
from boltzgen_diffclf.streams import named_generator
from systems.conformer_pair import conformer_pair
from systems.conformers import basin_free_energy
from systems.convergence import torsions_of
from systems.ensemble import Provenance, ReferenceEnsemble, energies_of
from systems.force_field_pair import force_field_pair, mixed_state, with_mixed_state
from systems.molecular import MolecularSystem
from systems.peptide import peptide
from systems.reference import ReferenceSettings, generate
from systems.store import write_ensemble
from tests.test_solvation import finish
from workflows import solvation_learned
from workflows.run_start import open_run_folder
from workflows.solvation import SolvationConfig
from workflows.solvation_classical import classical
from workflows.solvation_stages import SolvationStages

pytestmark = pytest.mark.usefixtures("eager_mode")

TINY = ReferenceSettings(
    walkers=4,
    temperatures_kelvin=(300.0, 600.0),
    frames_per_walker=8,
    steps_per_frame=10,
    steps_per_sweep=5,
    equilibration_frames=0,
    hot_start_steps=40,
)


def test_conformers_are_two_parts_of_one_state():
    pair = conformer_pair(systems.load("aldp"), "nonpolar")
    assert pair.states == ("nonpolar", "nonpolar-rest", "nonpolar-basin")
    leg = pair.require_leg("conformers")
    assert (leg.state_a, leg.state_b) == ("nonpolar-rest", "nonpolar-basin")
    assert [value.value for value in leg.published] == [4.25, 4.78, 4.56]
    assert len({pair.system_hash(state) for state in pair.states}) == 3
    starts = torch.stack([pair.start("nonpolar-rest"), pair.start("nonpolar-basin")]).double()
    whole, rest, basin = (pair.target(state).energy(starts) for state in pair.states)
    assert rest.tolist() == [whole[0].item(), math.inf]
    assert basin.tolist() == [math.inf, whole[1].item()]
    # Settled: as far downhill as the other conformer, where turning the bond alone would leave a clash.
    assert abs(float(whole[1] - whole[0])) < 30
    assert conformer_pair(systems.load("aldp"), "vacuum").require_leg("conformers").published == ()


def test_the_basin_that_confines_a_state_is_nothing_its_walkers_could_agree_about(tmp_path: Path):
    pair = conformer_pair(systems.load("aldp"), "vacuum")
    whole, part = (generate(pair, state, 300.0, TINY, tmp_path / f"{state}.h5") for state in ("vacuum", "vacuum-rest"))
    watched = set(whole.diagnostics["effective_frames"])
    assert {"phi > 0", "helical", "cos_phi"} < watched
    assert set(part.diagnostics["effective_frames"]) == set(part.diagnostics["split_r_hat"]) == watched - {"phi > 0"}
    assert part.diagnostics["populations"]["phi > 0"]["population"] == 0.0
    narrower = conformer_pair(systems.load("aldp"), "vacuum", "phi:0.2,2.0")
    inside = generate(narrower, "vacuum-basin", 300.0, TINY, tmp_path / "inside.h5").diagnostics["effective_frames"]
    assert set(inside) == watched - {"phi > 0"}
    outside = generate(narrower, "vacuum-rest", 300.0, TINY, tmp_path / "outside.h5").diagnostics["effective_frames"]
    # The rest of a narrower basin has some of this one.
    assert set(outside) == watched


@pytest.mark.parametrize("state", ["vacuum-rest", "vacuum-basin"])
def test_walkers_of_a_conformer_stay_in_it(state: str, tmp_path: Path):
    """With an edge across a well: most steps that would leave are not those of rare events."""
    pair = conformer_pair(systems.load("aldp"), "vacuum", "psi:(0.5, -2.0)")
    ensemble = generate(pair, state, 300.0, TINY, tmp_path / "state.h5")
    psi = torsions_of(ensemble, pair)["psi"]
    inside = (psi > 0.5) | (psi < -2.0)
    assert bool((inside if state == "vacuum-basin" else ~inside).all())
    assert torch.allclose(ensemble.energies, energies_of(pair, state, 300.0, ensemble.positions))


@pytest.mark.parametrize(
    ("conformer", "words"),
    [
        ("phi < 0", "has no basin 'phi < 0'"),
        ("chi:(0, 1)", "has no torsion 'chi': choose one of phi, psi"),
        ("phi:1,1", "a beginning and another end"),
        ("phi:(0, wide)", "wide is no angle"),
    ],
)
def test_conformers_that_are_none_are_refused(conformer: str, words: str):
    with pytest.raises(InputError, match=words) as caught:
        conformer_pair(systems.load("aldp"), "vacuum", conformer)
    assert "\n" not in str(caught.value)


def test_a_torsion_of_a_ring_divides_nothing_and_a_peptide_names_its_basins():
    proline = peptide("ACE-PRO-NME")
    with pytest.raises(InputError, match="does not turn freely"):
        conformer_pair(proline, "vacuum", "phi:(-1.5, 0)")
    with pytest.raises(InputError, match=r"has no basin 'phi > 0': name one with --conformer \(its basins: 'helical'"):
        conformer_pair(proline, "vacuum")


def openmm_energy(system: openmm.System, positions: np.ndarray) -> float:
    context = openmm.Context(system, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatform("Reference"))
    context.setPositions(positions)
    energy = context.getState(getEnergy=True).getPotentialEnergy().value_in_unit(unit.kilojoule_per_mole)
    return energy / (unit.MOLAR_GAS_CONSTANT_R * 300 * unit.kelvin).value_in_unit(unit.kilojoule_per_mole)


def test_two_force_fields_are_two_states_of_the_same_atoms():
    molecule = systems.load("aldp")
    pair = with_mixed_state(force_field_pair(molecule, "implicit", "ff14sb"), 0.25)
    assert pair.states == ("implicit", "implicit-ff14sb", "mixed-0.25")
    x = molecule.positions[None] + 1e-3 * torch.randn(3, 22, 3, generator=named_generator(0, "x"))
    field = app.ForceField("amber14/protein.ff14SB.xml", "implicit/obc1.xml")
    other = field.createSystem(molecule.topology, nonbondedMethod=app.NoCutoff, constraints=None)
    exact = [openmm_energy(other, one) for one in x.numpy()]
    own, changed, mixed = (pair.target(state).energy_and_force(x.double()) for state in pair.states)
    assert changed[0].tolist() == pytest.approx(exact, abs=1e-3)
    assert own[0].tolist() == pytest.approx(molecule.target("implicit").energy(x.double()).tolist())
    for one, two, between in zip(own, changed, mixed, strict=True):
        assert torch.allclose(between, 0.75 * one + 0.25 * two)
    assert mixed_state(0.25) == "mixed-0.25"
    with pytest.raises(InputError, match="made of the energies of implicit, implicit-ff14sb"):
        pair.openmm_system("mixed-0.25")


def test_force_fields_that_make_no_pair_are_refused():
    molecule = peptide("ACE-GLY-NME")
    with pytest.raises(InputError, match="has the force field amber99sb-ildn already"):
        force_field_pair(molecule, "implicit", "amber99sb-ildn")
    with pytest.raises(InputError, match="has the force field ff96 already"):  # its parameters in other digits
        force_field_pair(systems.load("aldp"), "implicit", "ff96")
    with pytest.raises(InputError, match="unknown force field 'ff15'"):
        force_field_pair(molecule, "implicit", "ff15")
    with pytest.raises(InputError, match="has no state 'solvent'"):
        force_field_pair(molecule, "solvent", "ff14sb")
    of_its_own = MolecularSystem("mine", molecule.topology, molecule.positions, molecule.openmm_systems)
    with pytest.raises(InputError, match="mine comes with forces of its own"):
        force_field_pair(of_its_own, "implicit", "ff14sb")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"state": "vacuum"}, "--state vacuum goes with --leg conformers or forcefield"),
        ({"conformer": "phi > 0", "leg": "forcefield", "to_forcefield": "ff96"}, "goes with --leg conformers"),
        ({"to_forcefield": "ff96"}, "--to-forcefield ff96 goes with --leg forcefield"),
        ({"leg": "forcefield"}, "add --to-forcefield ff14sb"),
        ({"leg": "conformers", "engine": "openmm"}, "leave --engine openmm out"),
    ],
)
def test_settings_of_a_pair_that_is_not_whole_are_refused(settings: dict[str, object], words: str):
    with pytest.raises(ValueError, match=words):
        SolvationConfig(**settings)


def test_an_arc_in_degrees_is_noticed():
    with pytest.raises(InputError, match=r"from 0 to 60 radians is more than a turn.*write phi:0,1\.047"):
        conformer_pair(systems.load("aldp"), "vacuum", "phi:0,60")


def test_every_conformer_has_a_folder_of_its_own():
    config = SolvationConfig(leg="conformers", conformer="phi:(0, 2.15)")
    assert str(config.folder) == "runs/solvation-aldp-conformers-phi_0_2.15-quick-seed0"


def test_a_pair_has_a_folder_of_its_own_and_the_state_that_there_is():
    config = SolvationConfig(leg="conformers", peptide="ACE-ALA-NME", solvent="vacuum")
    assert config.load().states == ("vacuum", "vacuum-rest", "vacuum-basin")
    assert str(config.folder) == "runs/solvation-ACE-ALA-NME-amber99sb-ildn-vacuum-conformers-quick-seed0"
    assert SolvationConfig(leg="conformers").load().require_leg("conformers").state_a == "implicit-rest"


def staged(stages: SolvationStages, system: MolecularSystem, state: str, path: Path, advance) -> None:
    """In place of dynamics: frames near the first configurations; a quarter of the whole state's are in the basin."""
    config = stages.config
    n, length = config.walkers, config.frames_per_walker
    starts = torch.stack([stages.system.start(f"vacuum-{part}") for part in ("rest", "basin")])
    index = torch.arange(n * length)
    part = {"vacuum": (index // n % 4 == 0).long(), "vacuum-rest": index * 0, "vacuum-basin": index * 0 + 1}[state]
    frames = starts[part] + 1e-4 * torch.randn(n * length, system.n_atoms, 3, generator=named_generator(0, state))
    provenance = Provenance(system.name, state, config.temperature_kelvin, system.system_hash(state))
    energies = energies_of(system, state, config.temperature_kelvin, frames.float())
    write_ensemble(
        path, ReferenceEnsemble(provenance, frames.float(), energies, index % n, index // n), system.topology
    )
    advance(1.0)


def test_rows_of_conformers_are_the_population_and_a_bar_that_says_why_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(SolvationStages, "_sample", staged)
    config = SolvationConfig(
        leg="conformers", state="vacuum", walkers=4, training_seeds=2, frames_per_walker=8, out=tmp_path / "run"
    )
    with open_run_folder(config.folder, config) as folder:
        stages = SolvationStages(config, folder, config.load(), "cpu")
        folder.progress.plan(dict.fromkeys([f"reference-{state}" for state in stages.system.states], 1.0))
        found = classical(stages, stages.system.require_leg("conformers"))
        exact = basin_free_energy(stages.system, "phi > 0", stages.ensemble("vacuum").positions.numpy()).value
    assert set(found.rows) == {"population", "bar"}
    assert found.rests_on == ("vacuum",)
    assert found.rows["population"].value_kT == pytest.approx(exact) == pytest.approx(math.log(3))
    bar = found.rows["bar"]
    assert math.isnan(bar.value_kT)
    assert bar.overlap == 0
    assert "no value: every one of the 32 values of work_forward is infinite" in bar.note


def test_conformers_end_to_end_with_the_reasons_on_the_page(tmp_path: Path):
    options = "--leg conformers --state vacuum --path-levels 9 --estimators population bar dsm_diffclf learned_ais"
    code, _, errors = finish(tmp_path / "run", *options.split())
    assert code == 3, errors[-3000:]
    result = json.loads((tmp_path / "run" / "results.json").read_text())
    leg = result["legs"]["conformers"]
    assert leg["states"] == ["vacuum-rest", "vacuum-basin"]
    assert leg["headline"] is None
    assert {"population", "bar", "no_network", "dsm_diffclf", "exact_ends", "learned_ais"} == set(leg["estimators"])
    assert leg["estimators"]["bar"]["value_kT"] is None
    assert math.isfinite(leg["estimators"]["dsm_diffclf"]["value_kT"])
    assert any("the walkers of vacuum disagree" in reason for reason in result["reasons"])
    page = (tmp_path / "run" / "report.html").read_text()
    assert "Free energy between conformers of aldp at" in page
    assert "B is phi in (0, 2.15) rad, A all the rest of vacuum" in page
    assert "the states share no configuration" in page


def test_the_exact_ends_have_a_sampling_error_and_a_cost_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    apart = Estimate(1.0, math.inf, 0.0, 0.0, "MBAR")
    monkeypatch.setattr(solvation_learned, "exact_end_classes", lambda model, data, stride: (apart, np.eye(3)))
    pools = SimpleNamespace(evaluation=SimpleNamespace(y=torch.zeros(9, 50, 4)))
    integral = {
        "value": 1.1, "sampling_stderr": 0.01, "energy_evaluations": 5, "network_evaluations": 7, "seconds": 2.0
    }  # fmt: skip
    facts = {"dsm_diffclf": integral}
    solvation_learned._keep_classifier({}, facts, None, pools)
    found = facts["exact_ends"]
    assert (found["value"], found["sampling_stderr"]) == (1.0, math.inf)
    assert (found["energy_evaluations"], found["network_evaluations"]) == (5, 7 + 3 * 3 * 50)
    assert found["seconds"] >= 2.0


@pytest.mark.parametrize("ends", [(2.0, 4.0), (3.5, 5.0), (-4.0, -2.0), (2.0, -2.0), (0.0, 2.15), (0.0, math.pi)])
def test_a_basin_is_the_arc_that_its_state_is_confined_to(ends: tuple[float, float]) -> None:
    angles = torch.linspace(-3.13, 3.13, 64, dtype=torch.float64)
    assert in_basin(angles.numpy(), *ends).tolist() == Arc(*ends).contains(angles).tolist()


def test_a_leg_whose_ends_are_the_same_walkers_has_learned_rows_from_two_of_them(tmp_path: Path):
    """Frames of ``nonpolar`` are those of ``vacuum`` resampled: a replicate has the same two walkers at both ends."""
    options = "--leg nonpolar --walkers 4 --path-levels 9 --estimators mbar dsm_diffclf learned_ais"
    code, _, errors = finish(tmp_path / "run", *options.split())
    assert code == 3, errors[-3000:]
    rows = json.loads((tmp_path / "run" / "results.json").read_text())["legs"]["nonpolar"]["estimators"]
    for name in ("mbar", "dsm_diffclf", "exact_ends", "learned_ais"):
        assert rows[name]["value_kT"] == pytest.approx(7.0, abs=1.0)
        assert rows[name]["stderr_kT"] > 0
