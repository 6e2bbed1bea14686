"""Samplers: one set of kernels for every ladder, replica exchange, annealing, resampling."""

from boltzgen_diffclf.samplers.annealing import Annealing, AnnealingResult, AnnealingState, anneal
from boltzgen_diffclf.samplers.bridge import Bridge, BridgeInfo, BridgeState
from boltzgen_diffclf.samplers.confined import ConfinedLangevin
from boltzgen_diffclf.samplers.diffusion_smc import (
    MarginalProposal,
    ReverseSmc,
    ReverseSmcState,
    WeightedSamples,
    sample_reverse_weighted,
)
from boltzgen_diffclf.samplers.kernels import (
    HamiltonianMonteCarlo,
    Kernel,
    KernelInfo,
    Langevin,
    Mala,
    tune_step_size,
)
from boltzgen_diffclf.samplers.probability_flow import (
    ExactDivergence,
    FlowSamples,
    Hutchinson,
    LogLikelihood,
    ProbabilityFlow,
)
from boltzgen_diffclf.samplers.rejuvenation import Rejuvenation, RejuvenationState
from boltzgen_diffclf.samplers.replica_exchange import ReplicaExchange, ReplicaExchangeInfo, ReplicaExchangeState
from boltzgen_diffclf.samplers.resampling import RESAMPLINGS, Resampling
from boltzgen_diffclf.samplers.reverse import (
    SOLVERS,
    EulerMaruyama,
    Heun,
    MarginalStep,
    ReverseSolver,
    reverse_step,
    sample_reverse,
)
from boltzgen_diffclf.samplers.spacing import next_lambda, spaced_order, spaced_times
from boltzgen_diffclf.samplers.state import KernelState, LangevinState
from boltzgen_diffclf.samplers.unadjusted import UnadjustedLangevin

__all__ = [
    "RESAMPLINGS",
    "SOLVERS",
    "Annealing",
    "AnnealingResult",
    "AnnealingState",
    "Bridge",
    "BridgeInfo",
    "BridgeState",
    "ConfinedLangevin",
    "EulerMaruyama",
    "ExactDivergence",
    "FlowSamples",
    "HamiltonianMonteCarlo",
    "Heun",
    "Hutchinson",
    "Kernel",
    "KernelInfo",
    "KernelState",
    "Langevin",
    "LangevinState",
    "LogLikelihood",
    "Mala",
    "MarginalProposal",
    "MarginalStep",
    "ProbabilityFlow",
    "Rejuvenation",
    "RejuvenationState",
    "ReplicaExchange",
    "ReplicaExchangeInfo",
    "ReplicaExchangeState",
    "Resampling",
    "ReverseSmc",
    "ReverseSmcState",
    "ReverseSolver",
    "UnadjustedLangevin",
    "WeightedSamples",
    "anneal",
    "next_lambda",
    "reverse_step",
    "sample_reverse",
    "sample_reverse_weighted",
    "spaced_order",
    "spaced_times",
    "tune_step_size",
]
