"""Bonds, angles, energies and slow coordinates against laws known in closed form."""

from __future__ import annotations

import math
import subprocess
import sys

import numpy as np
import pytest
from scipy.stats import norm

from boltzgen_diffclf.errors import InputError
from boltzgen_diffclf.observables import (
    angle_triples,
    bond_angles,
    distance_features,
    distances,
    fit_slow_coordinates,
    histogram,
    histogram_divergence,
    histogram_overlap,
    lagged_pairs,
    marginal_divergences,
    plane_divergence,
    plane_free_energy,
    plane_limits,
    reference_edges,
    torsion_features,
    unvisited_in_plane,
)

# Bonds and angles


def test_bonds_and_angles_of_a_bent_molecule():
    bent = np.array([[[0.1, 0, 0], [0, 0, 0], [0.2 * math.cos(1.9), 0.2 * math.sin(1.9), 0]]])
    assert distances(bent, np.array([[0, 1], [1, 2]]))[0] == pytest.approx([0.1, 0.2])
    triples = angle_triples([(0, 1), (2, 1)])
    assert triples.tolist() == [[0, 1, 2]]
    assert bond_angles(bent, triples)[0, 0] == pytest.approx(1.9)
    straight = np.array([[[1.0, 0, 0], [0, 0, 0], [-3.0, 0, 1e-9]]])
    assert bond_angles(straight, triples)[0, 0] == pytest.approx(math.pi, abs=1e-9)


def test_all_angles_of_a_molecule_are_those_of_its_force_field():
    import systems

    aldp = systems.load("aldp")
    system = aldp.openmm_system("vacuum")
    (force,) = [f for f in system.getForces() if type(f).__name__ == "HarmonicAngleForce"]
    theirs = [force.getAngleParameters(i)[:3] for i in range(force.getNumAngles())]
    ours = [tuple(triple) for triple in angle_triples(aldp.bonds).tolist()]
    assert len(ours) == len(set(ours)) == 36
    assert {(min(i, k), j, max(i, k)) for i, j, k in theirs} == set(ours)


# Histograms


def test_histogram_keeps_everything_and_weighs():
    edges = np.array([0.0, 1.0, 2.0])
    values = np.array([-5.0, 0.0, 0.5, 1.0, 2.0, 2.1, np.inf])
    assert (7 * histogram(values, edges).probability).tolist() == pytest.approx([1, 2, 2, 2])
    with np.errstate(divide="ignore"):
        log_w = np.log(np.array([0.0, 0.0, 3.0, 1.0, 0.0, 0.0, 0.0])) + 600
    weighted = histogram(values, edges, log_w)
    assert weighted.probability.tolist() == pytest.approx([0, 0.75, 0.25, 0])
    assert weighted.outside == 0
    assert histogram(values, edges).outside == pytest.approx(3 / 7)
    assert histogram(values, 2 * edges).density.sum() * 2 == pytest.approx(5 / 7)
    with pytest.raises(InputError, match="1 NaN"):
        histogram(np.array([np.nan]), edges)


def test_overlap_and_divergence_of_shifted_normals():
    """The overlap is ``2 Phi(-|m| / 2)``, and reweighting one to the other brings both home."""
    rng = np.random.default_rng(0)
    reference, sample = rng.normal(size=200_000), rng.normal(0.8, 1, 200_000)
    edges = reference_edges(reference, 60)
    p, q = histogram(sample, edges), histogram(reference, edges)
    assert histogram_overlap(p, q) == pytest.approx(2 * norm.cdf(-0.4), abs=0.005)
    x = np.linspace(-8, 9, 20_001)
    middle = 0.5 * (norm.pdf(x) + norm.pdf(x, 0.8))
    parts = [0.5 * law * np.log(law / middle) for law in (norm.pdf(x), norm.pdf(x, 0.8))]
    assert histogram_divergence(p, q) == pytest.approx(float(np.trapezoid(sum(parts), x)), rel=0.03)
    home = histogram(sample, edges, 0.5 * (sample - 0.8) ** 2 - 0.5 * sample**2)
    assert histogram_overlap(home, q) > 0.98
    assert histogram_divergence(home, q) < 0.01 * histogram_divergence(p, q)


def test_bins_are_those_of_the_reference():
    reference = np.array([1.0, 2.0, 4.0])
    assert reference_edges(reference, 3).tolist() == [1.0, 2.0, 3.0, 4.0]
    with pytest.raises(InputError, match="1 of them not finite"):
        reference_edges(np.array([1.0, np.inf]))
    with pytest.raises(InputError, match="different bins"):
        histogram_overlap(*(histogram(reference, reference_edges(reference, n)) for n in (3, 4)))
    # Far outliers of a model all fall outside, and move no bin.
    far = histogram_divergence(
        *(histogram(values, reference_edges(reference)) for values in (1e9 + reference, reference))
    )
    assert far == pytest.approx(math.log(2))


def test_a_frame_far_out_widens_no_bin_of_many():
    reference = np.append(np.linspace(-40.0, 50.0, 9999), 700.0)
    edges = reference_edges(reference)
    assert -40.0 <= edges[0] < -39.9
    assert 49.9 < edges[-1] <= 50.0
    assert histogram(reference, edges).outside == pytest.approx(1e-3, rel=0.1)
    with pytest.raises(InputError, match="all but 10 at one place"):
        reference_edges(np.append(np.ones(9999), 2.0))


def test_each_marginal_has_its_own_divergence():
    rng = np.random.default_rng(1)
    reference = rng.normal(size=(20_000, 3)) * [0.003, 0.1, 5.0]
    model = rng.normal(size=(20_000, 3)) * [0.003, 0.2, 5.0]
    exact, wide, same = marginal_divergences(model, reference, bins=50)
    assert wide > 20 * max(exact, same)
    equal = marginal_divergences(model, reference, np.zeros(20_000), bins=50)
    np.testing.assert_allclose(equal, [exact, wide, same])


