"""The training loop: it learns, resumes bit for bit, refuses another's checkpoint, and splits over processes."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch

from boltzgen_diffclf.energy import AnchoredEnergyModel, Ends, EnergyModel, UnanchoredEnergyModel
from boltzgen_diffclf.errors import InputError, RunFailedError
from boltzgen_diffclf.nets import TorsionConfig, TorsionEnergyNet
from boltzgen_diffclf.paths import StochasticInterpolant, arcsine_levels
from boltzgen_diffclf.training import ObjectiveWeights, PathData, TrainingResult, TrainingSettings, train
from boltzgen_diffclf.training.checkpoint import load_checkpoint, save_checkpoint

DIM, LEVELS = 3, 9
SCALE, SHIFT = 0.6, 0.4
EXACT = -DIM * torch.log(torch.tensor(SCALE)).item()
OBJECTIVES = [ObjectiveWeights(1.0, 1.0), ObjectiveWeights(1.0, 0.0), ObjectiveWeights(0.0, 1.0, 1.0)]
SETTINGS = TrainingSettings(steps=40, groups=16, group_size=4, log_every=10, checkpoint_every=15)


@pytest.fixture(autouse=True)
def _eager(monkeypatch: pytest.MonkeyPatch) -> None:
    from boltzgen_diffclf.compilation import can_fuse

    monkeypatch.setenv("BOLTZGEN_EAGER", "1")
    can_fuse.cache_clear()
    yield
    can_fuse.cache_clear()


def make_data(seed: int = 0, pool: int = 400) -> PathData:
    """Return the variance-preserving path from N(0, 1) to N(SHIFT, SCALE^2), anchored at both."""
    generator = torch.Generator().manual_seed(seed)
    levels = arcsine_levels(LEVELS).float()
    path = StochasticInterpolant(torch.full((DIM,), 2**0.5), dimension=DIM)
    shape = (LEVELS, pool, DIM)
    x_0, x_1, noise = (torch.randn(shape, generator=generator) for _ in range(3))
    x_1 = SHIFT + SCALE * x_1
    t = levels[:, None].expand(LEVELS, pool).reshape(-1)
    y = path.sample(x_0.reshape(-1, DIM), (x_1 - x_0).reshape(-1, DIM), t, noise.reshape(-1, DIM))
    at_end = (y - SHIFT) / SCALE
    energy = torch.stack([0.5 * y.square().sum(-1), 0.5 * at_end.square().sum(-1)], dim=-1)
    gradient = torch.stack([y, at_end / SCALE], dim=1)
    force = torch.stack([-x_0, -(x_1 - SHIFT) / SCALE**2], dim=2)
    return PathData(
        levels,
        DIM,
        y.reshape(shape),
        noise,
        path.gamma(levels),
        energy.reshape(LEVELS, pool, 2),
        gradient.reshape(LEVELS, pool, 2, DIM),
        force,
        torch.arange(LEVELS * pool).reshape(LEVELS, pool, 1).expand(-1, -1, 2),
    )


def make_model(kind: type[EnergyModel] = AnchoredEnergyModel, hidden: int = 16, seed: int = 0) -> EnergyModel:
    mask, symmetry = torch.tensor([True, False, False]), torch.ones(DIM, dtype=torch.long)
    config = TorsionConfig(hidden=hidden, layers=2, projections=2)
    net = TorsionEnergyNet(mask, symmetry, torch.Generator().manual_seed(seed), config)
    return kind(net, arcsine_levels(LEVELS).float())


def run(settings: TrainingSettings = SETTINGS, checkpoint: Path | None = None, **changes: object) -> TrainingResult:
    return train(make_model(), make_data(), make_data(1), settings, checkpoint=checkpoint, **changes)


def assert_same(first: TrainingResult, second: TrainingResult) -> None:
    for one, other in zip(first.model.state_dict().values(), second.model.state_dict().values(), strict=True):
        assert torch.equal(one, other)
    assert first.history == second.history


@pytest.mark.parametrize(
    "weights", [ObjectiveWeights(1.0, 1.0), ObjectiveWeights(1.0, 0.0), ObjectiveWeights(0.0, 1.0, 1.0)]
)
def test_losses_fall_and_balance_is_logged(weights: ObjectiveWeights) -> None:
    settings = dataclasses.replace(SETTINGS, steps=120, weights=weights)
    history = run(settings).history
    active = [name for name, weight in dataclasses.asdict(weights).items() if weight]
    assert sum(history[-1][f"held_out.{n}"] for n in active) < sum(history[0][f"held_out.{n}"] for n in active)
    assert all(history[-1][f"gradient_norm.{name}"] > 0 for name in active)
    assert [record["step"] for record in history] == list(range(10, 121, 10))


def test_target_scores_of_a_path_without_forces_are_refused() -> None:
    settings = dataclasses.replace(SETTINGS, weights=ObjectiveWeights(0.0, 1.0, 1.0))
    data = make_data()
    blind = dataclasses.replace(data, end_force=torch.zeros_like(data.end_force))
    with pytest.raises(InputError, match="this path holds none"):
        train(make_model(), blind, data, settings)


def test_classification_learns_the_free_energy() -> None:
    settings = dataclasses.replace(SETTINGS, steps=600, groups=64, log_every=100, ema_decay=0.95)
    result = run(settings)
    assert result.history[-1]["free_energy.end"] == pytest.approx(EXACT, abs=0.15)
    assert run(dataclasses.replace(settings, steps=20, weights=ObjectiveWeights(1.0, 0.0))).history[-1][
        "free_energy.end"
    ] == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize("ceilings", [None, (-1.0, 0.5)])
def test_energies_change_with_time_at_the_very_ends_as_close_to_them(ceilings: tuple[float, float] | None) -> None:
    model = AnchoredEnergyModel(make_model().net, arcsine_levels(9), ceilings).double()
    y, ends = torch.zeros(2, DIM).double(), torch.tensor([[3.0, 1.0], [2.0, 6.0]]).double()
    for end, inside in ((0.0, 1e-6), (1.0, 1 - 1e-6)):
        at, near = (model.time_derivative(y, torch.full((2,), t).double(), ends) for t in (end, inside))
        torch.testing.assert_close(at, near, rtol=1e-4, atol=1e-4)


def test_what_one_end_excludes_counts_nothing_at_the_other_end_of_an_anchored_path() -> None:
    model = AnchoredEnergyModel(make_model().net, arcsine_levels(9), (5.0, 5.0))
    y, ends = torch.zeros(2, DIM), torch.tensor([[1.0, torch.inf], [torch.inf, 2.0]])
    assert model.energy(y, torch.tensor([0.0, 1.0]), ends).tolist() == [1.0, 2.0]
    # Between the ends what overlaps is softened to some hundred kT, and without ceilings it is excluded.
    assert (model.energy(y, torch.tensor([0.5, 0.5]), ends) > 100).all()
    plain = AnchoredEnergyModel(make_model().net, arcsine_levels(9))
    assert plain.energy(y, torch.tensor([0.0, 1.0]), ends).tolist() == [1.0, 2.0]
    assert plain.energy(y, torch.tensor([0.5, 0.5]), ends).tolist() == [torch.inf, torch.inf]


@pytest.mark.parametrize("ceilings", [None, (-1.0, 0.5)])
def test_anchored_ends_are_exact_whatever_the_network_says(ceilings: tuple[float, float] | None) -> None:
    model, data = make_model(), make_data()
    torch.nn.init.normal_(model.net.readout.weight)
    model = AnchoredEnergyModel(model.net, model.curve.levels, ceilings)
    for index, time in ((0, 0.0), (1, 1.0)):
        y, end = data.y[3], data.end_energy[3]
        t = torch.full((len(y),), time)
        torch.testing.assert_close(model.energy(y, t, end), end[:, index])
        gradient = model.gradient(y, t, Ends(end, data.end_gradient[3]))
        torch.testing.assert_close(gradient, data.end_gradient[3, :, index])


def test_clashes_half_way_grow_like_a_logarithm_and_what_lies_below_stays() -> None:
    straight, soft = (
        AnchoredEnergyModel(make_model().net, arcsine_levels(9), ceilings) for ceilings in (None, (2.0, 4.0))
    )
    t, y = torch.tensor([0.5, 0.5, 0.25]), torch.zeros(3, DIM)
    ends = torch.tensor([[2.0, 3.0], [1e6, 2e6], [12.5, 12.5]])
    torch.testing.assert_close(straight.energy(y, t, ends), torch.tensor([2.5, 1.5e6, 12.5]))
    # Ceilings 3, 3 and 2.5; strengths 1 and 3/4 over the softness; above a ceiling log(1 + k excess) / k is left.
    k = torch.tensor([1.0, 0.75]) / AnchoredEnergyModel.SOFTNESS
    left = torch.log1p(k * torch.tensor([1.5e6 - 3.0, 10.0])) / k
    expected = torch.cat([torch.tensor([2.5]), torch.tensor([3.0, 2.5]) + left])
    torch.testing.assert_close(soft.energy(y, t, ends).float(), expected)


@pytest.mark.parametrize("ceilings", [None, (0.1, -0.3)])
@pytest.mark.parametrize("kind", [AnchoredEnergyModel, UnanchoredEnergyModel])
def test_gradient_and_time_derivative_are_those_of_the_energy(
    kind: type[EnergyModel], ceilings: tuple[float, float] | None
) -> None:
    model = make_model(kind).double()
    if isinstance(model, AnchoredEnergyModel):
        model = AnchoredEnergyModel(model.net, model.curve.levels, ceilings).double()
    torch.nn.init.normal_(model.net.readout.weight, std=0.3, generator=torch.Generator().manual_seed(1))
    y = torch.randn(5, DIM, generator=torch.Generator().manual_seed(2), dtype=torch.float64).requires_grad_()
    t = torch.linspace(0.1, 0.9, 5, dtype=torch.float64).requires_grad_()
    ends = torch.stack([0.5 * y.square().sum(-1), 2 * y.sum(-1)], dim=-1)
    end_gradient = torch.stack([y, torch.full_like(y, 2.0)], dim=1).detach()
    by_y, by_t = torch.autograd.grad(model.energy(y, t, ends).sum(), (y, t))
    torch.testing.assert_close(model.gradient(y.detach(), t.detach(), Ends(ends.detach(), end_gradient)), by_y)
    torch.testing.assert_close(model.time_derivative(y.detach(), t.detach(), ends.detach()), by_t)


def test_a_killed_training_ends_in_the_same_numbers(tmp_path: Path) -> None:
    whole = run(checkpoint=tmp_path / "whole.safetensors")

    class KilledError(Exception):
        pass

    def kill(step: int, steps: int, record: object) -> None:
        if step == 22:
            raise KilledError

    with pytest.raises(KilledError):
        run(checkpoint=tmp_path / "killed.safetensors", progress=kill)
    assert_same(run(checkpoint=tmp_path / "killed.safetensors"), whole)
    assert_same(run(checkpoint=tmp_path / "killed.safetensors"), whole)


def test_the_time_of_a_training_is_that_of_all_its_starts(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    first = run(checkpoint=file)
    tensors, metadata = load_checkpoint(file, {})
    assert 0 < metadata["seconds"] <= first.seconds
    save_checkpoint(file, tensors, {**metadata, "seconds": 1000.0})
    assert 1000 <= run(checkpoint=file).seconds < 1010


def test_a_checkpoint_of_another_network_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    run(checkpoint=path)
    with pytest.raises(InputError, match=r"its weights .* is"):
        train(make_model(hidden=8), make_data(), make_data(1), SETTINGS, checkpoint=path)
    with pytest.raises(InputError, match="its settings learning_rate is"):
        run(dataclasses.replace(SETTINGS, learning_rate=1.0), path)
    run(checkpoint=tmp_path / "named.safetensors", identity={"system": "aldp"})
    with pytest.raises(InputError, match="its system is aldp, this one's is other"):
        run(checkpoint=tmp_path / "named.safetensors", identity={"system": "other"})


@pytest.mark.parametrize(("asked", "goes_on"), [("levels", True), ("exact ends", False)])
def test_a_checkpoint_that_does_not_tell_its_classes_is_of_levels(tmp_path: Path, asked: str, goes_on: bool) -> None:
    path = tmp_path / "old.safetensors"
    save_checkpoint(path, {"w": torch.zeros(1)}, {"identity": {"path": "straight"}})
    identity = {"path": "straight", "classes": asked, "levels of a group": 4}
    if goes_on:
        assert load_checkpoint(path, identity)[1] == {"identity": {"path": "straight"}}
        return
    with pytest.raises(InputError, match="its classes is levels, this one's is exact ends"):
        load_checkpoint(path, identity)


def test_a_truncated_checkpoint_is_refused_and_kept(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    run(checkpoint=path)
    content = path.read_bytes()[:2000]
    path.write_bytes(content)
    with pytest.raises(InputError, match="cannot be read"):
        run(checkpoint=path)
    assert path.read_bytes() == content


def test_a_full_disk_is_a_failed_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RunFailedError, match="No space left"):
        run(checkpoint=tmp_path / "model.safetensors")
    assert list(tmp_path.iterdir()) == []


def test_divergence_is_reported() -> None:
    data = make_data()
    data.y[:] = torch.nan
    with pytest.raises(RunFailedError, match="diverged at step 0"):
        train(make_model(), data, make_data(1), SETTINGS)


def test_two_processes_give_what_one_gives(tmp_path: Path) -> None:
    program = textwrap.dedent(
        """
        import os, sys, torch
        import torch.distributed as distributed
        from safetensors.torch import save_file
        from tests.test_training import run, SETTINGS
        torch.set_num_threads(1)
        distributed.init_process_group("gloo")
        result = run()
        if distributed.get_rank() == 0:
            save_file(dict(result.model.state_dict()), sys.argv[1])
        distributed.destroy_process_group()
        """
    )
    script, output = tmp_path / "program.py", tmp_path / "weights.safetensors"
    script.write_text(program)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    environment = {**os.environ, "PYTHONPATH": os.getcwd(), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([*command, str(script), str(output)], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    from safetensors.torch import load_file

    both, one = load_file(output), run().model.state_dict()
    for name, value in one.items():
        torch.testing.assert_close(both[name], value, rtol=1e-3, atol=1e-5)
