"""Losses of one step look at one case: what they share is computed once, and says what it says alone."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from boltzgen_diffclf.data_gaussian import DataGaussian
from boltzgen_diffclf.losses import (
    clean_sample_by_force,
    jensen_shannon_ratio_loss,
    kullback_leibler_ratio_loss,
    level_classification_loss,
)
from boltzgen_diffclf.nets import MlpEnergyNet
from boltzgen_diffclf.noised_energy import NoisedEnergyModel
from boltzgen_diffclf.paths import VariancePreserving, uniform_levels
from boltzgen_diffclf.streams import named_generator
from boltzgen_diffclf.training.clean_data import CleanSamples
from boltzgen_diffclf.training.noised_case import Case, NoisedBatch, Setting, noised_batch
from boltzgen_diffclf.training.noised_losses import NOISED_LOSSES, Sizes, price_together

DIM, GROUPS, SIZE = 3, 5, 4
PAIRED = ("level", "t", "x", "score", "z", "y", "spare", "uniform")
SETTING = Setting(VariancePreserving(), uniform_levels(12, 1e-2, 0.99))

pytestmark = pytest.mark.usefixtures("eager_mode")


class CountingNet(MlpEnergyNet):
    """Counts the configurations that it is asked about."""

    asked = 0

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        self.asked += len(x)
        return super().forward(x, t)


def moved_model() -> NoisedEnergyModel:
    stream = named_generator(0, "weights")
    net = CountingNet(DIM, stream, hidden=8, layers=2)
    model = NoisedEnergyModel(net, SETTING.path, DataGaussian(torch.zeros(DIM), torch.ones(())), SETTING.levels)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.3 * torch.randn(parameter.shape, generator=stream)
    return model.double()


def batch() -> NoisedBatch:
    stream = named_generator(1, "batch")
    level = torch.stack([torch.randperm(12, generator=stream)[:SIZE].sort().values for _ in range(GROUPS)])
    clean = torch.randn(GROUPS * SIZE, DIM, generator=stream, dtype=torch.float64)
    return noised_batch(CleanSamples(clean, torch.zeros_like(clean)), level, SETTING, stream)


def gradients(loss: Tensor, model: NoisedEnergyModel) -> Tensor:
    found = torch.autograd.grad(loss, list(model.parameters()), allow_unused=True)
    return torch.cat([one.flatten() for one in found if one is not None])


def test_levels_are_named_by_the_energies_of_every_sample_at_every_level_of_its_group() -> None:
    model, given = moved_model(), batch()
    energies = torch.stack(
        [torch.stack([model.energy(given.y[:, i], given.t[:, j]) for j in range(SIZE)], dim=-1) for i in range(SIZE)],
        dim=1,
    )
    expected = level_classification_loss(energies, model.free_energy(given.t)).mean()
    torch.testing.assert_close(NOISED_LOSSES["classification_named"].mean(Case(model, given, SETTING)), expected)


def test_chained_classification_is_the_sum_of_the_binary_losses_of_neighbours_a_sample() -> None:
    model, given = moved_model(), batch()
    pairs = [given._replace(**{name: getattr(given, name)[:, i : i + 2] for name in PAIRED}) for i in range(SIZE - 1)]
    binary = torch.stack([NOISED_LOSSES["classification"].mean(Case(model, pair, SETTING)) for pair in pairs])
    chained = NOISED_LOSSES["classification_chained"].mean(Case(model, given, SETTING))
    torch.testing.assert_close(chained, 2 / SIZE * binary.sum())


@pytest.mark.parametrize("name", ["classification", "classification_among_all"])
def test_labels_are_what_the_clean_sample_says_of_the_level(name: str) -> None:
    model, given = moved_model(), batch()
    classes = given.t if name == "classification" else SETTING.levels.expand(GROUPS, -1)
    expected = []
    for i in range(SIZE):
        y, x = given.y[:, i], given.x[:, i]
        energies = torch.stack([model.energy(y, t) for t in classes.T], dim=-1)
        labels = torch.stack([SETTING.path.conditional_log_density(y, x, t) for t in classes.T], dim=-1).softmax(-1)
        expected.append(-(labels * (model.free_energy(classes) - energies).log_softmax(-1)).sum(-1))
    torch.testing.assert_close(NOISED_LOSSES[name].mean(Case(model, given, SETTING)), torch.stack(expected).mean())


def test_energies_that_come_with_the_denoiser_teach_what_energies_alone_teach() -> None:
    model, given = moved_model(), batch()
    together, alone = Case(model, given, SETTING), Case(model, given, SETTING)
    NOISED_LOSSES["denoising"].mean(together)
    losses = [NOISED_LOSSES["classification"].mean(case) for case in (together, alone)]
    torch.testing.assert_close(*losses)
    torch.testing.assert_close(*(gradients(loss, model) for loss in losses))


@pytest.mark.parametrize(
    "names",
    [
        ("denoising",),
        ("classification",),
        ("classification_chained",),
        ("classification_jensen_shannon",),
        ("conditional_noise",),
        ("denoising", "classification_kullback_leibler"),
        ("denoising", "classification_chained"),
        ("denoising", "classification"),
        ("denoising", "classification_named", "conditional_noise"),
    ],
)
def test_the_price_of_losses_is_what_the_network_is_asked(names: tuple[str, ...]) -> None:
    model, given = moved_model(), batch()
    case = Case(model, given, SETTING)
    for name in names:
        NOISED_LOSSES[name].mean(case)
    derivatives = "denoising" in names
    asked = model.get_submodule("net").asked / GROUPS + derivatives * SIZE
    assert asked == price_together(names, Sizes(SIZE, 12))


def test_conditional_noise_is_the_same_however_processes_share_a_batch() -> None:
    model, given = moved_model(), batch()
    shares = [given._replace(**{name: getattr(given, name)[i : i + 1] for name in PAIRED}) for i in range(GROUPS)]
    whole, *alone = (NOISED_LOSSES["conditional_noise"].mean(Case(model, one, SETTING)) for one in (given, *shares))
    torch.testing.assert_close(whole, torch.stack(alone).mean())


class Hole(torch.nn.Module):
    """A learned depth at a place where one coordinate alone is far from the data."""

    def __init__(self) -> None:
        super().__init__()
        self.depth = torch.nn.Parameter(torch.tensor(3.0))

    def forward(self, h: Tensor, t: Tensor) -> Tensor:
        as_in_the_data = torch.sigmoid(8 * (2 - h[:, 1:].square().mean(-1)))
        return -self.depth * as_in_the_data * torch.exp(-20 * (h[:, 0] - 4.5).square())


def test_conditional_noise_finds_a_hole_that_opens_to_one_coordinate_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    groups, dim, stream, path = 20_000, 12, named_generator(2, "hole"), SETTING.path
    data = DataGaussian(torch.zeros(dim), torch.ones(()))
    clean = torch.randn(groups, dim, generator=stream)
    setting = Setting(path, SETTING.levels.float())
    given = noised_batch(
        CleanSamples(clean, torch.zeros_like(clean)), torch.zeros(groups, 1, dtype=torch.long), setting, stream
    )

    def slope(depth: float) -> float:
        net = Hole()
        torch.nn.init.constant_(net.depth, depth)
        case = Case(NoisedEnergyModel(net, path, data, setting.levels), given, setting)
        return float(torch.autograd.grad(NOISED_LOSSES["conditional_noise"].mean(case), net.depth)[0])

    found = slope(3.0)
    assert found > 1e-3
    assert abs(slope(0.0)) < 0.1 * found
    monkeypatch.setattr(DataGaussian, "at_sites", lambda self, noise, chosen: noise)
    assert slope(3.0) < 0.2 * found


def test_conditional_noise_moves_from_one_site_to_all_evenly_in_the_logarithm(monkeypatch: pytest.MonkeyPatch) -> None:
    groups, dim, stream = 20_000, 6, named_generator(3, "sites")
    setting = Setting(SETTING.path, SETTING.levels.float())
    clean = torch.randn(groups, dim, generator=stream)
    samples = CleanSamples(clean, torch.zeros_like(clean))
    given = noised_batch(samples, torch.zeros(groups, 1, dtype=torch.long), setting, stream)
    moved: list[Tensor] = []

    def at_sites(self: DataGaussian, noise: Tensor, chosen: Tensor) -> Tensor:
        moved.append(chosen.sum(1))
        return noise * chosen

    monkeypatch.setattr(DataGaussian, "at_sites", at_sites)
    data = DataGaussian(torch.zeros(dim), torch.ones(()))
    NOISED_LOSSES["conditional_noise"].mean(
        Case(NoisedEnergyModel(Hole(), SETTING.path, data, setting.levels), given, setting)
    )
    share = torch.bincount(moved[0], minlength=dim + 1)[1:] / groups
    expected = (1 + 1 / torch.arange(1, dim + 1)).log() / math.log(dim + 1)
    torch.testing.assert_close(share, expected, atol=0.015, rtol=0)


def test_targets_by_force_have_the_same_mean_as_clean_samples_and_do_not_vary_in_a_gaussian() -> None:
    n, width, path = 20_000, 0.3, SETTING.path
    stream = named_generator(5, "by force")
    t = torch.full((n,), 0.05, dtype=torch.float64)
    alpha, sigma = path.alpha(t), path.sigma(t)
    # One column as wide as said, one wider, and one where the force has the noise of other atoms in it.
    spread = torch.tensor([width, 2.0, width], dtype=torch.float64)
    x, z = (torch.randn(n, 3, generator=stream, dtype=torch.float64) * scale for scale in (spread, 1.0))
    others = torch.randn(n, 3, generator=stream, dtype=torch.float64) * torch.tensor([0.0, 0.0, 1.0])
    y = path.sample(x, t, z)
    wanted = clean_sample_by_force(x, y, -x / spread**2 + others, (alpha, sigma), torch.tensor(width).double())
    exact = y * (alpha[:, None] * spread**2 / (alpha[:, None] ** 2 * spread**2 + sigma[:, None] ** 2))
    torch.testing.assert_close(wanted[:, 0], exact[:, 0])
    error, plain = wanted - exact, x - exact
    assert bool((error.mean(0).abs() <= 4 * error.std(0) / n**0.5 + 1e-12).all())
    assert float(error[:, 1].std()) < 0.6 * float(plain[:, 1].std())
    torch.testing.assert_close(clean_sample_by_force(x, y, x, (alpha, sigma), torch.tensor(0.0).double()), x)


def test_jensen_shannon_of_pairs_is_twice_the_classification_of_two_levels() -> None:
    model, given = moved_model(), batch()
    pair = given._replace(**{name: getattr(given, name)[:, :2] for name in PAIRED})
    ratio, plain = (
        NOISED_LOSSES[name].mean(Case(model, pair, SETTING))
        for name in ("classification_jensen_shannon", "classification")
    )
    torch.testing.assert_close(ratio, 2 * plain)


@pytest.mark.parametrize(
    ("name", "of_ratios"),
    [
        ("classification_jensen_shannon", jensen_shannon_ratio_loss),
        ("classification_kullback_leibler", kullback_leibler_ratio_loss),
    ],
)
def test_bregman_losses_of_a_group_are_the_mean_over_its_pairs(
    name: str, of_ratios: Callable[[Tensor, Tensor], Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where labels name the level that made a sample, each pair is the published loss, from the noisier level."""

    def named(x: Tensor, *_: object) -> Tensor:
        return torch.eye(2, dtype=x.dtype).expand(len(x), 2, 2)

    model, given = moved_model(), batch()
    expected = []
    for i, j in itertools.combinations(range(SIZE), 2):
        ratios = [
            (model.free_energy(given.t[:, i]) - model.energy(given.y[:, k], given.t[:, i]))
            - (model.free_energy(given.t[:, j]) - model.energy(given.y[:, k], given.t[:, j]))
            for k in (j, i)
        ]
        expected.append(of_ratios(*ratios).mean())
    monkeypatch.setattr("boltzgen_diffclf.training.noised_losses.level_posterior", named)
    torch.testing.assert_close(NOISED_LOSSES[name].mean(Case(model, given, SETTING)), torch.stack(expected).mean())
