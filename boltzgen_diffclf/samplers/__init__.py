"""Samplers: one set of kernels for every ladder, replica exchange, annealing, resampling."""

from boltzgen_diffclf.samplers.annealing import Annealing, AnnealingResult, AnnealingState, anneal, next_lambda
from boltzgen_diffclf.samplers.diffusion_smc import WeightedSamples, sample_reverse_weighted
from boltzgen_diffclf.samplers.kernels import (
    HamiltonianMonteCarlo,
    Kernel,
    KernelInfo,
    Langevin,
    Mala,
    tune_step_size,
)
from boltzgen_diffclf.samplers.replica_exchange import ReplicaExchange, ReplicaExchangeInfo, ReplicaExchangeState
from boltzgen_diffclf.samplers.reverse import reverse_step, sample_reverse
from boltzgen_diffclf.samplers.state import KernelState, LangevinState

__all__ = [
    "Annealing",
    "AnnealingResult",
    "AnnealingState",
    "HamiltonianMonteCarlo",
    "Kernel",
    "KernelInfo",
    "KernelState",
    "Langevin",
    "LangevinState",
    "Mala",
    "ReplicaExchange",
    "ReplicaExchangeInfo",
    "ReplicaExchangeState",
    "WeightedSamples",
    "anneal",
    "next_lambda",
    "reverse_step",
    "sample_reverse",
    "sample_reverse_weighted",
    "tune_step_size",
]
