"""Moves of weighted particles behind a bridge: what they stand for stays, and copies part."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from boltzgen_diffclf.errors import InputError
from boltzgen_diffclf.samplers import Rejuvenation, RejuvenationState
from boltzgen_diffclf.streams import named_generator
from boltzgen_diffclf.target import GaussianTarget, Target
from systems.analytic import GaussianMixture
from workflows.resumable import carry_on

DTYPE = torch.float64
MODES = GaussianMixture(
    torch.tensor([0.5, 0.5], dtype=DTYPE),
    torch.tensor([[-3.0, 0.0], [3.0, 0.0]], dtype=DTYPE),
    torch.full((2,), 0.4, dtype=DTYPE),
)
"""Further apart than any move."""


def rested(moves: Rejuvenation, position: Tensor, log_weights: Tensor, seed: int = 0) -> RejuvenationState:
    stream = named_generator(seed, "moves")
    return carry_on(moves, RejuvenationState, lambda _: moves.init(position, log_weights), stream, None, {})


def test_copies_spread_over_their_mode_and_none_changes_sides() -> None:
    position = MODES.means.repeat_interleave(500, 0) + 0.3
    state = rested(Rejuvenation(MODES, 40, 10), position, torch.zeros(1000, dtype=DTYPE))
    assert torch.equal(state.position[:, 0] > 0, position[:, 0] > 0)
    for side, mean in zip((state.position[:500], state.position[500:]), MODES.means, strict=True):
        error = 0.4 / 500**0.5
        torch.testing.assert_close(side.mean(0), mean, atol=4 * error, rtol=0)
        torch.testing.assert_close(side.std(0), torch.full((2,), 0.4, dtype=DTYPE), atol=4 * error, rtol=0)
        assert len(side.unique(dim=0)) == 500


def test_what_already_is_right_stays_right() -> None:
    stream = named_generator(1, "exact")
    position = 0.7 * torch.randn(4000, 5, generator=stream, dtype=DTYPE)
    state = rested(Rejuvenation(GaussianTarget(5, sigma=0.7), 10, 4), position, torch.zeros(4000, dtype=DTYPE))
    assert float((state.position - position).norm(dim=1).median()) > 0.5
    squared = (state.position / 0.7).square()
    assert float(squared.mean()) == pytest.approx(1.0, abs=4 * (2 / 20_000) ** 0.5)
    assert float(state.position.mean()) == pytest.approx(0.0, abs=4 * 0.7 / 20_000**0.5)


class Walled(Target):
    """A normal whose energy is no number beyond the origin, as that of a broken molecule."""

    event_shape, dimension = (2,), 2

    def energy(self, x: Tensor) -> Tensor:
        return torch.where(x[:, 0] > 0, 0.5 * x.square().sum(-1), torch.nan)


def test_particles_without_weight_do_not_shorten_the_steps_of_the_others() -> None:
    steps = []
    for dead in (0, 300):
        position = torch.randn(400, 2, generator=named_generator(2, "walled"), dtype=DTYPE)
        position[:, 0] = position[:, 0].abs() + 0.2
        position[:dead, 0] = -1e4
        weights = torch.where(torch.arange(400) < dead, -torch.inf, 0.0).double()
        state = rested(Rejuvenation(Walled(), 20, 4, first_step_size=0.1), position, weights)
        assert bool((state.position[dead:, 0] > 0).all())
        steps.append(float(state.step_size))
    assert steps[1] == pytest.approx(steps[0], rel=0.4)


def test_no_proposals_leave_all_where_it_is() -> None:
    position = torch.randn(5, 2, generator=named_generator(3, "still"), dtype=DTYPE)
    assert torch.equal(rested(Rejuvenation(MODES, 0), position, torch.zeros(5, dtype=DTYPE)).position, position)


def test_particles_that_have_arrived_are_kept_and_those_of_another_device_refused(tmp_path: Path) -> None:
    moves, file = Rejuvenation(GaussianTarget(2), 3, 2), tmp_path / "moves.safetensors"
    position = torch.randn(5, 2, generator=named_generator(4, "kept"), dtype=DTYPE)

    def run(told: list[float]) -> RejuvenationState:
        stream = named_generator(5, "moves")
        begin = moves.init(position, torch.zeros(5, dtype=DTYPE))
        return carry_on(moves, RejuvenationState, lambda _: begin, stream, file, {}, lambda _, info: told.append(info))

    first, again = list[float](), list[float]()
    assert torch.equal(run(first).position, run(again).position)
    assert (len(first), len(again)) == (3, 0)
    tensors = load_file(file)
    with safe_open(file, framework="pt") as opened:
        header = opened.metadata()
    save_file({**tensors, "generator": tensors["generator"][:16].clone()}, file, metadata=header)
    with pytest.raises(InputError, match="was saved on another kind of device than cpu: go on with --device as before"):
        run([])
