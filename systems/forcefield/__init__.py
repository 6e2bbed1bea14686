"""An ``openmm.System`` as a batched, differentiable Target."""

from systems.forcefield.compiler import compile_system
from systems.forcefield.target import ForceFieldTarget
from systems.forcefield.workers import OpenMMWorkerTarget

__all__ = ["ForceFieldTarget", "OpenMMWorkerTarget", "compile_system"]