# Slow coordinates


def mixed_autoregressions(rng, walkers=20, frames=2000):
    """One slow and two fast autoregressions of unit variance, mixed by a known matrix."""
    decay = np.array([0.98, 0.5, 0.2])
    x = np.empty((frames, walkers, 3))
    x[0] = rng.normal(size=(walkers, 3))
    for i in range(1, frames):
        x[i] = decay * x[i - 1] + np.sqrt(1 - decay**2) * rng.normal(size=(walkers, 3))
    mixing = np.array([[1.0, 5.0, 0.3], [0.2, 1.0, 4.0], [0.7, -3.0, 1.0]])
    hidden = x.transpose(1, 0, 2)
    return hidden, hidden @ mixing + np.array([10.0, -3.0, 0.5])


def at_lag(trajectories, lag):
    """Frames of all walkers, and those that come so much later."""
    walkers, frames, _ = trajectories.shape
    group, frame = (grid.ravel() for grid in np.indices((walkers, frames)))
    features = trajectories.reshape(walkers * frames, -1)
    return [features[index] for index in lagged_pairs(group, frame, lag)]


def test_pairs_at_a_lag_stay_within_a_group_and_count_copies():
    """Frames in any order, one of them drawn twice, one missing."""
    group = np.array([1, 0, 0, 1, 0, 0])
    frame = np.array([2, 0, 1, 0, 0, 3])
    now, later = lagged_pairs(group, frame, 1)
    assert sorted(zip(now.tolist(), later.tolist(), strict=True)) == [(1, 2), (4, 2)]
    now, later = lagged_pairs(group, frame, 2)
    assert sorted(zip(now.tolist(), later.tolist(), strict=True)) == [(2, 5), (3, 0)]


def test_the_slowest_component_is_found_again():
    hidden, seen = mixed_autoregressions(np.random.default_rng(2))
    slow = fit_slow_coordinates(*at_lag(seen, 5), lag_frames=5)
    found = slow.project(seen)
    assert found.shape == (20, 2000, 2)
    correlation = np.corrcoef(found[..., 0].ravel(), hidden[..., 0].ravel())[0, 1]
    assert abs(correlation) > 0.995
    np.testing.assert_allclose(found.reshape(-1, 2).std(0), 1.0, rtol=0.02)
    np.testing.assert_allclose(found.reshape(-1, 2).mean(0), 0.0, atol=0.02)
    # 1 / -ln 0.98 = 49.5 frames, of which 40,000 frames show 400 independent samples.
    assert slow.timescales[0] == pytest.approx(-1 / math.log(0.98), rel=0.2)
    assert slow.timescales[0] > 10 * slow.timescales[1]
    with pytest.raises(InputError, match="no two frames of a group are 2000 frames apart"):
        at_lag(seen, 2000)
    constant = np.concatenate([seen[..., :1], np.ones_like(seen[..., :1])], axis=-1)
    with pytest.raises(InputError, match="2 slow coordinates are asked of 1 features"):
        fit_slow_coordinates(*at_lag(constant, 5), lag_frames=5)


def test_divergence_in_the_plane_counts_what_lies_outside():
    rng, step = np.random.default_rng(3), np.array([0.5, 0.0])
    reference, same = rng.normal(size=(2, 50_000, 2))
    limits = plane_limits(reference)
    floor = plane_divergence(same, reference, limits=limits)
    assert floor < 0.08
    assert plane_divergence(same + step, reference, limits=limits) > floor + 0.02
    assert plane_divergence(same * np.inf, reference, limits=limits) == pytest.approx(math.log(2))
    log_w = 0.5 * same[:, 0]
    moved = rng.normal(size=(50_000, 2)) + step
    weighted, unweighted = (plane_divergence(same, moved, weights, limits=limits) for weights in (log_w, None))
    assert weighted < unweighted - 0.02
    with pytest.raises(InputError, match="NaN"):
        plane_divergence(same * np.nan, reference, limits=limits)


def test_a_plane_has_the_free_energy_of_its_law_and_no_bin_for_what_lies_outside():
    rng = np.random.default_rng(4)
    points = rng.normal(size=(400_000, 2))
    limits = ((-2.0, 2.0), (-1.0, 1.0))
    surface = plane_free_energy(points, limits, bins=8)
    shares = [np.diff(norm.cdf(np.linspace(*ends, 9))) for ends in limits]
    exact = np.outer(*shares)
    assert np.abs((surface.probability - exact) / (surface.stderr * exact)).max() < 4.5
    assert surface.outside == pytest.approx(1 - exact.sum(), abs=0.005)
    nowhere = plane_free_energy(points + 100, limits, bins=8)
    assert nowhere.outside == 1
    assert np.isinf(nowhere.free_energy).all()
    far = np.where(points[:, :1] > 0, points, np.inf)
    assert unvisited_in_plane(far, points, limits) == pytest.approx(norm.cdf(0) - norm.cdf(-2), abs=0.05)
    assert unvisited_in_plane(points, points, limits) == 0


def test_features():
    torsions = np.array([[0.0, math.pi / 2]])
    np.testing.assert_allclose(torsion_features(torsions), [[1, 0, 0, 1]], atol=1e-12)
    triangle = np.array([[[0.0, 0, 0], [3.0, 0, 0], [3.0, 4.0, 0]]])
    assert distance_features(triangle).tolist() == [[3.0, 5.0, 4.0]]


def test_observables_do_not_import_the_slow_package():
    script = "import sys, boltzgen_diffclf.observables; sys.exit('deeptime' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
