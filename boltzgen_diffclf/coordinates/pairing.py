"""Minibatch optimal transport: which sample of one end is joined to which of the other."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

from boltzgen_diffclf.coordinates.frame import remove_mean
from boltzgen_diffclf.coordinates.scaling import shortest_difference
from boltzgen_diffclf.errors import RunFailedError


def pair_by_transport(cost: Float[Tensor, "n n"]) -> Int[Tensor, " n"]:
    """Return the permutation of least total cost: row ``i`` is paired with column ``permutation[i]``.

    Raises:
        RunFailedError: a cost that is not finite; a sample has exploded.

    References:
        Tong et al. 2024, arXiv:2302.00482, section 3.2 (minibatch optimal-transport coupling); solved exactly by
        Crouse 2016, IEEE Trans. Aerosp. Electron. Syst. 52, 1679.

    >>> pair_by_transport(torch.tensor([[1.0, 0.0], [0.0, 5.0]])).tolist()
    [1, 0]
    """
    from scipy.optimize import linear_sum_assignment

    n_bad = int((~torch.isfinite(cost)).sum())
    if n_bad:
        raise RunFailedError(f"{n_bad} of {cost.numel()} pairing costs are not finite; look for exploded samples")
    _, columns = linear_sum_assignment(cost.detach().cpu().numpy())
    return torch.as_tensor(columns, device=cost.device)


def torsion_cost(
    first: Float[Tensor, "n torsions"],
    second: Float[Tensor, "m torsions"],
    symmetry: Int[Tensor, " torsions"] | None = None,
) -> Float[Tensor, "n m"]:
    """Return squared shortest arcs [rad^2], summed over the torsions, between all pairs.

    Args:
        first: angles [rad] of one end, e.g. phi and psi.
        second: angles [rad] of the other.
        symmetry: arcs are taken modulo ``2 pi / symmetry``; 1 everywhere by default.
    """
    period = torch.full_like(first[0], 2 * math.pi)
    if symmetry is not None:
        period = period / symmetry
    return shortest_difference(second[None, :] - first[:, None], period).square().sum(-1)


def aligned_cost(first: Float[Tensor, "n atoms 3"], second: Float[Tensor, "m atoms 3"]) -> Float[Tensor, "n m"]:
    r"""Return the squared RMSD [nm^2] after the best rotation (no reflection) of every pair.

    No pair is rotated: ``N rmsd^2 = |x|^2 + |y|^2 - 2 (s_1 + s_2 + sign(det A) s_3)`` with the singular values of
    the covariance ``A = x^T y`` of the centred positions.

    References:
        Kabsch 1978, Acta Cryst. A34, 827; Coutsias, Seok & Dill 2004, J. Comput. Chem. 25, 1849, eq. 24.
    """
    first, second = remove_mean(first), remove_mean(second)
    covariance = torch.einsum("nai,maj->nmij", first, second)
    singular = torch.linalg.svdvals(covariance)
    overlap = singular[..., 0] + singular[..., 1] + torch.linalg.det(covariance).sign() * singular[..., 2]
    squares = first.square().sum((-2, -1))[:, None] + second.square().sum((-2, -1))
    return ((squares - 2 * overlap) / first.shape[-2]).clamp_min(0.0)
