r"""Bonds, angles and torsions of any molecule, their inverse, and the Jacobian between."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from boltzgen_diffclf.coordinates.tree import ZMatrix, build_tree

Frames = tuple[Tensor, Tensor, Tensor]
"""Orthonormal vectors ``(batch, level, 3)`` at every atom: along the bond that placed it, across it towards the
atom before the bond, and normal to both."""


class InternalCoordinates(torch.nn.Module):
    r"""The map between positions ``x`` [nm] and ``q = [bonds | angles | torsions]`` [nm, rad], 3N-6 columns.

    Atoms of one distance from the root bond are placed together, each by composing its parent's orthonormal frame
    with a rotation, so neither map branches on data or divides by a length: both fuse under ``torch.compile``.
    The tensors are buffers: ``.to(device)`` moves them.

    Three bonded atoms in a straight line (a nitrile, an alkyne) leave a torsion undefined; the columns stay finite
    there, but the map is singular.

    Attributes:
        n_atoms: number of atoms N.
        dimension: ``3 N - 6``.
        is_bond: mask of the bond columns.
        is_angle: mask of the angle columns.
        is_torsion: mask of the torsion columns.
        is_soft: mask of the torsions about rotatable bonds, one a bond.
        symmetry: order of the rotor that a column turns: 3 for a methyl, otherwise 1.
        names: what a column measures, e.g. ``"torsion 4-6-8-14"``.

    References:
        Parsons et al. 2005, J. Comput. Chem. 26, 1063 (placement by frames); Go & Scheraga 1976,
        Macromolecules 9, 535 (Jacobian).
    """

    is_bond: Bool[Tensor, " dof"]
    is_angle: Bool[Tensor, " dof"]
    is_torsion: Bool[Tensor, " dof"]
    is_soft: Bool[Tensor, " dof"]
    symmetry: Int[Tensor, " dof"]
    _order: Int[Tensor, " atoms"]
    _inverse_order: Int[Tensor, " atoms"]
    _quadruples: Int[Tensor, "placed 4"]
    _first_sibling: Int[Tensor, " placed"]

    def __init__(self, tree: ZMatrix) -> None:
        super().__init__()
        self.tree, self.n_atoms, self.dimension = tree, tree.n_atoms, 3 * tree.n_atoms - 6
        r0, r1, r2 = tree.root
        # Row 0 is r2, whose torsion is fixed at zero with a placeholder as its reference.
        rows = [(r2, r1, r0, r0)] + [(p.atom, p.parent, p.grandparent, p.reference) for p in tree.placements]
        self.names = self._column_names(rows)
        row_of = {row[0]: index for index, row in enumerate(rows)}
        order = [r0, r1, *row_of]
        self._level_sizes, parents = self._levels(row_of)
        for level, parent in enumerate(parents):
            self._buffer(f"_parent_{level}", torch.tensor(parent))
        self._buffer("_order", torch.tensor(order))
        self._buffer("_inverse_order", torch.tensor(order).argsort())
        self._buffer("_quadruples", torch.tensor(rows))
        siblings = [0] + [0 if p.is_proper else row_of[p.reference] for p in tree.placements]
        self._buffer("_first_sibling", torch.tensor(siblings))
        self._register_masks()

    @classmethod
    def from_bonds(
        cls,
        n_atoms: int,
        bonds: Sequence[tuple[int, int]],
        elements: Sequence[str],
        torsions: Sequence[tuple[int, int, int, int]] = (),
    ) -> InternalCoordinates:
        """Return the coordinates of :func:`~boltzgen_diffclf.coordinates.tree.build_tree`'s Z-matrix.

        Raises:
            InputError: see :func:`~boltzgen_diffclf.coordinates.tree.build_tree`.
        """
        return cls(build_tree(n_atoms, bonds, elements, torsions))

    def torsion_column(self, atoms: tuple[int, int, int, int]) -> int | None:
        """Return the column that is the proper torsion of these four atoms in either direction, or None."""
        for row, placement in enumerate(self.tree.placements):
            quadruple = (placement.atom, placement.parent, placement.grandparent, placement.reference)
            if placement.is_proper and tuple(atoms) in (quadruple, quadruple[::-1]):
                return 2 * self.n_atoms - 3 + row
        return None

    def from_cartesian(self, x: Float[Tensor, "batch atoms 3"]) -> Float[Tensor, "batch dof"]:
        """Return bonds [nm], angles in [0, pi] and torsions in [-pi, pi] (IUPAC sign: cis is 0)."""
        atom, parent, grandparent, reference = (x[:, index] for index in self._quadruples.unbind(-1))
        bond, axis = atom - parent, grandparent - parent
        root_bond = x[:, self._order[1:2]] - x[:, self._order[0:1]]
        bonds = torch.linalg.vector_norm(torch.cat([root_bond, bond], dim=1), dim=-1)
        angles = _angle(bond, axis)
        torsions = signed_torsion(bond[:, 1:], axis[:, 1:], (reference - grandparent)[:, 1:])
        return torch.cat([bonds, angles, torsions], dim=-1)

    def to_cartesian(
        self, q: Float[Tensor, "batch dof"]
    ) -> tuple[Float[Tensor, "batch atoms 3"], Float[Tensor, " batch"]]:
        r"""Return positions [nm] and log |dx/dq|; r0 is at the origin, r1 on +x, r2 in the xy plane at y > 0.

        Returns:
            The positions, and the log-Jacobian of ``(rigid motion, q) -> x`` without the volume of rigid motions;
            see :meth:`log_jacobian`.
        """
        bonds, angles, torsions = self._split(q)
        frames, near = self._root_frames(bonds[:, 0])
        placed = [near]
        begin = 0
        for level, size in enumerate(self._level_sizes):
            parent = self.get_buffer(f"_parent_{level}")
            rows = slice(begin, begin + size)
            frames = _turn(frames, parent, angles[:, rows], torsions[:, rows])
            near = near[:, parent] + bonds[:, 1:][:, rows, None] * frames[0]
            placed.append(near)
            begin += size
        return torch.cat(placed, dim=1)[:, self._inverse_order], self.log_jacobian(q)

    def log_jacobian(self, q: Float[Tensor, "batch dof"]) -> Float[Tensor, " batch"]:
        r"""Return ``log |dx/dq| = sum 2 log r + sum log sin theta``, r in nm.

        Outside the domain (a bond not above 0, an angle outside (0, pi)) it is -inf: no configuration is there.

        References:
            Go & Scheraga 1976, Macromolecules 9, 535.
        """
        bonds, angles, _ = self._split(q)
        sines = torch.where((angles > 0) & (angles < torch.pi), angles.sin(), 0.0)
        return 2 * _safe_log(bonds).sum(-1) + _safe_log(sines).sum(-1)

    def _split(
        self, q: Float[Tensor, "batch dof"]
    ) -> tuple[Float[Tensor, "batch bonds"], Float[Tensor, "batch placed"], Float[Tensor, "batch placed"]]:
        """Return bonds, angles, and torsions counted from the atom before the axis (siblings' offsets added)."""
        bonds, angles, torsions = q.split([self.n_atoms - 1, self.n_atoms - 2, self.n_atoms - 3], dim=-1)
        torsions = torch.nn.functional.pad(torsions, (1, 0))
        return bonds, angles, torsions + torsions[:, self._first_sibling]

    def _root_frames(self, root_bond: Float[Tensor, " batch"]) -> tuple[Frames, Float[Tensor, "batch 2 3"]]:
        """Return the frames at r0 and r1, and their positions."""
        x, y, z = torch.eye(3, dtype=root_bond.dtype, device=root_bond.device)
        frames = (torch.stack([-x, x]), torch.stack([y, y]), torch.stack([-z, z]))
        axis, toward, normal = (frame.expand(len(root_bond), 2, 3) for frame in frames)
        positions = torch.stack([torch.zeros_like(axis[:, 0]), root_bond[:, None] * x], dim=1)
        return (axis, toward, normal), positions

    def _levels(self, row_of: dict[int, int]) -> tuple[list[int], list[list[int]]]:
        """Return how many atoms each level has, and their parents' places in the level before."""
        r0, r1, r2 = self.tree.root
        levels: list[list[tuple[int, int]]] = [[(r2, r1)]]
        for p in self.tree.placements:
            if p.level > len(levels):
                levels.append([])
            levels[p.level - 1].append((p.atom, p.parent))
        before, parents = [r0, r1], []
        for level in levels:
            parents.append([before.index(parent) for _, parent in level])
            before = [atom for atom, _ in level]
        return [len(level) for level in levels], parents

    def _register_masks(self) -> None:
        n, placements = self.n_atoms, self.tree.placements
        kind = torch.tensor([0] * (n - 1) + [1] * (n - 2) + [2] * (n - 3))
        for index, name in enumerate(("is_bond", "is_angle", "is_torsion")):
            self._buffer(name, kind == index)
        rigid = 2 * n - 3
        self._buffer("is_soft", torch.tensor([False] * rigid + [p.is_soft for p in placements]))
        self._buffer("symmetry", torch.tensor([1] * rigid + [p.symmetry for p in placements]))

    def _buffer(self, name: str, value: Tensor) -> None:
        self.register_buffer(name, value, persistent=False)

    def _column_names(self, rows: list[tuple[int, int, int, int]]) -> tuple[str, ...]:
        bonds = [f"bond {self.tree.root[0]}-{self.tree.root[1]}"] + [f"bond {i}-{j}" for i, j, _, _ in rows]
        angles = [f"angle {i}-{j}-{k}" for i, j, k, _ in rows]
        torsions = [f"torsion {i}-{j}-{k}-{m}" for i, j, k, m in rows[1:]]
        return (*bonds, *angles, *torsions)


def _angle(
    first: Float[Tensor, "batch placed 3"], second: Float[Tensor, "batch placed 3"]
) -> Float[Tensor, "batch placed"]:
    """Return the angle between two vectors; twice an arctangent keeps digits, and gradients, near 0 and pi."""
    first, second = torch.nn.functional.normalize(first, dim=-1), torch.nn.functional.normalize(second, dim=-1)
    norm = torch.linalg.vector_norm
    return 2 * torch.atan2(norm(first - second, dim=-1), norm(first + second, dim=-1))


def signed_torsion(
    bond: Float[Tensor, "*batch 3"], axis: Float[Tensor, "*batch 3"], reference: Float[Tensor, "*batch 3"]
) -> Float[Tensor, "*batch"]:
    """Return the signed torsion [rad] of four atoms in a chain (IUPAC sign: cis is 0).

    Args:
        bond: from the third atom to the fourth, in any unit of length.
        axis: from the third to the second.
        reference: from the second to the first.
    """
    axis = torch.nn.functional.normalize(axis, dim=-1)
    across = torch.linalg.cross(axis, reference)
    sine = (across * bond).sum(-1)
    cosine = (across * torch.linalg.cross(axis, bond)).sum(-1)
    # Three atoms in a line have no torsion; the arctangent's gradient is 0/0 there, which not every backend masks.
    undefined = (sine == 0) & (cosine == 0)
    return -torch.atan2(sine, torch.where(undefined, torch.ones_like(cosine), cosine))


def _turn(
    frames: Frames,
    parent: Int[Tensor, " level"],
    angle: Float[Tensor, "batch level"],
    torsion: Float[Tensor, "batch level"],
) -> Frames:
    """Return the frames of atoms placed at these angles and torsions from the frames of their parents."""
    axis, toward, normal = (vector[:, parent] for vector in frames)
    cos_angle, sin_angle = angle.cos()[..., None], angle.sin()[..., None]
    cos_torsion, sin_torsion = torsion.cos()[..., None], torsion.sin()[..., None]
    across = cos_torsion * toward + sin_torsion * normal
    return (
        sin_angle * across - cos_angle * axis,
        -sin_angle * axis - cos_angle * across,
        cos_torsion * normal - sin_torsion * toward,
    )


def _safe_log(value: Float[Tensor, "batch columns"]) -> Float[Tensor, "batch columns"]:
    """Return the logarithm, -inf with a zero gradient where the value is not positive."""
    positive = value > 0
    return torch.where(positive, torch.where(positive, value, 1.0).log(), -torch.inf)
