"""The diffusive classification loss: tell from a noised sample which noise level made it.

Only ratios of levels count here: all of them times one common ``c(y) > 0`` is as good. Score matching, or a level
whose density is known, fixes ``c``.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int, Real
from torch import Tensor

from boltzgen_diffclf.losses.reference_batch import kernel_logits


def level_classification_loss(
    energies: Float[Tensor, "batch levels levels"], free_energies: Float[Tensor, "batch levels"]
) -> Float[Tensor, "batch levels"]:
    r"""Cross-entropy [nats] of naming the level that produced each sample, among the levels of its group.

    Args:
        energies: ``[b, i, j]`` is ``U(y_i, t_j)`` [kT] for ``y_i ~ p(t_i)``; a constant per ``[b, i]`` is free.
        free_energies: ``F(t_j)`` of the group's levels, defined up to one constant.

    Returns:
        Per sample; its mean is ``log(levels)`` when the model cannot tell the levels apart.

    References:
        OuYang, Grenioux & Hernandez-Lobato 2026, arXiv:2601.21025, eq. 10.

    >>> level_classification_loss(torch.zeros(1, 2, 2), torch.zeros(1, 2)).mean().item()  # doctest: +ELLIPSIS
    0.693...
    """
    log_posterior = torch.log_softmax(free_energies.unsqueeze(-2) - energies, dim=-1)
    return -log_posterior.diagonal(dim1=-2, dim2=-1)


def posterior_classification_loss(
    energies: Float[Tensor, "batch levels classes"],
    free_energies: Float[Tensor, "*batch classes"],
    posterior: Float[Tensor, "batch levels classes"],
) -> Float[Tensor, "batch levels"]:
    r"""The classification loss with the level's name averaged out: its labels are probabilities.

    Which level made ``y`` is itself a draw. Given ``y`` and the clean ``x`` behind it, or ``x`` among others, the
    levels of the group have the probabilities ``p(t_j | y, x)``, in closed form; in their place, the name adds nothing
    but noise. The mean is that of :func:`level_classification_loss` for any energies (Rao and Blackwell), and so is
    the minimiser. Where the noise is wider than the structure of the data, ``x`` tells the level little better than
    ``y`` does: at the minimum the gradient then has hardly any noise left. Time score matching is its limit of close
    levels.

    Args:
        energies: ``[b, i, j]`` is ``U(y_i, t_j)`` [kT].
        free_energies: ``F(t_j)``, defined up to one constant.
        posterior: ``p(t_j | y_i, x)``, see :func:`level_posterior`.

    Returns:
        Per sample [nats].

    References:
        OuYang, Grenioux & Hernandez-Lobato 2026, arXiv:2601.21025, for the loss; the averaging of labels is our own, as
        Xu, Tong & Jaakkola 2023, arXiv:2302.00670, average scores.

    >>> posterior_classification_loss(torch.zeros(1, 1, 2), torch.zeros(1, 2), torch.tensor([[[0.3, 0.7]]])).item()
    ... # doctest: +ELLIPSIS
    0.693...
    """
    log_model = torch.log_softmax(free_energies.unsqueeze(-2) - energies, dim=-1)
    return -(posterior * log_model).sum(-1)


def level_posterior(
    x: Float[Tensor, "batch levels dim"],
    z: Float[Tensor, "batch levels dim"],
    made_by: tuple[Float[Tensor, "batch levels"], Float[Tensor, "batch levels"]],
    classes: tuple[Float[Tensor, "*batch classes"], Float[Tensor, "*batch classes"]],
    others: Float[Tensor, "others dim"],
) -> Float[Tensor, "batch levels classes"]:
    r"""Return ``p(t_j | y_i, x_i, others)`` for ``y_i = alpha_i x_i + sigma_i z_i``, all classes equally frequent.

    ``log p(y_i | x_i, t_j)`` is that of a Gaussian of residual ``(alpha_i - alpha_j) x_i + sigma_i z_i``. With other
    clean samples, any of which might as well have made ``y_i``, it is the mixture of these Gaussians that counts.

    Args:
        x: clean samples.
        z: standard normal noise.
        made_by: ``alpha`` and ``log sigma`` of the levels that made the samples.
        classes: those of the levels to be told apart.
        others: clean samples drawn independently of these; none is fine.
    """
    (alpha, log_sigma), (alpha_j, log_sigma_j) = made_by, classes
    shift = alpha.unsqueeze(-1) - alpha_j.unsqueeze(-2)
    sigma = log_sigma.exp().unsqueeze(-1)
    xx, xz, zz = (product.sum(-1, keepdim=True) for product in (x * x, x * z, z * z))
    squared = shift.square() * xx + 2 * shift * sigma * xz + sigma.square() * zz
    logs = log_sigma_j.unsqueeze(-2)
    logits = -0.5 * squared * (-2 * logs).exp()
    if len(others):
        y = alpha.unsqueeze(-1) * x + sigma * z
        theirs = kernel_logits(y, others, alpha_j.unsqueeze(-2), logs).logsumexp(-1)
        logits = torch.logaddexp(logits, theirs)
    return torch.softmax(logits - x.shape[-1] * logs, dim=-1)


def binary_classification_loss(
    energies: Float[Tensor, "batch 2 2"], free_energies: Float[Tensor, "batch 2"]
) -> Float[Tensor, "batch 2"]:
    r"""The two-level loss, ``1/2 E_s softplus(l_t - l_s) + 1/2 E_t softplus(l_s - l_t)`` with ``l = F - U``.

    Args:
        energies: ``[b, i, j]`` is ``U(y_i, t_j)`` [kT].
        free_energies: ``F(t_j)``.

    References:
        OuYang, Grenioux & Hernandez-Lobato 2026, arXiv:2601.21025, eq. 8.
    """
    log_density = free_energies.unsqueeze(-2) - energies
    margin = log_density.diagonal(dim1=-2, dim2=-1) - log_density.flip(-1).diagonal(dim1=-2, dim2=-1)
    return torch.nn.functional.softplus(-margin)


def exact_end_classification_loss(
    end_energies: Float[Tensor, "samples 2"],
    inner_energies: Float[Tensor, "samples inner"],
    free_energies: Float[Tensor, "*each levels"],
    origin: Int[Tensor, " samples"],
    counts: Real[Tensor, " levels"],
) -> Float[Tensor, " samples"]:
    r"""Cross-entropy [nats] of naming the level, where the first and the last are the true end states.

    The logits of the ends are ``F_A - u_A`` and ``F_B - u_B``: nothing but their free energies is learned there, so
    ``F_B - F_A`` is read off the classifier. Without inner levels it is Bennett's acceptance ratio; with fixed inner
    energies it is the multistate one, whatever those energies are, if the inner samples follow them.

    Args:
        end_energies: ``u_A(y)`` and ``u_B(y)`` [kT] of every sample; ``+inf`` in the end that excludes it is fine.
        inner_energies: ``U(y, t_j)`` [kT] at the levels between.
        free_energies: ``F`` of all levels in order, A first and B last, defined up to one constant; of those of each
            sample, where these are told apart among levels of their own.
        origin: index of the level that made each sample.
        counts: samples that each level gives, or their shares; the levels need not give equally many.

    References:
        Bennett 1976, J. Comput. Phys. 22, 245; Shirts & Chodera 2008, J. Chem. Phys. 129, 124105; as a
        classification: Geyer 1994, Estimating normalizing constants and reweighting mixtures.
    """
    energies = torch.cat([end_energies[:, :1], inner_energies, end_energies[:, 1:]], dim=1)
    logits = counts.to(energies.dtype).log() + free_energies - energies
    return torch.nn.functional.cross_entropy(logits, origin.long(), reduction="none")
