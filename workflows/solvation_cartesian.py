"""The Cartesian route of ``workflows.solvation``: a message-passing network on positions, one stage a replicate."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from boltzgen_diffclf.energy import AnchoredEnergyModel, EnergyModel
from boltzgen_diffclf.free_energy.cartesian import CartesianAnswers, answers
from boltzgen_diffclf.free_energy.cartesian_space import AnchoredCartesianSpace
from boltzgen_diffclf.free_energy.evaluation import Cost
from boltzgen_diffclf.free_energy.learned import LearningSettings, MakeModel, train_replicate
from boltzgen_diffclf.nets import DenseEnergyNet, EquivariantConfig, TorsionConfig, TorsionEnergyNet
from boltzgen_diffclf.nets.atom_types import atom_types
from boltzgen_diffclf.nets.flat_molecule import PreconditionedMoleculeNet
from boltzgen_diffclf.paths.curved import CurvedInterpolant
from boltzgen_diffclf.streams import split_seed
from boltzgen_diffclf.training import TrainingSettings
from systems.legs import Leg
from workflows.run_folder import StageResult
from workflows.solvation_estimators import CARTESIAN_LEGS
from workflows.solvation_learned import leg_pools

if TYPE_CHECKING:
    from workflows.solvation_settings import SolvationConfig
    from workflows.solvation_stages import SolvationStages

NOISE_SCALE_NM = 0.004
"""Noise scale [nm] at which path configurations are neither colder nor hotter than the ends half-way."""

CAP_MARGIN = 20.0
"""How far [kT] above the highest energy of a state's own frames its energy is softened."""

MBAR_STRIDE = 2
"""Levels that the estimate skips: it evaluates the network at every kept level on every kept configuration."""

LEVELS, POOL, GROUPS, GROUP_SIZE = 17, 1000, 16, 4
"""Sizes at which a step of the network takes a fraction of a second on a CPU."""

NETWORK = EquivariantConfig(hidden=32, layers=2)
BONDED = TorsionConfig(hidden=64, layers=2, projections=8)


def wants_cartesian(config: SolvationConfig, leg: Leg) -> bool:
    """Return whether the leg gets a Cartesian row."""
    return config.cartesian_steps > 0 and config.wants("cartesian") and leg.name in CARTESIAN_LEGS


def cartesian(stages: SolvationStages, leg: Leg, replicate: int) -> StageResult:
    """Return what one replicate of the Cartesian route says about a leg, from the run folder or by training it."""
    return stages.folder.stage(
        f"cartesian-{leg.name}-{replicate}", lambda: _learn(stages, leg, replicate), together=True
    )


def _learn(stages: SolvationStages, leg: Leg, replicate: int) -> StageResult:
    seed = split_seed(stages.config.seed, f"cartesian/{leg.name}/{replicate}")
    settings, space = _settings(stages.config), _space(stages, leg)
    with stages.folder.progress.stage(f"cartesian-{leg.name}-{replicate}", 1.2 * settings.training.steps) as advance:
        pools = leg_pools(
            stages, leg, replicate, space, settings, seed, lambda made: advance(0.2 * made * settings.training.steps)
        )
        done = 0

        def progress(step: int, steps: int, record: Mapping[str, float]) -> None:
            nonlocal done
            advance(step - done)
            done = step

        result, cost = train_replicate(
            _model(stages, leg),
            pools,
            settings,
            seed,
            checkpoint=stages.folder.path / "models" / f"{leg.name}-cartesian-{replicate}.safetensors",
            identity={
                **stages.identity(leg, replicate),
                "coordinates": f"positions, curved path, noise scale {NOISE_SCALE_NM} nm; energies in kT",
            },
            progress=progress,
        )
        found = answers(result.model, pools.evaluation, space, MBAR_STRIDE)
    arrays = {"cartesian.overlap": found.overlap}
    for key in result.history[0]:
        arrays[f"cartesian.history.{key}"] = np.array([record[key] for record in result.history])
    total = pools.cost + cost + found.cost
    return StageResult(arrays, {"cartesian": _facts(found, total)})


def _facts(found: CartesianAnswers, cost: Cost) -> dict[str, Any]:
    estimate = found.exact_ends
    return {
        "value": estimate.value,
        "sampling_stderr": estimate.stderr,
        "overlap": estimate.overlap,
        "n_effective": estimate.n_effective,
        "integral": found.integral.value,
        "end_spread": [correction.spread for correction in found.corrections],
        "energy_evaluations": cost.energy_evaluations,
        "network_evaluations": cost.network_evaluations,
        "seconds": cost.seconds,
    }


def _settings(config: SolvationConfig) -> LearningSettings:
    steps = config.cartesian_steps
    training = TrainingSettings(
        steps=steps,
        groups=GROUPS,
        group_size=GROUP_SIZE,
        neighbours=False,
        learning_rate=5e-3,
        log_every=max(1, steps // 20),
        checkpoint_every=max(20, steps // 20),
    )
    return LearningSettings(levels=LEVELS, pool=POOL, evaluation_pool=POOL, training=training)


def _space(stages: SolvationStages, leg: Leg) -> AnchoredCartesianSpace:
    internal, device = stages.internal, stages.device
    scale = torch.full((3 * internal.n_atoms,), NOISE_SCALE_NM, dtype=torch.float64, device=device)
    path = CurvedInterpolant(scale, 3 * (internal.n_atoms - 1), internal)
    cap_a, cap_b = (float(stages.ensemble(state).energies.max()) + CAP_MARGIN for state in (leg.state_a, leg.state_b))
    target_a, target_b = stages.target(leg.state_a), stages.target(leg.state_b)
    transported = stages.space(leg).transported
    return AnchoredCartesianSpace(internal, target_a, target_b, path, (cap_a, cap_b), transported)


def _model(stages: SolvationStages, leg: Leg) -> MakeModel:
    system, internal = stages.system, stages.internal
    scaled = stages.space(leg).scaled
    types = atom_types(system.elements, system.bonds)

    def make(levels: torch.Tensor, generator: torch.Generator) -> EnergyModel:
        graph = DenseEnergyNet(types, system.bonds, generator, NETWORK)
        bonded = TorsionEnergyNet(scaled.is_periodic.cpu(), internal.symmetry.cpu(), generator, BONDED)
        return AnchoredEnergyModel(PreconditionedMoleculeNet(graph, bonded, scaled), levels).to(levels.device)

    return make
