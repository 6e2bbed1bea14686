"""How often replicas of a molecule trade temperatures, told before hours are spent on it."""

from __future__ import annotations

import contextlib
import itertools
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from boltzgen_diffclf.errors import InputError
from systems.temperature_ladder import WANTED_SWAPS, advice, expected_acceptance, geometric_ladder, ladder_for
from workflows.reference import ReferenceConfig, ensemble_of
from workflows.run_start import open_run_folder
from workflows.solvation import SolvationConfig
from workflows.solvation_stages import SolvationStages


@pytest.mark.parametrize(("n_atoms", "ratio"), [(4, 1.5), (22, 1.387), (166, 1.05)])
def test_springs_are_swapped_as_often_as_their_energies_say(n_atoms: int, ratio: float) -> None:
    rng, half = np.random.default_rng(0), 0.5 * (3 * n_atoms - 6)
    cold, hot = rng.gamma(half, size=200_000), ratio * rng.gamma(half, size=200_000)
    accepted = np.minimum(1, np.exp(np.minimum(0, (1 - 1 / ratio) * (cold - hot)))).mean()
    assert expected_acceptance(n_atoms, ratio) == pytest.approx(accepted, abs=0.004)


def test_alanine_dipeptide_is_swapped_as_often_as_was_measured() -> None:
    # 0.21, 0.21 and 0.22 from 300 to 800 K on four temperatures.
    assert expected_acceptance(22, (800 / 300) ** (1 / 3)) == pytest.approx(0.21, abs=0.01)


def test_a_ladder_too_steep_for_a_molecule_is_told_with_one_that_is_not() -> None:
    assert advice(22, geometric_ladder(300.0, 800.0, 4)) == ""
    assert advice(166, (300.0,)) == ""
    told = advice(166, geometric_ladder(300.0, 800.0, 4))
    assert told.startswith("166 atoms would trade temperatures 0.03")
    hottest = float(told.split(" K is as hot")[0].split()[-1])
    assert expected_acceptance(166, (hottest / 300) ** (1 / 3)) == pytest.approx(0.2, abs=0.03)
    assert advice(166, geometric_ladder(300.0, hottest, 4)) == ""
    assert "less than 0.01 % of the time" in advice(400, geometric_ladder(300.0, 800.0, 4))


@pytest.mark.parametrize("n_atoms", [5, 22, 53, 138])
def test_a_ladder_is_as_fine_as_the_molecule_wants_and_no_finer(n_atoms: int) -> None:
    ladder = ladder_for(n_atoms, 310.0, 800.0)
    assert (ladder[0], ladder[-1]) == pytest.approx((310.0, 800.0))
    ratios = [hot / cold for cold, hot in itertools.pairwise(ladder)]
    assert ratios == pytest.approx([ratios[0]] * len(ratios))
    assert expected_acceptance(n_atoms, ratios[0]) >= WANTED_SWAPS
    coarser = geometric_ladder(310.0, 800.0, len(ladder) - 1)
    assert len(ladder) == 4 or expected_acceptance(n_atoms, coarser[1] / coarser[0]) < WANTED_SWAPS
    assert ladder_for(n_atoms, 310.0, 800.0, 2) == (310.0, 800.0)


def test_a_ladder_is_to_the_last_digit_what_files_of_frames_hold() -> None:
    assert ladder_for(22, 300.0, 800.0) == tuple(300.0 * (800.0 / 300.0) ** (k / 3) for k in range(4))


@pytest.mark.parametrize(("begun_with", "goes_on"), [(4, True), (3, False)])
def test_a_folder_from_when_there_were_four_for_all_goes_on(tmp_path: Path, begun_with: int, *, goes_on: bool) -> None:
    with open_run_folder(tmp_path, ReferenceConfig(out=tmp_path, exchange_temperatures=begun_with)):
        (tmp_path / "something.h5").touch()
    with contextlib.nullcontext() if goes_on else pytest.raises(InputError, match="exchange_temperatures = 3"):  # noqa: SIM117
        with open_run_folder(tmp_path, ReferenceConfig(out=tmp_path)):
            pass


@pytest.mark.usefixtures("eager_mode")
def test_the_ensemble_of_a_peptide_takes_it(tmp_path: Path) -> None:
    sizes = {"walkers": 2, "frames_per_walker": 2, "steps_per_frame": 2, "steps_per_sweep": 1}
    ensemble = ensemble_of(
        ReferenceConfig(
            peptide="ACE-VAL-NME",
            state="vacuum",
            timestep_fs=0.5,
            equilibration_frames=0,
            out=tmp_path / "run",
            **sizes,
        )
    )
    wanted = ladder_for(ensemble.positions.shape[1], 300.0, 800.0)
    assert len(wanted) > 4
    assert ensemble.provenance.settings["temperatures_kelvin"] == pytest.approx(wanted)


def test_solvation_takes_it_too() -> None:
    stages = SimpleNamespace(config=SolvationConfig(), system=SimpleNamespace(n_atoms=53))
    assert SolvationStages._ladder.fget(stages) == ladder_for(53, 300.0, 800.0)  # type: ignore[attr-defined]
    stages = SimpleNamespace(config=SolvationConfig(exchange_temperatures=3), system=stages.system)
    assert SolvationStages._ladder.fget(stages) == geometric_ladder(300.0, 800.0, 3)  # type: ignore[attr-defined]
