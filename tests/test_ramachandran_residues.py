"""Molecules of several residues: a map, metrics and conformers of each."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import torch

from systems.beads import bead_atoms, bead_system
from systems.conformers import residue_pairs
from systems.ensemble import Provenance, ReferenceEnsemble
from systems.molecular import MolecularSystem
from systems.peptide import peptide
from tests.small_reference import small_reference
from workflows import ramachandran
from workflows.ramachandran import RamachandranConfig
from workflows.ramachandran_measures import Judge
from workflows.ramachandran_planes import torsion_planes
from workflows.ramachandran_samples import Sample

pytestmark = pytest.mark.usefixtures("eager_mode")

DIALANINE = "ACE-ALA-ALA-NME"


@pytest.fixture(scope="module")
def dialanine() -> MolecularSystem:
    return peptide(DIALANINE)


def frames_about(beads: MolecularSystem, seed: int, moved: int | None = None) -> ReferenceEnsemble:
    """Eight walkers of noise about one configuration, in which one bead may wander farther than the others."""
    rng, n, groups = np.random.default_rng(seed), 800, 8
    positions = beads.positions.numpy() + 0.01 * rng.normal(size=(n, beads.n_atoms, 3))
    if moved is not None:
        positions[:, moved] += 0.1 * rng.normal(size=(n, 3))
    return ReferenceEnsemble(
        provenance=Provenance(beads.name, "vacuum", 300.0, "none"),
        positions=torch.from_numpy(positions).float(),
        energies=torch.from_numpy(rng.normal(size=n)),
        group=torch.arange(n) % groups,
        frame=torch.arange(n) // groups,
    )


def test_phi_and_psi_are_paired_by_residue(dialanine: MolecularSystem) -> None:
    assert residue_pairs(dialanine) == {"ALA2": ("phi-ALA2", "psi-ALA2"), "ALA3": ("phi-ALA3", "psi-ALA3")}
    # Of free ends the first residue has no phi and the last no psi; the one between them is the only one with both.
    assert residue_pairs(peptide("AGA")) == {"": ("phi", "psi")}
    assert residue_pairs(peptide("ACE-GLY-NME")) == {"": ("phi", "psi")}


def test_backbone_beads_are_those_of_all_residues(dialanine: MolecularSystem) -> None:
    names = [list(dialanine.topology.atoms())[atom].name for atom in bead_atoms(dialanine, "backbone")]
    assert names == ["C", "N", "CA", "C", "N", "CA", "C", "N"]
    assert [plane.residue for plane in torsion_planes(bead_system(dialanine, "backbone"))] == ["ALA2", "ALA3"]


def test_the_residue_that_is_wrong_is_the_one_that_is_named(dialanine: MolecularSystem) -> None:
    """The last nitrogen is in psi of the last residue alone."""
    beads = bead_system(dialanine, "backbone")
    judge = Judge(dialanine, beads, "backbone", Sample("reference", frames_about(beads, 0)), torsion_planes(beads))
    wrong = Sample("iid", frames_about(beads, 1, moved=beads.n_atoms - 1), independent=True)
    found = {row.metric: row for row in judge.measure(wrong, judge.look_at(wrong))}
    for name in ("js", "js_pooled_range", "pmf_error", "bins_within_2_stderr", "largest_deviation"):
        assert {f"iid_{name}[ALA2]", f"iid_{name}[ALA3]"} <= found.keys()
        assert f"iid_{name}" not in found
    here, there = found["iid_js[ALA2]"], found["iid_js[ALA3]"]
    assert here.noise_floor is not None
    assert there.noise_floor is not None
    assert abs(here.value - here.noise_floor) < 0.03
    assert there.value - there.noise_floor > 0.1


def test_every_residue_has_its_row_of_maps(dialanine: MolecularSystem, tmp_path: Path) -> None:
    reference = small_reference(tmp_path, "vacuum", dialanine)
    config = RamachandranConfig(
        peptide=DIALANINE, state="vacuum", reference=reference, out=tmp_path / "run", objectives=("dsm",),
        steps=2, groups=4, hidden=8, layers=1, levels=8, learning_rate=1e-6, threads=1, samples=30, reverse_levels=12,
        chains=4, frames_per_chain=4, equilibration_frames=0, steps_per_frame=2, timestep_fs=0.1,
    )  # fmt: skip
    ramachandran.run(config)
    with (tmp_path / "run" / "results.csv").open(encoding="utf-8") as handle:
        metrics = {row["metric"] for row in csv.DictReader(handle)}
    assert {"iid_js[ALA2]", "langevin_pmf_error[ALA3]"} <= metrics
    page = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    for residue in ("ALA2", "ALA3"):
        assert page.count(f'<th scope="row">{residue}</th>') == 3
        assert page.count(f'<th scope="row">helical-{residue}</th>') == 1
    assert (tmp_path / "run" / "figures" / "maps-dsm.png").stat().st_size > 10_000
