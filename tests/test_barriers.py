"""Which bias joins a basin to the rest, read off frames whose free energy along phi is known."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Literal

import numpy as np
import pytest
import torch

import systems
from boltzgen_diffclf.errors import NotTrustworthyError
from boltzgen_diffclf.favouring import share_of_arc
from systems.barriers import CROSSED_SOON_KT, advice, lowered_barrier
from systems.ensemble import Provenance, ReferenceEnsemble
from systems.favoured import Favour, favoured, region_of
from systems.molecular import MolecularSystem
from workflows import reference
from workflows.reference import ReferenceConfig

WELLS = ((-75.0, 0.97), (55.0, 0.03))
"""Middle [degrees] and share of the frames of two wells of phi."""

STIFFNESS = 12.0
"""Of both wells, which leaves a barrier of 8 kT on one side and one that no frame crosses on the other."""


@pytest.fixture(scope="module")
def aldp() -> MolecularSystem:
    return systems.load("aldp")


def turned(aldp: MolecularSystem, phi: np.ndarray) -> torch.Tensor:
    """Return the molecule with its phi at these angles [rad]: all that follows N is turned about N to CA."""
    x = aldp.positions.double().expand(len(phi), -1, -1)
    nitrogen, carbon = aldp.torsions["phi"][1:3]
    angle = torch.from_numpy(phi) - _phi(aldp, x[:1])
    axis = torch.nn.functional.normalize(x[:, carbon] - x[:, nitrogen], dim=-1)[:, None]
    arm, turn = x[:, carbon + 1 :] - x[:, carbon : carbon + 1], angle[:, None, None]
    along = (arm * axis).sum(-1, keepdim=True) * axis
    across = torch.linalg.cross(axis.expand_as(arm), arm, dim=-1)
    moved = x[:, carbon : carbon + 1] + along + turn.cos() * (arm - along) + turn.sin() * across
    return torch.cat([x[:, : carbon + 1], moved], 1).float()


def _phi(aldp: MolecularSystem, x: torch.Tensor) -> torch.Tensor:
    return region_of(aldp, "phi > 0").angle(x.double())


def free_energy(degrees: np.ndarray) -> np.ndarray:
    return -np.log(sum(w * np.exp(STIFFNESS * (np.cos(np.radians(degrees - middle)) - 1)) for middle, w in WELLS))


def frames(aldp: MolecularSystem, state: str = "vacuum", bias: tuple[Favour, ...] = ()) -> ReferenceEnsemble:
    """Return 40,000 frames whose phi has the free energy of the wells and a bias."""
    grid = np.linspace(-180, 180, 3600, endpoint=False)
    x = turned(aldp, np.radians(grid))
    energy = free_energy(grid)
    for one in bias:
        energy -= one.depth_kt * share_of_arc(region_of(aldp, one.where), x.double()).numpy()
    weights = np.exp(-energy)
    chosen = np.random.default_rng(0).choice(len(grid), 40_000, p=weights / weights.sum())
    index = torch.arange(len(chosen))
    return ReferenceEnsemble(
        Provenance("aldp", state, 300.0, "", 0, {}), x[chosen], torch.zeros(len(chosen)), index % 8, index // 8
    )


def highest_between(aldp: MolecularSystem, bias: tuple[Favour, ...]) -> float:
    """Return how far the barrier between the wells is above the lower of them [kT], with a bias."""
    grid = np.linspace(WELLS[0][0], WELLS[1][0], 500)
    x, energy = turned(aldp, np.radians(grid)).double(), free_energy(grid)
    for one in bias:
        energy = energy - one.depth_kt * share_of_arc(region_of(aldp, one.where), x).numpy()
    return float(energy.max() - energy.min())


def test_what_is_advised_makes_the_wells_as_deep_and_the_barrier_low(aldp: MolecularSystem) -> None:
    advised = lowered_barrier(aldp, frames(aldp), "phi > 0")
    assert [one.where.split(" in ")[0] for one in advised] == ["phi > 0", "phi"]
    assert advised[0].depth_kt == pytest.approx(math.log(0.97 / 0.03), abs=0.3)
    assert highest_between(aldp, ()) > 8
    assert highest_between(aldp, advised) < CROSSED_SOON_KT + 1
    assert advice(aldp, frames(aldp), "phi > 0").startswith("--favour 'phi > 0' 'phi in ")


def test_frames_with_that_bias_advise_it_again(aldp: MolecularSystem) -> None:
    advised = lowered_barrier(aldp, frames(aldp), "phi > 0")
    biased = favoured(aldp, advised)
    again = lowered_barrier(biased, frames(aldp, "vacuum-favoured", advised), "phi > 0")
    assert [one.depth_kt for one in again] == pytest.approx([one.depth_kt for one in advised], abs=0.5)
    here, there = (region_of(aldp, several[1].where).arc for several in (advised, again))
    assert (here.low, here.high) == pytest.approx((there.low, there.high), abs=math.radians(6))


def test_there_is_nothing_to_advise_where_there_is_no_barrier_or_one_side_alone(aldp: MolecularSystem) -> None:
    one_side = frames(aldp)
    kept = (_phi(aldp, one_side.positions) < 0).nonzero()[:, 0]
    assert lowered_barrier(aldp, one_side.select(kept), "phi > 0") == ()
    flat = replace(one_side, positions=turned(aldp, np.random.default_rng(1).uniform(-math.pi, math.pi, 40_000)))
    assert advice(aldp, flat, "phi > 0") == ""


def test_biases_on_other_torsions_remain(aldp: MolecularSystem) -> None:
    alone = advice(aldp, frames(aldp), "phi > 0")
    had = [Favour("phi in 100..160", 3.0), Favour("helical", 1.0)]
    assert advice(aldp, frames(aldp), "phi > 0", had) == alone.replace("--favour ", "--favour 'helical' ").replace(
        "--favour-kt ", "--favour-kt 1 "
    )


@pytest.mark.parametrize(("engine", "told"), [("compiled", True), ("openmm", False)])
def test_walkers_that_disagree_are_told_of(
    aldp: MolecularSystem, monkeypatch: pytest.MonkeyPatch, engine: Literal["compiled", "openmm"], *, told: bool
) -> None:
    slow = {
        "split_r_hat": {"phi > 0": 1.5},
        "effective_frames": {"phi > 0": 400.0},
        "relaxation_frames": {"phi > 0": math.inf, "helical": 3.0},
    }
    sampled = frames(aldp).with_diagnostics(slow)
    monkeypatch.setattr(reference, "ensemble_of", lambda config, judge: judge(sampled))
    with pytest.raises(NotTrustworthyError) as caught:
        reference.run(ReferenceConfig(state="vacuum", engine=engine))
    assert ("walkers that cross sooner with --favour 'phi > 0'" in str(caught.value)) is told
