import math
import subprocess
import sys

import networkx as nx
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from boltzgen_diffclf.coordinates import InternalCoordinates, ScaledInternal, build_tree, match_rotors
from boltzgen_diffclf.errors import InputError

PHI, PSI = (4, 6, 8, 14), (6, 8, 14, 16)

Bonds = list[tuple[int, int]]


def openmmtools_molecule(name: str) -> tuple[InternalCoordinates, Tensor]:
    from openmm import unit
    from openmmtools import testsystems

    system = getattr(testsystems, name)()
    atoms = list(system.topology.atoms())
    bonds = [(bond[0].index, bond[1].index) for bond in system.topology.bonds()]
    internal = InternalCoordinates.from_bonds(len(atoms), bonds, [atom.element.symbol for atom in atoms])
    return internal, torch.tensor(system.positions.value_in_unit(unit.nanometer), dtype=torch.float64)


@pytest.fixture(scope="module")
def alanine_dipeptide() -> tuple[InternalCoordinates, Tensor]:
    return openmmtools_molecule("AlanineDipeptideVacuum")


@pytest.fixture(scope="module")
def toluene() -> tuple[InternalCoordinates, Tensor]:
    return openmmtools_molecule("TolueneVacuum")


@pytest.fixture(params=["alanine_dipeptide", "toluene"])
def molecule(request: pytest.FixtureRequest) -> tuple[InternalCoordinates, Tensor]:
    return request.getfixturevalue(request.param)


