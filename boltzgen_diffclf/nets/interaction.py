"""The learned parts of the molecular network that see one pair or one atom at a time.

Tensors are *feature-first*, ``(features, atoms of all molecules)`` and ``(features, batch, pairs)``: every linear
map is then one large matrix product, and what is done elementwise runs along contiguous memory.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from boltzgen_diffclf.nets.initialisation import linear, zero_linear


def feature_first(layer: nn.Linear, x: Float[Tensor, "n_in *rest"]) -> Float[Tensor, "n_out *rest"]:
    """Return ``layer`` applied along the first axis of ``x``."""
    product = layer.weight @ x.flatten(1)
    if layer.bias is not None:
        product = product + layer.bias[:, None]
    return product.unflatten(1, x.shape[1:])


class RadialBasis(nn.Module):
    """Smooth functions of the distance between two atoms, resolved best where bonds are.

    Gaussians in ``exp(-r / length)``.  All functions of the distance are functions of ``sqrt(r^2 + softening^2)``,
    which has no kink where two atoms meet.

    Args:
        n_functions: number of Gaussians, at least two.
        length_nm: decay length of the exponential [nm].
        softening_nm: the distance below which it no longer matters [nm].
        reach_nm: where the influence of an atom starts to fade [nm].

    References:
        Unke & Meuwly 2019, arXiv:1902.08408, eq. 7, without the cutoff.
    """

    centres: Tensor

    def __init__(self, n_functions: int, length_nm: float, softening_nm: float, reach_nm: float) -> None:
        super().__init__()
        self.length_nm, self.softening_nm, self.reach_nm = length_nm, softening_nm, reach_nm
        self.register_buffer("centres", torch.linspace(0.0, 1.0, n_functions), persistent=False)
        self.sharpness = n_functions - 1.0

    def forward(self, squared: Float[Tensor, "batch pairs"]) -> Float[Tensor, "functions batch pairs"]:
        """Return the functions at squared distances [nm^2]."""
        distance = torch.sqrt(squared + self.softening_nm**2)
        decay = torch.exp(-distance / self.length_nm)
        return torch.exp(-(self.sharpness * (decay - self.centres[:, None, None])).square())

    def envelope(self, squared: Float[Tensor, "batch pairs"]) -> Float[Tensor, "batch pairs"]:
        """Return the fading of influence with distance, falling as its fourth power."""
        return (1 + squared / self.reach_nm**2) ** -2


class InteractionLayer(nn.Module):
    """One exchange of scalars and vectors between atoms, and the update of each atom from what it got.

    Args:
        hidden: number of scalar and of vector channels.
        chiral: number of scalar triple products of learned vectors; they change sign under reflection.
        generator: draws the starting weights.
        takes_vectors: whether atoms already carry vectors, which the first layer's do not.
        gives_vectors: whether a later layer will read the vectors.

    References:
        Schütt, Unke & Gastegger 2021, arXiv:2102.03150, eq. 7-10, with one filter for all messages of a channel
        and with triple products added.
    """

    def __init__(
        self, hidden: int, chiral: int, generator: torch.Generator, *, takes_vectors: bool, gives_vectors: bool
    ) -> None:
        super().__init__()
        self.hidden, self.chiral = hidden, chiral
        self.takes_vectors, self.gives_vectors = takes_vectors, gives_vectors
        self.source_hidden = linear(hidden, hidden, generator)
        self.source = linear(hidden, (3 if takes_vectors else 2) * hidden, generator)
        self.mix = linear(hidden, 2 * hidden + 3 * chiral, generator, bias=False)
        self.update_hidden = linear(2 * hidden + chiral, hidden, generator)
        self.update = linear(hidden, (2 if gives_vectors else 1) * hidden, generator)

    def outgoing(
        self,
        scalars: Float[Tensor, "hidden nodes"],
        vectors: Float[Tensor, "hidden nodes 3"] | None,
        positions: Float[Tensor, "nodes 3"],
    ) -> Float[Tensor, "hidden nodes columns"]:
        """Return what each atom offers to the others: a scalar, a charge, its moment, and its scaled vectors.

        The vectors that arrive point along ``x_i - x_j``; charge and moment carry the two terms apart, so that no
        tensor of pairs has three components.
        """
        weights = feature_first(self.source, nn.functional.silu(feature_first(self.source_hidden, scalars)))
        scalar, charge, *scale = weights.split(self.hidden)
        columns = [scalar[..., None], charge[..., None], charge[..., None] * positions]
        if vectors is not None:
            columns.append(scale[0][..., None] * vectors)
        return torch.cat(columns, dim=-1)

    def absorb(
        self,
        scalars: Float[Tensor, "hidden nodes"],
        vectors: Float[Tensor, "hidden nodes 3"] | None,
        positions: Float[Tensor, "nodes 3"],
        incoming: Float[Tensor, "hidden nodes columns"],
    ) -> tuple[Float[Tensor, "hidden nodes"], Float[Tensor, "hidden nodes 3"] | None]:
        """Return the scalars and vectors of each atom after it took in the filtered sum of what was offered."""
        arrived = incoming[..., 1:2] * positions - incoming[..., 2:5]
        scalars = scalars + incoming[..., 0]
        if vectors is not None:
            arrived = arrived + incoming[..., 5:] + vectors
        first, second, triple = feature_first(self.mix, arrived).split([self.hidden, self.hidden, 3 * self.chiral])
        invariants = torch.cat([scalars, (first * second).sum(-1), triple_products(triple)])
        change = feature_first(self.update, nn.functional.silu(feature_first(self.update_hidden, invariants)))
        scalars = scalars + change[: self.hidden]
        if not self.gives_vectors:
            return scalars, None
        return scalars, arrived + change[self.hidden :, :, None] * first


def triple_products(vectors: Float[Tensor, "triples nodes 3"]) -> Float[Tensor, "products nodes"]:
    """Return ``a . (b x c)`` of the first, second and last third of the channels, odd under reflection."""
    a, b, c = vectors.chunk(3)
    (ax, ay, az), (bx, by, bz), (cx, cy, cz) = a.unbind(-1), b.unbind(-1), c.unbind(-1)
    return ax * (by * cz - bz * cy) + ay * (bz * cx - bx * cz) + az * (bx * cy - by * cx)


class Readout(nn.Module):
    """Energy of each atom from its scalars, exactly zero before training."""

    def __init__(self, hidden: int, generator: torch.Generator) -> None:
        super().__init__()
        self.hidden = linear(hidden, hidden, generator)
        self.energy = zero_linear(hidden, 1)

    def forward(self, scalars: Float[Tensor, "hidden nodes"]) -> Float[Tensor, " nodes"]:
        """Return one energy [kT] an atom."""
        return feature_first(self.energy, nn.functional.silu(feature_first(self.hidden, scalars)))[0]
