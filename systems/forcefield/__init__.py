"""An ``openmm.System`` as a batched, differentiable Target."""

from systems.forcefield.compiler import compile_system

__all__ = ["compile_system"]
