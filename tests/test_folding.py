"""Who is folded: deviations, contacts, free energies of folding, and walkers that have not met."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch

from boltzgen_diffclf.errors import NotTrustworthyError
from boltzgen_diffclf.estimators.estimate import Estimate
from boltzgen_diffclf.observables import (
    contact_difference,
    contact_pairs,
    contact_shares,
    contacts,
    fractions_by_start,
    native_deviation,
    state_free_energy,
)
from systems.beads import bead_system
from systems.convergence import measure_convergence
from systems.ensemble import Provenance, ReferenceEnsemble
from systems.molecular import Fold, MolecularSystem
from systems.peptide import peptide
from workflows import trust_generators
from workflows.ramachandran_folding import FoldedStarts, folded_starts, folding_of
from workflows.ramachandran_measures import Judge
from workflows.ramachandran_metrics import own_metrics
from workflows.ramachandran_samples import Sample
from workflows.ramachandran_slow import features_of, slow_plane


def turned(positions: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    rotation, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    return positions @ (rotation * np.sign(np.linalg.det(rotation))) + rng.normal(size=3)


def test_deviation_is_that_of_the_best_rotation_and_knows_a_mirror() -> None:
    rng = np.random.default_rng(0)
    native = rng.normal(size=(10, 3))
    same = np.stack([turned(native, rng) for _ in range(5)])
    np.testing.assert_allclose(native_deviation(same, native), 0.0, atol=1e-6)
    assert native_deviation(native[None] * [-1, 1, 1], native)[0] > 0.3
    # A breathing sphere: no rotation helps, and every atom deviates by a tenth of its distance from the centre.
    centred = native - native.mean(axis=0)
    expected = 0.1 * math.sqrt(np.square(centred).sum() / 10)
    assert native_deviation(1.1 * centred[None], native)[0] == pytest.approx(expected)


def test_contacts_are_of_beads_that_are_near_and_far_along_the_chain() -> None:
    line = np.arange(6)[:, None] * np.array([[0.38, 0, 0]])
    hairpin = np.array([[0, 0, 0], [0.38, 0, 0], [0.76, 0, 0], [0.76, 0.5, 0], [0.38, 0.5, 0], [0, 0.5, 0]])
    found = contacts(np.stack([line, hairpin]))
    assert not found[0].any()
    assert contact_pairs(6)[found[1]].tolist() == [[0, 4], [0, 5], [1, 4], [1, 5]]
    assert contact_shares(found, np.log(np.array([1.0, 3.0]))).max() == pytest.approx(0.75)
    assert contact_difference(found[:1], found[1:]) == pytest.approx(4 / 6)


def test_free_energy_of_a_state_goes_with_its_share() -> None:
    inside = np.arange(1000) % 10 == 0
    found = state_free_energy(inside, "the fold")
    assert found.value == pytest.approx(math.log(9))
    assert found.stderr == pytest.approx(math.sqrt(1 / 1000 / 0.09), rel=0.01)


@pytest.mark.parametrize("size", [3, 10, 5000, 10000, 28160])
@pytest.mark.parametrize("inside", [True, False])
def test_a_state_that_nobody_left_has_no_free_energy(size: int, inside: bool) -> None:
    """Whatever the sum of so many weights is rounded to."""
    everybody, weightless = np.full(size, inside), np.zeros(size)
    weightless[::2] = -math.inf
    with pytest.raises(NotTrustworthyError, match=f"the fold holds {100 * inside} % of {size} samples"):
        state_free_energy(everybody, "the fold")
    other = everybody.copy()
    other[::2] = not inside
    with pytest.raises(NotTrustworthyError, match="was never seen"):
        state_free_energy(other, "the fold", log_w=weightless)


def test_walkers_that_have_not_met_are_told() -> None:
    rng = np.random.default_rng(1)
    met = trust_generators.check_fold(
        (0.5 + 0.1 * rng.normal(size=20)).tolist(), (0.5 + 0.1 * rng.normal(size=20)).tolist(), 1.0
    )
    assert met.passed
    assert not trust_generators.check_fold([0.9, 0.8, 0.85], [0.1, 0.2, 0.15], 1.0).passed
    assert not trust_generators.check_fold([1.0, 1.0], [0.0], math.inf).passed
    assert not trust_generators.check_fold([0.5, 0.6], [0.6, 0.5], 1.3).passed
    short = FoldedStarts(np.array([[1, 0, 1], [0, 1, 1]], dtype=np.bool_), 1.0)
    assert "split R-hat inf" in short.check().sentence
    assert not short.check().passed
    alone = trust_generators.check_fold([0.9, 0.8], [], 1.0)
    assert not alone.passed
    assert "all 2 walkers of the reference are folded in their first frame" in alone.sentence


def test_walkers_are_told_by_their_first_frame() -> None:
    folded = np.array([[1, 1, 0, 0], [0, 0, 0, 1], [1, 1, 1, 1]], dtype=bool)
    began_folded, began_unfolded = fractions_by_start(folded)
    assert began_folded.tolist() == [0.5, 1.0]
    assert began_unfolded.tolist() == [0.25]


@pytest.fixture(scope="module")
def chain() -> MolecularSystem:
    """Four residues, whose extended chain is taken for the native one."""
    built = peptide("ACE-AAAA-NME")
    atoms = tuple(atom.index for atom in built.topology.atoms() if atom.name == "CA")
    return dataclasses.replace(built, fold=Fold(atoms, 0.1))


def walk(chain: MolecularSystem, folded: list[list[int]]) -> ReferenceEnsemble:
    """Walkers, a row each, whose frames are the native chain, or a hairpin of it."""
    rng, walkers, frames = np.random.default_rng(2), len(folded), len(folded[0])
    native = chain.positions.numpy()
    axis = native[-1] - native[0]
    along = native @ axis / (axis @ axis)
    # A hairpin: the second half of the chain turned back along the first.
    bent = native - 2 * np.maximum(along - np.median(along), 0.0)[:, None] * axis
    positions = np.stack([native if row[frame] else bent for frame in range(frames) for row in folded])
    positions += 0.002 * rng.normal(size=positions.shape)
    return ReferenceEnsemble(
        provenance=Provenance(chain.name, "vacuum", 300.0, "none"),
        positions=torch.from_numpy(positions).float(),
        energies=torch.from_numpy(rng.normal(size=walkers * frames)),
        group=torch.arange(walkers).repeat(frames),
        frame=torch.arange(frames).repeat_interleave(walkers),
        frame_interval_ps=0.5,
    )


def test_folding_of_a_reference_and_of_weighted_samples(chain: MolecularSystem) -> None:
    frames = walk(chain, [[1, 1, 0, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0, 1, 1], [1, 0, 0, 0, 0, 0, 0, 1], [0] * 7 + [1]])
    beads = bead_system(chain, "ca")
    atoms = list(chain.fold.atoms) if chain.fold else []
    cut = dataclasses.replace(frames, positions=frames.positions[:, atoms])
    plane = slow_plane(beads, cut, None)
    judge = Judge(chain, beads, "ca", Sample("reference", cut), (plane,))
    found = judge.findings.folding
    assert found is not None
    assert found.folded.value == pytest.approx(7 / 32)
    assert isinstance(found.free_energy, Estimate)
    assert found.free_energy.value == pytest.approx(math.log(25 / 7))
    inside = np.array([[1, 0, 1, 0], [1, 0, 0, 0]] + [[0] * 4] * 4 + [[0, 1, 0, 0], [0, 1, 1, 1]]).ravel() == 1
    weighted = Sample("reweighted", cut, log_w=np.where(inside, math.log(25 / 7), 0.0))
    rows = list(judge.measure(weighted, judge.look_at(weighted)))
    metrics = {row.metric: row.value for row in rows}
    # The frames that judge are the same for all seeds, whose mean knows no more than they.
    (contacts_apart,) = (row for row in rows if row.metric == "reweighted_contact_difference")
    assert contacts_apart.stderr == 0
    assert contacts_apart.shared == contacts_apart.error > 0
    assert metrics["reweighted_folded_fraction"] == pytest.approx(0.5)
    assert metrics["reweighted_folding_delta_f"] == pytest.approx(0.0, abs=1e-9)
    assert {"reweighted_contact_difference", "reweighted_distance_js", "reweighted_rmsd_js"} <= metrics.keys()
    assert {"reweighted_end_to_end_js", "reweighted_tica_js"} <= metrics.keys()
    assert "reference_folded_fraction" in {row.metric for row in own_metrics(judge.reference, judge.findings)}
    assert folding_of(dataclasses.replace(beads, fold=None), judge.reference) is None


def test_a_reference_is_watched_for_who_is_folded(chain: MolecularSystem) -> None:
    mixed = measure_convergence(walk(chain, [[0, 1] * 4, [1, 0] * 4]), chain)
    parted = measure_convergence(walk(chain, [[1] * 8, [0] * 8]), chain)
    for found, is_mixed in ((mixed, True), (parted, False)):
        assert found["populations"]["folded"]["population"] == pytest.approx(0.5)
        assert (found["split_r_hat"]["folded"] < 1.1) is is_mixed
        assert "folded" in found["effective_frames"]
    assert (
        "folded"
        not in measure_convergence(walk(chain, [[1] * 8] * 2), dataclasses.replace(chain, fold=None))["split_r_hat"]
    )


def test_starts_come_from_all_atoms_and_the_slow_plane_from_the_reference_alone(chain: MolecularSystem) -> None:
    rows = [[1, 1, 0, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0, 1, 1], [1, 0, 0, 0, 0, 0, 0, 1]]
    starts = folded_starts(chain, walk(chain, rows))
    assert starts is not None
    assert starts.folded.astype(int).tolist() == rows
    assert starts.by_start["began folded"].tolist() == [1.0, 0.5, 0, 0, 0, 0, 0, 0.5]
    assert folded_starts(dataclasses.replace(chain, fold=None), walk(chain, rows)) is None
    beads = bead_system(chain, "ca")
    features = features_of(beads)
    assert features(np.zeros((2, 4, 3)) + np.arange(12).reshape(4, 3)).shape == (2, 2 + 6)
    atoms = list(chain.fold.atoms) if chain.fold else []
    frames = walk(chain, rows)
    plane = slow_plane(beads, dataclasses.replace(frames, positions=frames.positions[:, atoms]), 2)
    assert plane.lag_ps == 1.0
    far = plane.points(10 * frames.positions[:, atoms].numpy())
    surface = plane.surface(Sample("iid", frames, independent=True), far)
    assert surface.outside == 1.0
    assert "a lag of 2 frames (1 ps)" in plane.about
