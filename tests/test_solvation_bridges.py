"""States between the ends of a leg: when they are added, what their energies are, and that the answer is right."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import openmm
import pytest
import torch
from openmm import unit

import systems
from boltzgen_diffclf.free_energy.classical import SampledState, all_states_mbar
from boltzgen_diffclf.streams import named_generator
from systems.bridges import polar_state, with_polar_state
from systems.ensemble import Provenance, ReferenceEnsemble, energies_of
from systems.molecular import MolecularSystem
from systems.peptide import peptide
from systems.store import write_ensemble
from workflows import solvation_bridges
from workflows.run_start import open_run_folder
from workflows.solvation import SolvationConfig
from workflows.solvation_bridges import MOST_BRIDGES, SOLVATION, Bridged, Way, bridged
from workflows.solvation_classical import Classical, classical
from workflows.solvation_estimators import what_is_missing
from workflows.solvation_pipeline import _checks
from workflows.solvation_stages import SolvationStages, way_of
from workflows.trust import SMALLEST_OVERLAP, failures

STATES = ("vacuum", "nonpolar", "implicit")
SURFACE, FRAMES = 3.0, 4000


class Springs:
    """A particle on a line whose spring moves by ``distance`` and stiffens with the polarisation; all is Gaussian."""

    def __init__(self, distance: float, stiffness: float = 4.0) -> None:
        self.distance, self.stiffness = distance, stiffness
        self.asked: list[float] = []

    def energies(self, x: np.ndarray) -> np.ndarray:
        vacuum = 0.5 * x**2
        return np.stack([vacuum, vacuum + SURFACE, SURFACE + 0.5 * self.stiffness * (x - self.distance) ** 2])

    def sample(self, fraction: float, name: str | None = None) -> SampledState:
        self.asked.append(fraction)
        precision = 1 - fraction + fraction * self.stiffness
        mean = fraction * self.stiffness * self.distance / precision
        seed = int(1000 * fraction)
        x = mean + np.random.default_rng(seed).normal(size=FRAMES) / np.sqrt(precision)
        return SampledState(name or polar_state(fraction), self.energies(x), np.arange(FRAMES) % 40)

    @property
    def exact(self) -> float:
        return SURFACE + 0.5 * float(np.log(self.stiffness))

    def bridged(self) -> Bridged:
        ends = self.sample(0.0, "vacuum"), self.sample(1.0, "implicit")
        self.asked.clear()
        return bridged(SOLVATION, STATES, *ends, self.sample)


def solved(bridges: Bridged):
    family = all_states_mbar(bridges.states, bridges.family(lambda frames: frames), np.random.default_rng(0))
    return bridges.estimate(family, "vacuum", "implicit")


def test_ends_that_overlap_stay_alone():
    springs = Springs(1.0)
    bridges = springs.bridged()
    assert springs.asked == []
    assert (bridges.states, bridges.bridges, bridges.note) == (STATES, (), "")
    family = all_states_mbar(STATES, bridges.family(lambda frames: frames), np.random.default_rng(0))
    assert bridges.estimate(family, "vacuum", "implicit") == family.between(0, 2)


def test_ends_apart_are_bridged_and_the_answer_is_right():
    springs = Springs(9.0)
    bridges = springs.bridged()
    assert 1 < len(bridges.bridges) < MOST_BRIDGES
    assert springs.asked[0] == 0.5
    assert [rung.fraction for rung in bridges.bridges] == sorted(springs.asked)
    between = [polar_state(fraction) for fraction in sorted(springs.asked)]
    assert bridges.states == ("vacuum", "nonpolar", *between, "implicit")
    assert bridges.unbridged_overlap < SMALLEST_OVERLAP
    assert bridges.note.startswith(f"{len(springs.asked)} states between were added, with ")
    found = solved(bridges)
    assert found.overlap >= SMALLEST_OVERLAP
    assert found.value == pytest.approx(springs.exact, abs=4 * found.stderr)
    assert found.stderr < 0.2


def test_a_line_from_end_to_end_is_bridged_too():
    """Two energies and mixtures of them, as between force fields: no state lies before the line."""
    springs = Springs(9.0)
    way = Way("one", "two", None, "the second energy", lambda fraction: f"mixed-{fraction:g}")

    def sample(fraction: float) -> SampledState:
        frames = springs.sample(fraction, {0.0: "one", 1.0: "two"}.get(fraction, way.name(fraction)))
        return replace(frames, energies=frames.energies[1:])

    bridges = bridged(way, ("one", "two"), sample(0.0), sample(1.0), sample)
    assert len(bridges.bridges) > 1
    assert (bridges.states[0], bridges.states[-1]) == ("one", "two")
    assert "of the second energy, because" in bridges.note
    family = all_states_mbar(bridges.states, bridges.family(lambda frames: frames), np.random.default_rng(0))
    found = bridges.estimate(family, "one", "two")
    assert found.value == pytest.approx(springs.exact - SURFACE, abs=4 * found.stderr)
    assert SMALLEST_OVERLAP < found.overlap < 0.5


def test_ends_too_far_apart_say_that_they_do_not_hang_together():
    springs = Springs(300.0)
    bridges = springs.bridged()
    assert len(bridges.bridges) == MOST_BRIDGES
    assert solved(bridges).overlap < SMALLEST_OVERLAP


def test_a_surface_that_parts_the_vacuum_is_met_by_the_state_with_the_surface_alone():
    """The vacuum far from everything else: the last state that is tried is without polarisation."""
    springs = Springs(0.0)
    vacuum = springs.sample(0.0, "vacuum")
    energies = vacuum.energies.copy()
    energies[1:] += 1e3 * np.arange(FRAMES) / FRAMES  # what the vacuum visits costs a surface of any size
    asked: list[float] = []

    def sample(fraction: float) -> SampledState:
        asked.append(fraction)
        frames = springs.sample(fraction)
        moved = frames.energies.copy()
        moved[0] += 1e3
        return SampledState(frames.name, moved, frames.group)

    implicit = sample(1.0)
    asked.clear()
    first = SampledState("vacuum", energies, vacuum.group)
    bridges = bridged(SOLVATION, STATES, first, implicit, sample)
    assert asked == [0.5, 0.25, 0.125, 0.0625, 0.0]
    assert len(bridges.bridges) == 5


@pytest.mark.parametrize("name", ["obc1", "amber99_obc"])
def test_a_state_between_has_the_energy_between(name):
    """With either of OpenMM's kinds of generalised-Born force, surface term included."""
    system = systems.load("aldp") if name == "obc1" else peptide("ACE-GLY-NME")
    between = with_polar_state(system, 0.3)
    assert between.states == (*system.states, "polar-0.3")
    ends = [energy(between, state) for state in ("nonpolar", "implicit")]
    assert abs(ends[0] - ends[1]) > 10
    assert energy(between, "polar-0.3") == pytest.approx(0.7 * ends[0] + 0.3 * ends[1], abs=1e-4)


