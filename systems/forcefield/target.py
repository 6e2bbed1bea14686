"""A compiled force field as a Target: blocks of few sizes, so that few compilations serve every batch."""

from __future__ import annotations

import types
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from boltzgen_diffclf.compilation import can_fuse, fuse
from boltzgen_diffclf.target import Target
from systems.forcefield.autograd import EnergyWithForce
from systems.forcefield.model import ForceField
from systems.forcefield.parameters import ForceFieldParameters

Evaluation = Callable[[Tensor], tuple[Tensor, Tensor]]


# Eager operations cost microseconds each whatever their size: long blocks, and no filling up.
EAGER_LANES = 1024

FEWEST_GPU_LANES = 64
"""Configurations that a GPU evaluates as fast as one."""


def lanes_on_gpu(batch: int, most: int) -> int:
    """Return the width of a block on a GPU: a power of two that holds the batch, so that few widths are compiled.

    From 64 to 4096 there are seven; ``torch.compile`` gives up on a function after eight.

    >>> [lanes_on_gpu(batch, 4096) for batch in (1, 64, 65, 250, 100_000)]
    [64, 64, 128, 256, 4096]
    """
    return min(most, max(FEWEST_GPU_LANES, 1 << (batch - 1).bit_length()))


class ForceFieldTarget(Target):
    """Energy [kT] and force [kT/nm] of a force field, for batches of any size.

    A batch is cut into blocks ``(chunks, 3, atoms, lanes)``, the last one filled up. On a processor every configuration
    goes through the same instructions whatever batch it is in, and one chunk is what one thread works on; on a GPU
    a block is as wide as the batch, up to the next power of two.

    Args:
        parameters: all terms, energies in kT.
        dtype: float64, or float32 with the accuracy that :func:`~systems.forcefield.compile_system` states.
        device: where to compute.
        chunks: parts of a block that threads share.
        lanes: configurations in a chunk; few enough for a chunk's intermediates to stay in cache. On a GPU the most.
    """

    def __init__(
        self, parameters: ForceFieldParameters, dtype: torch.dtype, device: torch.device, chunks: int, lanes: int
    ) -> None:
        self.event_shape = (parameters.n_atoms, 3)
        self.dimension = 3 * (parameters.n_atoms - 1)
        self.dtype, self.device = dtype, device
        self.model = ForceField(parameters, dtype).to(device)
        self.is_fused = can_fuse(device.type)
        self._block_shape = (chunks, lanes)
        self._evaluate = fuse(with_own_code(self.model), device)

    def energy_and_force(
        self, x: Float[Tensor, "batch atoms 3"]
    ) -> tuple[Float[Tensor, " batch"], Float[Tensor, "batch atoms 3"]]:
        """See :meth:`Target.energy_and_force`."""
        with torch.no_grad():
            blocks = self._blocks(x.detach().to(self.device, self.dtype))
            n_blocks, chunks, _, _, lanes = blocks.shape
            energy, force = blocks.new_empty(n_blocks, chunks, lanes), torch.empty_like(blocks)
            for index, block in enumerate(blocks):
                energy[index], force[index] = self._evaluate(block)
            forces = force.permute(0, 1, 4, 3, 2).reshape(energy.numel(), *self.event_shape)
        return energy.flatten()[: len(x)], forces[: len(x)]

    def _blocks(self, x: Tensor) -> Tensor:
        """Return ``(blocks, chunks, 3, atoms, lanes)``, filled up with copies of the first configuration."""
        chunks, lanes = self._block_shape
        if not self.is_fused:
            n_blocks = max(1, -(-len(x) // EAGER_LANES))
            chunks, lanes = 1, max(1, -(-len(x) // n_blocks))
        elif self.device.type == "cuda":
            lanes = lanes_on_gpu(len(x), lanes)
        n_blocks = -(-len(x) // (chunks * lanes))
        missing = n_blocks * chunks * lanes - len(x)
        full = torch.cat([x, x[:1].expand(missing, -1, -1)]) if missing else x
        return full.reshape(n_blocks, chunks, lanes, *self.event_shape).permute(0, 1, 4, 3, 2).contiguous()

    def energy(self, x: Float[Tensor, "batch atoms 3"]) -> Float[Tensor, " batch"]:
        """Return ``u(x)`` [kT], once differentiable: the derivative is the force of the same evaluation."""
        energy: Tensor = EnergyWithForce.apply(x, self)
        return energy

    def energy_eager(self, x: Float[Tensor, "batch atoms 3"]) -> Float[Tensor, " batch"]:
        """Return ``u(x)`` [kT] through plain automatic differentiation, to any order; several times slower."""
        energy, _ = self.model(x.to(self.device, self.dtype).permute(2, 1, 0)[None])
        return energy[0]


def with_own_code(module: torch.nn.Module) -> Evaluation:
    """Return a function that calls a module and has a code object of its own.

    ``torch.compile`` counts recompilations by code object: were it shared, the ninth force field of a process
    would silently run eagerly.
    """

    def evaluate(block: Tensor) -> tuple[Tensor, Tensor]:
        energy, force = module(block)
        return energy, force

    return types.FunctionType(evaluate.__code__.replace(), evaluate.__globals__, "evaluate", None, evaluate.__closure__)
