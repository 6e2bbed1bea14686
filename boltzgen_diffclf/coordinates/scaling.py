"""Path coordinates: stiff internal coordinates whitened, soft torsions left as periodic angles."""

from __future__ import annotations

import logging
import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from boltzgen_diffclf.coordinates.internal import InternalCoordinates
from boltzgen_diffclf.errors import InputError

STANDARD_DEVIATION_FLOOR = 1e-6
"""Smallest spread [nm or rad] that a stiff column is given: a constrained bond does not divide by zero."""

EIGENVALUE_FLOOR = 1e-6
"""Smallest eigenvalue of the stiff columns' correlation matrix: a planar group or a ring stays invertible."""

_log = logging.getLogger(__name__)


class ScaledInternal(torch.nn.Module):
    r"""The map between positions and path coordinates ``y``, in which a Gaussian is a sensible prior.

    Stiff columns (bonds, angles, torsions that are not soft) are centred, wrapped and multiplied by the symmetric
    inverse root of their covariance, so column ``i`` of ``y`` still belongs to column ``i`` of ``q``; soft
    torsions stay in radians. A density of ``y`` has the energy ``U(y) = u(x(y)) - log |dx/dy|``.

    ``ScaledInternal(internal)`` is the identity scaling, into which a saved ``state_dict`` loads.

    Args:
        internal: the internal coordinates.
        dtype: of the stored scaling; results have the dtype of what is mapped.

    Attributes:
        dimension: number of columns, 3N - 6.
        is_periodic: mask of the columns that are angles [rad]; the others are whitened numbers.
        period: ``2 pi / symmetry`` of periodic columns, infinite elsewhere.
    """

    is_periodic: Bool[Tensor, " dof"]
    period: Float[Tensor, " dof"]
    centre: Float[Tensor, " dof"]
    spread: Float[Tensor, "dof dof"]
    whitening: Float[Tensor, "dof dof"]
    log_scale: Float[Tensor, ""]

    def __init__(self, internal: InternalCoordinates, dtype: torch.dtype = torch.float64) -> None:
        super().__init__()
        self.internal, self.dimension = internal, internal.dimension
        device = internal.is_soft.device
        self.register_buffer("is_periodic", internal.is_soft.clone(), persistent=False)
        turn = torch.full((self.dimension,), 2 * math.pi, dtype=dtype, device=device) / internal.symmetry
        self.register_buffer("period", torch.where(internal.is_soft, turn, torch.inf), persistent=False)
        identity = torch.eye(self.dimension, dtype=dtype, device=device)
        self.register_buffer("centre", torch.zeros_like(identity[0]))
        self.register_buffer("spread", identity)
        self.register_buffer("whitening", identity.clone())
        self.register_buffer("log_scale", torch.zeros_like(identity[0, 0]))

    @classmethod
    def fit(cls, internal: InternalCoordinates, q: Float[Tensor, "frames dof"]) -> ScaledInternal:
        """Return the scaling by the pooled mean and covariance of ``q``, both end ensembles put together.

        A standard deviation is at least :data:`STANDARD_DEVIATION_FLOOR`, an eigenvalue of the correlation matrix
        at least :data:`EIGENVALUE_FLOOR`; one logged line says how many directions were held there.

        Args:
            internal: the internal coordinates.
            q: frames of both ends, in equal numbers if they are to count equally.

        Raises:
            InputError: fewer than two frames, or a value that is not finite.
        """
        if len(q) < 2 or not bool(torch.isfinite(q).all()):
            raise InputError(f"the scaling needs 2 or more finite frames, got {len(q)}; mend the reference ensemble")
        scaled = cls(internal)
        q = q.detach().to(torch.float64)
        stiff = ~internal.is_soft
        torsion = internal.is_torsion
        circular = torch.atan2(q.sin().mean(0), q.cos().mean(0))
        centre = torch.where(torsion, circular, q.mean(0))
        deviation = torch.where(torsion, _wrap(q - centre), q - centre)
        centre = torch.where(stiff, centre + deviation.mean(0), 0.0)
        covariance = deviation[:, stiff].T.cov()
        block = stiff[:, None] & stiff[None, :]
        root, inverse_root, log_scale = _roots(covariance)
        scaled.centre.copy_(centre)
        scaled.spread[block] = root.flatten()
        scaled.whitening[block] = inverse_root.flatten()
        scaled.log_scale.copy_(log_scale)
        return scaled

    def to_path(self, q: Float[Tensor, "batch dof"]) -> Float[Tensor, "batch dof"]:
        """Return path coordinates of internal ones; periodic columns in [-pi, pi)."""
        deviation = q - self.centre.to(q.dtype)
        deviation = torch.where(self.internal.is_torsion, _wrap(deviation), deviation)
        return deviation @ self.whitening.to(q.dtype)

    def from_path(self, y: Float[Tensor, "batch dof"]) -> tuple[Float[Tensor, "batch dof"], Float[Tensor, " batch"]]:
        """Return internal coordinates (torsions in [-pi, pi)) and the constant log |dq/dy|."""
        q = self.centre.to(y.dtype) + y @ self.spread.to(y.dtype)
        q = torch.where(self.internal.is_torsion, _wrap(q), q)
        return q, self.log_scale.to(y.dtype).expand(len(y))

    def to_cartesian(
        self, y: Float[Tensor, "batch dof"]
    ) -> tuple[Float[Tensor, "batch atoms 3"], Float[Tensor, " batch"]]:
        """Return positions [nm] in the root atoms' frame, and log |dx/dy| without the volume of rigid motions."""
        q, log_scale = self.from_path(y)
        x, log_jacobian = self.internal.to_cartesian(q)
        return x, log_jacobian + log_scale

    def from_cartesian(self, x: Float[Tensor, "batch atoms 3"]) -> Float[Tensor, "batch dof"]:
        """Return path coordinates of positions [nm]."""
        return self.to_path(self.internal.from_cartesian(x))

    def displacement(
        self, y0: Float[Tensor, "batch dof"], y1: Float[Tensor, "batch dof"]
    ) -> Float[Tensor, "batch dof"]:
        """Return the shortest way from ``y0`` to ``y1``: straight in whitened columns, an arc in periodic ones.

        Arcs are taken modulo ``2 pi / symmetry``, so ``y0 + displacement`` turns a methyl to the nearest of its
        three places with its hydrogens' own stiff columns unchanged. Where the end must be an exact sample of its
        ensemble, relabel first: :func:`~boltzgen_diffclf.coordinates.rotors.match_rotors`.
        """
        return shortest_difference(y1 - y0, self.period.to(y0.dtype))


