"""Energy networks ``u(x, t) -> (batch,)`` [kT], classifiers of noise levels, and plain denoisers.

Each is exactly zero before training, but for :class:`WellPairsEnergyNet`, which starts from the wells of its data.
"""

from boltzgen_diffclf.nets.classifier import ClassificationDiffusion, LevelClassifierNet
from boltzgen_diffclf.nets.coordinate_waves import CoordinateWaves
from boltzgen_diffclf.nets.discrete_levels import DiscreteLevels, cosine_alpha_bar
from boltzgen_diffclf.nets.equivariant import DenseEnergyNet, EquivariantConfig, GraphEnergyNet
from boltzgen_diffclf.nets.multi_level import MultiLevelNet, SquashedMlpTrunk
from boltzgen_diffclf.nets.noise_prediction import NoiseMlp, NoisePrediction
from boltzgen_diffclf.nets.plain_mlp import MlpEnergyNet
from boltzgen_diffclf.nets.time_embedding import FourierTimeFeatures
from boltzgen_diffclf.nets.torsion_mlp import TorsionConfig, TorsionEnergyNet
from boltzgen_diffclf.nets.well_pairs import WellPairsEnergyNet, find_wells
from boltzgen_diffclf.nets.wells import WellEnergyNet

__all__ = [
    "ClassificationDiffusion",
    "CoordinateWaves",
    "DenseEnergyNet",
    "DiscreteLevels",
    "EquivariantConfig",
    "FourierTimeFeatures",
    "GraphEnergyNet",
    "LevelClassifierNet",
    "MlpEnergyNet",
    "MultiLevelNet",
    "NoiseMlp",
    "NoisePrediction",
    "SquashedMlpTrunk",
    "TorsionConfig",
    "TorsionEnergyNet",
    "WellEnergyNet",
    "WellPairsEnergyNet",
    "cosine_alpha_bar",
    "find_wells",
]
