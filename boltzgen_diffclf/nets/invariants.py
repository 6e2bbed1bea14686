"""Energy of a noised molecule from its squared distances and signed volumes, standardised at every noise level."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations, pairwise

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from boltzgen_diffclf.nets.plain_mlp import MlpEnergyNet


class NoisedInvariants(nn.Module):
    r"""Squared distances of all pairs and signed volumes of bonded atoms, of about unit spread at every level.

    For ``y = alpha x + sigma z`` over its spread, ``h = y / sqrt(alpha^2 v + sigma^2)``, and isotropic ``z``, a squared
    distance of ``h`` has the exact mean ``a m + 6 (1 - a)`` and variance ``a^2 s^2 + 8 a (1 - a) m + 24 (1 - a)^2``,
    with ``a = alpha^2 v / (alpha^2 v + sigma^2)`` and the mean ``m`` and standard deviation ``s`` of the squared
    distances of the data over ``v``. A bond varies by a fiftieth of its length and a torsion by all of it:
    standardised, both are numbers of order one, and remain so as the noise grows.

    Args:
        n_atoms: of the molecule.
        quadruples: atoms of the volumes.
        mean: ``m`` of every pair, in the order of ``itertools.combinations``.
        variance: ``s^2`` of every pair.
        log_snr: ``log(alpha^2 v / sigma^2)`` at ``t = 0`` and ``t = 1``, between which it is a straight line.
    """

    mean: Tensor
    variance: Tensor
    quadruples: Tensor
    edges: Tensor
    log_snr: Tensor

    def __init__(
        self,
        n_atoms: int,
        quadruples: Int[Tensor, "volumes 4"],
        mean: Float[Tensor, " pairs"],
        variance: Float[Tensor, " pairs"],
        log_snr: tuple[float, float],
    ) -> None:
        super().__init__()
        pairs = list(combinations(range(n_atoms), 2))
        place = {pair: index for index, pair in enumerate(pairs)}
        edges = [[place[min(pair), max(pair)] for pair in pairwise(chain)] for chain in quadruples.tolist()]
        self.register_buffer("quadruples", quadruples, persistent=False)
        self.register_buffer("edges", torch.tensor(edges, dtype=torch.long).reshape(-1, 3), persistent=False)
        self.register_buffer("mean", mean.float())
        self.register_buffer("variance", variance.float())
        self.register_buffer("log_snr", torch.tensor(log_snr))
        self.n_features = len(pairs) + len(quadruples)

    def forward(self, h: Float[Tensor, "batch atoms 3"], t: Float[Tensor, " batch"]) -> Float[Tensor, "batch features"]:
        """Return the standardised invariants."""
        kept = torch.sigmoid(torch.lerp(self.log_snr[0], self.log_snr[1], t))[:, None]
        lost = 1 - kept
        mean = kept * self.mean + 6 * lost
        variance = kept.square() * self.variance + 8 * kept * lost * self.mean + 24 * lost.square()
        distances = (squared_distances(h) - mean) / variance.sqrt()
        a, b, c = (h[:, self.quadruples[:, k + 1]] - h[:, self.quadruples[:, k]] for k in range(3))
        volumes = (a * torch.linalg.cross(b, c)).sum(-1) / mean[:, self.edges].prod(-1).sqrt()
        return torch.cat([distances, volumes], dim=1)


def squared_distances(x: Float[Tensor, "batch atoms 3"]) -> Float[Tensor, "batch pairs"]:
    """Return the squared distances of all pairs of atoms, in the order of ``itertools.combinations``."""
    first, second = torch.triu_indices(x.shape[1], x.shape[1], 1, device=x.device)
    return (x[:, first] - x[:, second]).square().sum(-1)


class InvariantEnergyNet(nn.Module):
    """A network of the invariants of a noised molecule; exactly zero before training.

    Args:
        invariants: see there.
        generator: draws the starting weights.
        hidden: width.
        layers: hidden layers.
    """

    def __init__(
        self, invariants: NoisedInvariants, generator: torch.Generator, *, hidden: int = 128, layers: int = 3
    ) -> None:
        super().__init__()
        self.invariants = invariants
        self.energy = MlpEnergyNet(invariants.n_features, generator, hidden=hidden, layers=layers)

    def forward(self, h: Float[Tensor, "batch atoms 3"], t: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        """Return the energy [kT]."""
        return self.energy(self.invariants(h, t), t)


def volume_quadruples(n_atoms: int, bonds: Sequence[tuple[int, int]]) -> Int[Tensor, "volumes 4"]:
    """Return the atoms of signed volumes: each chain of four bonded atoms, and each atom with three neighbours.

    >>> volume_quadruples(5, [(0, 1), (1, 2), (2, 3), (3, 4)]).tolist()
    [[0, 1, 2, 3], [1, 2, 3, 4]]
    """
    neighbours: list[list[int]] = [[] for _ in range(n_atoms)]
    for first, second in bonds:
        neighbours[first].append(second)
        neighbours[second].append(first)
    chains = [
        [start, j, k, end]
        for j, k in sorted((min(bond), max(bond)) for bond in bonds)
        for start in sorted(neighbours[j])
        for end in sorted(neighbours[k])
        if start != k and end != j and start != end
    ]
    centres = [[centre, *others] for centre in range(n_atoms) for others in combinations(sorted(neighbours[centre]), 3)]
    return torch.tensor(chains + centres, dtype=torch.long).reshape(-1, 4)
