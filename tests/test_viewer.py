"""The view of configurations: what the script is given, what it paints, and the picture in its place."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch

import systems
from systems.beads import bead_system
from systems.ensemble import Provenance, ReferenceEnsemble
from systems.molecular import MolecularSystem
from workflows.ramachandran_samples import Sample
from workflows.report import viewer as viewer_module
from workflows.report.page import environment
from workflows.report.viewer import FRAMES, conformations, few, viewer


@pytest.fixture(scope="module")
def beads() -> MolecularSystem:
    return bead_system(systems.load("aldp"), "heavy")


def turned_copies(beads: MolecularSystem, n: int, seed: int) -> ReferenceEnsemble:
    rng, positions = np.random.default_rng(seed), beads.positions.numpy()
    rotations = [np.linalg.qr(rng.normal(size=(3, 3)))[0] for _ in range(n)]
    turned = np.stack([positions @ (one * np.sign(np.linalg.det(one))) + rng.normal(size=3) for one in rotations])
    return ReferenceEnsemble(
        provenance=Provenance(beads.name, "vacuum", 300.0, "none"),
        positions=torch.from_numpy(turned).float(),
        energies=torch.zeros(n, dtype=torch.float64),
        group=torch.arange(n),
        frame=torch.zeros(n, dtype=torch.long),
    )


@pytest.fixture(scope="module")
def samples(beads: MolecularSystem) -> dict[str, Sample]:
    return {
        "reference": Sample("reference", turned_copies(beads, 20, 0)),
        "generated, dsm </script>": Sample("iid", turned_copies(beads, 4, 1)),
    }


def test_configurations_lie_on_one_another_and_face_the_reader(
    beads: MolecularSystem, samples: dict[str, Sample]
) -> None:
    shown = conformations(beads, samples, by_residue=False)
    frames = np.concatenate(list(shown.sets.values()))
    assert frames.shape == (FRAMES + 4, beads.n_atoms, 3)
    np.testing.assert_allclose(frames, frames[:1].repeat(len(frames), 0), atol=1e-5)
    across, up, deep = np.ptp(frames[0], axis=0)
    assert across > deep
    assert up > deep
    lengths = [np.linalg.norm(frames[0, first] - frames[0, second]) for first, second in shown.bonds]
    expected = [float((beads.positions[first] - beads.positions[second]).norm()) for first, second in beads.bonds]
    np.testing.assert_allclose(lengths, expected, atol=1e-5)
    # The hand of the molecule survives.
    volume = [np.linalg.det(one[[1, 2, 3]] - one[0]) for one in (frames[0], beads.positions.numpy())]
    assert np.sign(volume[0]) == np.sign(volume[1])
    chain = conformations(beads, samples, by_residue=True)
    assert len(set(chain.colours)) == beads.n_atoms


def test_frames_are_drawn_by_their_weight(samples: dict[str, Sample]) -> None:
    frames = samples["reference"].frames
    chosen = few(samples["reference"])
    assert len(set(chosen)) == FRAMES
    assert chosen == few(samples["reference"])
    assert len({index % 4 for index in chosen}) > 2
    heavy = np.where(np.arange(20) < 3, 0.0, -np.inf)
    assert sorted(few(Sample("reweighted", frames, log_w=heavy))) == [0, 1, 2]


def test_the_page_holds_it_all_and_needs_no_script(beads: MolecularSystem, samples: dict[str, Sample]) -> None:
    made = viewer("configurations", "about", conformations(beads, samples, by_residue=False))
    page = (
        environment().from_string('{% import "blocks.html" as blocks %}{{ blocks.viewer(shown) }}').render(shown=made)
    )
    assert page.count("</script>") == 2
    data = page.split('<script type="application/json">')[1].split("</script>")[0]
    assert [found["label"] for found in json.loads(data)["sets"]] == list(samples)
    without = page.split("<noscript>")[1].split("</noscript>")[0]
    assert without.startswith('<img src="data:image/png;base64,')
    assert "http" not in page


@pytest.mark.skipif(shutil.which("node") is None, reason="nothing here runs scripts")
def test_the_script_paints_turns_and_steps(beads: MolecularSystem, samples: dict[str, Sample], tmp_path: Path) -> None:
    data = tmp_path / "data.json"
    data.write_text(conformations(beads, samples, by_residue=False).data, encoding="utf-8")
    script = Path(viewer_module.__file__).with_name("viewer.js")
    stub = Path(__file__).with_name("viewer_stub.js")
    done = subprocess.run(["node", stub, script, data], capture_output=True, text=True, check=True, timeout=60)
    seen = json.loads(done.stdout)
    assert seen["first"]["text"] == f"1 of {FRAMES}"
    assert seen["second"]["text"] == f"2 of {FRAMES}"
    assert seen["back"] == seen["first"]
    assert seen["other"]["text"] == "1 of 4"
    assert len(seen["first"]["arcs"]) == beads.n_atoms
    assert seen["first"]["lines"] == 2 * len(beads.bonds)
    before, after = (np.array(seen[name]["arcs"]) for name in ("first", "turned"))
    assert (before > 0).all()
    assert (before < [1080, 720]).all()
    assert np.abs(before - after).max() > 20
