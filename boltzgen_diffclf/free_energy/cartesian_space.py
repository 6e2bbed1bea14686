"""The path in positions: flat, centred, superposed, with isotropic noise in 3(N-1) dimensions."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from boltzgen_diffclf.coordinates import (
    InternalCoordinates,
    kabsch_align,
    match_rotors,
    pair_by_transport,
    remove_mean,
    sample_centred_noise,
    torsion_cost,
)
from boltzgen_diffclf.energy import Ends, end_values
from boltzgen_diffclf.free_energy.path_pool import PathSpace
from boltzgen_diffclf.paths import StochasticInterpolant
from boltzgen_diffclf.target import Target

_CHUNK = 2048


class FlatTarget(Target):
    r"""A molecular target on flat positions, softened above ``cap``.

    ``s(u) = u`` up to the cap and ``cap + width log(1 + (u - cap) / width)`` above it: nothing changes for any
    configuration that an ensemble visits, and atoms that overlap between two conformers cost hundreds of kT, not
    millions.

    Args:
        target: in positions.
        cap: [kT]; infinite leaves the target as it is.
        width: [kT] over which the slope halves above the cap.
    """

    def __init__(self, target: Target, cap: float = float("inf"), width: float = 20.0) -> None:
        n_atoms = target.event_shape[0]
        self.target, self.cap, self.width = target, cap, width
        self.event_shape, self.dimension = (3 * n_atoms,), 3 * (n_atoms - 1)
        self.dtype, self.device = target.dtype, target.device

    def energy(self, x: Float[Tensor, "batch dim"]) -> Float[Tensor, " batch"]:
        """See :meth:`Target.energy`."""
        return self._soften(self.target.energy(x.unflatten(1, (-1, 3))))

    def energy_and_force(
        self, x: Float[Tensor, "batch dim"]
    ) -> tuple[Float[Tensor, " batch"], Float[Tensor, "batch dim"]]:
        """See :meth:`Target.energy_and_force`."""
        energy, force = self.target.energy_and_force(x.unflatten(1, (-1, 3)))
        slope = 1 / (1 + (energy - self.cap).clamp_min(0) / self.width)
        return self._soften(energy), slope[:, None] * force.flatten(1)

    def _soften(self, energy: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        excess = (energy - self.cap).clamp_min(0)
        return torch.where(excess > 0, self.cap + self.width * torch.log1p(excess / self.width), energy)


class CartesianSpace(PathSpace):
    r"""Positions [nm] as ``3 * atoms`` numbers; the model is learned everywhere, as in the paper.

    Pairs are joined by minibatch transport on their rotatable torsions, which make up nearly all of the superposed
    distance and cost no superposition of every pair with every other; the hydrogens of methyls are relabelled; then
    ``x_1`` is laid on ``x_0`` by a rotation.

    Args:
        internal: the molecule's internal coordinates.
        target_a: the reduced energy of state A in positions, float64.
        target_b: of state B.
        path: the interpolant of flat positions.
        transported: the torsions that pairing looks at; every soft one that is no rotor where not given. Those of
            one narrow basin only take precision from the others.
    """

    def __init__(
        self,
        internal: InternalCoordinates,
        target_a: Target,
        target_b: Target,
        path: StochasticInterpolant,
        transported: Bool[Tensor, " dof"] | None = None,
    ) -> None:
        self.internal, self.path = internal, path
        self.dimension = 3 * internal.n_atoms
        self.target_a, self.target_b = target_a, target_b
        # Rotors of identical hydrogens are matched by relabelling, not by transport.
        self.transported = internal.is_soft & (internal.symmetry == 1) if transported is None else transported

    def pair(
        self, x_0: Float[Tensor, "n atoms 3"], x_1: Float[Tensor, "n atoms 3"]
    ) -> tuple[Float[Tensor, "n atoms 3"], Int[Tensor, " n"]]:
        """See :meth:`PathSpace.pair`; the result is relabelled and superposed, never mirrored."""
        q_0, q_1 = self.internal.from_cartesian(x_0), self.internal.from_cartesian(x_1)
        permutation = pair_by_transport(torsion_cost(q_0[:, self.transported], q_1[:, self.transported]))
        return kabsch_align(match_rotors(self.internal, x_1[permutation], x_0), x_0), permutation

    def encode(self, x: Float[Tensor, "n atoms 3"]) -> Float[Tensor, "n dim"]:
        """See :meth:`PathSpace.encode`."""
        return remove_mean(x).flatten(1)

    def displacement(self, y_0: Float[Tensor, "n dim"], y_1: Float[Tensor, "n dim"]) -> Float[Tensor, "n dim"]:
        """See :meth:`PathSpace.displacement`."""
        return y_1 - y_0

    def noise(self, n: int, generator: torch.Generator) -> Float[Tensor, "n dim"]:
        """See :meth:`PathSpace.noise`; it moves no centroid."""
        scale = self.path.noise_scale
        noise = sample_centred_noise((n, self.internal.n_atoms, 3), generator, scale.dtype)
        return noise.flatten(1).to(scale.device)

    def end_values(self, y: Float[Tensor, "n dim"]) -> Ends:
        """See :meth:`PathSpace.end_values`; zeros without memory: the model has no use for them."""
        zero = y.new_zeros(1)
        return Ends(zero.expand(len(y), 2), zero.expand(len(y), 2, self.dimension))

    def pair_forces(self, x_0: Float[Tensor, "n atoms 3"], x_1: Float[Tensor, "n atoms 3"]) -> Float[Tensor, "n 2 dim"]:
        """See :meth:`PathSpace.pair_forces`; evaluated where the pair lies, so they turn with it."""
        forces = [
            torch.cat([FlatTarget(target).energy_and_force(part)[1] for part in self.encode(x).split(_CHUNK)])
            for target, x in ((self.target_a, x_0), (self.target_b, x_1))
        ]
        return torch.stack(forces, dim=1)

    def true_energies(self, y: Float[Tensor, "n dim"]) -> Float[Tensor, "n 2"]:
        """Return ``u_A`` and ``u_B`` [kT] of path configurations, as they are."""
        flat = FlatTarget(self.target_a), FlatTarget(self.target_b)
        with torch.no_grad():
            columns = [torch.cat([target.energy(part) for part in y.split(_CHUNK)]) for target in flat]
        return torch.stack(columns, dim=1)


class AnchoredCartesianSpace(CartesianSpace):
    """The same path for an anchored model: end energies and gradients are the true ones, softened above a cap.

    Args:
        internal: see :class:`CartesianSpace`.
        target_a: see there.
        target_b: see there.
        path: see there.
        caps: energies [kT] of states A and B above which each is softened; no sample of that state is above it.
        transported: see :class:`CartesianSpace`.
    """

    def __init__(
        self,
        internal: InternalCoordinates,
        target_a: Target,
        target_b: Target,
        path: StochasticInterpolant,
        caps: tuple[float, float],
        transported: Bool[Tensor, " dof"] | None = None,
    ) -> None:
        super().__init__(internal, target_a, target_b, path, transported)
        self.softened = FlatTarget(target_a, caps[0]), FlatTarget(target_b, caps[1])

    def end_values(self, y: Float[Tensor, "n dim"]) -> Ends:
        """See :meth:`PathSpace.end_values`."""
        parts = [end_values(*self.softened, part) for part in y.split(_CHUNK)]
        return Ends(torch.cat([part.energy for part in parts]), torch.cat([part.gradient for part in parts]))

    def pair_forces(self, x_0: Float[Tensor, "n atoms 3"], x_1: Float[Tensor, "n atoms 3"]) -> Float[Tensor, "n 2 dim"]:
        """See :meth:`PathSpace.pair_forces`; zeros: the anchored energy has the right ends already."""
        return x_0.new_zeros(1).expand(len(x_0), 2, self.dimension)
