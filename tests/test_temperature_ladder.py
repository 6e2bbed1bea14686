"""How often replicas of a molecule trade temperatures, told before hours are spent on it."""

from __future__ import annotations

import numpy as np
import pytest

from systems.temperature_ladder import advice, expected_acceptance, geometric_ladder


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
