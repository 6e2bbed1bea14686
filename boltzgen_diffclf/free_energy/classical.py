"""The classical yardstick: Bennett's estimators on reference ensembles, and annealing along the straight line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from boltzgen_diffclf.errors import InputError
from boltzgen_diffclf.estimators import Estimate, bar, exponential_averaging
from boltzgen_diffclf.estimators.family import Family, mbar_family
from boltzgen_diffclf.free_energy.annealed import spread_over_groups
from boltzgen_diffclf.target import Target

_CHUNK = 1024
_APART = 1_000_000
"""Between the groups of one ensemble and those of the next."""


@dataclass(frozen=True, eq=False)
class SampledState:
    """Frames of one state with their energies in every state of a leg's family.

    Attributes:
        name: of the state that was sampled.
        energies: ``u_k(x)`` [kT] by state, in the order of the family.
        group: independent simulation of each frame.
    """

    name: str
    energies: Float[np.ndarray, "states frames"]
    group: Int[np.ndarray, " frames"]


def energies_in(target: Target, x: Float[Tensor, "frames atoms 3"]) -> Float[np.ndarray, " frames"]:
    """Return the reduced energies [kT] of frames, in float64, evaluated in equal blocks."""
    energies = []
    for block in x.split(_CHUNK):
        padded = torch.cat([block, block[-1:].expand(_CHUNK - len(block), -1, -1)])
        with torch.no_grad():
            energies.append(target.energy(padded.to(target.device, target.dtype))[: len(block)])
    return torch.cat(energies).double().cpu().numpy()


def subsample(state: SampledState, limit: int) -> SampledState:
    """Return at most ``limit`` frames, spread over the groups and along each, for what grows with their number."""
    if len(state.group) <= limit:
        return state
    kept = spread_over_groups(torch.from_numpy(state.group), limit).numpy()
    return SampledState(state.name, np.ascontiguousarray(state.energies[:, kept]), state.group[kept])


def all_states_mbar(states: Sequence[str], sampled: Sequence[SampledState], generator: np.random.Generator) -> Family:
    """Return MBAR over a family of states of which some were sampled.

    A state without frames of its own is reached by reweighting all others; groups are bootstrapped whole.

    Args:
        states: names, in the order of the energies.
        sampled: the ensembles; at least one.
        generator: for the bootstrap.
    """
    by_name = {ensemble.name: ensemble for ensemble in sampled}
    missing = [name for name in by_name if name not in states]
    if missing:
        raise InputError(f"ensemble of {missing[0]} is of no state of this family ({', '.join(states)})")
    present = [by_name[name] for name in states if name in by_name]
    counts = np.array([by_name[name].energies.shape[1] if name in by_name else 0 for name in states])
    u_kn = np.concatenate([ensemble.energies for ensemble in present], axis=1)
    # Groups of different ensembles are different simulations.
    groups = np.concatenate([ensemble.group + _APART * k for k, ensemble in enumerate(present)])
    return mbar_family(u_kn, counts, groups, generator)


def two_state_bar(a: SampledState, b: SampledState, row_a: int, row_b: int, generator: np.random.Generator) -> Estimate:
    """Return Bennett's acceptance ratio between two sampled states, F_B - F_A, groups bootstrapped whole."""
    return bar(
        a.energies[row_b] - a.energies[row_a],
        b.energies[row_a] - b.energies[row_b],
        groups_forward=a.group,
        groups_reverse=b.group + _APART,
        generator=generator,
    )


def one_sided(a: SampledState, row_a: int, row_b: int) -> Estimate:
    """Return exponential averaging from the sampled state A alone, F_B - F_A."""
    return exponential_averaging(a.energies[row_b] - a.energies[row_a], groups=a.group)
