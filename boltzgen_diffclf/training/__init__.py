"""Training: data, objectives, one loop, checkpoints."""

from boltzgen_diffclf.training.loop import LoopSettings, TrainingResult, optimise
from boltzgen_diffclf.training.path_data import PathBatch, PathData
from boltzgen_diffclf.training.path_losses import ObjectiveWeights, PathLosses, exact_end_path_losses, path_losses
from boltzgen_diffclf.training.problem import Problem
from boltzgen_diffclf.training.two_sided import ExactEndsProblem, TrainingSettings, TwoSidedProblem, train

__all__ = [
    "ExactEndsProblem",
    "LoopSettings",
    "ObjectiveWeights",
    "PathBatch",
    "PathData",
    "PathLosses",
    "Problem",
    "TrainingResult",
    "TrainingSettings",
    "TwoSidedProblem",
    "exact_end_path_losses",
    "optimise",
    "path_losses",
    "train",
]
