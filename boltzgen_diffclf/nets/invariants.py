"""Energy of a noised molecule from its squared distances and signed volumes, standardised at every noise level."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from boltzgen_diffclf.nets.initialisation import linear, zero_linear
from boltzgen_diffclf.nets.plain_mlp import MlpEnergyNet
from boltzgen_diffclf.nets.time_embedding import FourierTimeFeatures

MOST_VOLUMES = 256
"""Signed volumes at most that all quadruples of atoms may have."""

MODES = 10
"""Principal modes of a larger molecule, all of whose triples have a volume."""

INNER_ATOMS = 8
"""Best connected atoms of a larger molecule, all of whose quadruples have a volume."""


class InvariantMoments(NamedTuple):
    """What is known of the invariants of the data, in units of its spread, a column an invariant.

    Attributes:
        distances: mean and variance of every squared distance, pairs in the order of ``itertools.combinations``.
        volumes: mean and variance of every signed volume, and by how much noise of one edge, and of two edges at once,
            adds to the variance.
        mode_volumes: the same of every three modes, in the order of ``itertools.combinations``.
    """

    distances: Float[Tensor, "2 pairs"]
    volumes: Float[Tensor, "4 volumes"]
    mode_volumes: Float[Tensor, "4 triples"]


class NoisedInvariants(nn.Module):
    r"""Squared distances of all pairs and signed volumes, of mean zero and unit spread at every level.

    For ``y = alpha x + sigma z`` over its spread, ``h = y / sqrt(alpha^2 v + sigma^2)``, and isotropic ``z``, a squared
    distance of ``h`` has the exact mean ``a m + 6 (1 - a)`` and variance ``a^2 s^2 + 8 a (1 - a) m + 24 (1 - a)^2``,
    with ``a = alpha^2 v / (alpha^2 v + sigma^2)`` and the mean ``m`` and standard deviation ``s`` of the squared
    distances of the data over ``v``. A bond varies by a fiftieth of its length and a torsion by all of it:
    standardised, both are numbers of order one, and remain so as the noise grows. So is the volume of three edges,
    ``det[e_1, e_2, e_3]``: a plane group is bent by a tenth of what a torsion turns. The determinant is linear in
    each edge and changes sign with their order, so its terms with noise in none, one, two or three edges have no
    covariance: its mean is ``a^{3/2} m`` and its variance ``a^3 s^2 + a^2 (1 - a) g_1 + a (1 - a)^2 g_2
    + 24 (1 - a)^3``, see :func:`invariant_moments`.

    Modes are sums over all atoms with orthonormal weights, so noise has the same size in each and none in common: the
    volume of three of them has ``6 (1 - a)^3`` for its last term. Under much noise every atom tells a little of which
    hand a molecule is of, which volumes of a few quadruples leave out.

    Args:
        n_atoms: of the molecule.
        quadruples: atoms of the volumes.
        modes: orthonormal weights of the atoms, see :func:`principal_modes`; none where the volumes are of all atoms.
        moments: of the data.
        log_snr: ``log(alpha^2 v / sigma^2)`` at ``t = 0`` and ``t = 1``, between which it is a straight line.
    """

    distances: Tensor
    volumes: Tensor
    mode_volumes: Tensor
    quadruples: Tensor
    modes: Tensor
    triples: Tensor
    log_snr: Tensor

    def __init__(
        self,
        n_atoms: int,
        quadruples: Int[Tensor, "volumes 4"],
        modes: Float[Tensor, "modes atoms"],
        moments: InvariantMoments,
        log_snr: tuple[float, float],
    ) -> None:
        super().__init__()
        # Not among the weights: the statistics of the data bring them.
        self.register_buffer("modes", modes.float(), persistent=False)
        self.register_buffer("mode_volumes", moments.mode_volumes.float(), persistent=False)
        self.register_buffer("quadruples", quadruples, persistent=False)
        self.register_buffer("triples", all_triples(len(modes)), persistent=False)
        self.register_buffer("distances", moments.distances.float())
        self.register_buffer("volumes", moments.volumes.float())
        self.register_buffer("log_snr", torch.tensor(log_snr))
        self.n_features = n_atoms * (n_atoms - 1) // 2 + len(quadruples) + math.comb(len(modes), 3)

    def log_snr_at(self, t: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        """Return ``log(alpha^2 v / sigma^2)``."""
        return torch.lerp(self.log_snr[0], self.log_snr[1], t)

    def forward(self, h: Float[Tensor, "batch atoms 3"], t: Float[Tensor, " batch"]) -> Float[Tensor, "batch features"]:
        """Return the standardised invariants."""
        kept = torch.sigmoid(self.log_snr_at(t))[:, None]
        lost = 1 - kept
        mean, variance = self.distances
        spread = kept.square() * variance + 8 * kept * lost * mean + 24 * lost.square()
        distances = (squared_distances(h) - kept * mean - 6 * lost) / spread.sqrt()
        volumes = _standardised(signed_volumes(h, self.quadruples), self.volumes, kept, 24.0)
        if len(self.modes) == 0:
            return torch.cat([distances, volumes], dim=1)
        of_modes = _standardised(mode_volumes(h, self.modes, self.triples), self.mode_volumes, kept, 6.0)
        return torch.cat([distances, volumes, of_modes], dim=1)


def _standardised(volumes: Tensor, moments: Tensor, kept: Tensor, noise: float) -> Tensor:
    lost = 1 - kept
    mean, variance, one, two = moments
    spread = kept**3 * variance + kept.square() * lost * one + kept * lost.square() * two + noise * lost**3
    return (volumes - kept * kept.sqrt() * mean) / spread.sqrt()


def principal_modes(x: Float[Tensor, "frames atoms 3"]) -> Float[Tensor, "modes atoms"]:
    """Return the modes of centred positions that vary most, or none where all quadruples of atoms have a volume.

    Eigenvectors of the mean inner products of atoms, which do not change when a frame is turned.
    """
    n_atoms = x.shape[1]
    if math.comb(n_atoms, 4) <= MOST_VOLUMES:
        return x.new_empty(0, n_atoms)
    products = torch.einsum("fax,fbx->ab", x, x) / len(x)
    return torch.linalg.eigh(products)[1].T.flip(0)[:MODES]


def all_triples(n: int) -> Int[Tensor, "3 triples"]:
    """Return every three of ``n`` things, in the order of ``itertools.combinations``."""
    return torch.tensor(list(combinations(range(n), 3)), dtype=torch.long).reshape(-1, 3).T


def mode_volumes(
    x: Float[Tensor, "batch atoms 3"], modes: Float[Tensor, "modes atoms"], triples: Int[Tensor, "3 triples"]
) -> Float[Tensor, "batch triples"]:
    """Return the determinants of three modes each."""
    a, b, c = _of_modes(x, modes, triples)
    return _dot(a, torch.linalg.cross(b, c))


def _of_modes(x: Tensor, modes: Tensor, triples: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    among = (x.transpose(1, 2) @ modes.T).transpose(1, 2)
    first, second, third = triples
    return among[:, first], among[:, second], among[:, third]


def invariant_moments(
    x: Float[Tensor, "frames atoms 3"], quadruples: Int[Tensor, "volumes 4"], modes: Float[Tensor, "modes atoms"]
) -> InvariantMoments:
    r"""Return the moments of the invariants of positions in units of their spread.

    Noise of the atoms of a chain gives its edges the covariances ``G (x) I_3`` with ``G = [[2, -1, 0], [-1, 2, -1],
    [0, -1, 2]]``. Noise of one edge changes a volume along the cross product ``w_i`` of the other two, which adds
    ``g_1 = E sum_ij G_ij w_i . w_j``. Cross products of the noise of two edges have the covariances of the second
    minors of ``G``, twice, and meet the edge that is left: ``g_2``.
    """
    squared = squared_distances(x)
    a, b, c = _edges(x, quadruples)
    p, q, r = (torch.linalg.cross(*pair) for pair in ((b, c), (c, a), (a, b)))
    one = 2 * (_dot(p, p) + _dot(q, q) + _dot(r, r) - _dot(p, q) - _dot(q, r))
    two = 6 * _dot(a, a) + 8 * _dot(b, b) + 6 * _dot(c, c) + 8 * _dot(a, b) + 8 * _dot(b, c) + 4 * _dot(a, c)
    volume = _dot(a, p)
    return InvariantMoments(
        torch.stack([squared.mean(0), squared.var(0)]),
        torch.stack([volume.mean(0), volume.var(0), one.mean(0), two.mean(0)]),
        _mode_moments(x, modes),
    )


def _mode_moments(x: Tensor, modes: Tensor) -> Tensor:
    """The same with ``G`` the identity."""
    if len(modes) == 0:
        return x.new_empty(4, 0)
    a, b, c = _of_modes(x, modes, all_triples(len(modes)).to(x.device))
    p, q, r = (torch.linalg.cross(*pair) for pair in ((b, c), (c, a), (a, b)))
    volume = _dot(a, p)
    one, two = _dot(p, p) + _dot(q, q) + _dot(r, r), 2 * (_dot(a, a) + _dot(b, b) + _dot(c, c))
    return torch.stack([volume.mean(0), volume.var(0), one.mean(0), two.mean(0)])


def signed_volumes(
    x: Float[Tensor, "batch atoms 3"], quadruples: Int[Tensor, "volumes 4"]
) -> Float[Tensor, "batch volumes"]:
    """Return the determinants of the three edges from atom to atom of every quadruple."""
    a, b, c = _edges(x, quadruples)
    return _dot(a, torch.linalg.cross(b, c))


def _edges(x: Tensor, quadruples: Tensor) -> list[Tensor]:
    return [x[:, quadruples[:, k + 1]] - x[:, quadruples[:, k]] for k in range(3)]


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum(-1)


def squared_distances(x: Float[Tensor, "batch atoms 3"]) -> Float[Tensor, "batch pairs"]:
    """Return the squared distances of all pairs of atoms, in the order of ``itertools.combinations``."""
    first, second = torch.triu_indices(x.shape[1], x.shape[1], 1, device=x.device)
    return (x[:, first] - x[:, second]).square().sum(-1)


class InvariantEnergyNet(nn.Module):
    r"""A network of the invariants of a noised molecule, which ``s`` brings to kT near the data; zero before training.

    The model multiplies what is given here by ``s = exp(log_snr / 2)``, the slope in a position of what varies as
    little as a bond. Standardised, a bond has that slope already: an energy of its invariants is of order kT at every
    level, and ``s`` times that would be deep holes wherever the network is wrong by one. ``1 / (1 + s)`` takes it away
    near the data, and leaves it in noise, where the invariants tell little.

    Args:
        invariants: see there.
        energy: ``(z, t) -> (batch,)`` [kT] of them.
    """

    def __init__(self, invariants: NoisedInvariants, energy: nn.Module) -> None:
        super().__init__()
        self.invariants, self.energy = invariants, energy

    def forward(self, h: Float[Tensor, "batch atoms 3"], t: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        """Return the energy [kT], over ``s``."""
        energy: Tensor = torch.sigmoid(-0.5 * self.invariants.log_snr_at(t)) * self.energy(self.invariants(h, t), t)
        return energy


class HarmonicEnergyNet(nn.Module):
    r"""A network of invariants beside a quadratic form, ``(sum_k a_k z_k^2 + sum_r b_r (w_r z + c_r)^2) / 2``.

    The stiff part of a molecule's energy is a sum of quadratics, one a bond, an angle or a plane: a form has it by
    itself. The stiffnesses ``a`` and ``b`` depend on the noise alone and may have either sign. Zero before training;
    :class:`InvariantEnergyNet` makes kT of it.

    Args:
        n_features: of the invariants.
        generator: draws the starting weights.
        hidden: width of the network.
        layers: its hidden layers.
        rank: of the part of the form that mixes invariants.
    """

    def __init__(
        self,
        n_features: int,
        generator: torch.Generator,
        *,
        hidden: int = 128,
        layers: int = 3,
        rank: int = 128,
    ) -> None:
        super().__init__()
        self.network = MlpEnergyNet(n_features, generator, hidden=hidden, layers=layers)
        self.time_features = FourierTimeFeatures()
        self.mixed = linear(n_features, rank, generator)
        self.own_stiffness = zero_linear(self.time_features.n_features, n_features)
        self.mixed_stiffness = zero_linear(self.time_features.n_features, rank)

    def forward(self, z: Float[Tensor, "batch features"], t: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        """Return the energy [kT]."""
        time = self.time_features(t)
        form = (self.own_stiffness(time) * z.square()).sum(-1)
        form = form + (self.mixed_stiffness(time) * self.mixed(z).square()).sum(-1)
        energy: Tensor = self.network(z, t) + 0.5 * form
        return energy


def volume_quadruples(n_atoms: int, bonds: Sequence[tuple[int, int]]) -> Int[Tensor, "volumes 4"]:
    """Return the atoms of signed volumes: all quadruples of a small molecule, else those that say most.

    Under noise as wide as the molecule it is the large volumes that tell it from its mirror image, and they are no
    simple function of those of neighbours. Beyond :data:`MOST_VOLUMES` these are the chains of four bonded atoms, the
    atoms with three neighbours, and all quadruples of the :data:`INNER_ATOMS` best connected ones.

    >>> volume_quadruples(5, [(0, 1), (1, 2), (2, 3), (3, 4)]).tolist()
    [[0, 1, 2, 3], [0, 1, 2, 4], [0, 1, 3, 4], [0, 2, 3, 4], [1, 2, 3, 4]]
    """
    if math.comb(n_atoms, 4) <= MOST_VOLUMES:
        return torch.tensor(list(combinations(range(n_atoms), 4)), dtype=torch.long).reshape(-1, 4)
    neighbours: list[list[int]] = [[] for _ in range(n_atoms)]
    for first, second in bonds:
        neighbours[first].append(second)
        neighbours[second].append(first)
    chains = [
        (start, j, k, end)
        for j, k in sorted((min(bond), max(bond)) for bond in bonds)
        for start in sorted(neighbours[j])
        for end in sorted(neighbours[k])
        if start != k and end != j and start != end
    ]
    centres = [(centre, *others) for centre in range(n_atoms) for others in combinations(sorted(neighbours[centre]), 3)]
    connected = sorted(range(n_atoms), key=lambda atom: -len(neighbours[atom]))[:INNER_ATOMS]
    inner = combinations(sorted(connected), 4)
    # The same four atoms in another order have the same volume, up to its sign.
    each = {frozenset(quadruple): quadruple for quadruple in (*inner, *centres, *chains)}
    return torch.tensor(list(each.values()), dtype=torch.long)
