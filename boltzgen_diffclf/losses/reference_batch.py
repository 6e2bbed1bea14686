r"""Which clean sample made a noised one, where others might have as well: targets averaged over a reference batch.

Let ``x_0`` have made ``y``, and let ``x_1 ... x_K`` be other independent samples of the data. To one who knows them
all but not which of them made ``y``, it was ``x_k`` with the probability ``w_k ~ p(y | x_k)``. Whatever a loss
regresses on, ``f(x_0)``, may then be replaced by ``sum_k w_k f(x_k)``: its mean given ``y`` is the same for any ``K``,
and its variance less (Rao and Blackwell). Under wide noise hardly any is left, if ``K`` is far above the rows of a
step, for they share these others; under little noise ``x_0`` alone counts, as without them.

References:
    Xu, Tong & Jaakkola 2023, Stable target field, arXiv:2302.00670, for scores.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor


class CleanPosterior(NamedTuple):
    """Probabilities of having made each noised sample: of the clean one that did, and of the others."""

    own: Float[Tensor, " rows"]
    others: Float[Tensor, "rows others"]

    def mean(self, own: Float[Tensor, "rows dim"], others: Float[Tensor, "others dim"]) -> Float[Tensor, "rows dim"]:
        """Return the average of what belongs to a clean sample."""
        return self.own[:, None] * own + self.others @ others

    def mean_of_pairs(
        self, own: Float[Tensor, " rows"], others: Float[Tensor, "rows others"]
    ) -> Float[Tensor, " rows"]:
        """Return the average of what belongs to a clean sample and the noised one."""
        return self.own * own + (self.others * others).sum(-1)


def clean_posterior(
    y: Float[Tensor, "rows dim"],
    z: Float[Tensor, "rows dim"],
    coefficients: tuple[Float[Tensor, " rows"], Float[Tensor, " rows"]],
    others: Float[Tensor, "others dim"],
) -> CleanPosterior:
    """Return which clean sample made each ``y``, given its level.

    Args:
        y: noised samples.
        z: the standard normal noise in them.
        coefficients: ``alpha`` and ``log sigma`` of their levels.
        others: clean samples that made none of them; none is fine.
    """
    alpha, log_sigma = (value[:, None] for value in coefficients)
    own = -0.5 * z.square().sum(-1, keepdim=True)
    theirs = kernel_logits(y, others, alpha, log_sigma).squeeze(1)
    weights = torch.cat([own, theirs], dim=-1).softmax(-1)
    return CleanPosterior(weights[:, 0], weights[:, 1:])


def kernel_logits(
    y: Float[Tensor, "*rows dim"],
    others: Float[Tensor, "others dim"],
    alpha: Float[Tensor, "*#rows levels"],
    log_sigma: Float[Tensor, "*#rows levels"],
) -> Float[Tensor, "*rows levels others"]:
    r"""Return ``-|y - alpha_j x_k|^2 / 2 sigma_j^2`` of every noised sample, level and clean one, from one product.

    Args:
        y: noised samples.
        others: clean ones, of a coordinate's variance about 1: squares of distances are differences of squares.
        alpha: of the levels.
        log_sigma: the same.
    """
    alpha, precision = alpha.unsqueeze(-1), (-2 * log_sigma).exp().unsqueeze(-1)
    product, squares = (y @ others.T).unsqueeze(-2), others.square().sum(-1)
    squared = y.square().sum(-1)[..., None, None] - 2 * alpha * product + alpha.square() * squares
    return -0.5 * precision * squared.clamp(min=0)