def energy(system: MolecularSystem, state: str) -> float:
    integrator, platform = openmm.VerletIntegrator(0.001), openmm.Platform.getPlatform("Reference")
    context = openmm.Context(system.openmm_system(state), integrator, platform)
    context.setPositions(system.positions.numpy())
    return context.getState(getEnergy=True).getPotentialEnergy().value_in_unit(unit.kilojoule_per_mole)


def figures_between(found: Classical) -> list[str]:
    """Return the states between the ends that the figure of the overlap names."""
    return [name for name in found.figures.overlap_labels if name.startswith("polar")]


def shaken(stages: SolvationStages, system: MolecularSystem, state: str, path: Path, advance) -> None:
    """In place of dynamics: frames near the first configuration; the walkers of states between do not agree."""
    config, (n, length) = stages.config, (stages.config.walkers, stages.config.frames_per_walker)
    noise = torch.randn(n * length, system.n_atoms, 3, generator=named_generator(0, state))
    frames = (system.positions + 1e-4 * noise).float()
    index = torch.arange(n * length)
    ensemble = ReferenceEnsemble(
        Provenance(system.name, state, config.temperature_kelvin, system.system_hash(state)),
        frames,
        energies_of(system, state, config.temperature_kelvin, frames),
        index % n,
        index // n,
        diagnostics={
            "split_r_hat": {"reduced_energy": 1.5 if state.startswith("polar") else 1.0},
            "effective_frames": {"reduced_energy": 1000.0},
        },
    )
    write_ensemble(path, ensemble, system.topology)
    advance(1.0)


