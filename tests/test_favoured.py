"""A basin made deeper by a known bias: sampled more often, learned from, and weighted back."""

from __future__ import annotations

import contextlib
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import systems
from boltzgen_diffclf.coordinates import Arc, TorsionArc
from boltzgen_diffclf.errors import InputError, NotTrustworthyError, RunFailedError
from boltzgen_diffclf.favouring import EDGE_WIDTH, share_of_arc, sum_of
from systems.ensemble import evaluate
from systems.favoured import Favour, bias_of, biases_of, favoured, region_of
from systems.loading import SystemSource
from systems.molecular import MolecularSystem
from systems.starts import walker_starts
from systems.store import load_ensemble
from tests.small_reference import small_reference
from workflows import ramachandran, sample, train, trust_generators
from workflows.command_line import run_command
from workflows.ramachandran import RamachandranConfig
from workflows.ramachandran_measures import Judge
from workflows.ramachandran_metrics import Findings
from workflows.ramachandran_samples import Sample
from workflows.reference import ReferenceConfig, ensemble_of
from workflows.run_start import open_run_folder
from workflows.sample import SampleConfig
from workflows.train import TrainConfig
from workflows.weighted_sampling import change_of_weights

pytestmark = pytest.mark.usefixtures("eager_mode")

HELICAL = Favour("helical", 3.0)
BARRIER = Favour("phi in 100..-170", 2.0)


@pytest.fixture(scope="module")
def molecule() -> MolecularSystem:
    return favoured(systems.load("aldp"), [HELICAL])


def bent(angles: torch.Tensor) -> torch.Tensor:
    """Return four points whose torsion is each of the angles [rad], up to its sign."""
    three = torch.tensor([[1.0, 0, 0], [0, 0, 0], [0, 0, 1]], dtype=angles.dtype).expand(len(angles), 3, 3)
    last = torch.stack([angles.cos(), angles.sin(), torch.ones_like(angles)], -1)
    return torch.cat([three, last[:, None]], 1)


@pytest.mark.parametrize("arc", [Arc(0.0, 2.15), Arc(2.5, -2.5), Arc(-3.0, 1.0)])
def test_the_share_of_an_arc_is_one_inside_and_none_outside_with_edges_in_between(arc: Arc) -> None:
    region = TorsionArc((0, 1, 2, 3), arc)
    x = bent(torch.linspace(-math.pi, math.pi, 721, dtype=torch.float64))
    angles, share = region.angle(x), share_of_arc(region, x)
    assert bool((share[arc.rest.distance(angles) > 8 * EDGE_WIDTH] > 0.99).all())
    assert bool((share[arc.distance(angles) > 8 * EDGE_WIDTH] < 0.01).all())
    assert bool(
        ((share > 0.5) == arc.contains(angles))[(arc.distance(angles) + arc.rest.distance(angles)) > 0.01].all()
    )


def test_a_favoured_state_is_the_state_and_the_bias(molecule: MolecularSystem) -> None:
    assert molecule.states == (
        *systems.load("aldp").states,
        *(f"{one}-favoured" for one in systems.load("aldp").states),
    )
    plain, biased = (molecule.target(state) for state in ("implicit", "implicit-favoured"))
    assert molecule.system_hash("implicit-favoured") != molecule.system_hash("implicit")
    deeper = favoured(systems.load("aldp"), [Favour("helical", 3.5)])
    assert deeper.system_hash("implicit-favoured") != molecule.system_hash("implicit-favoured")
    stream = torch.Generator().manual_seed(0)
    x = molecule.positions + 0.02 * torch.randn(64, 22, 3, generator=stream, dtype=torch.float64)
    (bias,) = biases_of(molecule, [HELICAL])
    without = sum_of([bias], x)
    torch.testing.assert_close(biased.energy(x) - plain.energy(x), without)
    (energy, force), (of_plain, from_plain) = biased.energy_and_force(x), plain.energy_and_force(x)
    torch.testing.assert_close(energy - of_plain, without)
    y = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(bias.energy(y).sum(), y)
    torch.testing.assert_close(force - from_plain, -gradient, atol=1e-7, rtol=1e-7)


