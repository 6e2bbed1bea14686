"""States confined to an arc: moves that stay inside, and a path between two parts of one state that is exact."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from boltzgen_diffclf.confined_energy import ConfinedEnergyModel
from boltzgen_diffclf.confinement import ConfinedTarget
from boltzgen_diffclf.coordinates import Arc, TorsionArc
from boltzgen_diffclf.energy import Ends, LearnedLadder, end_values
from boltzgen_diffclf.free_energy.annealed import AnnealingSettings, annealed_estimate, annealed_works
from boltzgen_diffclf.free_energy.learned import (
    LearningSettings,
    build_pools,
    exact_end_classes,
    integrate,
    train_replicate,
)
from boltzgen_diffclf.free_energy.path_pool import PathSpace
from boltzgen_diffclf.free_energy.step_sizes import mala_family
from boltzgen_diffclf.nets import TorsionConfig, TorsionEnergyNet
from boltzgen_diffclf.observables.torsions import torsion_angles
from boltzgen_diffclf.paths import StochasticInterpolant, arcsine_levels
from boltzgen_diffclf.samplers import ConfinedLangevin
from boltzgen_diffclf.streams import named_generator
from boltzgen_diffclf.target import GaussianTarget, SingleLevel, Target
from boltzgen_diffclf.training import ObjectiveWeights, TrainingSettings

ARC = Arc(0.0, 2.15)
NOISE = 0.4


class TwoWells(Target):
    """An angle with two wells, the one in the arc 4 kT higher, and a number whose mean turns with it."""

    event_shape, dimension = (2,), 2

    def energy(self, x: Tensor) -> Tensor:
        angle, stiff = x.unbind(-1)
        return 3 * torch.cos(2 * angle) + 2 * torch.sin(angle) + 0.5 * (stiff - torch.cos(angle)).square()

    def exact(self) -> float:
        """Return F(arc) - F(rest) [kT]."""
        angle = torch.linspace(-math.pi, math.pi, 200_001, dtype=torch.float64)[:-1]
        weight = torch.exp(-3 * torch.cos(2 * angle) - 2 * torch.sin(angle))
        inside = ARC.contains(angle)
        return float((weight[~inside].sum() / weight[inside].sum()).log())

    def samples(self, arc: Arc, n: int, generator: torch.Generator) -> Tensor:
        angle = torch.linspace(-math.pi, math.pi, 20_001, dtype=torch.float64)[:-1]
        angle = angle[arc.contains(angle)]
        weight = torch.exp(-3 * torch.cos(2 * angle) - 2 * torch.sin(angle))
        chosen = angle[torch.multinomial(weight, n, replacement=True, generator=generator)]
        return torch.stack([chosen, chosen.cos() + torch.randn(n, generator=generator, dtype=torch.float64)], dim=1)


class CircleSpace(PathSpace):
    """Shortest arcs of the angle, straight lines of the number."""

    def __init__(self, target: Target) -> None:
        self.target, self.dimension = target, 2
        self.path = StochasticInterpolant(torch.tensor([NOISE, math.sqrt(2)], dtype=torch.float64), 2)

    def pair(self, x_0: Tensor, x_1: Tensor) -> tuple[Tensor, Tensor]:
        return x_1, torch.arange(len(x_1))

    def encode(self, x: Tensor) -> Tensor:
        return x

    def displacement(self, y_0: Tensor, y_1: Tensor) -> Tensor:
        way = y_1 - y_0
        way[:, 0] = torch.remainder(way[:, 0] + math.pi, 2 * math.pi) - math.pi
        return way

    def noise(self, n: int, generator: torch.Generator) -> Tensor:
        return torch.randn(n, 2, generator=generator, dtype=torch.float64)

    def end_values(self, y: Tensor) -> Ends:
        return end_values(self.target, self.target, y)

    def pair_forces(self, x_0: Tensor, x_1: Tensor) -> Tensor:
        return x_0.new_zeros(1).expand(len(x_0), 2, 2)


def model(levels: Tensor, generator: torch.Generator) -> ConfinedEnergyModel:
    periodic = torch.tensor([True, False])
    net = TorsionEnergyNet(periodic, torch.ones(2, dtype=torch.long), generator, TorsionConfig(64, 3, projections=1))
    return ConfinedEnergyModel(net, levels, None, 0, (ARC.rest, ARC), NOISE)


def shaken(levels: Tensor) -> ConfinedEnergyModel:
    """A network of which nothing was learned and nothing is zero."""
    generator = named_generator(1, "weights")
    made = model(levels, generator).double()
    with torch.no_grad():
        for parameter in made.net.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype))
    return made


def test_an_arc_and_its_rest_are_the_circle():
    angle = torch.linspace(-math.pi, math.pi, 1000, dtype=torch.float64)
    for arc in (ARC, Arc(2.0, -2.0)):
        assert bool((arc.contains(angle) ^ arc.rest.contains(angle)).all())
        assert arc.length + arc.rest.length == pytest.approx(2 * math.pi)
        away = arc.distance(angle)
        ends = torch.stack([(angle - end + math.pi).remainder(2 * math.pi) - math.pi for end in (arc.low, arc.high)])
        assert torch.allclose(away[away > 0], ends.abs().amin(0)[away > 0])
    with pytest.raises(ValueError, match="a beginning and another end"):
        Arc(1.0, 1.0)


def test_a_region_of_a_molecule_is_that_of_its_torsion():
    x = torch.randn(500, 5, 3, generator=named_generator(0, "chains"))
    angle = torsion_angles(x.numpy(), np.array([[4, 0, 2, 1]]))[:, 0]
    found = TorsionArc((4, 0, 2, 1), ARC)(x)
    assert found.tolist() == ((angle > 0) & (angle < 2.15)).tolist()
    assert 0 < found.sum() < 500


def test_what_is_outside_has_infinite_energy_and_no_force():
    confined = ConfinedTarget(GaussianTarget(1), lambda x: x[:, 0] > 0.5)
    energy, force = confined.energy_and_force(torch.tensor([[1.0], [0.0]], dtype=torch.float64))
    assert energy.tolist() == confined.energy(torch.tensor([[1.0], [0.0]])).tolist() == [0.5, math.inf]
    assert force.tolist() == [[-1.0], [0.0]]


def test_confined_dynamics_have_the_density_inside():
    """A normal distribution above half a standard deviation: its mean and how close to the wall it comes."""
    generator = named_generator(0, "confined")
    kernel = ConfinedLangevin(0.3, 1.0, torch.ones(1, dtype=torch.float64), lambda x: x[:, 0] > 0.5)
    target = SingleLevel(GaussianTarget(1))
    level = torch.zeros(2000, dtype=torch.long)
    state = kernel.init(target, torch.ones(2000, 1, dtype=torch.float64), level, generator)
    found = []
    for _ in range(40):
        state, info = kernel.run(target, state, level, 10, generator)
        found.append(state.position[:, 0])
        assert not bool(info.nonfinite.any())
        assert 0.5 < float(info.acceptance.mean()) < 0.99
    x = torch.stack(found[4:])
    assert float(x.min()) > 0.5
    tail = 0.5 * math.erfc(0.5 / math.sqrt(2))
    mean = math.exp(-0.125) / math.sqrt(2 * math.pi) / tail
    near = 1 - 0.5 * math.erfc(0.7 / math.sqrt(2)) / tail
    walkers = x.mean(0), (x < 0.7).double().mean(0)
    for values, exact in zip(walkers, (mean, near), strict=True):
        assert float(values.mean()) == pytest.approx(exact, abs=4 * float(values.std()) / math.sqrt(2000))


def test_the_ends_are_the_confined_energies_and_nothing_between_is_infinite():
    levels = arcsine_levels(9)
    made, target = shaken(levels), TwoWells()
    y = torch.stack([torch.linspace(-3.1, 3.1, 50, dtype=torch.float64), torch.zeros(50, dtype=torch.float64)], 1)
    ends = end_values(target, target, y)
    inside = ARC.contains(y[:, 0])
    for t, part in ((0.0, ~inside), (1.0, inside)):
        energy, gradient = made.energy_and_gradient(y, torch.full((50,), t, dtype=torch.float64), ends)
        assert torch.equal(torch.isfinite(energy), part)
        assert torch.allclose(energy[part], ends.energy[part, 0])
        assert bool(gradient.isfinite().all())
        assert torch.allclose(gradient[part], ends.gradient[part, 0])
    for t in levels[1:-1]:
        assert bool(made.energy(y, t.expand(50), ends.energy).isfinite().all())


def test_gradient_and_time_derivative_are_those_of_the_energy():
    made, target = shaken(arcsine_levels(9)), TwoWells()
    generator = named_generator(2, "points")
    y = 2 * torch.randn(64, 2, generator=generator, dtype=torch.float64)
    t = 0.05 + 0.9 * torch.rand(64, generator=generator, dtype=torch.float64)

    def energy(y: Tensor, t: Tensor) -> Tensor:
        return made.energy(y, t, end_values(target, target, y).energy)

    found = made.energy_and_gradient(y, t, end_values(target, target, y))
    assert torch.allclose(found[0], energy(y, t))
    for column in (0, 1):
        step = torch.zeros(2, dtype=torch.float64)
        step[column] = 1e-6
        slope = (energy(y + step, t) - energy(y - step, t)) / 2e-6
        assert torch.allclose(found[1][:, column], slope, rtol=1e-4, atol=1e-4)
    slope = (energy(y, t + 1e-7) - energy(y, t - 1e-7)) / 2e-7
    assert torch.allclose(made.time_derivative(y, t, end_values(target, target, y).energy), slope, rtol=1e-4, atol=1e-3)


def test_annealing_between_the_parts_is_exact_for_any_network():
    target, generator = TwoWells(), named_generator(0, "annealing")
    ladder = LearnedLadder(shaken(arcsine_levels(17)), arcsine_levels(17), target, target)
    a, b = (target.samples(arc, 2000, generator) for arc in (ARC.rest, ARC))
    group = torch.arange(2000) % 50
    family = mala_family(torch.tensor([0.1, 1.0], dtype=torch.float64))
    settings = AnnealingSettings(levels=17, particles=1000, steps_per_level=3)
    works = annealed_works(ladder, a, group, b, group + 50, family, settings, generator)
    found, _ = annealed_estimate(works, np.random.default_rng(0))
    assert found.stderr < 0.3
    assert found.value == pytest.approx(target.exact(), abs=4 * found.stderr)


@pytest.mark.usefixtures("eager_mode")
def test_a_learned_path_joins_the_parts():
    """Ends without a common configuration: the integral along the path, and the classifier with the ends as classes."""
    target, generator = TwoWells(), named_generator(0, "learning")
    first, second = ([target.samples(arc, 4000, generator) for arc in (ARC.rest, ARC)] for _ in range(2))
    training = TrainingSettings(
        steps=500,
        groups=64,
        group_size=4,
        neighbours=False,
        learning_rate=1e-2,
        weights=ObjectiveWeights(denoising=10.0, classification=1.0),
    )
    settings = LearningSettings(levels=33, pool=2000, evaluation_pool=2000, training=training)
    pools = build_pools(CircleSpace(target), tuple(first), tuple(second), settings, seed=3)
    learned = train_replicate(model, pools, settings, seed=3)[0].model
    assert integrate(learned, pools.evaluation).estimate.value == pytest.approx(target.exact(), abs=0.2)
    classes, overlap = exact_end_classes(learned, pools.evaluation, stride=2)
    assert classes.value == pytest.approx(target.exact(), abs=0.2)
    assert overlap[0, -1] == overlap[-1, 0] == 0