@pytest.mark.usefixtures("eager_mode")
def test_a_run_samples_the_states_it_lacks_and_finds_them_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(solvation_bridges, "WANTED_OVERLAP", 0.501)  # more than there can be
    monkeypatch.setattr(solvation_bridges, "MOST_BRIDGES", 2)
    monkeypatch.setattr(SolvationStages, "_sample", shaken)
    config = SolvationConfig(
        peptide="ACE-GLY-NME",
        leg="total",
        estimators=("mbar",),
        walkers=4,
        training_seeds=2,
        frames_per_walker=8,
        out=tmp_path / "run",
    )
    values = []
    for _ in range(2):
        with open_run_folder(config.folder, config) as folder:
            stages = SolvationStages(config, folder, config.source.load(), "cpu")
            folder.progress.plan({"reference-vacuum": 1.0, "reference-implicit": 1.0})
            found = classical(stages, stages.system.require_leg("total"))
        assert "2 states between were added" in found.rows["mbar"].note
        assert set(STATES) < set(found.figures.overlap_labels)
        assert len(found.figures.overlap_labels) == len(found.figures.overlap) == 5
        gates = failures(_checks(stages, stages.system.require_leg("total"), found.rests_on, {}))
        assert [gate.split(" disagree")[0] for gate in gates] == [
            f"the walkers of {state}" for state in figures_between(found)
        ]
        values.append((found.rows["mbar"].value_kT, found.rows["mbar"].overlap))
    assert values[0] == values[1]
    made = sorted(path.name for path in (tmp_path / "run" / "reference").iterdir())
    assert "polar-0.5.h5" in made
    assert len(made) == 4


def test_frames_of_the_user_stand_for_their_own_state(tmp_path: Path) -> None:
    """MBAR of the polar leg rests on vacuum frames, reweighted, unless there are frames of the uncharged solvent."""
    mine = tmp_path / "mine.dcd"
    mine.touch()
    for trajectory, sources in (((), ("implicit", "vacuum")), ((f"nonpolar={mine}",), ("implicit", "nonpolar"))):
        config = SolvationConfig(leg="polar", trajectory=trajectory, out=tmp_path / sources[1])
        with open_run_folder(config.folder, config) as folder:
            stages = SolvationStages(config, folder, config.source.load(), "cpu")
            assert stages.sources(stages.system.require_leg("polar")) == sources


def test_frames_without_charges_are_where_the_line_of_charges_begins(tmp_path: Path) -> None:
    system = systems.load("aldp")
    for sampled, first, before in (
        ({"vacuum", "implicit"}, "vacuum", "vacuum"),
        ({"nonpolar", "implicit"}, "nonpolar", None),
    ):
        way = way_of(system.require_leg("polar"), sampled)
        assert way is not None
        assert (way.first, way.before, way.high, way.name) == (first, before, "implicit", SOLVATION.name)
    assert way_of(system.require_leg("nonpolar"), {"vacuum", "nonpolar"}) is None
    mine = tmp_path / "mine.dcd"
    mine.touch()
    config = SolvationConfig(leg="nonpolar", trajectory=(f"nonpolar={mine}",), out=tmp_path)
    assert what_is_missing("bar", config) is None
    assert what_is_missing("fep", config) == "the nonpolar leg has frames of both ends: name bar in its place"
