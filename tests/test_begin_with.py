"""``--begin-with``: a training that goes on from a trained model, on frames of another state."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from boltzgen_diffclf.errors import InputError
from boltzgen_diffclf.training.molecule_model import MoleculeModel, load_molecule_model
from tests.small_reference import small_reference
from workflows import train
from workflows.command_line import run_command
from workflows.train import TrainConfig

pytestmark = pytest.mark.usefixtures("eager_mode")

NETWORK = {"steps": 8, "groups": 16, "hidden": 16, "layers": 2, "levels": 16, "threads": 1}


@pytest.fixture(scope="module")
def earlier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    frames = small_reference(tmp_path_factory.mktemp("reference"), "implicit")
    sizes = {**NETWORK, "objective": "dsm"}
    return train.run(TrainConfig(reference=frames, out=tmp_path_factory.mktemp("train"), **sizes)).file


@pytest.fixture(scope="module")
def vacuum(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_reference(tmp_path_factory.mktemp("vacuum"), "vacuum")


def weights(model: MoleculeModel) -> dict[str, torch.Tensor]:
    return {name: value for name, value in model.model.state_dict().items() if name.startswith("net.")}


def test_a_training_goes_on_from_the_weights_and_units_of_a_model(earlier: Path, vacuum: Path, tmp_path: Path) -> None:
    begun = load_molecule_model(earlier)
    sizes = {**NETWORK, "state": "vacuum", "reference": vacuum, "learning_rate": 1e-7}
    made = train.run(TrainConfig(out=tmp_path, begin_with=earlier, **sizes))
    assert made.model.statistics == begun.statistics
    assert made.model.origin["begun_with"] == begun.fingerprint
    assert made.model.origin["state"] == "vacuum"
    for name, value in weights(begun).items():
        torch.testing.assert_close(weights(made.model)[name], value, rtol=1e-3, atol=1e-5)
    assert made.model.fingerprint != begun.fingerprint
    # Level free energies are those of its energies on the new frames, and no step was spent on a preparation.
    assert (made.model.model.curve.values - begun.model.curve.values).abs().max() > 1e-3
    assert not list(tmp_path.glob("*-from-*"))


def test_a_run_keeps_to_the_model_that_it_began_with(earlier: Path, vacuum: Path, tmp_path: Path) -> None:
    sizes = {**NETWORK, "state": "vacuum", "reference": vacuum, "out": tmp_path / "run"}
    config = TrainConfig(begin_with=earlier, **sizes)
    train.run(config)
    with pytest.raises(InputError, match="begin"):
        train.run(TrainConfig(**sizes))


@pytest.mark.parametrize(
    ("other", "told"),
    [
        (["--hidden", "32"], "has --hidden 16, not 32: give --hidden 16"),
        (["--path", "edm"], "has --path vp, not edm: give --path vp"),
        (["--beads", "heavy"], "is of other atoms or bonds"),
        (["--later-rate", "0.25"], "and dsm_diffclf with --begin-with has none: leave --later-rate out"),
    ],
)
def test_a_model_that_does_not_fit_is_refused_before_anything_is_sampled(
    earlier: Path, other: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    fitting = ["--hidden", "16", "--layers", "2", "--levels", "16", "--begin-with", str(earlier)]
    assert run_command(TrainConfig, train.run, program="train", argv=[*fitting, *other]) == 2
    error = capsys.readouterr().err
    assert error.count("error: ") == 1
    assert told in error
