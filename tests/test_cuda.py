"""On a CUDA GPU, where there is one: what computes there gives what a processor gives."""

from __future__ import annotations

import math

import pytest
import torch
from torch._dynamo.utils import counters

import systems
from boltzgen_diffclf.compilation import repeat
from boltzgen_diffclf.coordinates import CentredCoordinates
from boltzgen_diffclf.molecule_target import LearnedMoleculeTarget
from boltzgen_diffclf.samplers.kernels import Langevin
from boltzgen_diffclf.streams import named_generator
from boltzgen_diffclf.target import SingleLevel
from boltzgen_diffclf.training.molecule_model import (
    MoleculeSpec,
    build_molecule_model,
    coordinates_of,
    measure_molecule,
    molecule_pool,
)
from boltzgen_diffclf.training.noised_training import NoisedSizes, NoisedTraining, train_noised
from boltzgen_diffclf.training.objectives import NOISED_OBJECTIVES
from systems.chains import ChainDynamics, ChainSettings
from systems.ensemble import evaluate

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")

CUDA = torch.device("cuda")
BONDS = ((0, 1), (1, 2), (2, 3))


def chain(n: int) -> torch.Tensor:
    """Return a bent chain of four atoms [nm], shaken."""
    x = torch.tensor([[0.0, 0.1, 0.0], [0.0, 0.0, 0.0], [0.15, 0.0, 0.0], [0.15, 0.08, 0.06]], dtype=torch.float64)
    return x + 0.01 * torch.randn(n, 4, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_a_recorded_step_is_the_step() -> None:
    noise, plain, recorded = (torch.zeros(1000, device=CUDA) for _ in range(3))
    stream = torch.Generator(CUDA).manual_seed(0)

    def walk(x: torch.Tensor) -> None:
        noise.normal_(generator=stream)
        x.mul_(0.9).add_(noise)

    for _ in range(400):
        walk(plain)
    repeat(lambda: walk(recorded), 400, stream, recordable=True)
    expected = 1 / math.sqrt(1 - 0.81)
    for x in (plain, recorded):
        assert float(x.std()) == pytest.approx(expected, rel=0.1)
    assert float(torch.corrcoef(torch.stack([plain, recorded]))[0, 1]) == pytest.approx(0, abs=0.15)


@pytest.mark.usefixtures("eager_mode")
def test_chains_on_a_learned_energy_have_its_width() -> None:
    statistics = measure_molecule(chain(500), BONDS, named_generator(0, "resolution"))
    spec = MoleculeSpec(types=(0, 1, 2, 1), bonds=BONDS, levels=16, hidden=16, layers=2)
    model = build_molecule_model(spec, statistics, named_generator(0, "weights")).to(CUDA).eval().requires_grad_(False)
    coordinates = coordinates_of(model)
    target = LearnedMoleculeTarget(model, coordinates, float(model.curve.levels[0]))
    ladder, level = SingleLevel(target), torch.zeros(4000, dtype=torch.long, device=CUDA)
    stream = named_generator(0, "chains", CUDA)
    kernel = Langevin(0.01, 20.0, torch.full((4, 1), 0.2, device=CUDA))
    state = kernel.init(ladder, torch.zeros(4000, 4, 3, device=CUDA), level, stream)
    state, info = kernel.run(ladder, state, level, 2000, stream)
    # A fresh network has the Gaussian of the data, of unit width in these coordinates.
    y = coordinates.from_cartesian(state.position)
    assert float(y.std()) == pytest.approx(1, abs=0.02)
    assert not bool(info.nonfinite.any())


def held_out_losses(objective: str, device: torch.device, learning_rate: float = 5e-3) -> dict[str, float]:
    """Return the last held-out losses of a short training there, under noise of that device's own."""
    x = chain(500)
    statistics = measure_molecule(x, BONDS, named_generator(0, "resolution"))
    spec = MoleculeSpec(types=(0, 1, 2, 1), bonds=BONDS, levels=16, hidden=16, layers=2)
    model = build_molecule_model(spec, statistics, named_generator(0, "weights")).to(device)
    pool = molecule_pool(x, coordinates_of(model))
    sizes = NoisedSizes(150, 512, 4, learning_rate, profile_pool=64)
    result, _ = train_noised(model, NoisedTraining(NOISED_OBJECTIVES[objective], model.path, pool, pool, 9, 0, sizes))
    return {name: value for name, value in result.history[-1].items() if name.startswith("held_out")}


def learns_the_same(objective: str) -> None:
    """Every loss is nearer to that of the processor than to that of a network which has not learned."""
    here, there = held_out_losses(objective, torch.device("cpu")), held_out_losses(objective, CUDA)
    untrained = held_out_losses(objective, torch.device("cpu"), 1e-12)
    assert here
    for name, value in here.items():
        if name != "held_out.contrastive_divergence":  # of chains of their own
            assert abs(there[name] - value) < 0.5 * abs(untrained[name] - value)


@pytest.mark.usefixtures("eager_mode")
@pytest.mark.parametrize("objective", ["dsm_diffclf", "fokker_planck", "ctsm"])
def test_training_learns_what_it_learns_on_a_processor(objective: str) -> None:
    learns_the_same(objective)


def test_a_recorded_training_with_chains_learns_it_too() -> None:
    learns_the_same("dsm_diffclf_cnce_cd")
    assert counters["inductor"]["cudagraph_skips"] == 0


def test_the_force_field_is_the_same_there() -> None:
    aldp = systems.load("aldp")
    x = aldp.positions + 0.005 * torch.randn(65, 22, 3, generator=torch.Generator().manual_seed(1))
    here, there = (
        aldp.target("implicit", temperature_kelvin=300.0, dtype=torch.float64, device=device)
        for device in ("cpu", "cuda")
    )
    expected, found = here.energy_and_force(x.double()), there.energy_and_force(x.double().cuda())
    for a, b in zip(expected, found, strict=True):
        assert torch.allclose(a, b.cpu(), rtol=1e-9, atol=1e-8)


def test_coordinates_stay_where_they_are_put() -> None:
    coordinates = CentredCoordinates(4, 0.1).to(CUDA)
    x = chain(8).float().cuda()
    y = coordinates.from_cartesian(x)
    assert y.device.type == "cuda"
    assert torch.allclose(coordinates.positions(y), x - x.mean(1, keepdim=True), atol=1e-6)


def test_chains_know_where_their_random_stream_lives() -> None:
    aldp = systems.load("aldp")
    target = aldp.target("vacuum", temperature_kelvin=300.0, dtype=torch.float32, device="cuda")
    start = aldp.positions.expand(2, -1, -1)
    chains = ChainDynamics(target, target, start, aldp.masses, 300.0, 2.0, ChainSettings(2, 1, 1))
    assert chains.device_type == "cuda"
    assert evaluate(target, start).device.type == "cpu"