def perturbed(x: Tensor, n: int, sigma: float = 0.01, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return x + sigma * torch.randn(n, *x.shape, generator=generator, dtype=x.dtype)


def random_rotation(generator: torch.Generator) -> Tensor:
    rotation, _ = torch.linalg.qr(torch.randn(3, 3, generator=generator, dtype=torch.float64))
    return rotation * torch.linalg.det(rotation)


def arc(angle: Tensor) -> Tensor:
    return torch.remainder(angle + math.pi, 2 * math.pi) - math.pi


def signed_shape(x: Tensor) -> Tensor:
    """Return numbers that fix a configuration up to rotation and translation, but not up to reflection."""
    centred = x - x.mean(-2, keepdim=True)
    volumes = (centred[:, 0:1] * torch.linalg.cross(centred, centred.roll(1, -2))).sum(-1)
    return torch.cat([(centred @ centred.mT).flatten(1), volumes], dim=-1)


# --- trees


ACE_TRP_NME = (
    list("CCONCCCCNCCCCCCCONCHH"),
    [
        (0, 1),
        (1, 2),
        (1, 3),
        (3, 4),
        (4, 5),
        (5, 6),
        (6, 7),
        (7, 8),
        (8, 9),
        (9, 10),
        (10, 11),
        (11, 12),
        (12, 13),
        (13, 14),
        (14, 9),
        (14, 6),
        (4, 15),
        (15, 16),
        (15, 17),
        (17, 18),
        (3, 19),
        (4, 20),
    ],
)
ACE_PRO_NME = (
    list("CCONCCCCCONC"),
    [(0, 1), (1, 2), (1, 3), (3, 4), (4, 5), (5, 6), (6, 7), (7, 3), (4, 8), (8, 9), (8, 10), (10, 11)],
)


def test_backbone_torsions_of_alanine_dipeptide_are_soft(alanine_dipeptide) -> None:
    internal, _ = alanine_dipeptide
    columns = [internal.torsion_column(quadruple) for quadruple in (PHI, PSI, PHI[::-1], PSI[::-1])]
    assert None not in columns
    assert columns[:2] == columns[2:]
    assert internal.is_soft[columns].all()
    assert {internal.names[c] for c in columns} <= {"torsion 4-6-8-14", "torsion 16-14-8-6", "torsion 14-8-6-4"}
    assert internal.torsion_column((4, 6, 8, 9)) is None


def test_soft_torsions_and_rotors_of_alanine_dipeptide(alanine_dipeptide) -> None:
    internal, _ = alanine_dipeptide
    assert int(internal.is_soft.sum()) == 7  # three methyls, two omegas, phi, psi
    assert int((internal.symmetry == 3).sum()) == 3
    assert internal.is_soft[internal.symmetry == 3].all()
    assert internal.dimension == 60 == len(internal.names)
    assert [int(mask.sum()) for mask in (internal.is_bond, internal.is_angle, internal.is_torsion)] == [21, 20, 19]


def test_ring_torsions_are_stiff(toluene) -> None:
    internal, _ = toluene
    assert int(internal.is_soft.sum()) == 1  # the methyl; every other bond is in the ring or ends in a leaf
    assert int((internal.symmetry == 3).sum()) == 1


def test_long_side_chain_does_not_take_the_backbone() -> None:
    elements, bonds = ACE_TRP_NME
    internal = InternalCoordinates.from_bonds(len(elements), bonds, elements)
    phi, psi = internal.torsion_column((1, 3, 4, 15)), internal.torsion_column((3, 4, 15, 17))
    assert internal.is_soft[phi]
    assert internal.is_soft[psi]
    # omega twice, phi, psi, chi1, chi2; the bare methyls are leaves here.
    assert int(internal.is_soft.sum()) == 6


def test_torsion_inside_proline_ring_is_not_soft() -> None:
    elements, bonds = ACE_PRO_NME
    internal = InternalCoordinates.from_bonds(len(elements), bonds, elements)
    phi, psi = internal.torsion_column((1, 3, 4, 8)), internal.torsion_column((3, 4, 8, 10))
    assert not internal.is_soft[phi]
    assert internal.is_soft[psi]


def test_named_torsions_decide_which_branch_leads() -> None:
    elements = ["C"] * 8
    # A chain 0-1-2-3-4 with a branch 2-5-6-7 as long as each half and one longer than 2-3-4.
    bonds = [(0, 1), (1, 2), (2, 3), (3, 4), (2, 5), (5, 6), (6, 7)]
    wanted = (0, 1, 2, 3)
    assert InternalCoordinates.from_bonds(8, bonds, elements).torsion_column(wanted) is None
    assert InternalCoordinates.from_bonds(8, bonds, elements, [wanted]).torsion_column(wanted) is not None


@pytest.mark.parametrize(("elements", "leaves", "n_soft", "symmetry"), [("CCHHHHHH", 3, 1, 3), ("OOHH", 1, 1, 1)])
def test_small_molecules(elements: str, leaves: int, n_soft: int, symmetry: int) -> None:
    bonds = [(0, 1)] + [(0, 2 + i) for i in range(leaves)] + [(1, 2 + leaves + i) for i in range(leaves)]
    internal = InternalCoordinates.from_bonds(len(elements), bonds, list(elements))
    assert int(internal.is_soft.sum()) == n_soft
    assert int(internal.symmetry.max()) == symmetry


def test_mixed_leaves_are_no_rotor() -> None:
    bonds = [(0, 1), (0, 2), (0, 3), (0, 4), (1, 5), (1, 6), (1, 7)]
    internal = InternalCoordinates.from_bonds(8, bonds, ["C", "C", "H", "H", "Cl", "H", "H", "Cl"])
    assert int(internal.is_soft.sum()) == 1
    assert int(internal.symmetry.max()) == 1


@pytest.mark.parametrize(
    ("n_atoms", "bonds", "message"),
    [
        (3, [(0, 1), (1, 2)], "at least 4 atoms, got 3"),
        (6, [(0, 1), (1, 2), (2, 3), (4, 5)], "no bond joins atoms 4, 5 to the rest"),
        (4, [(0, 1), (1, 2), (2, 7)], "bond 2-7"),
        (4, [(0, 1), (1, 2), (2, 2)], "bond 2-2"),
    ],
)
def test_impossible_topologies_are_refused(n_atoms: int, bonds: Bonds, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        build_tree(n_atoms, bonds, ["C"] * n_atoms)
    assert "\n" not in str(caught.value)


# --- the map and its inverse


def test_round_trip(molecule) -> None:
    internal, x = molecule
    x = perturbed(x, 16, sigma=0.02)
    q = internal.from_cartesian(x)
    again, _ = internal.to_cartesian(q)
    torch.testing.assert_close(signed_shape(again), signed_shape(x), rtol=0, atol=1e-10)
    difference = internal.from_cartesian(again) - q
    difference = torch.where(internal.is_torsion, arc(difference), difference)
    assert float(difference.abs().max()) < 1e-10


def test_frame_is_fixed(alanine_dipeptide) -> None:
    internal, x = alanine_dipeptide
    placed, _ = internal.to_cartesian(internal.from_cartesian(perturbed(x, 4)))
    r0, r1, r2 = internal.tree.root
    assert (placed[:, r0] == 0).all()
    assert (placed[:, r1, 1:] == 0).all()
    assert (placed[:, r1, 0] > 0).all()
    assert (placed[:, r2, 2].abs() < 1e-15).all()
    assert (placed[:, r2, 1] > 0).all()


def test_torsion_has_the_iupac_sign() -> None:
    # Looking from 1 to 2, atom 3 lies a quarter turn clockwise of atom 0: +90 degrees.
    x = torch.tensor([[[0.0, 1.0, 0.0], [0.0, 0.0, 0.0], [1.0, 0.0, 0.0], [1.0, 0.0, 1.0]]], dtype=torch.float64)
    internal = InternalCoordinates.from_bonds(4, [(0, 1), (1, 2), (2, 3)], ["C"] * 4)
    column = internal.torsion_column((0, 1, 2, 3))
    assert float(internal.from_cartesian(x)[0, column]) == pytest.approx(math.pi / 2)


def test_coordinates_ignore_rigid_motion(molecule) -> None:
    internal, x = molecule
    generator = torch.Generator().manual_seed(1)
    x = perturbed(x, 4)
    moved = x @ random_rotation(generator).T + torch.randn(4, 1, 3, generator=generator, dtype=x.dtype)
    difference = internal.from_cartesian(moved) - internal.from_cartesian(x)
    assert float(torch.where(internal.is_torsion, arc(difference), difference).abs().max()) < 1e-10


def test_mirror_image_has_other_torsions(molecule) -> None:
    internal, x = molecule
    x = perturbed(x, 4)
    q, mirrored = internal.from_cartesian(x), internal.from_cartesian(-x)
    rigid = ~internal.is_torsion
    torch.testing.assert_close(mirrored[:, rigid], q[:, rigid])
    torch.testing.assert_close(mirrored[:, ~rigid], -q[:, ~rigid])
    assert float((mirrored - q)[:, ~rigid].abs().max()) > 0.5


def test_members_of_a_batch_are_independent(molecule) -> None:
    internal, x = molecule
    x = perturbed(x, 6)
    q = internal.from_cartesian(x)
    torch.testing.assert_close(internal.from_cartesian(x[2:3])[0], q[2], rtol=0, atol=1e-14)
    placed, log_jacobian = internal.to_cartesian(q)
    alone, log_alone = internal.to_cartesian(q[2:3])
    torch.testing.assert_close(alone[0], placed[2], rtol=0, atol=1e-14)
    torch.testing.assert_close(log_alone[0], log_jacobian[2])


def test_dtype_is_kept(molecule) -> None:
    internal, x = molecule
    x = perturbed(x, 3).float()
    q = internal.from_cartesian(x)
    placed, log_jacobian = internal.to_cartesian(q)
    assert {q.dtype, placed.dtype, log_jacobian.dtype} == {torch.float32}
    torch.testing.assert_close(signed_shape(placed), signed_shape(x), rtol=0, atol=1e-5)


def log_determinant(to_x, parameters: Tensor) -> Tensor:
    """Return log |det| of (translation, rotation vector, parameters) -> x at no rigid motion."""

    def moved(all_parameters: Tensor) -> Tensor:
        shift, rotation, inner = all_parameters.split([3, 3, len(parameters)])
        x = to_x(inner[None])[0]
        return (x + torch.linalg.cross(rotation.expand_as(x), x) + shift).flatten()

    return torch.linalg.slogdet(torch.func.jacfwd(moved)(torch.cat([torch.zeros(6), parameters]).double())).logabsdet


def test_log_jacobian_is_that_of_autograd(molecule) -> None:
    internal, x = molecule
    q = internal.from_cartesian(perturbed(x, 4, sigma=0.02))
    _, log_jacobian = internal.to_cartesian(q)
    # A rotation vector at zero has unit density, so even the constant of the rigid motions is nought.
    for member, expected in zip(q, log_jacobian, strict=True):
        found = log_determinant(lambda inner: internal.to_cartesian(inner)[0], member)
        assert float(found) == pytest.approx(float(expected), abs=1e-8)


def test_gradients_agree_with_finite_differences(toluene) -> None:
    internal, x = toluene
    q = internal.from_cartesian(perturbed(x, 1)).requires_grad_(True)
    assert torch.autograd.gradcheck(internal.to_cartesian, (q,))
    position = perturbed(x, 1).requires_grad_(True)
    assert torch.autograd.gradcheck(
        lambda x: torch.cat([internal.from_cartesian(x).sin(), internal.from_cartesian(x).cos()]), (position,)
    )


@pytest.mark.parametrize("heights", [(0.0, 0.0), (1.0, 0.0), (1.0, -1.0), (1.0, 1.0)])
def test_gradients_stay_finite_where_atoms_are_planar_or_in_line(heights: tuple[float, float]) -> None:
    first, last = heights
    x = torch.tensor([[[-1.0, first, 0.0], [0.0, 0.0, 0.0], [1.0, 0.0, 0.0], [2.0, last, 0.0]]], requires_grad=True)
    internal = InternalCoordinates.from_bonds(4, [(0, 1), (1, 2), (2, 3)], ["C"] * 4)
    q = internal.from_cartesian(x)
    (gradient,) = torch.autograd.grad(q.square().sum(), x)
    assert torch.isfinite(q).all()
    assert torch.isfinite(gradient).all()


def test_outside_the_domain_nothing_has_density(alanine_dipeptide) -> None:
    internal, x = alanine_dipeptide
    q = internal.from_cartesian(perturbed(x, 4)).detach()
    q[1, 0] = -0.1
    q[2, internal.is_angle.nonzero()[0, 0]] = math.pi + 0.1
    q.requires_grad_(True)
    _, log_jacobian = internal.to_cartesian(q)
    assert torch.isneginf(log_jacobian).tolist() == [False, True, True, False]
    (gradient,) = torch.autograd.grad(log_jacobian[[0, 3]].sum(), q)
    assert torch.isfinite(gradient).all()


FUSED_ROUND_TRIP = """
import torch
from boltzgen_diffclf.coordinates import InternalCoordinates, ScaledInternal

bonds = [(0, 1), (1, 2), (2, 3), (3, 0), (3, 4), (4, 5), (5, 6), (5, 7)]
internal = InternalCoordinates.from_bonds(8, bonds, ["C"] * 8)
x = torch.randn(40, 8, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
scaled = ScaledInternal.fit(internal, internal.from_cartesian(x))
there_and_back = lambda x: scaled.to_cartesian(scaled.from_cartesian(x))
# The first compiler stage alone: it refuses graph breaks, and needs no C++ compiler.
fused = torch.compile(there_and_back, backend="eager", fullgraph=True)
torch.testing.assert_close(fused(x), there_and_back(x))
"""


def test_both_maps_fuse_into_one_graph() -> None:
    # In a process of its own: the compiler cannot see through the type checks that the tests run under.
    done = subprocess.run([sys.executable, "-c", FUSED_ROUND_TRIP], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@st.composite
def connected_graphs(draw: st.DrawFn) -> tuple[list[str], Bonds]:
    n_atoms = draw(st.integers(4, 14))
    bonds = [(draw(st.integers(0, atom - 1)), atom) for atom in range(1, n_atoms)]
    extra = draw(st.lists(st.tuples(st.integers(0, n_atoms - 1), st.integers(0, n_atoms - 1)), max_size=3))
    bonds += [pair for pair in extra if pair[0] != pair[1]]
    return draw(st.lists(st.sampled_from("CNOH"), min_size=n_atoms, max_size=n_atoms)), bonds


@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(connected_graphs(), st.integers(0, 2**31))
def test_any_connected_graph_round_trips(graph: tuple[list[str], Bonds], seed: int) -> None:
    elements, bonds = graph
    n_atoms = len(elements)
    internal = InternalCoordinates.from_bonds(n_atoms, bonds, elements)
    topology = nx.Graph(bonds)
    rotatable = [bond for bond in nx.bridges(topology) if min(topology.degree(atom) for atom in bond) > 1]
    assert int(internal.is_soft.sum()) == len(rotatable)
    assert sorted([*internal.tree.root, *(p.atom for p in internal.tree.placements)]) == list(range(n_atoms))
    for p in internal.tree.placements:
        assert topology.has_edge(p.atom, p.parent)
        assert topology.has_edge(p.parent, p.grandparent)
        assert topology.has_edge(p.grandparent if p.is_proper else p.parent, p.reference)
        assert len({p.atom, p.parent, p.grandparent, p.reference}) == 4
    x = perturbed(torch.zeros(n_atoms, 3, dtype=torch.float64), 3, sigma=0.3, seed=seed)
    again, log_jacobian = internal.to_cartesian(internal.from_cartesian(x))
    torch.testing.assert_close(signed_shape(again), signed_shape(x), rtol=0, atol=1e-9)
    assert torch.isfinite(log_jacobian).all()


# --- path coordinates


def ensemble(internal: InternalCoordinates, x: Tensor, n: int = 400) -> Tensor:
    """Return frames whose soft torsions are anywhere and whose stiff columns shake by one per cent or so."""
    generator = torch.Generator().manual_seed(3)
    q = internal.from_cartesian(x[None]).expand(n, -1)
    noise = torch.randn(n, q.shape[1], generator=generator, dtype=q.dtype)
    q = q + noise * torch.where(internal.is_bond, 0.003, 0.06)
    soft = 2 * math.pi * torch.rand(n, q.shape[1], generator=generator, dtype=q.dtype) - math.pi
    q = torch.where(internal.is_soft, soft, q)
    return torch.where(internal.is_torsion, arc(q), q)


def test_stiff_columns_are_whitened_and_soft_ones_are_not(molecule) -> None:
    internal, x = molecule
    q = ensemble(internal, x)
    scaled = ScaledInternal.fit(internal, q)
    y = scaled.to_path(q)
    stiff = y[:, ~scaled.is_periodic]
    torch.testing.assert_close(stiff.mean(0), torch.zeros(stiff.shape[1]).double(), rtol=0, atol=1e-9)
    torch.testing.assert_close(stiff.T.cov(), torch.eye(stiff.shape[1]).double(), rtol=0, atol=1e-8)
    torch.testing.assert_close(y[:, scaled.is_periodic], q[:, internal.is_soft])


def test_a_stiff_torsion_across_the_cut_is_wrapped(toluene) -> None:
    internal, x = toluene
    q = ensemble(internal, x)
    planar = (internal.is_torsion & ~internal.is_soft & (q.abs().mean(0) > 2.9)).nonzero()[:, 0]
    assert len(planar) > 0
    assert ((q[:, planar] > 0).any(0) & (q[:, planar] < 0).any(0)).all()
    scaled = ScaledInternal.fit(internal, q)
    assert float(scaled.to_path(q)[:, planar].abs().max()) < 6
    # The spread is that of the shaking, 0.06 rad, not of a sign that jumps.
    spread = (scaled.spread @ scaled.spread.T)[planar, planar].sqrt()
    assert float(spread.max()) < 0.1


def test_path_coordinates_round_trip(molecule) -> None:
    internal, x = molecule
    q = ensemble(internal, x, 100)
    scaled = ScaledInternal.fit(internal, q)
    again, _ = scaled.from_path(scaled.to_path(q))
    difference = torch.where(internal.is_torsion, arc(again - q), again - q)
    assert float(difference.abs().max()) < 1e-10
    y = scaled.to_path(q)
    placed, _ = scaled.to_cartesian(y)
    back = scaled.from_cartesian(placed)
    assert float(torch.where(scaled.is_periodic, arc(back - y), back - y).abs().max()) < 1e-8


def test_log_jacobian_of_the_whole_map_is_that_of_autograd(alanine_dipeptide) -> None:
    internal, x = alanine_dipeptide
    q = ensemble(internal, x)
    scaled = ScaledInternal.fit(internal, q)
    y = scaled.to_path(q[:3])
    _, log_jacobian = scaled.to_cartesian(y)
    for member, expected in zip(y, log_jacobian, strict=True):
        found = log_determinant(lambda inner: scaled.to_cartesian(inner)[0], member)
        assert float(found) == pytest.approx(float(expected), abs=1e-7)


def test_displacement_takes_the_short_way(alanine_dipeptide) -> None:
    internal, x = alanine_dipeptide
    scaled = ScaledInternal.fit(internal, ensemble(internal, x))
    y0 = torch.zeros(1, scaled.dimension, dtype=torch.float64)
    y1 = y0.clone()
    phi, methyl, stiff = internal.torsion_column(PHI), int((internal.symmetry == 3).nonzero()[0, 0]), 5
    y0[0, phi], y1[0, phi] = 3.0, -3.0
    y0[0, methyl], y1[0, methyl] = 0.1, 2 * math.pi / 3 + 0.3
    y0[0, stiff], y1[0, stiff] = -4.0, 4.0
    way = scaled.displacement(y0, y1)[0]
    assert float(way[phi]) == pytest.approx(2 * math.pi - 6.0)
    assert float(way[methyl]) == pytest.approx(0.2)
    assert float(way[stiff]) == 8.0
    assert int((way != 0).sum()) == 3


def test_scaling_survives_a_saved_file(alanine_dipeptide, tmp_path) -> None:
    from safetensors.torch import load_file, save_file

    internal, x = alanine_dipeptide
    q = ensemble(internal, x)
    scaled = ScaledInternal.fit(internal, q)
    save_file(scaled.state_dict(), tmp_path / "scaling.safetensors")
    loaded = ScaledInternal(internal)
    loaded.load_state_dict(load_file(tmp_path / "scaling.safetensors"))
    torch.testing.assert_close(loaded.to_path(q), scaled.to_path(q), rtol=0, atol=0)
    torch.testing.assert_close(loaded.to_cartesian(q[:2])[1], scaled.to_cartesian(q[:2])[1], rtol=0, atol=0)


def test_constraints_are_held_at_a_floor(alanine_dipeptide, caplog) -> None:
    internal, x = alanine_dipeptide
    q = ensemble(internal, x)
    angles = internal.is_angle.nonzero()[:, 0]
    q[:, 0] = 0.15  # a constrained bond
    q[:, angles[2]] = 2 * math.pi - q[:, angles[0]] - q[:, angles[1]]  # a planar centre
    with caplog.at_level("WARNING"):
        scaled = ScaledInternal.fit(internal, q)
    assert "1 of" in caplog.text
    y = scaled.to_path(q)
    assert float(y.abs().max()) < 20
    again, log_scale = scaled.from_path(y)
    assert float(torch.where(internal.is_torsion, arc(again - q), again - q).abs().max()) < 1e-8
    assert torch.isfinite(log_scale).all()


@pytest.mark.parametrize("broken", ["nan", "single"])
def test_a_bad_ensemble_is_refused(alanine_dipeptide, broken: str) -> None:
    internal, x = alanine_dipeptide
    q = ensemble(internal, x, 1 if broken == "single" else 10)
    if broken == "nan":
        q[3, 4] = math.nan
    with pytest.raises(InputError, match="frames"):
        ScaledInternal.fit(internal, q)


def test_rotors_are_relabelled_to_the_nearest_third(alanine_dipeptide) -> None:
    internal, x = alanine_dipeptide
    reference, _ = internal.to_cartesian(ensemble(internal, x, 50))
    turned = reference.clone()
    methyl = [11, 12, 13]
    turned[:, methyl] = reference[:, [12, 13, 11]]
    torch.testing.assert_close(match_rotors(internal, turned, reference), reference, rtol=0, atol=0)

    other, _ = internal.to_cartesian(ensemble(internal, x, 100)[50:])
    matched = match_rotors(internal, other, reference)
    rotors = internal.symmetry == 3
    arcs = arc(internal.from_cartesian(matched) - internal.from_cartesian(reference))[:, rotors].abs()
    before = arc(internal.from_cartesian(other) - internal.from_cartesian(reference))[:, rotors].abs()
    assert float(arcs.max()) < math.pi / 3 + 0.3  # leaves are not exactly a third apart
    assert float(before.max()) > 3.0
    # Only labels of identical atoms changed, and the handedness of their order did not.
    torch.testing.assert_close(matched.sum(1), other.sum(1))
    carbon, h1, h2, h3 = (10, *methyl)
    for y in (matched, other):
        sides = [y[:, h] - y[:, carbon] for h in (h1, h2, h3)]
        volume = (sides[0] * torch.linalg.cross(sides[1], sides[2])).sum(-1)
        assert len(volume.sign().unique()) == 1
