"""One-sided noising paths ``y_t = alpha(t) x + sigma(t) z``: t = 0 is data, t = 1 is noise."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor


@runtime_checkable
class HasLogSnr(Protocol):
    """Anything that knows its signal-to-noise ratio."""

    def log_snr(self, t: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        """Return ``2 log(alpha / sigma)``, falling in t."""
        ...


@runtime_checkable
class HasKernel(HasLogSnr, Protocol):
    """A noising ``y_t = alpha(t) x + sigma(t) z``, of which the kernel between two times follows."""

    def log_alpha(self, t: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        """Return ``log alpha(t)``."""
        ...

    def sigma(self, t: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        """Return ``sigma(t)``."""
        ...


@dataclass(frozen=True, kw_only=True)
class DiffusionPath(ABC):
    r"""A linear diffusion ``dy = f(t) y dt + g(t) dW`` by its marginals ``y_t = alpha(t) x + sigma(t) z``.

    Everything follows from two functions, ``log alpha`` and ``log sigma``, and their exact derivatives:
    ``f = d log alpha / dt`` and ``g^2 = d sigma^2 / dt - 2 f sigma^2``. Each coordinate counts as one degree of
    freedom, so centred positions belong here in a basis of their ``3 (atoms - 1)`` dimensional subspace.

    Args:
        t_min: the earliest time at which noise levels are placed; densities and scores are finite from there on.
        t_max: the latest.

    References:
        Song et al. 2021, arXiv:2011.13456.
    """

    t_min: float = 0.0
    t_max: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.t_min < self.t_max <= 1:
            raise ValueError(f"times need 0 <= t_min < t_max <= 1, got {self.t_min} and {self.t_max}")

    @abstractmethod
    def log_alpha(self, t: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        """Return the logarithm of what is left of the data."""

    @abstractmethod
    def log_sigma(self, t: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        """Return the logarithm of the standard deviation of the noise."""

    @abstractmethod
    def d_log_alpha(self, t: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        """Return ``d log alpha / dt``."""

    @abstractmethod
    def d_log_sigma(self, t: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        """Return ``d log sigma / dt``."""

    @abstractmethod
    def time_at_log_snr(self, log_snr: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        """Return the time at which :meth:`log_snr` has this value."""

    def alpha(self, t: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        """Return what is left of the data."""
        return self.log_alpha(t).exp()

    def sigma(self, t: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        """Return the standard deviation of the noise."""
        return self.log_sigma(t).exp()

    def log_snr(self, t: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        """Return ``2 log(alpha / sigma)``, which falls with t."""
        return 2 * (self.log_alpha(t) - self.log_sigma(t))

    def drift_rate(self, t: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        """Return ``f(t)`` of the forward process."""
        return self.d_log_alpha(t)

    def diffusion_squared(self, t: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        """Return ``g(t)^2`` of the forward process."""
        return 2 * self.sigma(t).square() * (self.d_log_sigma(t) - self.d_log_alpha(t))

    def sample(
        self, x: Float[Tensor, "batch dim"], t: Float[Tensor, " batch"], z: Float[Tensor, "batch dim"]
    ) -> Float[Tensor, "batch dim"]:
        """Return ``y`` at ``t`` for noise ``z``."""
        return self.alpha(t)[:, None] * x + self.sigma(t)[:, None] * z

    def conditional_log_density(
        self, y: Float[Tensor, "batch dim"], x: Float[Tensor, "batch dim"], t: Float[Tensor, " batch"]
    ) -> Float[Tensor, " batch"]:
        """Return ``log p(y | x)`` at ``t``, normalised."""
        residual = (y - self.alpha(t)[:, None] * x) / self.sigma(t)[:, None]
        log_volume = self.log_sigma(t) + 0.5 * math.log(2 * math.pi)
        return -0.5 * residual.square().sum(-1) - y.shape[1] * log_volume

    def conditional_score(
        self, y: Float[Tensor, "batch dim"], x: Float[Tensor, "batch dim"], t: Float[Tensor, " batch"]
    ) -> Float[Tensor, "batch dim"]:
        """Return ``grad_y log p(y | x)``, which is ``-z / sigma(t)``."""
        return -(y - self.alpha(t)[:, None] * x) / self.sigma(t)[:, None].square()

    def conditional_time_score(
        self, x: Float[Tensor, "batch dim"], t: Float[Tensor, " batch"], z: Float[Tensor, "batch dim"]
    ) -> Float[Tensor, " batch"]:
        """Return ``d/dt log p(y | x)`` at fixed y, for ``y = sample(x, t, z)``."""
        return self.time_score_of_products(t, z.square().sum(-1), (x * z).sum(-1), x.shape[1])

    def time_score_of_products(
        self, t: Float[Tensor, " batch"], zz: Float[Tensor, " batch"], xz: Float[Tensor, " batch"], dimension: int
    ) -> Float[Tensor, " batch"]:
        """Return ``d/dt log p(y | x)`` from ``|z|^2`` and ``<x, z>``, in which it is linear.

        Args:
            t: times.
            zz: ``|z|^2`` of ``z = (y - alpha x) / sigma``, or its average over the ``x`` that may have made ``y``.
            xz: ``<x, z>``, or its average over the same.
            dimension: degrees of freedom.
        """
        drift = self.d_log_alpha(t) * (self.log_alpha(t) - self.log_sigma(t)).exp()
        return self.d_log_sigma(t) * (zz - dimension) + drift * xz


@dataclass(frozen=True)
class VariancePreserving(DiffusionPath):
    r"""Linear-beta noising with ``alpha^2 + sigma^2 = 1`` and ``beta(t) = beta_min + t (beta_max - beta_min)``.

    Args:
        beta_min: rate at which the data is forgotten at t = 0.
        beta_max: the rate at t = 1.

    References:
        Song et al. 2021, arXiv:2011.13456, eq. 32-33.

    >>> path = VariancePreserving()
    >>> round(path.alpha(torch.tensor([1.0])).item(), 5)
    0.00657
    """

    beta_min: float = 0.1
    beta_max: float = 20.0
    t_min: float = field(default=1e-4, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.beta_min <= self.beta_max:
            raise ValueError(f"rates need 0 < beta_min <= beta_max, got {self.beta_min} and {self.beta_max}")

    def beta(self, t: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        """Return the rate ``beta(t)``."""
        return self.beta_min + t * (self.beta_max - self.beta_min)

    def log_alpha(self, t: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        """See :meth:`DiffusionPath.log_alpha`."""
        return -0.5 * t * self.beta_min - 0.25 * t**2 * (self.beta_max - self.beta_min)

    def log_sigma(self, t: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        """See :meth:`DiffusionPath.log_sigma`."""
        return 0.5 * (-torch.expm1(2 * self.log_alpha(t))).log()

    def d_log_alpha(self, t: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        """See :meth:`DiffusionPath.d_log_alpha`."""
        return -0.5 * self.beta(t)

    def d_log_sigma(self, t: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        """See :meth:`DiffusionPath.d_log_sigma`."""
        return 0.5 * self.beta(t) / torch.expm1(-2 * self.log_alpha(t))

    def diffusion_squared(self, t: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        """See :meth:`DiffusionPath.diffusion_squared`; finite at t = 0, where the general form is 0 times infinity."""
        return self.beta(t)

    def time_at_log_snr(self, log_snr: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        """See :meth:`DiffusionPath.time_at_log_snr`."""
        # softplus(-log_snr) = -2 log alpha; the root of its quadratic is written without a cancelling difference.
        forgotten = torch.nn.functional.softplus(-log_snr, threshold=100.0)
        slope = self.beta_max - self.beta_min
        return 2 * forgotten / (self.beta_min + torch.sqrt(self.beta_min**2 + 2 * slope * forgotten))


@dataclass(frozen=True)
class VarianceExploding(DiffusionPath):
    r"""Geometric noise on unscaled data: ``alpha = 1``, ``sigma(t) = sigma_min (sigma_max / sigma_min)^t``.

    Args:
        sigma_min: noise at t = 0, in the unit of the data.
        sigma_max: noise at t = 1.

    References:
        Song et al. 2021, arXiv:2011.13456.
    """

    sigma_min: float
    sigma_max: float

    def __post_init__(self) -> None:
        super().__post_init__()
        _require_growing_noise(self.sigma_min, self.sigma_max)

    def log_alpha(self, t: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        """See :meth:`DiffusionPath.log_alpha`."""
        return torch.zeros_like(t)

    def log_sigma(self, t: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        """See :meth:`DiffusionPath.log_sigma`."""
        return math.log(self.sigma_min) + t * math.log(self.sigma_max / self.sigma_min)

    def d_log_alpha(self, t: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        """See :meth:`DiffusionPath.d_log_alpha`."""
        return torch.zeros_like(t)

    def d_log_sigma(self, t: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        """See :meth:`DiffusionPath.d_log_sigma`."""
        return torch.full_like(t, math.log(self.sigma_max / self.sigma_min))

    def time_at_log_snr(self, log_snr: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        """See :meth:`DiffusionPath.time_at_log_snr`."""
        return (-0.5 * log_snr - math.log(self.sigma_min)) / math.log(self.sigma_max / self.sigma_min)


@dataclass(frozen=True)
class Edm(DiffusionPath):
    r"""The noise levels of EDM as a path: ``alpha = 1`` and ``sigma(t)^(1/rho)`` a straight line in t.

    Args:
        sigma_min: noise at t = 0, in the unit of the data.
        sigma_max: noise at t = 1.
        rho: the larger, the more of the path is spent at little noise.

    References:
        Karras et al. 2022, arXiv:2206.00364, eq. 5.

    >>> [round(sigma, 4) for sigma in Edm().sigma(torch.tensor([0.0, 0.5, 1.0])).tolist()]
    [0.002, 2.5152, 80.0]
    """

    sigma_min: float = 0.002
    sigma_max: float = 80.0
    rho: float = 7.0

    def __post_init__(self) -> None:
        super().__post_init__()
        _require_growing_noise(self.sigma_min, self.sigma_max)
        if not self.rho > 0:
            raise ValueError(f"rho must be positive, got {self.rho}")

    @property
    def _line(self) -> tuple[float, float]:
        start = self.sigma_min ** (1 / self.rho)
        return start, self.sigma_max ** (1 / self.rho) - start

    def log_alpha(self, t: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        """See :meth:`DiffusionPath.log_alpha`."""
        return torch.zeros_like(t)

    def log_sigma(self, t: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        """See :meth:`DiffusionPath.log_sigma`."""
        start, slope = self._line
        return self.rho * (start + slope * t).log()

    def d_log_alpha(self, t: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        """See :meth:`DiffusionPath.d_log_alpha`."""
        return torch.zeros_like(t)

    def d_log_sigma(self, t: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        """See :meth:`DiffusionPath.d_log_sigma`."""
        start, slope = self._line
        return self.rho * slope / (start + slope * t)

    def time_at_log_snr(self, log_snr: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        """See :meth:`DiffusionPath.time_at_log_snr`."""
        start, slope = self._line
        return ((-0.5 * log_snr / self.rho).exp() - start) / slope


def unknown_share(path: HasLogSnr, s: Float[Tensor, " batch"], t: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
    """Return ``1 - exp(log_snr_t - log_snr_s)``, ``s < t``, without the cancellation of a short step.

    The share of the noise at one end of a step that the other end leaves open: ``Var(y_t | y_s) = sigma_t^2`` times
    it, and ``Var(y_s | y_t, x) = sigma_s^2`` times it.

    References:
        Kingma et al. 2021, arXiv:2107.00630 (the kernels between two times).
    """
    return -torch.expm1(path.log_snr(t) - path.log_snr(s))


def forward_kernel(
    path: HasKernel, s: Float[Tensor, " batch"], t: Float[Tensor, " batch"]
) -> tuple[Float[Tensor, " batch"], Float[Tensor, " batch"]]:
    """Return ``a, b`` of the noising from ``s`` to ``t > s``: ``y_t = a y_s + b z``.

    ``b^2 = sigma_t^2 - a^2 sigma_s^2`` without the cancellation of a short step, see :func:`unknown_share`.
    """
    scale = (path.log_alpha(t) - path.log_alpha(s)).exp()
    return scale, path.sigma(t) * unknown_share(path, s, t).sqrt()


def _require_growing_noise(sigma_min: float, sigma_max: float) -> None:
    if not 0 < sigma_min < sigma_max:
        raise ValueError(f"noise needs 0 < sigma_min < sigma_max, got {sigma_min} and {sigma_max}")
