"""The sum over edges, by torch-geometric; importing this module takes seconds."""

from __future__ import annotations

from jaxtyping import Float, Int
from torch import Tensor
from torch_geometric.nn import MessagePassing


class FilteredSum(MessagePassing):
    """Sum over the edges of what their senders offer, each channel times the edge's filter."""

    def __init__(self) -> None:
        super().__init__(aggr="sum", node_dim=1)

    def forward(
        self,
        edge_index: Int[Tensor, "2 edges"],
        filters: Float[Tensor, "hidden edges"],
        offered: Float[Tensor, "hidden nodes columns"],
    ) -> Float[Tensor, "hidden nodes columns"]:
        """Return the filtered sum that each node receives; ``edge_index`` holds senders, then receivers."""
        return self.propagate(edge_index, filters=filters[..., None], offered=offered)

    def message(self, offered_j: Tensor, filters: Tensor) -> Tensor:
        """See :meth:`torch_geometric.nn.MessagePassing.message`."""
        return filters * offered_j
