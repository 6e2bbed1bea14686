"""Training: data, objective, loop, checkpoints."""

from boltzgen_diffclf.training.loop import TrainingResult, TrainingSettings, train
from boltzgen_diffclf.training.objective import ObjectiveWeights, PathLosses, path_losses
from boltzgen_diffclf.training.path_data import PathBatch, PathData

__all__ = [
    "ObjectiveWeights",
    "PathBatch",
    "PathData",
    "PathLosses",
    "TrainingResult",
    "TrainingSettings",
    "path_losses",
    "train",
]
