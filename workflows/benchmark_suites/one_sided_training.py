"""What the one-sided suites train: a target, a path, an objective, and the sizes of it all."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from boltzgen_diffclf.data_energy import DataEnergyModel
from boltzgen_diffclf.data_gaussian import DataGaussian, data_resolution
from boltzgen_diffclf.errors import InputError
from boltzgen_diffclf.nets import MlpEnergyNet, MultiLevelNet, SquashedMlpTrunk, WellEnergyNet
from boltzgen_diffclf.noised_energy import NoisedEnergyModel, network_factor
from boltzgen_diffclf.paths import DiffusionPath, path_levels
from boltzgen_diffclf.streams import named_generator, split_seed
from boltzgen_diffclf.training.clean_data import CleanSamples, FixedPool, FreshSamples
from boltzgen_diffclf.training.data_problem import DataObjective, DataSettings
from boltzgen_diffclf.training.level_curves import energy_information, energy_length
from boltzgen_diffclf.training.loop import History, Progress, TrainingResult, optimise
from boltzgen_diffclf.training.noised_case import Setting
from boltzgen_diffclf.training.noised_problem import NoisedObjective
from boltzgen_diffclf.training.noised_training import NoisedSizes, NoisedTraining, train_noised
from boltzgen_diffclf.training.objectives import named_objective
from systems.analytic import (
    GaussianMixture,
    MixtureMarginals,
    gaussian,
    mixture_1d,
    mixture_2d,
    mog40,
    ring_of_clusters,
    standardised,
    two_modes,
)

RING_WEIGHTS = (1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0)
"""Of the clusters, in a scale of their own: all different, so that it shows which are wrong."""

ONE_SIDED_TARGETS: Mapping[str, Callable[[int], GaussianMixture]] = {
    "gaussian": lambda dim: gaussian(dim, mean=0.5, sigma=0.8),
    "mixture_1d": lambda dim: mixture_1d(means=(-5.0, 5.0)),
    "mixture_2d": lambda dim: mixture_2d(),
    "mog40": lambda dim: standardised(mog40(dim)),
    "rings": lambda dim: standardised(ring_of_clusters(weights=RING_WEIGHTS)),
    "two_modes": lambda dim: standardised(two_modes(dim)),
}
"""Mixtures by name, in the coordinates in which they are learned; the dimension counts where they have a choice."""

TIME_CYCLES = 2.0
"""Turns of the fastest wave of the time in the networks: densities of neighbouring levels differ smoothly."""

MOST_WAVED = 3
"""The most coordinates of which the networks are given waves."""

_BEYOND = 4096
"""Configurations beyond the data, see :meth:`CleanData.draw_beyond`."""

_LENGTH_POOL = 256
"""Samples a level for the thermodynamic length."""


@dataclass(frozen=True)
class OneSidedSizes(NoisedSizes):
    """How much is trained and measured.

    Attributes:
        hidden: width of the network.
        layers: its hidden layers.
        waves: of the coordinates beside these, where they are at most :data:`MOST_WAVED`: many narrow modes in a plane
            are hard to tell apart otherwise; for few modes they are worse than none.
        wells_from: coordinates from which on networks are :class:`WellEnergyNet`, without waves, for modes that are far
            apart; those of noised energies, but for the one of all levels from one pass.
        hold: see :class:`NoisedSizes`; of noised energies alone.
        levels: of noise.
        samples: clean ones, that training draws from.
        level_pool: samples a level for the classification loss, and as many to profile F on.
        measured: samples at each level where scores and weights are measured, and of the reverse process.
        particles: of sequential Monte Carlo.
        annealing_levels: that it goes through.
    """

    steps: int = 2000
    later_rate: float | None = None
    hold: float = 0.4
    hidden: int = 128
    layers: int = 4
    waves: int = 0
    wells_from: int = 16
    levels: int = 128
    samples: int = 60_000
    level_pool: int = 32
    measured: int = 2048
    particles: int = 512
    annealing_levels: int = 256


@dataclass(frozen=True, eq=False)
class Trained:
    """What training gave: one of the two models, in float64, and its price.

    Attributes:
        target: that was learned.
        model: of the noised data, or of the data alone.
        learned_curve: the level free energies [kT] at the levels of the model's curve as they were learned; the model
            has the profiled ones. Empty for a model of the data alone.
        seconds: of the steps of training.
        network_evaluations: of the optimiser's steps.
        history: of the training.
    """

    target: GaussianMixture
    model: NoisedEnergyModel | DataEnergyModel
    learned_curve: Float[Tensor, " levels"]
    seconds: float
    network_evaluations: int
    history: History = field(default_factory=list)


def one_sided_target(name: str, dim: int) -> GaussianMixture:
    """Return one of :data:`ONE_SIDED_TARGETS`.

    Raises:
        InputError: there is none of this name.
    """
    if name not in ONE_SIDED_TARGETS:
        raise InputError(f"there is no one-sided target {name!r}; choose one of {', '.join(ONE_SIDED_TARGETS)}")
    return ONE_SIDED_TARGETS[name](dim)


def train_one_sided(
    target: GaussianMixture,
    path: DiffusionPath,
    objective: str | NoisedObjective,
    seed: int,
    sizes: OneSidedSizes,
    *,
    device: torch.device | str = "cpu",
    checkpoint: Path | None = None,
    progress: Progress | None = None,
    layout: str | None = None,
) -> Trained:
    """Return the energy of ``target`` that an objective, by name or by itself, learns from a fixed pool of samples.

    A noised energy learns on ``device``; one of the data alone, and all that is measured later, stays on the processor.
    The levels of its training lie on the path as ``layout`` says, see :func:`path_levels`.

    Raises:
        InputError: no such objective, or a checkpoint of another training.
    """
    chosen = named_objective(objective) if isinstance(objective, str) else objective
    training, held_out = training_pool(target, sizes.samples, seed), _pool(target, sizes.samples, seed, "held-out pool")
    x = training.samples.x
    run = _Run(
        target,
        DataGaussian(x.mean(0).float(), x.var(0).float()),
        training,
        held_out,
        seed,
        sizes,
        torch.device(device),
        {"target": split_seed(0, str(target.means.tolist() + target.weights.tolist())), "seed": seed},
        checkpoint,
        progress,
        layout,
    )
    learned = torch.zeros(0)
    result: TrainingResult[NoisedEnergyModel] | TrainingResult[DataEnergyModel]
    if isinstance(chosen, NoisedObjective):
        result, learned = _train_noised(chosen, path, run)
    else:
        result = _train_data_energy(chosen, run)
    return Trained(target, result.model, learned, result.seconds, result.network_evaluations, result.history)


def training_pool(target: GaussianMixture, n: int, seed: int) -> FixedPool:
    """Return the samples that :func:`train_one_sided` learns from: all that it knows of the weights of modes."""
    return _pool(target, n, seed, "training pool")


class _Run(NamedTuple):
    """What both kinds of training are given."""

    target: GaussianMixture
    data: DataGaussian
    training: FixedPool
    held_out: FixedPool
    seed: int
    sizes: OneSidedSizes
    device: torch.device
    identity: Mapping[str, object]
    checkpoint: Path | None
    progress: Progress | None
    layout: str | None


def _train_noised(
    objective: NoisedObjective, path: DiffusionPath, run: _Run
) -> tuple[TrainingResult[NoisedEnergyModel], Float[Tensor, " levels"]]:
    """Return the trained model in float64, with its profiled curve, and the learned curve."""
    sizes, levels = run.sizes, _laid_out(path, run)
    resolution = data_resolution(run.training.samples.x, named_generator(run.seed, "resolution"))
    first, last = network_factor(path, levels[[0, -1]].float(), run.data, resolution).tolist()
    net = _noised_net(objective, len(run.data.mean), run.seed, sizes, (first, last))
    model = NoisedEnergyModel(net, path, run.data, levels.float(), resolution).to(run.device)
    training = NoisedTraining(
        objective,
        path,
        run.training,
        run.held_out,
        run.target.dimension,
        run.seed,
        sizes,
        lambda setting: _exact_length(run, setting),
        run.identity,
        run.checkpoint,
        run.progress,
    )
    result, learned = train_noised(model, training)
    return replace(result, model=result.model.cpu()), learned.cpu()


def _laid_out(path: DiffusionPath, run: _Run) -> Float[Tensor, " levels"]:
    """Return the levels of training; their length, where it is asked for, is that of the exact densities."""
    oracle, stream = MixtureMarginals(run.target, path), named_generator(run.seed, "layout")

    def information(nodes: Float[Tensor, " nodes"]) -> Float[Tensor, " nodes"]:
        return energy_information(oracle, run.training, Setting(path, nodes), _LENGTH_POOL, stream)

    return path_levels(path, run.sizes.levels, run.layout, information)


def _exact_length(run: _Run, setting: Setting) -> Float[Tensor, " levels"]:
    """Return the thermodynamic length of the exact densities: what an estimate from a model can at best be."""
    oracle = MixtureMarginals(run.target, setting.path)
    return energy_length(oracle, run.training, setting, _LENGTH_POOL, named_generator(run.seed, "length"))


def _train_data_energy(objective: DataObjective, run: _Run) -> TrainingResult[DataEnergyModel]:
    """Return the trained model in float64; a step has as many samples as a noised energy configurations."""
    sizes, mean = run.sizes, run.data.mean
    settings = DataSettings(
        sizes.steps,
        learning_rate=sizes.learning_rate,
        ema_decay=1 - 1 / sizes.averaged_steps,
        seed=run.seed,
        groups=sizes.groups * sizes.group_size,
    )
    net = MlpEnergyNet(len(mean), named_generator(run.seed, "weights"), **_net_size(len(mean), sizes))
    settings = objective.settled(settings)
    problem = objective.problem(mean, run.training, run.held_out, settings)
    result = optimise(
        DataEnergyModel(net, run.data),
        problem,
        settings,
        checkpoint=run.checkpoint,
        identity=run.identity,
        progress=run.progress,
    )
    if not problem.learns_normaliser:
        # Where nothing was learned the density is known up to a factor alone.
        result.model.log_normaliser.fill_(torch.nan)
    return replace(result, model=result.model.double())


def _noised_net(
    objective: NoisedObjective, dim: int, seed: int, sizes: OneSidedSizes, factors: tuple[float, float]
) -> torch.nn.Module:
    """Return the network: all levels from one pass where the objective compares all of them."""
    stream, size = named_generator(seed, "weights"), _net_size(dim, sizes)
    if "classification_among_all" in objective.weights:
        return MultiLevelNet(SquashedMlpTrunk(dim, stream, **size), 2 * sizes.hidden, stream)
    if dim >= sizes.wells_from:
        return WellEnergyNet(dim, stream, factors, hidden=sizes.hidden, layers=sizes.layers, max_cycles=TIME_CYCLES)
    return MlpEnergyNet(dim, stream, **size, max_cycles=TIME_CYCLES)


def _net_size(dim: int, sizes: OneSidedSizes) -> dict[str, int]:
    return {"hidden": sizes.hidden, "layers": sizes.layers, "waves": sizes.waves if dim <= MOST_WAVED else 0}


def _pool(target: GaussianMixture, n: int, seed: int, name: str) -> FixedPool:
    x = target.sample(n, named_generator(seed, name))
    beyond = FreshSamples(target).draw_beyond(min(n, _BEYOND), named_generator(seed, f"{name}, beyond"))
    samples = CleanSamples(x.float(), torch.cat([target.score(part) for part in x.split(4096)]).float())
    return FixedPool(samples, CleanSamples(*(value.float() for value in beyond)))
