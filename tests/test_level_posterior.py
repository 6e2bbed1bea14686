"""The label of a sample averaged out: the loss stays, its noise goes."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from boltzgen_diffclf.losses import level_classification_loss, level_posterior, posterior_classification_loss
from boltzgen_diffclf.paths import Edm, VariancePreserving
from boltzgen_diffclf.paths.diffusion import DiffusionPath
from systems.analytic import GaussianMixture, MixtureMarginals, mixture_2d

PATHS = [VariancePreserving(), Edm()]
GROUPS = 4000


def noised(path: DiffusionPath, t: Tensor, groups: int = GROUPS) -> tuple[GaussianMixture, Tensor, Tensor, Tensor]:
    """Return the mixture and clean samples, noise and noised samples at every time, ``(groups, levels, dim)``."""
    mixture, stream = mixture_2d(), torch.Generator().manual_seed(3)
    x = mixture.sample(groups, stream)[:, None].expand(-1, len(t), -1)
    z = torch.randn(x.shape, generator=stream, dtype=x.dtype)
    y = path.sample(x.flatten(0, 1), t.repeat(groups), z.flatten(0, 1)).reshape(x.shape)
    return mixture, x, z, y


def posterior(path: DiffusionPath, x: Tensor, z: Tensor, t: Tensor) -> Tensor:
    own = path.alpha(t).expand(len(x), -1), path.log_sigma(t).expand(len(x), -1)
    return level_posterior(x, z, own, own, x[:0, 0])


def energies(mixture: GaussianMixture, path: DiffusionPath, y: Tensor, t: Tensor, error: float) -> Tensor:
    """Return exact energies times ``1 + error`` of every sample at every time."""
    size = len(t)
    rows = y[:, :, None].expand(-1, -1, size, -1).reshape(-1, y.shape[-1])
    exact = MixtureMarginals(mixture, path).energy(rows, t.repeat(len(rows) // size))
    return (1 + error) * exact.reshape(len(y), size, size)


@pytest.mark.parametrize("path", PATHS)
def test_the_posterior_is_that_of_the_conditional_densities(path: DiffusionPath) -> None:
    t = torch.tensor([0.2, 0.25, 0.6], dtype=torch.float64)
    _, x, z, y = noised(path, t, groups=50)
    rows = [
        torch.stack([path.conditional_log_density(y[:, i], x[:, i], at.expand(50)) for at in t], dim=-1)
        for i in range(3)
    ]
    torch.testing.assert_close(posterior(path, x, z, t), torch.stack(rows, dim=1).softmax(-1))


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("error", [0.0, -0.3])
def test_averaged_labels_leave_the_mean_of_the_loss_alone(path: DiffusionPath, error: float) -> None:
    t = torch.tensor([0.15, 0.25, 0.35], dtype=torch.float64)
    mixture, x, z, y = noised(path, t)
    u, free = (
        energies(mixture, path, y, t, error),
        torch.tensor([0.0, 0.4, -0.2], dtype=torch.float64).expand(GROUPS, 3),
    )
    named = level_classification_loss(u, free)
    averaged = posterior_classification_loss(u, free, posterior(path, x, z, t))
    difference = (named - averaged).mean(1)
    assert abs(float(difference.mean())) < 4 * float(difference.std()) / GROUPS**0.5
    assert float(averaged.var()) < float(named.var())


def test_at_the_minimum_wide_noise_leaves_the_gradient_hardly_any_of_its_own() -> None:
    path, t = VariancePreserving(), torch.tensor([0.7, 0.8], dtype=torch.float64)
    mixture, x, z, y = noised(path, t)
    u = energies(mixture, path, y, t, 0.0)
    # The derivative of either loss by the free energies, sample by sample.
    named, averaged = (
        float((torch.softmax(-u, -1) - labels)[..., 0].var())
        for labels in (torch.eye(2, dtype=torch.float64).expand(GROUPS, 2, 2), posterior(path, x, z, t))
    )
    assert averaged < 0.1 * named
