"""Torsions, surfaces, populations and divergences against answers known in closed form."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.spatial.distance import jensenshannon
from scipy.special import i0
from scipy.stats import vonmises

from boltzgen_diffclf.errors import InputError, NotTrustworthyError
from boltzgen_diffclf.observables import (
    conformer_free_energy,
    divergence_above_floor,
    free_energy_profile,
    free_energy_surface,
    in_basin,
    noise_floor,
    paired_torsions,
    pooled_range_jensen_shannon,
    population,
    ramachandran_jensen_shannon,
    ramachandran_pmf_error,
    surface_difference,
    torsion_angles,
)
from boltzgen_diffclf.observables.divergences import jensen_shannon, log_ratio_error
from boltzgen_diffclf.observables.torsions import wrap


def chain_with_torsion(angle):
    """Four atoms whose torsion is ``angle``: looking along z, the far bond is turned clockwise."""
    return np.array([[1.0, 0, 0], [0, 0, 0], [0, 0, 1], [math.cos(angle), math.sin(angle), 1.3]])


@pytest.mark.parametrize("angle", [-3.0, -1.0, 0.0, 0.5, 2.0, 3.1])
def test_torsion_of_a_built_chain(angle):
    found = torsion_angles(chain_with_torsion(angle)[None], np.array([[0, 1, 2, 3]]))
    assert found[0, 0] == pytest.approx(angle, abs=1e-12)


def test_torsions_agree_with_another_program():
    import mdtraj

    positions = np.random.default_rng(0).normal(size=(20, 9, 3))
    quadruples = np.array([[0, 1, 2, 3], [8, 2, 5, 1], [4, 5, 6, 7]])
    topology = mdtraj.Topology()
    residue = topology.add_residue("X", topology.add_chain())
    for _ in range(9):
        topology.add_atom("C", mdtraj.element.carbon, residue)
    expected = mdtraj.compute_dihedrals(mdtraj.Trajectory(positions, topology), quadruples)
    np.testing.assert_allclose(torsion_angles(positions, quadruples), expected, atol=1e-4)
    mirrored = positions * np.array([1.0, 1.0, -1.0])
    np.testing.assert_allclose(torsion_angles(mirrored, quadruples), -torsion_angles(positions, quadruples), atol=1e-9)


def test_torsions_are_half_open():
    trans = torsion_angles(chain_with_torsion(math.pi)[None], np.array([[0, 1, 2, 3]]))
    assert trans[0, 0] == pytest.approx(-math.pi)
    wrapped = wrap(np.array([-np.pi - 1e-17, np.pi, 3 * np.pi, -1e-17, 7.0]))
    assert ((wrapped >= -np.pi) & (wrapped < np.pi)).all()
    assert wrapped[-1] == pytest.approx(7 - 2 * np.pi)
    with pytest.raises(InputError, match="do not all exist"):
        torsion_angles(np.zeros((1, 4, 3)), np.array([[0, 1, 2, 4]]))


def test_phi_and_psi_are_paired_by_atoms():
    phi = np.array([[4, 6, 8, 14], [14, 16, 18, 24]])
    psi = np.array([[0, 1, 4, 6], [16, 18, 24, 26], [6, 8, 14, 16]])
    assert paired_torsions(phi, psi).tolist() == [[0, 2], [1, 1]]
    assert paired_torsions(phi, psi[:1]).shape == (0, 2)


def von_mises_sample(n, rng, kappa=1.0):
    return rng.vonmises(0.0, kappa, n), rng.uniform(-np.pi, np.pi, n)


def test_surface_of_a_von_mises_law():
    rng = np.random.default_rng(1)
    phi, psi = von_mises_sample(400_000, rng)
    surface = free_energy_surface(phi, psi, bins=16)
    edges = np.linspace(-np.pi, np.pi, 17)
    exact = -np.log(np.diff(vonmises.cdf(edges, 1.0)) / 16)[:, None] + np.zeros(16)
    z = (-np.log(surface.probability) - exact) / surface.stderr
    assert surface.probability.sum() == pytest.approx(1)
    assert np.abs(z).max() < 4.5
    assert abs(z.var() - 1) < 4 * math.sqrt(2 / z.size)
    middle = 0.5 * (edges[1:] + edges[:-1])
    slope = surface.free_energy.mean(axis=1) + np.cos(middle)
    assert np.ptp(slope) < 0.06
    assert surface.free_energy.min() == 0


def test_surface_errors_come_from_walkers():
    rng = np.random.default_rng(2)
    walkers, frames = 100, 400
    centre = np.repeat(rng.normal(size=walkers), frames)
    phi = wrap(centre + 0.3 * rng.normal(size=walkers * frames))
    psi = rng.uniform(-np.pi, np.pi, walkers * frames)
    labels = np.repeat(np.arange(walkers), frames)
    grouped = free_energy_surface(phi, psi, groups=labels, bins=8)
    naive = free_energy_surface(phi, psi, bins=8)
    np.testing.assert_array_equal(grouped.probability, naive.probability)
    exact = np.diff([0.5 * (1 + math.erf(e / math.sqrt(2 * 1.09))) for e in np.linspace(-np.pi, np.pi, 9)])
    bulk = exact > 0.05
    z_grouped = (np.log(grouped.probability * 8 / exact[:, None]) / grouped.stderr)[bulk]
    z_naive = (np.log(naive.probability * 8 / exact[:, None]) / naive.stderr)[bulk]
    assert np.abs(z_grouped).max() < 4 < np.abs(z_naive).max()


def test_weights_turn_one_surface_into_another():
    rng = np.random.default_rng(3)
    phi, psi = von_mises_sample(200_000, rng)
    uniform = rng.uniform(-np.pi, np.pi, 200_000)
    weighted = free_energy_surface(uniform, psi, log_w=np.cos(uniform) + 100.0, bins=8)
    difference = surface_difference(weighted, free_energy_surface(phi, psi, bins=8))
    z = difference.value / difference.stderr
    assert np.abs(z).max() < 4.5
    assert abs(z.var() - 1) < 4 * math.sqrt(2 / z.size)


def weighted_walkers(rng, walkers=60, frames=50):
    """Torsions spread about a mean of each walker, weighted towards a von Mises law of the whole circle."""
    centre = np.repeat(rng.uniform(-np.pi, np.pi, walkers), frames)
    angle = wrap(centre + 0.4 * rng.normal(size=walkers * frames))
    return angle, 0.7 * np.cos(angle), np.repeat(np.arange(walkers), frames)


def test_errors_of_weighted_walkers_are_their_scatter():
    """Profile and conformers of independent repeats: unbiased, and as scattered as each one says."""
    edges = np.linspace(-np.pi, np.pi, 9)
    exact = -np.log(np.diff(vonmises.cdf(edges, 0.7)))
    share = vonmises.cdf(2.15, 0.7) - vonmises.cdf(0.0, 0.7)
    conformers = math.log1p(-share) - math.log(share)
    z_profile, z_conformer = [], []
    for seed in range(150):
        angle, log_w, labels = weighted_walkers(np.random.default_rng(seed))
        profile = free_energy_profile(angle, groups=labels, log_w=log_w, bins=8)
        z_profile.append((-np.log(profile.probability) - exact) / profile.stderr)
        found = conformer_free_energy(angle, 0.0, 2.15, groups=labels, log_w=log_w)
        z_conformer.append((found.value - conformers) / found.stderr)
    assert np.std(z_profile) == pytest.approx(1.0, abs=0.15)
    assert np.std(z_conformer) == pytest.approx(1.0, abs=4 / math.sqrt(300))
    assert abs(np.mean(z_conformer)) < 4 / math.sqrt(150)
    naive = conformer_free_energy(angle, 0.0, 2.15, log_w=log_w)
    assert naive.value == found.value
    assert naive.stderr < 0.3 * found.stderr
    assert found.n_effective < 0.1 * naive.n_effective < 300


def test_profile_is_the_margin_of_the_surface():
    rng = np.random.default_rng(7)
    phi, psi = von_mises_sample(20_000, rng)
    profile, surface = free_energy_profile(phi, bins=16), free_energy_surface(phi, psi, bins=16)
    np.testing.assert_allclose(profile.probability, surface.probability.sum(axis=1))
    np.testing.assert_array_equal(profile.edges, np.linspace(-np.pi, np.pi, 17))
    assert profile.free_energy.min() == 0
    assert np.isinf(free_energy_profile(np.full(5, 1.0), bins=4).stderr[0])
    with pytest.raises(InputError, match="1 NaN"):
        free_energy_profile(np.array([np.nan, 0.0]))


def test_free_energy_of_a_conformer_is_b_minus_a():
    """One sample of four in B, so it costs ln 3; through pi as well."""
    angle = np.array([1.0, -1.0, -1.0, -1.0])
    assert conformer_free_energy(angle, 0.0, 2.15).value == pytest.approx(math.log(3))
    assert conformer_free_energy(angle, 2.15, 0.0).value == pytest.approx(-math.log(3))
    fair = conformer_free_energy(angle, 0.0, 2.15, log_w=np.log(np.array([3.0, 1.0, 1.0, 1.0])))
    assert fair.value == pytest.approx(0.0, abs=1e-12)
    many = conformer_free_energy(np.tile(angle, 1000), 0.0, 2.15)
    assert many.stderr == pytest.approx(1 / math.sqrt(4000 * 0.25 * 0.75), rel=1e-3)
    assert many.n_effective == pytest.approx(4000, rel=1e-3)
    with pytest.raises(NotTrustworthyError, match="holds 0 % of 4 samples"):
        conformer_free_energy(angle, 2.0, 2.15)


def test_difference_has_its_sign_and_its_gaps():
    a = free_energy_surface(np.array([-1.0, -1.0, 1.0, 2.0]), np.zeros(4), bins=2)
    b = free_energy_surface(np.array([-1.0, 1.0, 1.0, 2.0]), np.zeros(4), bins=2)
    difference = surface_difference(a, b)
    assert difference.value[0, 1] == pytest.approx(math.log(2))
    assert difference.value[1, 1] == pytest.approx(math.log(2 / 3))
    assert np.isnan(difference.value[:, 0]).all()
    assert np.isinf(a.free_energy[:, 0]).all()
    assert np.isinf(a.stderr[:, 0]).all()
    with pytest.raises(InputError, match="same number of bins"):
        surface_difference(a, free_energy_surface(np.zeros(4), np.zeros(4), bins=3))
    with pytest.raises(InputError, match="1 NaN"):
        free_energy_surface(np.array([np.nan, 0.0]), np.zeros(2))


def test_population_of_a_basin():
    rng = np.random.default_rng(4)
    phi = rng.uniform(-np.pi, np.pi, 20_000)
    exact = 2.15 / (2 * np.pi)
    result = population(phi, 0.0, 2.15)
    assert abs(result.value - exact) < 4 * result.stderr
    assert result.stderr == pytest.approx(math.sqrt(exact * (1 - exact) / 20_000), rel=0.02)
    weighted = population(phi, 0.0, np.pi / 2, log_w=2 * np.cos(phi))
    fine = np.linspace(0, np.pi / 2, 2001)
    arc = np.trapezoid(np.exp(2 * np.cos(fine)), fine) / (2 * np.pi * i0(2.0))
    assert abs(weighted.value - arc) < 4 * weighted.stderr < 0.05
    stuck = np.repeat([1.0, -1.0, 1.0, -1.0], 100)
    walkers = population(stuck, 0.0, 2.15, groups=np.repeat(np.arange(4), 100))
    assert walkers.stderr == pytest.approx(0.5 / math.sqrt(3))
    assert in_basin(np.array([3.0, -3.0, 0.0]), 2.0, -2.0).tolist() == [True, True, False]


def test_jensen_shannon_of_two_bins():
    p, q = np.array([0.5, 0.5]), np.array([0.25, 0.75])
    middle = (p + q) / 2
    exact = 0.5 * np.sum(p * np.log(p / middle)) + 0.5 * np.sum(q * np.log(q / middle))
    assert jensen_shannon(p, q) == pytest.approx(exact)
    assert jensen_shannon(10 * p, q) == pytest.approx(exact)
    assert jensen_shannon(p, p) == 0
    assert jensen_shannon(np.array([1.0, 0.0]), np.array([0.0, 1.0])) == pytest.approx(math.log(2))


def test_pmf_error_of_two_bins():
    p, q = np.array([0.5, 0.5]), np.array([0.25, 0.75])
    exact = 0.375 * math.log(2) ** 2 + 0.625 * math.log(1.5) ** 2
    assert log_ratio_error(p, q) == pytest.approx(exact)
    empty = log_ratio_error(np.array([1.0, 0.0]), np.array([0.5, 0.5]))
    assert empty == pytest.approx(0.75 * math.log(2) ** 2 + 0.5 * (0.5 + 1e-6) * math.log(0.5e6) ** 2)


def test_divergences_of_torsions_use_fixed_limits():
    rng = np.random.default_rng(5)
    same = np.column_stack(von_mises_sample(5000, rng))
    assert ramachandran_jensen_shannon(same, same) == 0
    assert ramachandran_pmf_error(same, same) == 0
    left, right = np.full((10, 2), -1.0), np.full((10, 2), 1.0)
    assert ramachandran_jensen_shannon(left, right) == pytest.approx(math.log(2))
    assert ramachandran_pmf_error(left, right) == pytest.approx((1 + 1e-6) * math.log(1e6) ** 2)
    # On limits drawn from the samples these two would fall into different bins.
    near = np.full((10, 2), 0.5 * 2 * np.pi / 64)
    assert ramachandran_jensen_shannon(near, near + 1e-3) == 0
    # One inner bin of 62 spans a fixed width, whatever the samples.
    assert ramachandran_pmf_error(near, near + 1e-3) == 0
    with pytest.raises(InputError, match="NaN"):
        ramachandran_pmf_error(near * np.nan, near)


@pytest.mark.parametrize(
    "divergence", [ramachandran_jensen_shannon, ramachandran_pmf_error, pooled_range_jensen_shannon]
)
def test_a_weight_of_three_is_three_samples(divergence):
    rng = np.random.default_rng(8)
    sample, reference = (np.column_stack(von_mises_sample(n, rng)) for n in (500, 1500))
    copies = rng.integers(1, 4, 500)
    repeated = np.repeat(sample, copies, axis=0)
    weighted = divergence(sample, reference, np.log(copies) - 40.0)
    assert weighted == pytest.approx(divergence(repeated, reference))
    assert weighted != pytest.approx(divergence(sample, reference))


def test_pooled_range_is_the_published_definition():
    """``scipy``'s distance squared on 64 x 64 bins from the smallest to the largest angle of both sets."""
    rng = np.random.default_rng(9)
    p, q = 0.3 * rng.normal(size=(3000, 2)), 0.3 * rng.normal(size=(2000, 2)) + 0.2
    pooled = np.concatenate([p, q])
    limits = list(zip(pooled.min(0), pooled.max(0), strict=True))
    histograms = [np.histogram2d(*each.T, bins=64, range=limits)[0].ravel() for each in (p, q)]
    assert pooled_range_jensen_shannon(p, q) == pytest.approx(jensenshannon(*histograms) ** 2)
    # Narrow laws fill few of the fixed bins, so the two definitions differ.
    assert pooled_range_jensen_shannon(p, q) > 1.5 * ramachandran_jensen_shannon(p, q)


