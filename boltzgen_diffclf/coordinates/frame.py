"""The centroid-free space of Cartesian molecules (3(N-1) dimensions), superposition and handedness."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor


def remove_mean(x: Float[Tensor, "*batch atoms 3"]) -> Float[Tensor, "*batch atoms 3"]:
    """Return ``x`` with its centroid (the unweighted mean of the atoms, not the centre of mass) at the origin."""
    return x - x.mean(dim=-2, keepdim=True)


def sample_centred_noise(
    shape: Sequence[int],
    generator: torch.Generator,
    dtype: torch.dtype = torch.float64,
    device: torch.device | str = "cpu",
) -> Float[Tensor, "*batch atoms 3"]:
    """Return standard normal noise of the 3(N-1)-dimensional centroid-free space.

    Args:
        shape: ``(*batch, atoms, 3)``.
        generator: of ``device``.
        dtype: of the noise.
        device: where it is made.
    """
    return remove_mean(torch.randn(tuple(shape), generator=generator, dtype=dtype, device=device))


def log_normal_centred(
    x: Float[Tensor, "batch atoms 3"], sigma: float | Float[Tensor, " batch"] = 1.0
) -> Float[Tensor, " batch"]:
    """Return the log density of ``sigma`` times centred noise, normalised in 3(N-1) dimensions.

    Args:
        x: positions or noise; only the centroid-free part counts.
        sigma: standard deviation [unit of x], one or one a member of the batch.

    >>> round(float(log_normal_centred(torch.zeros(1, 2, 3))), 4)
    -2.7568
    """
    dimension = 3 * (x.shape[-2] - 1)
    scale = torch.as_tensor(sigma, dtype=x.dtype, device=x.device)
    square = remove_mean(x).square().sum((-2, -1)) / scale**2
    return -0.5 * square - dimension * (scale.log() + 0.5 * math.log(2 * math.pi))


def kabsch_align(
    x: Float[Tensor, "batch atoms 3"], reference: Float[Tensor, "#batch atoms 3"]
) -> Float[Tensor, "batch atoms 3"]:
    """Return ``x`` moved onto ``reference`` by the best rotation (never a reflection) and translation.

    Args:
        x: positions.
        reference: one configuration for all, ``(1, atoms, 3)``, or one each.

    References:
        Kabsch 1978, Acta Cryst. A34, 827, eq. 2-8.
    """
    centred, fixed = remove_mean(x), remove_mean(reference)
    left, _, right = torch.linalg.svd(centred.mT @ fixed)
    signs = torch.ones_like(left[..., 0])
    signs[..., -1] = torch.linalg.det(left @ right).sign()
    rotation = (left * signs[..., None, :]) @ right
    return centred @ rotation + reference.mean(dim=-2, keepdim=True)


def chirality(
    x: Float[Tensor, "batch atoms 3"], quadruples: Int[Tensor, "centres 4"]
) -> Float[Tensor, "batch centres"]:
    """Return the signed volume of the tetrahedron of each four atoms; a mirror image has the opposite sign.

    Args:
        x: positions [nm].
        quadruples: four atoms a stereocentre, e.g. its neighbours in a fixed order.

    Returns:
        ``(b - a) . ((c - a) x (d - a)) / 6`` [nm^3].
    """
    a, b, c, d = (x[:, index] for index in quadruples.unbind(-1))
    return ((b - a) * torch.linalg.cross(c - a, d - a)).sum(-1) / 6
