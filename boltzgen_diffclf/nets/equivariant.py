"""Energy of a molecule on a path: invariant to motion, sensitive to mirror images, in two forms with one state."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from boltzgen_diffclf.nets.bond_graph import BOND_CLASSES, bond_separation
from boltzgen_diffclf.nets.initialisation import linear, table
from boltzgen_diffclf.nets.interaction import InteractionLayer, RadialBasis, Readout, feature_first
from boltzgen_diffclf.nets.time_embedding import FourierTimeFeatures


@dataclass(frozen=True)
class EquivariantConfig:
    """Sizes and lengths of a molecular energy network.

    Attributes:
        hidden: number of scalar and of vector channels an atom.
        layers: exchanges between atoms.
        radial: functions of the distance.
        pair: features of a pair, from which the filters of all layers are made; they dominate the cost.
        chiral: parity-odd invariants an atom and layer.
        n_frequencies: waves of the time features.
        max_cycles: turns of the fastest wave over the path.
        length_nm: resolution length of the radial functions and unit of length inside [nm].
        softening_nm: below this, distances no longer matter [nm].
        reach_nm: where the influence of an atom starts to fade [nm].
    """

    hidden: int = 32
    layers: int = 3
    radial: int = 16
    pair: int = 16
    chiral: int = 8
    n_frequencies: int = 8
    max_cycles: float = 8.0
    length_nm: float = 0.25
    softening_nm: float = 0.02
    reach_nm: float = 0.5

    def __post_init__(self) -> None:
        if min(self.hidden, self.layers, self.pair, self.chiral, self.radial - 1) < 1:
            raise ValueError(f"hidden, layers, pair and chiral must be at least 1, and radial at least 2: {self}")
        if min(self.length_nm, self.softening_nm, self.reach_nm) <= 0:
            raise ValueError(f"lengths must be positive: {self}")


class EquivariantEnergyNet(nn.Module, ABC):
    """What both forms share: all parameters, and everything but the sum over pairs.

    The energy [kT] is a sum over atoms, exactly zero before training, smooth in the positions, and constant where
    all atoms are far apart.  It is invariant to translations and rotations, not to reflections.

    Args:
        atom_types: an integer an atom; atoms with the same one are the same to the network.
        bonds: pairs of bonded atoms.
        generator: draws the starting weights.
        config: sizes and lengths.
        n_types: size of the table of atom types, where it should be larger than this molecule needs.

    Raises:
        ValueError: if an atom type is negative or beyond ``n_types``, or a bond names an atom that is not there.
    """

    types: Tensor
    pair_classes: Tensor

    def __init__(
        self,
        atom_types: Sequence[int],
        bonds: Sequence[tuple[int, int]],
        generator: torch.Generator,
        config: EquivariantConfig | None = None,
        *,
        n_types: int | None = None,
    ) -> None:
        super().__init__()
        self.config = config or EquivariantConfig()
        n_types = max(atom_types) + 1 if n_types is None else n_types
        if min(atom_types) < 0 or max(atom_types) >= n_types:
            raise ValueError(f"atom types must lie between 0 and {n_types - 1}, got {sorted(set(atom_types))}")
        self.n_atoms = len(atom_types)
        self.register_buffer("types", torch.tensor(atom_types), persistent=False)
        self.register_buffer("pair_classes", bond_separation(self.n_atoms, bonds), persistent=False)
        self._build(n_types, generator)

    def _build(self, n_types: int, generator: torch.Generator) -> None:
        config, hidden = self.config, self.config.hidden
        self.time_features = FourierTimeFeatures(config.n_frequencies, config.max_cycles)
        self.time_hidden = linear(self.time_features.n_features, hidden, generator)
        self.time = linear(hidden, hidden, generator)
        self.type_scalars = table(n_types, hidden, generator)
        self.type_pairs = table(n_types, config.pair, generator)
        self.class_pairs = table(BOND_CLASSES, config.pair, generator)
        self.basis = RadialBasis(config.radial, config.length_nm, config.softening_nm, config.reach_nm)
        self.pair = linear(config.radial, config.pair, generator)
        self.filter = linear(config.pair, config.layers * hidden, generator)
        last = config.layers - 1
        self.interactions = nn.ModuleList(
            InteractionLayer(hidden, config.chiral, generator, takes_vectors=k > 0, gives_vectors=k < last)
            for k in range(config.layers)
        )
        self.readout = Readout(hidden, generator)

    def forward(self, x: Float[Tensor, "batch atoms 3"], t: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        """Return the energy [kT] at positions ``x`` [nm] and times ``t``."""
        centred = x - x.mean(dim=1, keepdim=True)
        filters = self._filters(centred)
        positions = centred.flatten(0, 1) / self.config.length_nm
        scalars, vectors = self._initial_scalars(t), None
        for layer, module in enumerate(self.interactions):
            interaction = cast(InteractionLayer, module)
            offered = interaction.outgoing(scalars, vectors, positions)
            incoming = self._sum_over_senders(filters[layer], offered)
            scalars, vectors = interaction.absorb(scalars, vectors, positions, incoming)
        return self.readout(scalars).unflatten(0, (-1, self.n_atoms)).sum(-1)

    def _initial_scalars(self, t: Float[Tensor, " batch"]) -> Float[Tensor, "hidden nodes"]:
        time = self.time(nn.functional.silu(self.time_hidden(self.time_features(t))))
        return (self.type_scalars[self.types].T[:, None, :] + time.T[:, :, None]).flatten(1)

    def _filters(self, centred: Float[Tensor, "batch atoms 3"]) -> Float[Tensor, "layers hidden batch pairs"]:
        squared = self._squared_distances(centred)
        types = self.type_pairs[self.types].T
        kinds = types[:, :, None] * types[:, None, :] + self.class_pairs[self.pair_classes].permute(2, 0, 1)
        features = feature_first(self.pair, self.basis(squared)) + self._of_pairs(kinds)[:, None]
        # The variance of a sum over n senders grows as n; dividing by sqrt(n) keeps layers at the same scale.
        envelope = self.basis.envelope(squared) / self.n_atoms**0.5
        filters = feature_first(self.filter, nn.functional.silu(features)) * envelope
        return filters.unflatten(0, (self.config.layers, self.config.hidden))

    @abstractmethod
    def _squared_distances(self, centred: Float[Tensor, "batch atoms 3"]) -> Float[Tensor, "batch pairs"]:
        """Return squared distances [nm^2] of the pairs that this form works on."""

    @abstractmethod
    def _of_pairs(self, features: Float[Tensor, "features atoms atoms"]) -> Float[Tensor, "features pairs"]:
        """Return the columns of a static symmetric tensor that belong to those pairs."""

    @abstractmethod
    def _sum_over_senders(
        self, filters: Float[Tensor, "hidden batch pairs"], offered: Float[Tensor, "hidden nodes columns"]
    ) -> Float[Tensor, "hidden nodes columns"]:
        """Return what each atom receives: the sum over the others of filter times offer."""


class DenseEnergyNet(EquivariantEnergyNet):
    """All pairs as dense tensors, the sum as a batched matrix product: fast for small molecules.

    See :class:`EquivariantEnergyNet` for the arguments.

    >>> net = DenseEnergyNet([0, 1, 1], [(0, 1), (0, 2)], torch.Generator())
    >>> net(torch.zeros(2, 3, 3), torch.zeros(2)).tolist()
    [0.0, 0.0]
    """

    def _squared_distances(self, centred: Float[Tensor, "batch atoms 3"]) -> Float[Tensor, "batch pairs"]:
        x, y, z = (c[:, :, None] - c[:, None, :] for c in centred.unbind(-1))
        return (x.square() + y.square() + z.square()).flatten(1)

    def _of_pairs(self, features: Float[Tensor, "features atoms atoms"]) -> Float[Tensor, "features pairs"]:
        return features.flatten(1)

    def _sum_over_senders(
        self, filters: Float[Tensor, "hidden batch pairs"], offered: Float[Tensor, "hidden nodes columns"]
    ) -> Float[Tensor, "hidden nodes columns"]:
        others = (self.pair_classes > 0).flatten()
        matrices = (filters * others).unflatten(2, (self.n_atoms, self.n_atoms)).flatten(0, 1)
        received = torch.bmm(matrices, offered.reshape(-1, self.n_atoms, offered.shape[-1]))
        return received.reshape(offered.shape)


class GraphEnergyNet(EquivariantEnergyNet):
    """Messages along edges by torch-geometric, by default between all pairs; the same numbers as the dense form.

    See :class:`EquivariantEnergyNet` for the other arguments.

    Args:
        edge_index: senders, then receivers; leaving edges out of a large molecule changes its energy.
    """

    edge_index: Tensor

    def __init__(
        self,
        atom_types: Sequence[int],
        bonds: Sequence[tuple[int, int]],
        generator: torch.Generator,
        config: EquivariantConfig | None = None,
        *,
        n_types: int | None = None,
        edge_index: Int[Tensor, "2 edges"] | None = None,
    ) -> None:
        from boltzgen_diffclf.nets.message_passing import FilteredSum

        super().__init__(atom_types, bonds, generator, config, n_types=n_types)
        edges = (self.pair_classes > 0).nonzero().T if edge_index is None else edge_index
        if edges.numel() and (int(edges.min()) < 0 or int(edges.max()) >= self.n_atoms):
            raise ValueError(f"edge_index must name atoms 0 to {self.n_atoms - 1}, got {int(edges.max())}")
        self.register_buffer("edge_index", edges, persistent=False)
        self.filtered_sum = FilteredSum()

    def _squared_distances(self, centred: Float[Tensor, "batch atoms 3"]) -> Float[Tensor, "batch pairs"]:
        sender, receiver = self.edge_index
        return (centred[:, receiver] - centred[:, sender]).square().sum(-1)

    def _of_pairs(self, features: Float[Tensor, "features atoms atoms"]) -> Float[Tensor, "features pairs"]:
        sender, receiver = self.edge_index
        return features[:, receiver, sender]

    def _sum_over_senders(
        self, filters: Float[Tensor, "hidden batch pairs"], offered: Float[Tensor, "hidden nodes columns"]
    ) -> Float[Tensor, "hidden nodes columns"]:
        first = self.n_atoms * torch.arange(filters.shape[1], device=filters.device)
        edges = (self.edge_index[:, None, :] + first[:, None]).flatten(1)
        return self.filtered_sum(edges, filters.flatten(1), offered)