def shortest_difference(difference: Float[Tensor, "*batch dof"], period: Float[Tensor, " dof"]) -> Tensor:
    """Return ``difference`` modulo ``period``, in [-period/2, period/2]; an infinite period leaves it as it is."""
    is_periodic = torch.isfinite(period)
    finite = torch.where(is_periodic, period, 1.0)
    turns = torch.where(is_periodic, (difference / finite).round(), 0.0)
    return difference - turns * finite


def _wrap(angle: Float[Tensor, "batch dof"]) -> Float[Tensor, "batch dof"]:
    return torch.remainder(angle + math.pi, 2 * math.pi) - math.pi


def _roots(
    covariance: Float[Tensor, "stiff stiff"],
) -> tuple[Float[Tensor, "stiff stiff"], Float[Tensor, "stiff stiff"], Float[Tensor, ""]]:
    """Return R with ``z @ R`` of this covariance for white z, its inverse, and ``log |det R|``; floors applied."""
    deviation = covariance.diagonal().sqrt().clamp_min(STANDARD_DEVIATION_FLOOR)
    correlation = covariance / deviation / deviation[:, None]
    # A column held at the floor must not count as degenerate a second time.
    correlation.fill_diagonal_(1.0)
    eigenvalues, vectors = torch.linalg.eigh(correlation)
    n_held = int((eigenvalues < EIGENVALUE_FLOOR).sum())
    if n_held:
        _log.warning("%d of %d stiff directions held at the covariance floor", n_held, len(eigenvalues))
    eigenvalues = eigenvalues.clamp_min(EIGENVALUE_FLOOR)
    root = (vectors * eigenvalues.sqrt()) @ vectors.T * deviation
    inverse_root = (vectors / eigenvalues.sqrt()) @ vectors.T / deviation[:, None]
    return root, inverse_root, deviation.log().sum() + 0.5 * eigenvalues.log().sum()
