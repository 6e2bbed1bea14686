"""A Gaussian mixture noised along a path: exact energies at every time, with knobs that spoil them one by one."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from boltzgen_diffclf.streams import named_generator

DTYPE = torch.float64
SCALE, SHIFT, WEIGHT, SLOPE, COMMON = range(5)
"""Knobs: energy times 1 + knob; mixture moved; log odds of the modes; F + knob t; energy + knob cos(y_0) at all t."""

TURN = {SCALE: 0.2, SHIFT: 0.2, WEIGHT: 1.5, SLOPE: 0.5, COMMON: 0.3}
"""How far each knob is turned to see that the loss grows."""


@dataclass(frozen=True)
class Preserving:
    """Variance-preserving noise with a rate that grows linearly in time."""

    beta_min: float = 0.5
    beta_max: float = 6.0

    def log_alpha(self, t: Tensor) -> Tensor:
        return -0.5 * self.beta_min * t - 0.25 * (self.beta_max - self.beta_min) * t**2

    def sigma(self, t: Tensor) -> Tensor:
        return (-torch.expm1(2 * self.log_alpha(t))).sqrt()

    def log_snr(self, t: Tensor) -> Tensor:
        return 2 * (self.log_alpha(t) - self.sigma(t).log())

    def drift_rate(self, t: Tensor) -> Tensor:
        return -0.5 * self.diffusion_squared(t)

    def diffusion_squared(self, t: Tensor) -> Tensor:
        return self.beta_min + (self.beta_max - self.beta_min) * t


@dataclass(frozen=True)
class Exploding:
    """Noise of standard deviation ``rate t``, no drift."""

    rate: float = 3.0

    def log_alpha(self, t: Tensor) -> Tensor:
        return torch.zeros_like(t)

    def sigma(self, t: Tensor) -> Tensor:
        return self.rate * t

    def log_snr(self, t: Tensor) -> Tensor:
        return -2 * self.sigma(t).log()

    def drift_rate(self, t: Tensor) -> Tensor:
        return torch.zeros_like(t)

    def diffusion_squared(self, t: Tensor) -> Tensor:
        return 2 * self.rate**2 * t


Path = Preserving | Exploding


class Noised(NamedTuple):
    """Samples of the path, row by row."""

    x: Tensor
    z: Tensor
    y: Tensor
    t: Tensor


class NoisedMixture(nn.Module):
    """``log p_t(y) = F(t) - U(y, t)``, exact while all knobs are zero, with ``F = 0.7 t^2`` so that it matters."""

    def __init__(self, path: Path, separation: float = 1.2, dim: int = 2) -> None:
        super().__init__()
        self.path = path
        self.knobs = nn.Parameter(torch.zeros(5, dtype=DTYPE))
        axis = torch.ones(dim, dtype=DTYPE) / math.sqrt(dim)
        self.means = separation * torch.stack([-axis, axis])
        self.sigmas = torch.tensor([0.5, 0.8], dtype=DTYPE)
        self.log_weights = torch.tensor([0.3, 0.7], dtype=DTYPE).log()

    def log_density(self, y: Tensor, t: Tensor) -> Tensor:
        alpha, sigma = self.path.log_alpha(t).exp(), self.path.sigma(t)
        variance = alpha[:, None].square() * self.sigmas.square() + sigma[:, None].square()
        squared = (y[:, None] - alpha[:, None, None] * (self.means + self.knobs[SHIFT])).square().sum(-1)
        odds = torch.stack([-self.knobs[WEIGHT], self.knobs[WEIGHT]]) / 2
        weights = torch.log_softmax(self.log_weights + odds, 0)
        return (weights - 0.5 * squared / variance - 0.5 * y.shape[1] * (2 * math.pi * variance).log()).logsumexp(-1)

    def energy(self, y: Tensor, t: Tensor) -> Tensor:
        exact = 0.7 * t**2 - self.log_density(y, t)
        return (1 + self.knobs[SCALE]) * exact + self.knobs[COMMON] * y[:, 0].cos()

    def gradient(self, y: Tensor, t: Tensor) -> Tensor:
        return torch.func.grad(lambda point: self.energy(point, t).sum())(y)

    def time_derivative(self, y: Tensor, t: Tensor) -> Tensor:
        return torch.func.jvp(lambda time: self.energy(y, time), (t,), (torch.ones_like(t),))[1]

    def free_energy(self, t: Tensor) -> Tensor:
        return 0.7 * t**2 + self.knobs[SLOPE] * t

    def sample(self, t: Tensor, seed: int) -> Noised:
        """Return exact samples at each of the times."""
        generator = named_generator(seed, "samples")
        mode = torch.multinomial(self.log_weights.exp(), len(t), replacement=True, generator=generator)
        x = self.means[mode] + self.sigmas[mode, None] * normal(len(t), self.means.shape[1], generator=generator)
        z = normal(*x.shape, generator=generator)
        return Noised(x, z, self.path.log_alpha(t).exp()[:, None] * x + self.path.sigma(t)[:, None] * z, t)

    def spoiled(self, knob: int, value: float) -> NoisedMixture:
        """Return a copy with one knob turned."""
        copy = NoisedMixture(self.path)
        copy.means = self.means
        with torch.no_grad():
            copy.knobs[knob] = value
        return copy


Objective = Callable[[NoisedMixture, Noised], Tensor]


def normal(*shape: int, generator: torch.Generator) -> Tensor:
    return torch.randn(*shape, generator=generator, dtype=DTYPE)


def uniform_times(n: int, seed: int, low: float = 0.05, high: float = 1.0) -> Tensor:
    return low + (high - low) * torch.rand(n, generator=named_generator(seed, "times"), dtype=DTYPE)


def z_score(values: Tensor) -> Tensor:
    """Return the mean over the first axis in units of its standard error."""
    return values.mean(0) / (values.std(0) / math.sqrt(len(values)))


def gradients(objective: Objective, model: NoisedMixture, batch: Noised, n_blocks: int = 40) -> Tensor:
    """Return the gradient in the knobs, block by block of the samples."""
    blocks = [Noised(*parts) for parts in zip(*(tensor.chunk(n_blocks) for tensor in batch), strict=True)]
    return torch.stack([torch.autograd.grad(objective(model, block).mean(), model.knobs)[0] for block in blocks])


def assert_stationary(objective: Objective, model: NoisedMixture, batch: Noised, knobs: list[int]) -> None:
    """The exact model is a stationary point within four standard errors, measured finely enough to mean something."""
    values = gradients(objective, model, batch)[:, knobs]
    assert (values.std(0) > 0).all()
    assert (z_score(values).abs() < 4).all(), z_score(values)


def assert_least(objective: Objective, model: NoisedMixture, batch: Noised, knobs: list[int]) -> None:
    """Every knob, turned either way, costs more than three standard errors."""
    with torch.no_grad():
        exact = objective(model, batch)
        for knob in knobs:
            for value in (-TURN[knob], TURN[knob]):
                margin = objective(model.spoiled(knob, value), batch) - exact
                assert z_score(margin) > 3, (knob, value, z_score(margin))
