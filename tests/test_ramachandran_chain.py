"""A chain of CA beads end to end: what the command says first where its reference has not converged."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import torch

import systems
from boltzgen_diffclf.errors import NotTrustworthyError
from systems.ensemble import Provenance, ReferenceEnsemble
from systems.store import write_ensemble
from workflows import ramachandran
from workflows.ramachandran import RamachandranConfig

pytestmark = pytest.mark.usefixtures("eager_mode")


def stuck_reference(path: Path) -> Path:
    """Eight walkers of chignolin, every other one folded, and none that ever changes."""
    chignolin, rng = systems.load("chignolin"), np.random.default_rng(0)
    native = chignolin.positions.numpy()
    walkers, frames = 8, 12
    group = np.tile(np.arange(walkers), frames)
    # Twice as long, and nowhere near the native chain.
    positions = np.where((group % 2 == 0)[:, None, None], native, 2 * native) + 0.01 * rng.normal(
        size=(96, *native.shape)
    )
    ensemble = ReferenceEnsemble(
        provenance=Provenance("chignolin", "vacuum", 300.0, chignolin.system_hash("vacuum"), 0, {"made": "here"}),
        positions=torch.from_numpy(positions - positions.mean(1, keepdims=True)).float(),
        energies=torch.from_numpy(rng.normal(size=96)),
        group=torch.from_numpy(group),
        frame=torch.arange(frames).repeat_interleave(walkers),
        frame_interval_ps=1.0,
    )
    write_ensemble(path, ensemble, chignolin.topology)
    return path


def test_a_reference_that_has_not_converged_is_the_first_thing_said(tmp_path: Path) -> None:
    run = tmp_path / "run"
    config = RamachandranConfig(
        system="chignolin", beads="ca", state="vacuum", reference=stuck_reference(tmp_path / "stuck.h5"), out=run,
        objectives=("dsm",), steps=2, groups=4, hidden=8, layers=1, levels=8, learning_rate=1e-6, threads=1,
        samples=30, reverse_levels=12, chains=4, frames_per_chain=4, equilibration_frames=0, steps_per_frame=2,
        timestep_fs=0.1,
    )  # fmt: skip
    with pytest.raises(NotTrustworthyError, match=r"not converged: walkers .* 100 % of the time, .* unfolded 0 %"):
        ramachandran.run(config)
    page = (run / "report.html").read_text(encoding="utf-8")
    assert page.split('<p class="answer">')[1].startswith("Not converged</p>")
    assert "fitted on the reference at a lag of 1 frame (1 ps)" in page
    assert len(page) < 15_000_000
    assert "http://" not in page
    assert "https://" not in page
    for name in ("slow-dsm", "contacts-dsm", "folded-fraction", "configurations", "distributions-dsm"):
        assert (run / "figures" / f"{name}.png").stat().st_size > 5_000
    assert not (run / "figures" / "maps-dsm.png").exists()
    with (run / "results.csv").open(encoding="utf-8") as handle:
        found = {row["metric"]: row for row in csv.DictReader(handle)}
    assert float(found["reference_folded_fraction"]["value"]) == pytest.approx(0.5)
    assert float(found["reference_folding_delta_f"]["value"]) == pytest.approx(0.0, abs=1e-9)
    assert float(found["reference_folding_delta_f"]["stderr"]) > 0.5
    assert {"iid_tica_js", "iid_distance_js", "iid_rmsd_js", "iid_contact_difference"} <= found.keys()