def test_several_biases_add_up(molecule: MolecularSystem) -> None:
    aldp = systems.load("aldp")
    both = favoured(aldp, [HELICAL, BARRIER])
    assert both.system_hash("vacuum-favoured") != molecule.system_hash("vacuum-favoured")
    starts = walker_starts(both, "vacuum-favoured").double()
    regions = [region_of(aldp, one.where) for one in (HELICAL, BARRIER)]
    assert [{bool(one) for one in region(starts)} for region in regions] == [{True, False}, {True, False}]
    made = both.target("vacuum-favoured").energy(starts) - aldp.target("vacuum").energy(starts)
    expected = [-3.0 * share_of_arc(regions[0], starts), -2.0 * share_of_arc(regions[1], starts)]
    torch.testing.assert_close(made, sum(expected))
    found = bias_of(both, "vacuum-favoured")
    assert found is not None
    torch.testing.assert_close(found.log_weights_without(starts), made)


@pytest.mark.parametrize(
    ("where", "told"),
    [
        ("phi in 100", "has no basin 'phi in 100'"),
        ("phy in 100..160", "has no torsion 'phy': choose one of phi, psi; did you mean 'phi'"),
        ("phi in 100..460", "two angles from -180 to 180 degrees"),
        ("phi in 100..110", "at least 20 degrees apart"),
        ("phi in 180..-180", "is no arc"),
        ("phi in 1.2.3..160", "is no arc"),
    ],
)
def test_an_arc_that_is_none_is_told(where: str, told: str) -> None:
    with pytest.raises(InputError, match=re.escape(told)):
        region_of(systems.load("aldp"), where)


def test_an_arc_is_in_degrees_and_may_go_through_the_end_of_the_circle() -> None:
    arc = region_of(systems.load("aldp"), BARRIER.where).arc
    assert [round(math.degrees(arc.low)), round(math.degrees(arc.high))] == [100, -170]
    assert round(math.degrees(arc.length)) == 90


def test_a_favoured_molecule_is_kept_in_plain_values() -> None:
    source = SystemSource(system="aldp", favour=(("phi > 0", 2.5), ("phi in 100..160", 6.0)))
    assert SystemSource.from_plain(source.as_plain()) == source
    assert "favour" not in SystemSource(system="aldp").as_plain()
    assert "implicit-favoured" in source.load().states
    with pytest.raises(InputError, match="has no basin 'phi > 1'"):
        SystemSource(system="aldp", favour=(("phi > 1", 2.5),)).load()
    with pytest.raises(InputError, match="kT deeper: give a number that is not zero"):
        Favour("phi > 0", 0.0)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--favour-kt", "1.0"], "name it with --favour"),
        (["--favour", "phi > 0", "--favour-kt", "0"], "favours nothing"),
        (["--favour", "phi > 0", "--overweight", "phi > 0"], "give one of them"),
        (["--favour", "phi > 1"], "has no basin 'phi > 1'"),
        (["--favour", "phi > 0", "helical", "phi in 1..2", "--favour-kt", "1", "2"], "one number, or one each"),
        (["--favour", "phi > 0", "phi > 0"], "the same twice"),
        (["--favour", "phi > 0", "--favour-kt", "1e9"], "favour-kt"),
        (["--favour", "phi > 0", "--state", "implicit-favoured"], "name the state without -favoured"),
        (["--favour", "phi > 0", "--beads", "ca", "--peptide", "ACE-ALA-ALA-NME"], "has no basin 'phi > 0'"),
        (["--favour", "phi-ALA2 > 0", "--beads", "ca", "--peptide", "ACE-ALA-ALA-NME"], "--beads ca does not have"),
    ],
)
def test_a_bias_that_cannot_be_is_refused_in_one_line(
    words: list[str], told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = [*words, "--out", str(tmp_path / "run")]
    assert run_command(RamachandranConfig, ramachandran.run, program="ramachandran", argv=argv) == 2
    assert told in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("has_reference", [True, False])
def test_what_is_learned_with_a_bias_is_judged_without_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, has_reference: bool
) -> None:
    helical = HELICAL if has_reference else Favour("helical", 1.0)  # or one of three walkers would have all the weight
    biased = favoured(systems.load("aldp"), [helical])
    frames = small_reference(tmp_path, "vacuum-favoured", biased)
    reference = small_reference(tmp_path, "vacuum", biased) if has_reference else None
    sizes = {
        "favour": (helical.where,), "favour_kt": (helical.depth_kt,), "frames": frames, "reference": reference,
        "state": "vacuum", "beads": "all", "objectives": ("dsm",), "steps": 2, "groups": 4, "hidden": 16,
        "layers": 2, "levels": 16, "threads": 1, "samples": 30, "reverse_levels": 12, "chains": 4,
        "frames_per_chain": 4, "equilibration_frames": 0, "steps_per_frame": 2, "timestep_fs": 0.1, "particles": 16,
        "bridge_keeps": 0.05, "end_moves": 2, "learning_rate": 1e-6,
    }  # fmt: skip
    seen: dict[str, Sample] = {}

    def look_at(judge: Judge, one: Sample) -> Findings:
        seen[one.label] = one
        return found(judge, one)

    found = Judge.look_at
    monkeypatch.setattr(Judge, "look_at", look_at)
    with pytest.raises(NotTrustworthyError):
        ramachandran.run(RamachandranConfig(out=tmp_path / "run", **sizes))
    for label in ("iid", "langevin"):
        expected = sum_of(biases_of(biased, [helical]), seen[label].frames.positions.double()).numpy()
        np.testing.assert_allclose(seen[label].log_w, expected)
    judged = seen["reference"]
    assert judged.log_w is None
    page = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert f"{helical.depth_kt:g} kT deeper" in page
    assert ("drawn again by the weights" in page) is not has_reference
    kept = load_ensemble(frames)
    learned, held_out = (set(half.group.tolist()) for half in kept.disjoint_groups(2))
    if not has_reference:
        assert set(judged.frames.group.tolist()) <= held_out - learned
        found = evaluate(biased.target("vacuum"), judged.frames.positions)
        np.testing.assert_allclose(judged.frames.energies, found, rtol=1e-5)
        assert len(np.unique(judged.frames.positions.numpy(), axis=0)) < len(judged.frames)
        # Walkers of sixteen frames do not agree, and without a reference nobody else could tell.
        assert "Not converged" in page
        assert "walkers of the reference disagree" in page
    else:
        assert "Not converged" not in page


