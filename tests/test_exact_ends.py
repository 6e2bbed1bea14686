"""Exact ends as classes in training: the minimum is the true path, and ``F_B - F_A`` is read off the classifier."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from boltzgen_diffclf.energy import AnchoredEnergyModel, EnergyModel, UnanchoredEnergyModel
from boltzgen_diffclf.errors import InputError
from boltzgen_diffclf.free_energy.learned import LearningSettings, build_pools
from boltzgen_diffclf.free_energy.vector_space import VectorSpace
from boltzgen_diffclf.nets import MlpEnergyNet
from boltzgen_diffclf.streams import named_generator
from boltzgen_diffclf.training import (
    ExactEndsProblem,
    ObjectiveWeights,
    PathData,
    TrainingSettings,
    exact_end_path_losses,
    path_losses,
    train,
)
from boltzgen_diffclf.training.two_sided import TwoSidedProblem
from systems.analytic import GaussianMixture, InterpolatedMarginals

SETTINGS = TrainingSettings(steps=1, groups=100, group_size=5, neighbours=False)
DELTA_F = 3.0

pytestmark = pytest.mark.usefixtures("eager_mode")


def normal(place: float, width: float, log_z: float) -> GaussianMixture:
    one = torch.ones(1, dtype=torch.float64)
    return GaussianMixture(one, torch.full((1, 2), place, dtype=torch.float64), width * one, log_z)


ENDS = normal(-1.0, 1.0, log_z=2.0), normal(1.0, 0.5, log_z=-1.0)


def path_data(pool: int = 2000) -> tuple[VectorSpace, PathData]:
    frames = [end.sample(4000, named_generator(0, f"end {place}")) for place, end in enumerate(ENDS)]
    space = VectorSpace(*ENDS, *frames)
    settings = LearningSettings(levels=9, pool=pool, evaluation_pool=2)
    return space, build_pools(space, tuple(frames), tuple(frames), settings, seed=0).training


class ExactNet(nn.Module):
    """The exact energies of the path, times ``1 + scale`` and moved by ``shift``; any constant a level is free."""

    def __init__(self, space: VectorSpace) -> None:
        super().__init__()
        self.oracle = InterpolatedMarginals(*ENDS, space.path)
        self.scale, self.shift = (nn.Parameter(torch.zeros((), dtype=torch.float64)) for _ in range(2))

    def forward(self, y: Tensor, t: Tensor) -> Tensor:
        return (1 + self.scale) * self.oracle.energy(y - self.shift, t)


def exact_model(space: VectorSpace, data: PathData) -> EnergyModel:
    """Return the true path, its curve that of normalised levels between two states that are not."""
    model = UnanchoredEnergyModel(ExactNet(space), data.levels).double()
    with torch.no_grad():
        model.curve.values.copy_(torch.tensor([-2.0, *[0.0] * (len(data.levels) - 2), 1.0]))
    return model


def slopes(model: EnergyModel, data: PathData, weights: ObjectiveWeights) -> Tensor:
    """Return the gradients in the knobs and in the inner and last ``F`` of the curve, step by step."""
    problem = ExactEndsProblem(data, data, replace(SETTINGS, weights=weights))
    found, stream = [], named_generator(1, "steps")
    for _ in range(40):
        loss = problem.weights.double() @ problem.losses(model, problem.draw(model, stream))
        knobs = [model.get_submodule("net").scale, model.get_submodule("net").shift, model.curve.values]
        scale, shift, curve = torch.autograd.grad(loss, knobs, allow_unused=True)
        found.append(torch.stack([scale, shift, *([] if curve is None else curve[[2, -1]])]))
    return torch.stack(found)


@pytest.mark.parametrize("weights", [ObjectiveWeights(0.0, 1.0), ObjectiveWeights(1.0, 0.0)])
def test_the_true_path_is_stationary_and_others_are_pulled_back(weights: ObjectiveWeights) -> None:
    space, data = path_data(20_000)
    model = exact_model(space, data)
    at_truth = slopes(model, data, weights)
    error = at_truth.std(0) / math.sqrt(len(at_truth))
    assert bool((at_truth.mean(0).abs() <= 4 * error).all()), at_truth.mean(0) / error
    assert bool((error[:2] > 0).all())
    net = model.get_submodule("net")
    for knob, parameter in enumerate((net.scale, net.shift)):
        for turn in (-0.2, 0.2):
            with torch.no_grad():
                parameter.fill_(turn)
            found = slopes(model, data, weights)[:, knob]
            assert math.copysign(1, turn) * float(found.mean()) > 4 * float(found.std()) / math.sqrt(len(found))
        with torch.no_grad():
            parameter.zero_()


def test_every_group_has_both_ends_and_distinct_levels_between() -> None:
    space, data = path_data(50)
    problem = ExactEndsProblem(data, data, SETTINGS)
    t = problem.draw(exact_model(space, data), named_generator(0, "draw")).t
    assert t.shape == (100, 5)
    assert bool((t[:, 0] == 0).all())
    assert bool((t[:, -1] == 1).all())
    assert bool((t.diff(dim=1) > 0).all())


def test_an_anchored_model_has_exact_ends_anyway() -> None:
    _, data = path_data(50)
    net = MlpEnergyNet(2, named_generator(0, "weights"), hidden=8, layers=1).double()
    for parameter in net.parameters():
        nn.init.normal_(parameter, std=0.3, generator=named_generator(1, "weights"))
    model = AnchoredEnergyModel(net, data.levels).double()
    nn.init.normal_(model.curve.values, generator=named_generator(2, "curve"))
    batch = ExactEndsProblem(data, data, SETTINGS).draw(model, named_generator(0, "draw"))
    exact, plain = (losses(model, batch, 2) for losses in (exact_end_path_losses, path_losses))
    torch.testing.assert_close(exact.classification, plain.classification)
    # The mean over the levels between, where there is something to match.
    torch.testing.assert_close(exact.denoising * 3 / 5, plain.denoising)


def test_training_reads_the_difference_off_the_classifier_of_a_model_that_never_sees_the_ends() -> None:
    _, data = path_data(1000)
    net = MlpEnergyNet(2, named_generator(0, "weights"), hidden=16, layers=2).double()
    model = UnanchoredEnergyModel(net, data.levels).double()
    settings = replace(SETTINGS, steps=200, learning_rate=1e-2, curve_learning_rate=0.1, ema_decay=0.9)
    result = train(model, data, data, settings, problem=ExactEndsProblem)
    history = result.history
    assert history[-1]["held_out.classification"] < history[0]["held_out.classification"]
    assert history[-1]["free_energy.end"] == pytest.approx(DELTA_F, abs=0.3)
    assert result.network_evaluations == 200 * 100 * 3 * 7


def test_groups_without_a_level_between_and_paths_without_energies_are_refused() -> None:
    _, data = path_data(50)
    with pytest.raises(InputError, match="take a group size of 3 or more"):
        ExactEndsProblem(data, data, replace(SETTINGS, group_size=2))
    blind = replace(data, end_energy=torch.zeros_like(data.end_energy))
    with pytest.raises(InputError, match="this path holds none"):
        ExactEndsProblem(blind, blind, SETTINGS)


def test_a_training_with_other_classes_does_not_go_on_from_this_one(tmp_path: Path) -> None:
    _, data = path_data(100)
    settings, checkpoint = replace(SETTINGS, steps=2), tmp_path / "model.safetensors"

    def learn(problem: type[TwoSidedProblem]) -> None:
        net = MlpEnergyNet(2, named_generator(0, "weights"), hidden=8, layers=1).double()
        train(
            UnanchoredEnergyModel(net, data.levels).double(),
            data,
            data,
            settings,
            problem=problem,
            checkpoint=checkpoint,
        )

    learn(ExactEndsProblem)
    with pytest.raises(InputError, match="its classes is exact ends, this one's is levels"):
        learn(TwoSidedProblem)
