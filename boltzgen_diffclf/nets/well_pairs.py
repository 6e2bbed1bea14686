"""Energy of a mixture on its way into another: every well of one end is joined to every well of the other."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

GAP = 2.0
"""Ratio of successive farthest distances that tells a new well from one more point of a known one."""

LLOYD_STEPS = 3


class WellPairsEnergyNet(nn.Module):
    r"""Energy ``-log sum_ij w_ij N(y; (1 - t) a_i + t b_j, v_ij(t))`` [kT] with learned wells.

    ``v_ij = (1 - t)^2 v_i + t^2 v_j + t (1 - t) n``: what independent pairs and a noise of variance ``t (1 - t) n``
    make of a mixture of isotropic normals at each end. Wells that are far from each other, which a network of smooth
    features has to build out of differences of large numbers, cost nothing here; densities that are no such mixture
    need more wells than they have modes.

    Args:
        wells_a: centres at t = 0, as :func:`find_wells` gives them.
        wells_b: centres at t = 1.
        variances: of a coordinate within the wells of A and of B, to start from.
        noise_variance: ``n``, the square of the path's noise scale.
    """

    noise_variance: Tensor

    def __init__(
        self,
        wells_a: Float[Tensor, "wells_a dim"],
        wells_b: Float[Tensor, "wells_b dim"],
        variances: tuple[float, float],
        noise_variance: float,
    ) -> None:
        super().__init__()
        self.wells_a, self.wells_b = nn.Parameter(wells_a.clone()), nn.Parameter(wells_b.clone())
        self.log_variances_a = nn.Parameter(wells_a.new_full((len(wells_a),), math.log(variances[0])))
        self.log_variances_b = nn.Parameter(wells_b.new_full((len(wells_b),), math.log(variances[1])))
        self.logits = nn.Parameter(wells_a.new_zeros(len(wells_a), len(wells_b)))
        self.register_buffer("noise_variance", wells_a.new_tensor(noise_variance))

    def forward(self, x: Float[Tensor, "batch dim"], t: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        """Return ``u(x, t)`` [kT], normalised at every t."""
        a, b = self.wells_a, self.wells_b
        end, start = t[:, None, None], (1 - t)[:, None, None]
        to_a, to_b = (x @ a.T)[:, :, None], (x @ b.T)[:, None, :]
        # Expanded, so that no tensor of batch times pairs times coordinates is made.
        distance = x.square().sum(-1)[:, None, None] - 2 * (start * to_a + end * to_b)
        distance = distance + start**2 * a.square().sum(-1)[:, None] + end**2 * b.square().sum(-1)
        distance = distance + 2 * start * end * (a @ b.T)
        variance = start**2 * self.log_variances_a.exp()[:, None] + end**2 * self.log_variances_b.exp()
        variance = variance + start * end * self.noise_variance
        log_normal = -0.5 * (distance / variance + x.shape[1] * (2 * math.pi * variance).log())
        return -(self.logits.flatten().log_softmax(0) + log_normal.flatten(1)).logsumexp(-1)


def find_wells(samples: Float[Tensor, "samples dim"], most: int = 64) -> tuple[Float[Tensor, "wells dim"], float]:
    """Return the centres of well-separated wells, and the variance of a coordinate within them.

    Each new centre is the sample farthest from those chosen, until the distance drops by :data:`GAP`; where it never
    does there are ``most`` centres. A few steps of Lloyd's algorithm make them the means of their wells.

    Raises:
        ValueError: fewer samples than ``most`` wells.

    References:
        Gonzalez 1985, Theor. Comput. Sci. 38, 293 (farthest-point traversal); Lloyd 1982, IEEE Trans. Inf. Theory 28,
        129.

    >>> centres, variance = find_wells(torch.tensor([[0.0], [0.1], [9.0], [9.1]]), most=3)
    >>> sorted(round(x, 2) for x in centres[:, 0].tolist())
    [0.05, 9.05]
    """
    if len(samples) < most:
        raise ValueError(f"{len(samples)} samples cannot show {most} wells; use more samples, or fewer wells")
    chosen, farthest = [0], []
    nearest = (samples - samples[0]).norm(dim=1)
    while len(chosen) < most:
        farthest.append(float(nearest.max()))
        if len(farthest) > 1 and farthest[-2] > GAP * farthest[-1]:
            break
        chosen.append(int(nearest.argmax()))
        nearest = torch.minimum(nearest, (samples - samples[chosen[-1]]).norm(dim=1))
    centres = samples[chosen]
    for _ in range(LLOYD_STEPS):
        member = torch.cdist(samples, centres).argmin(1)
        count = torch.bincount(member, minlength=len(centres)).clamp_min(1)
        centres = torch.zeros_like(centres).index_add(0, member, samples) / count[:, None]
    member = torch.cdist(samples, centres).argmin(1)
    return centres, float((samples - centres[member]).square().mean())
