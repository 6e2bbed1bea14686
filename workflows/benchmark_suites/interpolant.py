"""One row of the two-sided interpolant: train the energies between two modes and a mixture, and measure them."""

from __future__ import annotations

import math

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from boltzgen_diffclf.energy import AnchoredEnergyModel, EnergyModel, TimeEnergy, end_values
from boltzgen_diffclf.estimators import thermodynamic_integration
from boltzgen_diffclf.estimators.profile import profile_free_energies, sample_losses, stratified_mean
from boltzgen_diffclf.free_energy.learned import LearningSettings, build_pools, train_replicate
from boltzgen_diffclf.free_energy.vector_space import VectorSpace
from boltzgen_diffclf.gaussian_path_energy import GaussianPathEnergyModel, end_moments
from boltzgen_diffclf.nets import MlpEnergyNet
from boltzgen_diffclf.observables import fisher_divergence
from boltzgen_diffclf.streams import named_generator
from boltzgen_diffclf.training import TrainingSettings
from systems.analytic import GaussianMixture, InterpolatedMarginals, MixturePair, standardised, two_modes
from workflows.benchmark_suites.one_sided import SHOWN_LEVELS
from workflows.benchmark_suites.one_sided_training import OneSidedSizes, one_sided_target
from workflows.benchmark_suites.stability import stability_metrics
from workflows.benchmark_suites.suite import Metric, RowContext, RowSpec, StepProgress
from workflows.benchmark_suites.two_sided import WEIGHTS

SEPARATION = 1.0
"""Of the two modes from the origin before they are scaled to the target, as published."""

_POOL = 2000
"""Configurations a level that training draws from."""

_CHUNK = 8192


