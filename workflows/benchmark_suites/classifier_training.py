"""What the suite ``classifier`` trains: a mixture, an objective, and the sizes of it all."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from boltzgen_diffclf.errors import InputError
from boltzgen_diffclf.nets import (
    ClassificationDiffusion,
    DiscreteLevels,
    LevelClassifierNet,
    NoiseMlp,
    NoisePrediction,
    cosine_alpha_bar,
)
from boltzgen_diffclf.noised_energy import NoisedEnergyModel
from boltzgen_diffclf.paths import VariancePreserving
from boltzgen_diffclf.streams import named_generator
from boltzgen_diffclf.training.clean_data import CleanSamples, FixedPool
from boltzgen_diffclf.training.level_problem import (
    ClassifierProblem,
    ClassifierWeights,
    LevelSettings,
    NoisePredictionProblem,
)
from boltzgen_diffclf.training.loop import Progress, optimise
from systems.analytic import GaussianMixture, mixture_1d, mixture_2d, standardised
from workflows.benchmark_suites.one_sided_training import OneSidedSizes, train_one_sided

WEIGHTS: Mapping[str, ClassifierWeights] = {
    "cdm": ClassifierWeights(denoising=1.0, cross_entropy=1.0),
    "cdm_cross_entropy": ClassifierWeights(denoising=0.0, cross_entropy=1.0),
    "cdm_denoising": ClassifierWeights(denoising=1.0, cross_entropy=0.0),
}
"""Objectives of classification diffusion. The cross-entropy weight 1 had a lower held-out cross-entropy than
0.1 in one and two dimensions, and than 10 in two; the 0.001 of the paper is for the many coordinates of an image."""

ENERGY_PATH = VariancePreserving(t_min=1e-3, t_max=1 - 1e-4)
"""Noising of the energy that is compared; at its first level the noise is 0.01, a twentieth of the narrowest mode."""

ENERGY_LEVELS, ENERGY_GROUP = 64, 4
"""Levels at which the energy is trained, and how many of them are a group."""


@dataclass(frozen=True)
class ClassifierSizes:
    """How much is trained and measured.

    Attributes:
        steps: of the optimiser.
        groups: noised samples a step.
        averaged_steps: that the averaged weights look back on.
        hidden: width of the network.
        layers: its hidden layers.
        levels: of noise, data and pure noise included.
        samples: clean ones, that training draws from.
        measured: samples at each level, and of the sampler.
    """

    steps: int = 2000
    groups: int = 512
    averaged_steps: int = 200
    hidden: int = 64
    layers: int = 3
    levels: int = 18
    samples: int = 60_000
    measured: int = 2048


@dataclass(frozen=True, eq=False)
class TrainedLevels:
    """What training gave, in float64, and its price.

    Attributes:
        target: that was learned.
        model: one of :class:`ClassificationDiffusion` has densities, another denoiser has none.
        seconds: of training.
        network_evaluations: of the optimiser's steps.
    """

    target: GaussianMixture
    model: DiscreteLevels
    seconds: float
    network_evaluations: int


class ExactPosterior(nn.Module):
    """The exact ``log p_t(y)`` of every level, as logits of levels that are drawn equally often."""

    def __init__(self, target: GaussianMixture, alpha_bar: Float[Tensor, " classes"]) -> None:
        super().__init__()
        self.ladder = noised_ladder(target, alpha_bar)

    def forward(self, y: Float[Tensor, "batch dim"]) -> Float[Tensor, "batch classes"]:
        """Return the logits of all classes."""
        return torch.stack([level.log_density(y) for level in self.ladder], dim=-1)


class EnergyPosterior(nn.Module):
    """The logits that a noised energy and its ``F`` imply, the pure noise added as the last class.

    Args:
        energy: with its free energies.
        times: of all classes but the last, on the path of the energy.
    """

    times: Tensor

    def __init__(self, energy: NoisedEnergyModel, times: Float[Tensor, " times"]) -> None:
        super().__init__()
        self.energy = energy
        self.register_buffer("times", times)

    def forward(self, y: Float[Tensor, "batch dim"]) -> Float[Tensor, "batch classes"]:
        """Return the logits of all classes."""
        log_normal = -0.5 * (y.square() + math.log(2 * math.pi)).sum(-1, keepdim=True)
        learned = self.energy.free_energy(self.times) - self.energy.level_energies(y, self.times)
        return torch.cat([learned, log_normal], dim=-1)


def classifier_target(dim: int) -> GaussianMixture:
    """Return the mixture of one or two dimensions in the coordinates in which it is learned, of unit variance."""
    return standardised(mixture_1d() if dim == 1 else mixture_2d())


def noised_ladder(target: GaussianMixture, alpha_bar: Float[Tensor, " classes"]) -> list[GaussianMixture]:
    """Return the exact density of every level; the first is the data, the last the standard normal."""
    return [
        GaussianMixture(target.weights, one.sqrt() * target.means, (one * target.sigmas.square() + 1 - one).sqrt())
        for one in alpha_bar
    ]


def exact_levels(target: GaussianMixture, levels: int) -> ClassificationDiffusion:
    """Return the exact classifier of the levels of a suite."""
    alpha_bar = cosine_alpha_bar(levels - 2)
    return ClassificationDiffusion(ExactPosterior(target, alpha_bar), alpha_bar)


def train_levels(
    target: GaussianMixture,
    objective: str,
    seed: int,
    sizes: ClassifierSizes,
    *,
    checkpoint: Path | None = None,
    progress: Progress | None = None,
) -> TrainedLevels:
    """Return what the named objective learns of ``target`` from a fixed pool of samples.

    Raises:
        InputError: no such objective, or a checkpoint of another training.
    """
    run = _Run(target, seed, sizes, checkpoint, progress)
    if objective == "exact_posterior":
        return TrainedLevels(target, exact_levels(target, sizes.levels), 0.0, 0)
    if objective == "dsm_diffclf_all":
        return _train_energy(run)
    if objective == "plain_denoiser":
        return _train_plain(run)
    if objective in WEIGHTS:
        return _train_classifier(WEIGHTS[objective], run)
    raise InputError(f"suite classifier has no objective {objective!r}")


class _Run(NamedTuple):
    """What every kind of training is given."""

    target: GaussianMixture
    seed: int
    sizes: ClassifierSizes
    checkpoint: Path | None
    progress: Progress | None

    @property
    def alpha_bar(self) -> Float[Tensor, " classes"]:
        return cosine_alpha_bar(self.sizes.levels - 2)

    @property
    def settings(self) -> LevelSettings:
        return LevelSettings(
            self.sizes.steps, ema_decay=1 - 1 / self.sizes.averaged_steps, seed=self.seed, groups=self.sizes.groups
        )

    @property
    def size(self) -> dict[str, int]:
        return {"hidden": self.sizes.hidden, "layers": self.sizes.layers}

    @property
    def state(self) -> dict[str, Any]:
        """How the loop is to keep its state."""
        identity = {"dim": self.target.dimension, "samples": self.sizes.samples}
        return {"checkpoint": self.checkpoint, "identity": identity, "progress": self.progress}

    @property
    def pools(self) -> tuple[FixedPool, FixedPool]:
        """Clean samples to learn from and held-out ones; no objective here asks for their scores."""
        n, names = self.sizes.samples, ("training pool", "held-out pool")
        training, held_out = (self.target.sample(n, named_generator(self.seed, name)).float() for name in names)
        return FixedPool(_clean(training)), FixedPool(_clean(held_out))


def _train_classifier(weights: ClassifierWeights, run: _Run) -> TrainedLevels:
    alpha_bar, stream = run.alpha_bar.float(), named_generator(run.seed, "weights")
    net = LevelClassifierNet(run.target.dimension, len(alpha_bar), stream, **run.size)
    problem = ClassifierProblem(weights, alpha_bar, *run.pools, run.settings)
    result = optimise(ClassificationDiffusion(net, alpha_bar), problem, run.settings, **run.state)
    return TrainedLevels(run.target, result.model.double(), result.seconds, result.network_evaluations)


def _train_plain(run: _Run) -> TrainedLevels:
    alpha_bar, stream = run.alpha_bar.float(), named_generator(run.seed, "weights")
    net = NoiseMlp(run.target.dimension, stream, **run.size)
    problem = NoisePredictionProblem(alpha_bar, *run.pools, run.settings)
    result = optimise(NoisePrediction(net, alpha_bar), problem, run.settings, **run.state)
    return TrainedLevels(run.target, result.model.double(), result.seconds, result.network_evaluations)


def _train_energy(run: _Run) -> TrainedLevels:
    """Return the energy as a classifier of the same levels; a step has as many noised samples."""
    sizes = OneSidedSizes(
        steps=run.sizes.steps,
        groups=max(1, run.sizes.groups // ENERGY_GROUP),
        group_size=ENERGY_GROUP,
        averaged_steps=run.sizes.averaged_steps,
        levels=ENERGY_LEVELS,
        samples=run.sizes.samples,
        **run.size,
    )
    trained = train_one_sided(
        run.target,
        ENERGY_PATH,
        "dsm_diffclf_all",
        run.seed,
        sizes,
        checkpoint=run.checkpoint,
        progress=run.progress,
    )
    log_snr = (run.alpha_bar[1:-1] / (1 - run.alpha_bar[1:-1])).log()
    times = torch.cat([log_snr.new_tensor([ENERGY_PATH.t_min]), ENERGY_PATH.time_at_log_snr(log_snr)])
    posterior = EnergyPosterior(cast(NoisedEnergyModel, trained.model), times)
    levels = ClassificationDiffusion(posterior, run.alpha_bar)
    return TrainedLevels(run.target, levels, trained.seconds, trained.network_evaluations)


def _clean(x: Tensor) -> CleanSamples:
    return CleanSamples(x, torch.zeros_like(x))
