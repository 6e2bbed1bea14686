"""A compiled force field as a Target: fixed-size blocks, so that one compilation serves every batch size."""

from __future__ import annotations

import types
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from boltzgen_diffclf.compilation import fuse
from boltzgen_diffclf.target import Target
from systems.forcefield.model import ForceField
from systems.forcefield.parameters import ForceFieldParameters

Block = Callable[[Tensor], tuple[Tensor, Tensor]]


class ForceFieldTarget(Target):
    """Energy [kT] and force [kT/nm] of an ``openmm.System`` compiled to batched tensor operations."""

    def __init__(
        self, parameters: ForceFieldParameters, dtype: torch.dtype, device: torch.device, chunks: int, lanes: int
    ) -> None:
        n_atoms = parameters.n_atoms
        self.event_shape, self.dimension = (n_atoms, 3), 3 * (n_atoms - 1)
        self.dtype, self.device = dtype, device
        self.constant = parameters.constant
        self.chunks, self.lanes = chunks, lanes
        self.model = ForceField(parameters, dtype).to(device)
        self._evaluate = fuse(own_function(self._block), device)

    def _block(self, x: Tensor) -> tuple[Tensor, Tensor]:
        energy, force = self.model(x)
        return energy + self.constant, force

    def energy_and_force(
        self, x: Float[Tensor, "batch atoms 3"]
    ) -> tuple[Float[Tensor, " batch"], Float[Tensor, "batch atoms 3"]]:
        """See :meth:`Target.energy_and_force`."""
        n_atoms, chunks, lanes = self.event_shape[0], self.chunks, self.lanes
        with torch.no_grad():
            x = x.detach().to(self.device, self.dtype)
            batch, block = len(x), chunks * lanes
            missing = -batch % block
            if missing:
                x = torch.cat([x, x[:1].expand(missing, -1, -1)])
            blocks = x.reshape(-1, chunks, lanes, n_atoms, 3).permute(0, 1, 4, 3, 2).contiguous()
            energy = x.new_empty(len(blocks), chunks, lanes)
            force = torch.empty_like(blocks)
            for k, part in enumerate(blocks):
                energy[k], force[k] = self._evaluate(part)
            force = force.permute(0, 1, 4, 3, 2).reshape(-1, n_atoms, 3)
        return energy.flatten()[:batch], force[:batch]

    def energy(self, x: Float[Tensor, "batch atoms 3"]) -> Float[Tensor, " batch"]:
        """Return ``u(x)`` [kT]; its derivative is the force of the same evaluation."""
        return _Energy.apply(x, self)


class _Energy(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, target):
        energy, force = target.energy_and_force(x)
        ctx.save_for_backward(force)
        return energy

    @staticmethod
    def backward(ctx, upstream):
        (force,) = ctx.saved_tensors
        return -upstream[:, None, None] * force, None


def own_function(method: Block) -> Block:
    """Return a function that does what a bound method does, with a code object of its own.

    The compiler counts recompilations by code object: without this, the ninth system of a process would run eagerly.
    """

    def evaluate(x: Tensor) -> tuple[Tensor, Tensor]:
        return method(x)

    code = evaluate.__code__.replace()
    return types.FunctionType(code, globals(), "evaluate", None, evaluate.__closure__)
