"""The row ``exact_density``: the exact noised densities instead of a learned energy; what each measure says at best."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from boltzgen_diffclf.data_gaussian import DataGaussian, data_resolution
from boltzgen_diffclf.noised_energy import NoisedEnergyModel
from boltzgen_diffclf.paths import DiffusionPath, path_levels
from boltzgen_diffclf.streams import named_generator
from systems.analytic import GaussianMixture, MixtureMarginals
from workflows.benchmark_suites.one_sided_training import OneSidedSizes, Trained, training_pool


class ExactEnergyModel(NoisedEnergyModel):
    """The normalised noised densities of a mixture as a model; its Gaussian and resolution are those of samples.

    Args:
        oracle: the densities.
        data: see :class:`NoisedEnergyModel`.
        levels: see there.
        resolution: see there.
    """

    def __init__(
        self, oracle: MixtureMarginals, data: DataGaussian, levels: Float[Tensor, " levels"], resolution: float
    ) -> None:
        super().__init__(nn.Identity(), oracle.path, data, levels, resolution)
        self.oracle = oracle

    def energy(self, y: Float[Tensor, "batch dim"], t: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        """See :meth:`NoisedEnergyModel.energy`."""
        return self.oracle.energy(y, t)

    def energy_and_gradient(
        self, y: Float[Tensor, "batch dim"], t: Float[Tensor, " batch"]
    ) -> tuple[Float[Tensor, " batch"], Float[Tensor, "batch dim"]]:
        """See :meth:`NoisedEnergyModel.energy_and_gradient`."""
        return self.oracle.energy(y, t), self.oracle.gradient(y, t)

    def energy_and_denoiser(
        self, y: Float[Tensor, "batch dim"], t: Float[Tensor, " batch"]
    ) -> tuple[Float[Tensor, " batch"], Float[Tensor, "batch dim"]]:
        """See :meth:`NoisedEnergyModel.energy_and_denoiser`; the denoiser by Tweedie."""
        energy, gradient = self.energy_and_gradient(y, t)
        alpha, sigma = self.path.alpha(t)[:, None], self.path.sigma(t)[:, None]
        return energy, (y - sigma.square() * gradient) / alpha


def exact_density(target: GaussianMixture, path: DiffusionPath, sizes: OneSidedSizes, seed: int) -> Trained:
    """Return the exact densities in the form of what a row has trained, at no cost."""
    x = training_pool(target, sizes.samples, seed).samples.x
    resolution = data_resolution(x, named_generator(seed, "resolution"))
    levels = path_levels(path, sizes.levels).double()
    data = DataGaussian(x.mean(0).double(), x.var(0).double())
    model = ExactEnergyModel(MixtureMarginals(target, path), data, levels, resolution).double()
    return Trained(target, model.requires_grad_(False), torch.zeros_like(levels), 0.0, 0)
