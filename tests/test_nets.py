"""The contract of an energy network, and what each network promises beyond it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import jaxtyping
import pytest
import torch
from torch import Tensor, nn

from boltzgen_diffclf.nets import (
    DenseEnergyNet,
    EquivariantConfig,
    FourierTimeFeatures,
    GraphEnergyNet,
    MlpEnergyNet,
    MultiLevelNet,
    SquashedMlpTrunk,
    TorsionConfig,
    TorsionEnergyNet,
    WellEnergyNet,
)
from boltzgen_diffclf.nets.bond_graph import bond_separation

SMALL = EquivariantConfig(hidden=8, layers=2, radial=6, pair=5, chiral=3, n_frequencies=3)

# Around the alpha carbon of an L-amino acid: CA, N, C, CB, HA; then O on C and H on N [nm].
AMINO_ACID = torch.tensor(
    [
        [0.000, 0.000, 0.000],
        [0.146, 0.000, 0.000],
        [-0.055, 0.142, 0.000],
        [-0.053, -0.077, 0.120],
        [-0.036, -0.055, -0.088],
        [-0.030, 0.220, 0.095],
        [0.180, 0.060, -0.075],
    ],
    dtype=torch.float64,
)
TYPES = [0, 1, 0, 0, 2, 3, 2]
BONDS = [(0, 1), (0, 2), (0, 3), (0, 4), (2, 5), (1, 6)]
PERIODIC = torch.tensor([True, False, True, False, False])
SYMMETRY = torch.tensor([1, 1, 3, 1, 1])


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def dense() -> nn.Module:
    return DenseEnergyNet(TYPES, BONDS, generator(), SMALL)


def graph() -> nn.Module:
    return GraphEnergyNet(TYPES, BONDS, generator(), SMALL)


def torsion() -> nn.Module:
    return TorsionEnergyNet(PERIODIC, SYMMETRY, generator(), TorsionConfig(hidden=16, layers=2, projections=3))


def mlp() -> nn.Module:
    return MlpEnergyNet(4, generator(), hidden=16, layers=2)


def mlp_with_waves() -> nn.Module:
    return MlpEnergyNet(4, generator(), hidden=16, layers=2, waves=3)


def wells() -> nn.Module:
    return WellEnergyNet(4, generator(), (20.0, 0.01), hidden=16, layers=2)


def multi_level() -> nn.Module:
    return MultiLevelNet(SquashedMlpTrunk(4, generator(), hidden=16, layers=2), 32, generator(1))


def multi_level_with_waves() -> nn.Module:
    return MultiLevelNet(SquashedMlpTrunk(4, generator(), hidden=16, layers=2, waves=3), 32, generator(1))


def molecules(batch: int) -> Tensor:
    return AMINO_ACID + 0.02 * torch.randn(batch, 7, 3, dtype=torch.float64, generator=generator(1))


def vectors(dim: int) -> Callable[[int], Tensor]:
    return lambda batch: torch.randn(batch, dim, dtype=torch.float64, generator=generator(1))


EVERY = [
    pytest.param(dense, molecules, id="dense"),
    pytest.param(graph, molecules, id="graph"),
    pytest.param(torsion, vectors(5), id="torsion"),
    pytest.param(mlp, vectors(4), id="mlp"),
    pytest.param(mlp_with_waves, vectors(4), id="mlp-waves"),
    pytest.param(wells, vectors(4), id="wells"),
    pytest.param(multi_level, vectors(4), id="multi-level"),
    pytest.param(multi_level_with_waves, vectors(4), id="multi-level-waves"),
]
MOLECULAR = [pytest.param(dense, id="dense"), pytest.param(graph, id="graph")]


def trained(build: Callable[[], nn.Module], dtype: torch.dtype = torch.float64) -> nn.Module:
    """A network whose every parameter, the zero read-out too, has been moved from its start."""
    net, random = build(), generator(2)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=random))
    return net.to(dtype)


def times(batch: int) -> Tensor:
    return torch.rand(batch, dtype=torch.float64, generator=generator(3))


def gradient(net: nn.Module, x: Tensor, t: Tensor, *, create_graph: bool = False) -> Tensor:
    x = x.detach().requires_grad_(True)
    return torch.autograd.grad(net(x, t).sum(), x, create_graph=create_graph)[0]


def random_rotation(seed: int) -> Tensor:
    q, r = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64, generator=generator(seed)))
    q = q * r.diagonal().sign()
    return q * torch.linalg.det(q).sign()


@pytest.mark.parametrize(("build", "draw"), EVERY)
class TestContract:
    def test_is_exactly_zero_before_training(self, build, draw):
        assert torch.equal(build().double()(draw(3), times(3)), torch.zeros(3, dtype=torch.float64))

    def test_gives_one_finite_energy_a_member_that_depends_on_x_and_t(self, build, draw):
        net, x, t = trained(build), draw(5), times(5)
        energy = net(x, t)
        assert energy.shape == (5,)
        assert energy.isfinite().all()
        assert energy.std() > 1e-4
        assert (net(x, 1 - t) - energy).abs().min() > 1e-6

    def test_members_of_a_batch_do_not_touch(self, build, draw):
        net, x, t = trained(build), draw(4), times(4)
        alone = torch.cat([net(x[k : k + 1], t[k : k + 1]) for k in range(4)])
        torch.testing.assert_close(net(x, t), alone, rtol=0, atol=1e-10)

    def test_gradient_agrees_with_finite_differences(self, build, draw):
        net, x, t = trained(build), draw(1), times(1)
        direction = torch.randn(x.shape, dtype=x.dtype, generator=generator(4))
        step = 1e-5 * direction
        difference = (net(x + step, t) - net(x - step, t)) / 2e-5
        torch.testing.assert_close((gradient(net, x, t) * direction).sum()[None], difference, rtol=1e-6, atol=1e-7)

    def test_parameter_gradient_of_a_force_loss_agrees_with_finite_differences(self, build, draw):
        net, x, t = trained(build), draw(2), times(2)
        gradient(net, x, t, create_graph=True).square().sum().backward()
        parameters = [p for p in net.parameters() if p.grad is not None]
        directions = [torch.randn(p.shape, dtype=p.dtype, generator=generator(5)) for p in parameters]
        analytic = sum((p.grad * d).sum().item() for p, d in zip(parameters, directions, strict=True))
        losses = []
        for step in (1e-6, -2e-6):
            with torch.no_grad():
                for p, d in zip(parameters, directions, strict=True):
                    p.add_(step * d)
            losses.append(gradient(net, x, t).square().sum().item())
        assert (losses[0] - losses[1]) / 2e-6 == pytest.approx(analytic, rel=1e-5)

    def test_every_parameter_is_used(self, build, draw):
        net = trained(build)
        net(draw(3), times(3)).sum().backward()
        assert [name for name, p in net.named_parameters() if p.grad is None or not p.grad.any()] == []

    def test_functional_gradient_agrees_with_autograd(self, build, draw):
        net, x, t = trained(build), draw(3), times(3)
        energy, pull_back = torch.func.vjp(lambda y: net(y, t), x)
        torch.testing.assert_close(pull_back(torch.ones_like(energy))[0], gradient(net, x, t), rtol=0, atol=1e-10)

    def test_state_round_trip(self, build, draw):
        net, other = trained(build), build().double()
        other.load_state_dict(net.state_dict())
        assert torch.equal(net(draw(2), times(2)), other(draw(2), times(2)))

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    def test_keeps_dtype_and_runs_where_it_is_put(self, build, draw, dtype):
        net, x, t = trained(build, dtype), draw(2).to(dtype), times(2).to(dtype)
        assert net(x, t).dtype == dtype
        assert net.to("meta")(x.to("meta"), t.to("meta")).device.type == "meta"

    def test_single_precision_is_close_to_double(self, build, draw):
        x, t = draw(4), times(4)
        single = trained(build, torch.float32)(x.float(), t.float()).double()
        torch.testing.assert_close(single, trained(build)(x, t), rtol=1e-4, atol=1e-4)

    def test_starting_weights_come_from_the_generator_alone(self, build, draw):
        before = torch.get_rng_state()
        first, second = build().state_dict(), build().state_dict()
        assert torch.equal(torch.get_rng_state(), before)
        assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("build", MOLECULAR)
class TestMolecular:
    def test_invariant_to_translations_and_rotations(self, build):
        net, x, t = trained(build), molecules(3), times(3)
        moved = x @ random_rotation(7).T + torch.tensor([3.0, -2.0, 5.0], dtype=x.dtype)
        torch.testing.assert_close(net(moved, t), net(x, t), rtol=0, atol=1e-10)
        turned = gradient(net, x, t) @ random_rotation(7).T
        torch.testing.assert_close(gradient(net, moved, t), turned, rtol=0, atol=1e-9)

    def test_mirror_image_has_another_energy(self, build):
        net, x, t = trained(build), molecules(3), times(3)
        mirrored = x * torch.tensor([1.0, 1.0, -1.0], dtype=x.dtype)
        assert (net(mirrored, t) - net(x, t)).abs().min() > 1e-4

    def test_mirror_image_of_a_planar_molecule_has_the_same_energy(self, build):
        net, x, t = trained(build), molecules(3), times(3)
        x[..., 2] = 0.0
        mirrored = x * torch.tensor([-1.0, 1.0, 1.0], dtype=x.dtype)
        torch.testing.assert_close(net(mirrored, t), net(x, t), rtol=0, atol=1e-10)

    def test_equivalent_atoms_may_be_exchanged(self, build):
        net, x, t = trained(build), molecules(2), times(2)
        methane = type(net)([0, 1, 1, 1, 1], [(0, k) for k in range(1, 5)], generator(), SMALL, n_types=4).double()
        methane.load_state_dict(net.state_dict())
        x = x[:, :5]
        torch.testing.assert_close(methane(x[:, [0, 2, 1, 3, 4]], t), methane(x, t), rtol=0, atol=1e-10)

    def test_bonds_matter(self, build):
        net = trained(build)
        unbonded = type(net)(TYPES, [], generator(), SMALL).double()
        unbonded.load_state_dict(net.state_dict())
        assert (unbonded(molecules(2), times(2)) - net(molecules(2), times(2))).abs().min() > 1e-4

    @pytest.mark.parametrize("separation", [0.0, 0.1, 0.5, 1.0, 3.0])
    def test_no_kink_along_a_line_through_another_atom(self, build, separation):
        net, x, t = trained(build), molecules(1), times(1)
        x[:, 6] = x[:, 5]
        x[:, 6, 0] += separation
        step = torch.zeros_like(x)
        step[:, 6, 0] = 1e-4
        left, here, right = (gradient(net, y, t)[:, 6, 0] for y in (x - step, x, x + step))
        change = (right - left).abs()
        assert ((right - 2 * here + left).abs() <= 0.02 * change + 1e-5).all()

    def test_atoms_on_one_point_have_finite_energy_and_second_derivatives(self, build):
        net, x, t = trained(build), torch.zeros(2, 7, 3, dtype=torch.float64), times(2)
        gradient(net, x, t, create_graph=True).square().sum().backward()
        assert all(p.grad is None or p.grad.isfinite().all() for p in net.parameters())
        assert net(x, t).isfinite().all()

    def test_far_atoms_do_not_interact(self, build):
        net, t = trained(build), times(2)
        nearer, farther = net(1e3 * molecules(2), t), net(1e5 * molecules(2), t)
        torch.testing.assert_close(farther, nearer, rtol=0, atol=1e-4)
        assert gradient(net, 1e5 * molecules(2), t).abs().max() < 1e-6

    @pytest.mark.parametrize(("types", "bonds"), [([0, -1], []), ([0, 1], [(0, 2)]), ([0, 1], [(1, 1)])])
    def test_impossible_molecules_are_refused(self, build, types, bonds):
        with pytest.raises(ValueError, match="atom"):
            type(build())(types, bonds, generator(), SMALL)


def test_dense_and_graph_are_the_same_function_with_one_state():
    dense_net, graph_net = trained(dense), graph().double()
    graph_net.load_state_dict(dense_net.state_dict())
    x, t = molecules(6), times(6)
    torch.testing.assert_close(graph_net(x, t), dense_net(x, t), rtol=0, atol=1e-10)
    torch.testing.assert_close(gradient(graph_net, x, t), gradient(dense_net, x, t), rtol=0, atol=1e-10)


def test_graph_without_edges_is_a_sum_of_lone_atoms():
    edges = torch.zeros(2, 0, dtype=torch.long)
    net = GraphEnergyNet(TYPES, BONDS, generator(), SMALL, edge_index=edges).double()
    net.load_state_dict(trained(dense).state_dict())
    far = 1e6 * molecules(2)
    torch.testing.assert_close(net(molecules(2), times(2)), trained(dense)(far, times(2)), rtol=0, atol=1e-8)


def test_edges_beyond_the_molecule_are_refused():
    with pytest.raises(ValueError, match="edge_index must name atoms 0 to 6, got 7"):
        GraphEnergyNet(TYPES, BONDS, generator(), SMALL, edge_index=torch.tensor([[0], [7]]))


@pytest.fixture
def without_shape_checks() -> Iterator[None]:
    """The compiler cannot trace through the run-time shape checks that the test run installs."""
    before = jaxtyping.config.jaxtyping_disable
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", before)


def test_fused_parameter_gradient_equals_the_eager_one(without_shape_checks):
    tiny = EquivariantConfig(hidden=4, layers=2, radial=3, chiral=1, n_frequencies=1)
    net = trained(lambda: DenseEnergyNet([0, 1, 1, 2], [(0, 1), (0, 2), (0, 3)], generator(), tiny))
    x, t = molecules(2)[:, :4], times(2)

    def loss(x: Tensor, t: Tensor) -> Tensor:
        energy, pull_back = torch.func.vjp(lambda y: net(y, t), x)
        return pull_back(torch.ones_like(energy))[0].square().sum() + energy.sum()

    eager_loss = gradient(net, x, t, create_graph=True).square().sum() + net(x, t).sum()
    eager = torch.autograd.grad(eager_loss, list(net.parameters()))
    # Tracing and differentiation are what could go wrong here; code generation would take half a minute more.
    traced = torch.compile(loss, fullgraph=True, backend="aot_eager")
    fused = torch.autograd.grad(traced(x, t), list(net.parameters()))
    for ours, theirs in zip(fused, eager, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-8, atol=1e-10)


class TestTorsionNet:
    def test_full_turns_of_a_symmetric_torsion_change_nothing(self):
        net, y, t = trained(torsion), vectors(5)(4), times(4)
        turn = torch.where(PERIODIC, 2 * math.pi / SYMMETRY.double(), 0.0)
        torch.testing.assert_close(net(y + turn, t), net(y, t), rtol=0, atol=1e-10)

    @pytest.mark.parametrize(("column", "turns"), [(0, 0.5), (2, 1 / 6), (1, 1.0)])
    def test_less_than_a_turn_and_stiff_columns_matter(self, column, turns):
        net, y, t = trained(torsion), vectors(5)(4), times(4)
        moved = y.clone()
        moved[:, column] += 2 * math.pi * turns
        assert (net(moved, t) - net(y, t)).abs().min() > 1e-4

    @pytest.mark.parametrize("size", [1e2, 1e10, 1e300])
    def test_bounded_however_far_the_stiff_columns_go(self, size):
        net, y, t = trained(torsion), vectors(5)(8), times(8)
        y[:, ~PERIODIC] = y[:, ~PERIODIC].sign() * net.config.saturation * 20
        edge = net(y, t)
        y[:, ~PERIODIC] *= size
        torch.testing.assert_close(net(y, t), edge, rtol=0, atol=1e-9)

    def test_is_a_quadratic_of_the_stiff_columns_near_zero(self):
        config = TorsionConfig(hidden=16, layers=2, projections=0, saturation=1e4)
        net = trained(lambda: TorsionEnergyNet(PERIODIC, SYMMETRY, generator(), config))
        y, t = vectors(5)(1), times(1)
        along = y.repeat(4, 1)
        along[:, 1] = torch.tensor([0.0, 1.0, 2.0, 3.0])
        energy = net(along, t.repeat(4))
        third_difference = energy[3] - 3 * energy[2] + 3 * energy[1] - energy[0]
        assert third_difference.abs() < 1e-6
        assert (energy[2] - 2 * energy[1] + energy[0]).abs() > 1e-3

    @pytest.mark.parametrize("periodic", [True, False])
    def test_one_kind_of_column_alone_will_do(self, periodic):
        net = trained(
            lambda: TorsionEnergyNet(torch.full((3,), periodic), torch.ones(3, dtype=torch.long), generator())
        )
        assert net(vectors(3)(4), times(4)).std() > 1e-4

    def test_bad_symmetries_are_refused(self):
        with pytest.raises(ValueError, match="symmetry must be at least 1"):
            TorsionEnergyNet(PERIODIC, torch.zeros(5, dtype=torch.long), generator())


def test_mlp_energy_grows_at_most_quadratically_with_its_inner_product():
    net, t = trained(mlp), times(3)
    x = vectors(4)(3)
    ratio = net(1e6 * x, t) / net(1e5 * x, t)
    torch.testing.assert_close(ratio, torch.full_like(ratio, 100.0), rtol=0.01, atol=0)


def test_a_well_is_as_stiff_along_each_coordinate_as_the_noise_leaves_it_and_flat_at_its_centre():
    net, centre = wells().double(), torch.tensor([3.0, -2.0, 1.0, 0.5], dtype=torch.float64)
    with torch.no_grad():
        net.curvature.bias.copy_(torch.tensor([0.7, 0.3, 1.1, 0.5]))
        net.centre.bias.copy_(centre)
    t = torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64)
    x = centre + torch.tensor([2.0, 1.0, -1.0, 3.0], dtype=torch.float64)
    stiffness = torch.tensor([401.0, 1.2, 1.0001], dtype=torch.float64).sqrt()  # 1 + s^2, s from 20 to 0.01
    torch.testing.assert_close(
        net(x.expand(3, -1), t), 0.5 * (0.7 * 4.0 + 0.3 * 1.0 + 1.1 * 1.0 + 0.5 * 9.0) * stiffness
    )
    assert not net(centre.expand(3, -1), t).any()


def test_time_features_tell_every_time_apart_and_are_smooth():
    features = FourierTimeFeatures(n_frequencies=4, max_cycles=4.0).double()
    t = torch.linspace(0, 1, 201, dtype=torch.float64)
    values = features(t)
    assert values.abs().max() <= 1.0
    assert torch.pdist(values).min() > 1e-3
    assert (values[1:] - values[:-1]).abs().max() < 2 * math.pi * 4.0 / 200 + 1e-9


@pytest.mark.parametrize("bad", [{"hidden": 0}, {"radial": 1}, {"softening_nm": 0.0}])
def test_impossible_sizes_are_refused(bad):
    with pytest.raises(ValueError, match="must be"):
        EquivariantConfig(**bad)


def test_bond_separation_counts_bonds_up_to_three_also_in_rings():
    chain = bond_separation(6, [(k, k + 1) for k in range(5)])
    assert chain[0].tolist() == [0, 1, 2, 3, 4, 4]
    ring = bond_separation(5, [(k, (k + 1) % 5) for k in range(5)])
    assert ring[0].tolist() == [0, 1, 2, 2, 1]


def test_waves_let_a_network_see_fine_structure_in_a_plane() -> None:
    x = 2 * torch.rand(2048, 2, generator=generator(1)) - 1
    energy, t = (9 * x).sin().prod(1), torch.zeros(len(x))

    def left(waves: int) -> float:
        net = MlpEnergyNet(2, generator(), hidden=32, layers=2, waves=waves)
        optimiser = torch.optim.Adam(net.parameters(), 3e-3)
        for _ in range(150):
            optimiser.zero_grad()
            loss = (net(x, t) - energy).square().mean()
            loss.backward()
            optimiser.step()
        return float(loss.detach() / energy.var())

    assert left(32) < 0.2
    assert left(0) > 0.5