@pytest.mark.parametrize(
    ("left", "of", "passes"), [(9.5, 125, False), (10.5, 125, True), (1.4, 3, False), (1.6, 3, True)]
)
def test_a_reference_without_its_bias_has_to_rest_on_several_walkers(left: float, of: int, *, passes: bool) -> None:
    check = trust_generators.check_walkers_left(left, of)
    assert check.passed is passes
    assert f"{left:.2g} of {of} held-out walkers" in check.sentence


def test_mirror_images_and_the_bias_go_into_the_weights(molecule: MolecularSystem) -> None:
    positions = molecule.positions[None].numpy() * np.array([[[1.0, 1.0, 1.0]], [[-1.0, 1.0, 1.0]]])
    change = change_of_weights(molecule, bias_of(molecule, "implicit-favoured"), positions)
    assert change[0] == sum_of(biases_of(molecule, [HELICAL]), torch.from_numpy(positions))[0]
    assert change[1] == -np.inf
    assert bias_of(molecule, "implicit") is None
    assert change_of_weights(molecule, None, positions).tolist() == [0.0, -np.inf]


def test_a_model_of_a_favoured_state_is_sampled_as_any_other(tmp_path: Path) -> None:
    sizes = {"steps": 2, "groups": 4, "hidden": 16, "layers": 2, "levels": 16, "threads": 1}
    frames = small_reference(tmp_path, "vacuum-favoured", favoured(systems.load("aldp"), [Favour("phi > 0", 2.5)]))
    config = TrainConfig(favour=("phi > 0",), state="vacuum", reference=frames, out=tmp_path / "model", **sizes)
    model = train.run(config)
    assert model.model.origin["state"] == "vacuum-favoured"
    config = SampleConfig(model=model.file, samplers=("reverse",), samples=4, reverse_levels=4)
    samples = sample.drawn_of(config).samples
    assert samples["reverse"].provenance.state == "vacuum-favoured"


def test_a_training_refuses_a_bias_that_its_beads_do_not_see(tmp_path: Path) -> None:
    config = TrainConfig(favour=("phi-ALA2 > 0",), peptide="ACE-ALA-ALA-NME", beads="ca", out=tmp_path / "run")
    with pytest.raises(InputError, match="--beads ca does not have"):
        train.run(config)


