"""``workflows.sample --samplers reweighted``: samples of a trained model of all atoms, at the true energy."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

import systems
from boltzgen_diffclf.errors import InputError, NotTrustworthyError
from boltzgen_diffclf.samplers.resampling import multinomial
from systems.store import load_ensemble
from systems.user_trajectory import read_user_trajectory
from tests.small_reference import small_reference
from workflows import sample, train, weighted_sampling
from workflows.command_line import run_command
from workflows.sample import SampleConfig
from workflows.sampling_settings import SAMPLING_PRESETS
from workflows.train import TrainConfig

pytestmark = pytest.mark.usefixtures("eager_mode")

# Two steps teach nothing: short ones leave the Gaussian that the model begins as.
NETWORK = {
    "objective": "dsm",
    "steps": 2,
    "groups": 4,
    "hidden": 16,
    "layers": 2,
    "levels": 16,
    "threads": 1,
    "learning_rate": 1e-6,
}
SAMPLES: dict[str, Any] = {
    "samplers": ("reweighted",),
    "samples": 24,
    "reverse_levels": 12,
    "end_moves": 2,
    "threads": 1,
}


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_reference(tmp_path_factory.mktemp("reference"), "vacuum")


@pytest.fixture(scope="module")
def trained(reference: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = TrainConfig(
        state="vacuum", beads="all", reference=reference, out=tmp_path_factory.mktemp("all"), **NETWORK
    )
    return train.run(config).file


def some_that_have_weights(trained: Path, folder: Path) -> tuple[SampleConfig, sample.Drawn]:
    """Return samples that do not all descend from a mirror image, as those of an untrained model often do."""
    for seed in range(20):
        config = SampleConfig(model=trained, out=folder / f"run{seed}", seed=seed, **SAMPLES)
        drawn = sample.drawn_of(config)
        if "they are worth" in drawn.checks[0].sentence:
            return config, drawn
    pytest.fail("all of twenty runs descend from mirror images")


def test_samples_of_a_model_are_carried_to_the_true_energy_with_their_weights(trained: Path, tmp_path: Path) -> None:
    config, drawn = some_that_have_weights(trained, tmp_path)
    frames, (check,) = drawn.samples["reweighted"], drawn.checks
    assert not check.passed
    assert "they are worth" in check.sentence
    kept = load_ensemble(config.folder / "reweighted.h5")
    true = systems.load("aldp").target("vacuum", 300.0, torch.float64).energy(kept.positions.double())
    torch.testing.assert_close(kept.energies, true, rtol=1e-4, atol=1e-2)
    with np.load(config.folder / "u_kn.npz") as file:
        assert file["N_k"].tolist() == [len(kept), 0]
        np.testing.assert_allclose(file["u_kn"][1], kept.energies.numpy())
        assert file["families"].tolist() == kept.group.tolist()
    with pytest.raises(InputError, match=r"samples whose weights are in u_kn\.npz"):
        read_user_trajectory(config.folder / "reweighted.h5", systems.load("aldp"), "vacuum")
    # The same command finds what is done, and says again what to think of it.
    with pytest.raises(NotTrustworthyError, match="the weights of the 24 samples of reweighted cannot be believed"):
        sample.run(config)
    assert torch.equal(sample.drawn_of(config).samples["reweighted"].positions, frames.positions)
    with pytest.raises(InputError, match=r"was reweighted with end_moves = .*, and now end_moves = 0"):
        sample.run(replace(config, end_moves=0))
    # Without the moves at the end copies lie on each other, with the same weights.
    still = replace(config, out=tmp_path / "still", end_moves=0)
    others = sample.drawn_of(still).samples["reweighted"]
    assert torch.equal(others.group, frames.group)
    with np.load(config.folder / "u_kn.npz") as one, np.load(still.folder / "u_kn.npz") as other:
        np.testing.assert_allclose(*(file["u_kn"][0] - file["u_kn"][1] for file in (one, other)), atol=1e-3)
    assert float((frames.positions - others.positions).norm(dim=(1, 2)).median()) > 0


def test_particles_live_on_by_the_scheme_that_is_asked_for_down_the_noise_and_on_the_bridge(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []

    def counted(log_weights: Tensor, generator: torch.Generator) -> Tensor:
        calls.append(len(log_weights))
        return multinomial(log_weights, generator)

    monkeypatch.setattr(weighted_sampling, "RESAMPLINGS", {"multinomial": counted})
    for below in (0.0, 1.0):
        assert not calls
        out = tmp_path / f"{below:g}"
        sample.drawn_of(SampleConfig(model=trained, out=out, resampling="multinomial", resample_below=below, **SAMPLES))
    assert calls[0] == SAMPLES["samples"]
    # Down the noise there is a step less than there are levels.
    assert len(calls) > SAMPLES["reverse_levels"]


def test_beads_have_no_true_energy(reference: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = train.run(TrainConfig(state="vacuum", reference=reference, out=tmp_path / "backbone", **NETWORK)).file
    words = ["--model", str(model), "--samplers", "reverse", "reweighted", "--out", str(tmp_path / "run")]
    assert run_command(SampleConfig, sample.run, program="sample", presets=SAMPLING_PRESETS, argv=words) == 2
    assert "leave reweighted out of --samplers, or train with --beads all" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_moves_at_the_true_energy_are_refused_where_nothing_is_carried_there() -> None:
    with pytest.raises(ValidationError, match="--end-moves 7 is of --samplers reweighted"):
        SampleConfig(model=Path("model.safetensors"), end_moves=7)
