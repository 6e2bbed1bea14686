r"""Which clean sample made a noised one, where others might have as well: targets averaged over a reference batch.

Let ``x_0`` have made ``y``, and let ``x_1 ... x_K`` be other independent samples of the data. To one who knows them
all but not which of them made ``y``, it was ``x_k`` with the probability ``w_k ~ p(y | x_k)``. Whatever a loss
regresses on, ``f(x_0)``, may then be replaced by ``sum_k w_k f(x_k)``: its mean given ``y`` is the same for any ``K``,
and its variance less (Rao and Blackwell). That is of one ``y``; all those of a step share the others, and its noise is
less only where ``K`` is not below their number. Under little noise ``x_0`` alone counts, as without the others.

References:
    Xu, Tong & Jaakkola 2023, Stable target field, arXiv:2302.00670, for scores.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

Coefficients = tuple[Float[Tensor, " rows"], Float[Tensor, " rows"]]
"""``alpha`` and ``log sigma`` of noised samples."""


class CleanPosterior(NamedTuple):
    """Probabilities of having made each noised sample.

    Attributes:
        own: of the clean one that did.
        others: of the others.
        logits: ``-|z_k|^2 / 2`` of the others, where ``y = alpha x_k + sigma z_k``.
    """

    own: Float[Tensor, " rows"]
    others: Float[Tensor, "rows others"]
    logits: Float[Tensor, "rows others"]

    def mean(self, own: Float[Tensor, "rows dim"], others: Float[Tensor, "others dim"]) -> Float[Tensor, "rows dim"]:
        """Return the average of what belongs to a clean sample."""
        return self.own[:, None] * own + self.others @ others

    def mean_products(
        self,
        x: Float[Tensor, "rows dim"],
        y: Float[Tensor, "rows dim"],
        z: Float[Tensor, "rows dim"],
        coefficients: Coefficients,
        others: Float[Tensor, "others dim"],
    ) -> tuple[Float[Tensor, " rows"], Float[Tensor, " rows"]]:
        """Return the averages of ``|z_k|^2`` and ``<x_k, z_k>``; arguments as of :func:`clean_posterior`."""
        alpha, log_sigma = (value[:, None] for value in coefficients)
        xz = (y.double() @ others.double().T - alpha.double() * others.double().square().sum(-1)).to(y)
        averages = ((-2 * self.logits, z.square()), (xz / log_sigma.exp(), x * z))
        zz, xz = (self.own * own.sum(-1) + (self.others * theirs).sum(-1) for theirs, own in averages)
        return zz, xz


def clean_posterior(
    y: Float[Tensor, "rows dim"],
    z: Float[Tensor, "rows dim"],
    coefficients: Coefficients,
    others: Float[Tensor, "others dim"],
) -> CleanPosterior:
    """Return which clean sample made each ``y``, given its level.

    Args:
        y: noised samples.
        z: the standard normal noise in them.
        coefficients: ``alpha`` and ``log sigma`` of their levels.
        others: clean samples drawn independently of these; none is fine.
    """
    alpha, log_sigma = (value[:, None] for value in coefficients)
    own = -0.5 * z.square().sum(-1, keepdim=True)
    theirs = kernel_logits(y, others, alpha, log_sigma).squeeze(1)
    weights = torch.cat([own, theirs], dim=-1).softmax(-1)
    return CleanPosterior(weights[:, 0], weights[:, 1:], theirs)


def kernel_logits(
    y: Float[Tensor, "*rows dim"],
    others: Float[Tensor, "others dim"],
    alpha: Float[Tensor, "*#rows levels"],
    log_sigma: Float[Tensor, "*#rows levels"],
) -> Float[Tensor, "*rows levels others"]:
    r"""Return ``-|y - alpha_j x_k|^2 / 2 sigma_j^2`` of every noised sample, level and clean one, from one product.

    Distances are differences of squares, and are taken in double precision: under little noise all that counts are
    small ones.

    Args:
        y: noised samples.
        others: clean ones.
        alpha: of the levels.
        log_sigma: the same.
    """
    wide, clean, scale = y.double(), others.double(), alpha.double().unsqueeze(-1)
    product, squares = (wide @ clean.T).unsqueeze(-2), clean.square().sum(-1)
    squared = wide.square().sum(-1)[..., None, None] - 2 * scale * product + scale.square() * squares
    return -0.5 * (-2 * log_sigma).exp().unsqueeze(-1) * squared.clamp(min=0).to(y)