def test_runs_with_other_biases_have_other_folders() -> None:
    folders = {
        config(favour=favour, favour_kt=depths).folder
        for config in (ReferenceConfig, TrainConfig, RamachandranConfig)
        for favour, depths in (
            (("phi > 0",), (2.5,)),
            (("phi > 0",), (3.5,)),
            (("helical",), (2.5,)),
            (("helical", "phi > 0"), (2.5,)),
            (("helical", "phi > 0"), (2.5, 3.5)),
            (("phi in 100..160",), (2.5,)),
            (("phi in -100..160",), (2.5,)),
            (("phi in 100..-160",), (2.5,)),
            (("phi in 1.5..20",), (2.5,)),
            (("phi in 1..5.20",), (2.5,)),
            (tuple(f"phi in {low}..90" for low in range(0, 60, 3)), (2.5,)),
            (tuple(f"phi in {low}..90" for low in range(0, 60, 3)), (3.5,)),
            ((), (2.5,)),
        )
    }
    assert len(folders) == 39
    assert max(len(folder.name) for folder in folders) < 200


def test_one_basin_and_one_depth_may_stand_alone_as_in_older_settings_and_models(tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    file.write_text('favour = "phi > 0"\nfavour_kt = 3\n')
    argv = ["--config", str(file), "--print-config"]
    assert run_command(ReferenceConfig, ensemble_of, program="reference", argv=argv) == 0
    assert ReferenceConfig(favour="phi > 0", favour_kt=3.0).favours == (("phi > 0", 3.0),)  # type: ignore[arg-type]
    source = SystemSource.from_plain({"system": "aldp", "favour": ["phi > 0", 2.5]})
    assert source.favour == (("phi > 0", 2.5),)


@pytest.mark.parametrize(
    ("before", "after", "goes_on"),
    [
        ('favour = "phi > 0"\nfavour_kt = 3.0', {"favour": ("phi > 0",), "favour_kt": (3.0,)}, True),
        ("# favour is not set\nfavour_kt = 2.5", {}, True),
        ('favour = "phi > 0"\nfavour_kt = 3.0', {"favour": ("phi > 0", "helical"), "favour_kt": (3.0,)}, False),
    ],
)
def test_a_folder_from_when_one_basin_was_favoured_goes_on(
    tmp_path: Path, before: str, after: dict[str, Any], *, goes_on: bool
) -> None:
    config = ReferenceConfig(out=tmp_path, **after)
    with open_run_folder(tmp_path, config):
        pass
    kept = (tmp_path / "config.toml").read_text().splitlines()
    older = [line for line in kept if "favour" not in line.split("=")[0].split(" is not")[0]]
    (tmp_path / "config.toml").write_text("\n".join([*older, before, ""]))
    refused = contextlib.nullcontext() if goes_on else pytest.raises(InputError, match="was started with favour = ")
    with refused, open_run_folder(tmp_path, config):
        pass


def test_walkers_of_a_favoured_state_begin_on_both_sides(molecule: MolecularSystem, tmp_path: Path) -> None:
    region = region_of(molecule, HELICAL.where)
    ensemble = load_ensemble(small_reference(tmp_path, "vacuum-favoured", molecule))
    inside = region(ensemble.positions.double())[ensemble.frame == 0].tolist()
    assert inside == 3 * inside[:2]
    assert inside[0] != inside[1]
    assert ensemble.provenance.settings["starts"] == "both sides of what is favoured"
    assert len(walker_starts(molecule, "vacuum")) == 1
    # What is begun at is at rest: nothing is stretched, and energies are those of a minimum.
    energies = molecule.target("vacuum", 300.0).energy(walker_starts(molecule, "vacuum-favoured").double())
    assert float(energies.max() - energies.min()) < 30


def test_the_command_samples_the_favoured_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, str]] = []

    def generate(
        system: MolecularSystem, state: str, temperature_kelvin: float, settings: object, path: Path, *_: object
    ):
        asked.append((state, path.name))
        raise RunFailedError("nothing is sampled here")

    monkeypatch.setattr("systems.reference.generate", generate)
    for favour in (("phi > 0",), ()):
        config = ReferenceConfig(favour=favour, state="vacuum", out=tmp_path / str(len(favour)), threads=1)
        with pytest.raises(RunFailedError):
            ensemble_of(config)
    assert asked == [("vacuum-favoured", "vacuum-favoured.h5"), ("vacuum", "vacuum.h5")]