class PathEnergy(TimeEnergy):
    """A trained model as an energy of configurations alone: the true end energies are evaluated for those anchored.

    Args:
        model: in evaluation state, float64.
        pair: the ends.
    """

    def __init__(self, model: EnergyModel, pair: MixturePair) -> None:
        self.model, self.pair = model, pair

    def energy(self, y: Float[Tensor, "batch dim"], t: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        """See :meth:`TimeEnergy.energy`."""
        return self.model.energy(y, t, self._end_energy(y))

    def gradient(self, y: Float[Tensor, "batch dim"], t: Float[Tensor, " batch"]) -> Float[Tensor, "batch dim"]:
        """See :meth:`TimeEnergy.gradient`."""
        return self.model.gradient(y, t, end_values(self.pair.state_a, self.pair.state_b, y))

    def time_derivative(self, y: Float[Tensor, "batch dim"], t: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        """See :meth:`TimeEnergy.time_derivative`."""
        return self.model.time_derivative(y, t, self._end_energy(y))

    def free_energy(self, t: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
        """See :meth:`TimeEnergy.free_energy`."""
        return self.model.free_energy(t)

    def _end_energy(self, y: Tensor) -> Float[Tensor, "batch 2"]:
        return torch.stack([self.pair.state_a.energy(y), self.pair.state_b.energy(y)], dim=1)


def interpolant_pair(target: GaussianMixture) -> MixturePair:
    """Return two modes (A) with the mean and the variances of the target, and the target (B); F_B - F_A = 0."""
    modes, scale = standardised(two_modes(target.dimension, SEPARATION)), target.variance.sqrt()
    sigmas = modes.variances.sqrt() * scale
    return MixturePair(GaussianMixture(modes.weights, target.mean + modes.means * scale, sigmas), target)


def interpolant_row(
    objective: str, sizes: OneSidedSizes, spec: RowSpec, context: RowContext, *, anchored: bool
) -> list[Metric]:
    """Train the energies of one row and return everything measured on them.

    Args:
        objective: a key of :data:`~workflows.benchmark_suites.two_sided.WEIGHTS`.
        sizes: as of the one-sided rows.
        spec: its target is one of ``ONE_SIDED_TARGETS``.
        context: of the row.
        anchored: to the true energies of both ends; else learned beside the Gaussian of the path.

    Raises:
        TrainingDivergedError: as it says.
    """
    pair = interpolant_pair(one_sided_target(spec.target, spec.dim))
    samples = [
        state.sample(sizes.samples, named_generator(spec.seed, f"samples {name}"))
        for name, state in (("A", pair.state_a), ("B", pair.state_b))
    ]
    space = VectorSpace(pair.state_a, pair.state_b, *samples, anchored=anchored)
    halves_a, halves_b = (one.chunk(2) for one in samples)
    settings = _settings(objective, sizes)
    pools = build_pools(space, (halves_a[0], halves_b[0]), (halves_a[1], halves_b[1]), settings, spec.seed)

    def make(levels: Tensor, generator: torch.Generator) -> EnergyModel:
        net = MlpEnergyNet(space.dimension, generator, hidden=sizes.hidden, layers=sizes.layers)
        if anchored:
            return AnchoredEnergyModel(net, levels, space.ceilings)
        probes = named_generator(spec.seed, "resolution")
        ends = end_moments(halves_a[0], probes), end_moments(halves_b[0], probes)
        return GaussianPathEnergyModel(net, levels, space.path, ends)

    result, cost = train_replicate(
        make,
        pools,
        settings,
        spec.seed,
        checkpoint=context.checkpoint(spec),
        identity={"row": spec.stage, "sizes": dict(context.sizes)},
        progress=StepProgress(context).report,
    )
    oracle = InterpolatedMarginals(pair.state_a, pair.state_b, space.path)
    energy = PathEnergy(result.model, pair)
    return [
        *interpolant_metrics(energy, oracle, pools.training.levels, sizes, spec.seed),
        Metric("training_seconds", cost.seconds),
        Metric("network_evaluations", float(cost.network_evaluations)),
        *stability_metrics(result.history),
    ]


def interpolant_metrics(
    energy: TimeEnergy,
    oracle: InterpolatedMarginals,
    levels: Float[Tensor, " levels"],
    sizes: OneSidedSizes,
    seed: int,
) -> list[Metric]:
    """Return classification losses, Fisher divergences, and F_B - F_A [kT] by integration, against exact marginals.

    Names and conventions are those of the one-sided rows.

    Args:
        energy: to measure.
        oracle: the exact marginals, normalised at every level.
        levels: from 0 to 1.
        sizes: of the pools.
        seed: of the row.
    """
    stream = named_generator(seed, "evaluation")
    y = torch.stack([oracle.at(float(t)).sample(2 * sizes.level_pool, stream) for t in levels])
    return [
        *_classification_metrics(energy, oracle, levels, y),
        *_score_metrics(energy, oracle, levels, sizes, stream),
        _integral(energy, oracle, levels, sizes, stream),
    ]


def _classification_metrics(
    energy: TimeEnergy, oracle: InterpolatedMarginals, levels: Float[Tensor, " levels"], y: Tensor
) -> list[Metric]:
    n = y.shape[1] // 2
    ours, exact = _matrix(energy, y, levels), _matrix(oracle, y[:, n:], levels)
    best = sample_losses(exact, np.zeros(len(levels)))
    with torch.no_grad():
        learned = energy.free_energy(levels).numpy()
    fitted = profile_free_energies(ours[:, :n]).free_energies
    losses = {name: sample_losses(ours[:, n:], f) for name, f in (("profiled_f", fitted), ("learned_f", learned))}
    return [
        *(Metric(f"excess_classification.{name}", *stratified_mean(loss - best), 0.0) for name, loss in losses.items()),
        Metric("classification", *stratified_mean(losses["learned_f"]), stratified_mean(best).value),
        Metric("free_energy_rms.learned_f", float((learned - fitted).std()), None, 0.0),
    ]


def _score_metrics(
    energy: TimeEnergy,
    oracle: InterpolatedMarginals,
    levels: Float[Tensor, " levels"],
    sizes: OneSidedSizes,
    stream: torch.Generator,
) -> list[Metric]:
    """Return the Fisher divergence at some levels between the ends, at which anchored energies are exact."""
    shown = levels[torch.linspace(1, len(levels) - 2, SHOWN_LEVELS).round().long()].tolist()
    found = []
    for t in shown:
        y = oracle.at(t).sample(sizes.measured, stream)
        at = levels.new_full((len(y),), t)
        with torch.no_grad():
            ours, exact = energy.gradient(y, at).numpy(), oracle.gradient(y, at).numpy()
        found.append(fisher_divergence(-ours[None], -exact[None]))
    values, errors = (np.concatenate([getattr(one, name) for one in found]) for name in ("value", "stderr"))
    spread = math.sqrt(float(np.square(errors).sum())) / len(found)
    points = zip(shown, values.tolist(), errors.tolist(), strict=True)
    return [
        Metric("fisher.mean", float(values.mean()), spread, 0.0),
        *(Metric(f"fisher@{t:.4g}", value, error, 0.0) for t, value, error in points),
    ]


def _integral(
    energy: TimeEnergy,
    oracle: InterpolatedMarginals,
    levels: Float[Tensor, " levels"],
    sizes: OneSidedSizes,
    stream: torch.Generator,
) -> Metric:
    derivatives = []
    for t in levels:
        y = oracle.at(float(t)).sample(sizes.measured, stream)
        with torch.no_grad():
            derivatives.append(energy.time_derivative(y, t.repeat(len(y))).numpy())
    estimate = thermodynamic_integration(levels.numpy(), derivatives, rule="arcsine").estimate
    return Metric("delta_f", estimate.value, estimate.stderr, 0.0)


def _matrix(
    energy: TimeEnergy, y: Float[Tensor, "levels pool dim"], levels: Float[Tensor, " levels"]
) -> Float[np.ndarray, "levels pool levels"]:
    """Return the energy of every sample at every level."""
    rows = y.flatten(0, 1)
    with torch.no_grad():
        columns = [torch.cat([energy.energy(part, t.expand(len(part))) for part in rows.split(_CHUNK)]) for t in levels]
    return torch.stack(columns, dim=-1).unflatten(0, y.shape[:2]).numpy()


def _settings(objective: str, sizes: OneSidedSizes) -> LearningSettings:
    training = TrainingSettings(
        steps=sizes.steps,
        groups=sizes.groups,
        group_size=sizes.group_size,
        neighbours=False,
        weights=WEIGHTS[objective],
        learning_rate=sizes.learning_rate,
        ema_decay=1 - 1 / sizes.averaged_steps,
    )
    return LearningSettings(levels=sizes.levels, pool=_POOL, evaluation_pool=_POOL, training=training)