def test_a_perfect_model_is_at_the_floor_and_a_wrong_one_above_it():
    rng = np.random.default_rng(10)
    reference, labels = np.column_stack(von_mises_sample(20_000, rng)), np.repeat(np.arange(40), 500)
    excess, stated = [], []
    for seed in range(12):
        sample = np.column_stack(von_mises_sample(14_000, np.random.default_rng(100 + seed)))
        found = divergence_above_floor(
            ramachandran_jensen_shannon, sample, reference, labels, np.random.default_rng(seed), n_splits=4
        )
        assert found.n_samples == 10_000
        excess.append(found.excess)
        stated.append(found.stderr)
    assert 0.5 < np.mean(stated) / np.std(excess) < 2
    assert abs(np.mean(excess)) < 4 * np.std(excess) / math.sqrt(12) < 0.05 * found.floor
    shifted = divergence_above_floor(
        ramachandran_jensen_shannon, wrap(sample + 0.5), reference, labels, np.random.default_rng(0)
    )
    assert shifted.excess > 5 * shifted.stderr > 0
    uniform = rng.uniform(-np.pi, np.pi, (14_000, 2))
    plain, weighted = (
        divergence_above_floor(ramachandran_jensen_shannon, uniform, reference, labels, np.random.default_rng(0), log_w)
        for log_w in (None, np.cos(uniform[:, 0]))
    )
    assert weighted.excess < 0.3 * plain.excess
    with pytest.raises(InputError, match="at least two"):
        divergence_above_floor(
            ramachandran_jensen_shannon, sample, reference, labels, np.random.default_rng(0), n_splits=1
        )


def test_noise_floor_falls_with_the_number_of_samples():
    rng = np.random.default_rng(6)
    labels = np.repeat(np.arange(20), 1000)
    torsions = np.column_stack(von_mises_sample(20_000, rng))
    small = noise_floor(ramachandran_jensen_shannon, torsions[::10], labels[::10], np.random.default_rng(0))
    large = noise_floor(ramachandran_jensen_shannon, torsions, labels, np.random.default_rng(0))
    assert 0 < large < 0.5 * small
    stuck = torsions + np.where(labels % 2 == 0, 1.5, 0.0)[:, None]
    floors = [noise_floor(ramachandran_jensen_shannon, stuck, labels, np.random.default_rng(s)) for s in range(5)]
    assert max(floors) > large
