import itertools
import math

import pytest
import torch
from torch import Tensor

from boltzgen_diffclf.coordinates import (
    aligned_cost,
    chirality,
    kabsch_align,
    log_normal_centred,
    pair_by_transport,
    remove_mean,
    sample_centred_noise,
    torsion_cost,
)
from boltzgen_diffclf.errors import RunFailedError


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(7)


def normal(generator: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def rotations(generator: torch.Generator, n: int) -> Tensor:
    rotation, _ = torch.linalg.qr(normal(generator, n, 3, 3))
    return rotation * torch.linalg.det(rotation)[:, None, None]


# --- the centroid-free space


def test_mean_is_removed(generator) -> None:
    x = normal(generator, 4, 6, 3) + 5
    assert float(remove_mean(x).mean(1).abs().max()) < 1e-14
    torch.testing.assert_close(torch.cdist(remove_mean(x), remove_mean(x)), torch.cdist(x, x))


def test_centred_noise_has_three_dimensions_fewer(generator) -> None:
    n_atoms, n = 5, 20_000
    noise = sample_centred_noise((n, n_atoms, 3), generator)
    assert float(noise.mean(1).abs().max()) < 1e-14
    squares = noise.square().sum((1, 2))
    dimension = 3 * (n_atoms - 1)
    assert abs(float(squares.mean()) - dimension) < 4 * math.sqrt(2 * dimension / n)


def test_noise_follows_its_generator_and_dtype() -> None:
    draws = [
        sample_centred_noise((2, 4, 3), torch.Generator().manual_seed(1), dtype=torch.float32, device="cpu")
        for _ in range(2)
    ]
    assert draws[0].dtype == torch.float32
    assert torch.equal(*draws)


@pytest.mark.parametrize("sigma", [1.0, 0.3])
def test_normaliser_is_that_of_the_subspace(generator, sigma: float) -> None:
    n_atoms = 4
    # An orthonormal basis of the subspace turns it into an ordinary normal of 3(N-1) dimensions.
    projector = torch.eye(n_atoms, dtype=torch.float64) - 1 / n_atoms
    _, vectors = torch.linalg.eigh(projector)
    basis = vectors[:, 1:]
    x = sigma * sample_centred_noise((6, n_atoms, 3), generator)
    coordinates = torch.einsum("ak,bai->bki", basis, x).flatten(1)
    expected = (
        torch.distributions.Normal(*torch.tensor([0.0, sigma], dtype=torch.float64)).log_prob(coordinates).sum(-1)
    )
    torch.testing.assert_close(log_normal_centred(x, sigma), expected)
    torch.testing.assert_close(log_normal_centred(x + 2.0, torch.full((6,), sigma, dtype=torch.float64)), expected)


# --- superposition and handedness


def test_alignment_undoes_a_rigid_motion(generator) -> None:
    reference = normal(generator, 5, 8, 3)
    moved = reference @ rotations(generator, 5).mT + normal(generator, 5, 1, 3)
    torch.testing.assert_close(kabsch_align(moved, reference), reference)
    torch.testing.assert_close(kabsch_align(moved[:1], reference[:1]), reference[:1])


def test_alignment_takes_one_reference_for_all(generator) -> None:
    reference = normal(generator, 1, 8, 3)
    moved = reference @ rotations(generator, 5).mT
    torch.testing.assert_close(kabsch_align(moved, reference), reference.expand(5, -1, -1))


def test_alignment_never_reflects(generator) -> None:
    reference = normal(generator, 10, 6, 3)
    quadruples = torch.tensor([[0, 1, 2, 3], [1, 2, 4, 5]])
    mirrored = reference * torch.tensor([1.0, 1.0, -1.0])
    aligned = kabsch_align(mirrored, reference)
    torch.testing.assert_close(chirality(aligned, quadruples), -chirality(reference, quadruples))
    # It is the best of many rotations.
    best = (aligned - reference).square().sum((1, 2))
    for rotation in rotations(generator, 200):
        tried = remove_mean(mirrored) @ rotation.T + reference.mean(1, keepdim=True)
        assert ((tried - reference).square().sum((1, 2)) >= best - 1e-12).all()


def test_chirality_is_a_signed_volume() -> None:
    corner = torch.tensor([[[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]]])
    quadruples = torch.tensor([[0, 1, 2, 3], [0, 2, 1, 3]])
    torch.testing.assert_close(chirality(corner, quadruples), torch.tensor([[1 / 6, -1 / 6]]))


# --- pairing


def test_transport_is_the_best_permutation(generator) -> None:
    cost = normal(generator, 6, 6)
    permutation = pair_by_transport(cost)
    rows = torch.arange(6)
    best = min(float(cost[rows, list(p)].sum()) for p in itertools.permutations(range(6)))
    assert float(cost[rows, permutation].sum()) == pytest.approx(best)
    assert sorted(permutation.tolist()) == list(range(6))


def test_transport_recovers_a_shuffle(generator) -> None:
    angles = 2 * math.pi * torch.rand(50, 2, generator=generator, dtype=torch.float64) - math.pi
    shuffle = torch.randperm(50, generator=generator)
    shaken = angles + 1e-3 * normal(generator, 50, 2)
    assert torch.equal(pair_by_transport(torsion_cost(shaken[shuffle], angles)), shuffle)


def test_exploded_samples_are_named() -> None:
    cost = torch.zeros(3, 3)
    cost[1, 2] = math.nan
    with pytest.raises(RunFailedError, match="1 of 9 pairing costs"):
        pair_by_transport(cost)


def test_torsion_cost_is_the_shortest_arc() -> None:
    first = torch.tensor([[3.0, 0.0], [0.0, 0.0]], dtype=torch.float64)
    second = torch.tensor([[-3.0, 0.5]], dtype=torch.float64)
    expected = torch.tensor([[(2 * math.pi - 6) ** 2 + 0.25], [9.25]], dtype=torch.float64)
    torch.testing.assert_close(torsion_cost(first, second), expected)
    third = torch.tensor([[0.0, 2 * math.pi / 3 + 0.1]], dtype=torch.float64)
    folded = torsion_cost(torch.zeros(1, 2).double(), third, torch.tensor([1, 3]))
    torch.testing.assert_close(folded, torch.tensor([[0.01]]).double())


def test_aligned_cost_is_that_of_explicit_alignment(generator) -> None:
    first, second = normal(generator, 4, 7, 3), normal(generator, 5, 7, 3)
    second[0] = first[0] * torch.tensor([1.0, 1.0, -1.0])  # a mirror image must not be free
    cost = aligned_cost(first, second)
    assert float(cost[0, 0]) > 0.1
    for i, j in itertools.product(range(4), range(5)):
        aligned = kabsch_align(first[i : i + 1], second[j : j + 1])
        expected = (aligned - second[j]).square().sum(-1).mean()
        assert float(cost[i, j]) == pytest.approx(float(expected), abs=1e-10)
