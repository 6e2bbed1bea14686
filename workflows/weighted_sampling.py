"""Samples of a trained energy of all atoms, carried to the true energy with their weights: three stages of a run."""

from __future__ import annotations

import copy
import logging
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from boltzgen_diffclf.coordinates import CentredCoordinates
from boltzgen_diffclf.free_energy.boltzmann_generator import ROWS, Crossing, WeightedParticles, guarded_descent
from boltzgen_diffclf.free_energy.guarded import GuardedTarget
from boltzgen_diffclf.molecule_target import LearnedMoleculeTarget
from boltzgen_diffclf.observables import integrity
from boltzgen_diffclf.paths import PATHS, log_snr_levels
from boltzgen_diffclf.samplers import (
    RESAMPLINGS,
    Bridge,
    BridgeState,
    Rejuvenation,
    RejuvenationState,
    Resampling,
    ReverseSmcState,
)
from boltzgen_diffclf.streams import named_generator
from boltzgen_diffclf.target import InBatches, Target, TransformedTarget
from boltzgen_diffclf.training.molecule_model import MoleculeModel, coordinates_of
from systems.derived_states import FavouredState
from systems.ensemble import Provenance, ReferenceEnsemble, evaluate
from systems.favoured import bias_of
from systems.molecular import MolecularSystem
from workflows.learned_molecule import least_noise, single_precision
from workflows.resumable import carry_on
from workflows.run_folder import RunFolder, StageResult
from workflows.weighted_ensemble import WeightedEnsemble

_log = logging.getLogger(__name__)

FRAMES = 256
"""Frames that tell the floor of the learned energies at each level."""


@dataclass(frozen=True)
class WeightedSizes:
    """How many weighted samples are made, and how carefully.

    Attributes:
        particles: that begin.
        levels: of noise that they pass through, evenly spaced in log-SNR.
        bridge_keeps: conditional effective fraction of each step of the bridge.
        end_moves: proposals of each particle at the true energy, behind the bridge.
        resampling: one of :data:`~boltzgen_diffclf.samplers.RESAMPLINGS`, of the descent and of the bridge.
        resample_below: effective fraction of the particles below which they are resampled.
    """

    particles: int
    levels: int
    bridge_keeps: float
    end_moves: int
    resampling: str = "systematic"
    resample_below: float = 0.5


def stages_of(name: str) -> tuple[str, str, str]:
    """Return the names of the three stages of a model in the run folder."""
    return f"descent-{name}", f"bridge-{name}", f"end-{name}"


def shares_of(name: str) -> dict[str, float]:
    """Return the same stages, each with its share of the work; a plain set of samples is 1."""
    return dict(zip(stages_of(name), (1.0, 1.0, 4.0), strict=True))


class WeightedSampling:
    """One trained model on its way to the true energy of its state, whose bias, if it has one, weights take away.

    Args:
        model: of all atoms.
        system: the molecule.
        frames: positions [nm] that it has learned from; they tell where its energy has no business to be.
        sizes: of the sampling.
        seed: of the noise and the moves.
        device: where they are made.
    """

    def __init__(
        self,
        model: MoleculeModel,
        system: MolecularSystem,
        frames: Float[Tensor, "frames atoms 3"],
        sizes: WeightedSizes,
        seed: int,
        device: torch.device,
    ) -> None:
        self.model, self.system, self.sizes, self.seed, self.device = model, system, sizes, seed, device
        self._bias = bias_of(system, model.origin["state"])
        self._data = frames[:: -(-len(frames) // FRAMES)]
        # The moves at the end change nothing of what is before them.
        before = {name: value for name, value in asdict(sizes).items() if name != "end_moves"}
        self._identity: dict[str, object] = {"model": model.fingerprint, "seed": seed, **before}

    def run(self, folder: RunFolder, name: str) -> WeightedEnsemble:
        """Return the weighted frames, from the folder where they are there.

        Args:
            folder: of the run, whose plan holds :func:`stages_of` this name.
            name: of the model in it.

        Raises:
            RunFailedError: the sampler cannot go on, or the disk refuses.
        """
        stages = stages_of(name)
        files = [folder.path / "stages" / f"{stage}.safetensors" for stage in stages]
        start = folder.stage(stages[0], lambda: self._descend(folder, stages[0], files[0]))
        crossing = Crossing(self._bridge(start.facts["floor"]), _particles(start, self.device))
        landed = folder.stage(stages[1], lambda: self._cross(folder, stages[1], files[1], crossing))
        arrived = _particles(landed, self.device)
        moves = Rejuvenation(crossing.bridge.target, self.sizes.end_moves)
        end = folder.stage(stages[2], lambda: self._move(folder, stages[2], files[2], moves, arrived))
        for file in files:
            file.unlink(missing_ok=True)
        return self._ensemble(_particles(end, self.device), start.arrays["families_without_bridge"])

    def _descend(self, folder: RunFolder, stage: str, file: Path) -> StageResult:
        fast = single_precision(self.model, self.device)
        levels, noising = fast.curve.levels, PATHS[self.model.spec.path]
        times = log_snr_levels(noising, self.sizes.levels, float(levels[0]), float(levels[-1])).to(levels)
        data = coordinates_of(fast).from_cartesian(self._data.to(levels))
        stream = named_generator(self.seed, "floors", self.device)
        guarded, floors = guarded_descent(fast, noising, times, data, stream)
        descent = replace(guarded, resampling=self._scheme, resample_below=self.sizes.resample_below)
        with folder.progress.stage(stage, len(times) - 1) as advance:
            state = carry_on(
                descent,
                ReverseSmcState,
                lambda stream: descent.init(self.sizes.particles, self.model.coordinates.dimension, stream),
                named_generator(self.seed, "descent", self.device),
                file,
                {**self._identity, "stage": stage},
                lambda state, info: advance(1.0),
            )
        floor = float(floors[0])
        bridge = self._bridge(floor)
        particles = descent.particles(state, bridge.origin)
        at_one_stroke = self._of_the_state(Crossing(bridge, particles).without_bridge())
        arrays = {**_arrays(particles), "families_without_bridge": at_one_stroke.families}
        return StageResult(arrays=arrays, facts={"floor": floor})

    def _cross(self, folder: RunFolder, stage: str, file: Path, crossing: Crossing) -> StageResult:
        with folder.progress.stage(stage, 1.0) as advance:
            told = 0.0

            def tell(state: BridgeState, info: object) -> None:
                nonlocal told
                advance(float(state.progress) - told)
                told = float(state.progress)

            state = carry_on(
                crossing,
                BridgeState,
                crossing.init,
                named_generator(self.seed, "bridge", self.device),
                file,
                {**self._identity, "stage": stage},
                tell,
            )
        return StageResult(arrays=_arrays(crossing.particles(state)))

    def _move(
        self, folder: RunFolder, stage: str, file: Path, moves: Rejuvenation, particles: WeightedParticles
    ) -> StageResult:
        accepted: list[float] = []

        def tell(state: RejuvenationState, acceptance: float) -> None:
            accepted.append(acceptance)
            advance(1.0)

        with folder.progress.stage(stage, max(1, moves.proposals)) as advance:
            state = carry_on(
                moves,
                RejuvenationState,
                lambda generator: moves.init(particles.position, particles.log_weights),
                named_generator(self.seed, "end", self.device),
                file,
                {**self._identity, "stage": stage, "moves": moves.proposals},
                tell,
            )
        if accepted:
            _log.info("%s: %.2f of the last proposals were accepted", stage, accepted[-1])
        return StageResult(arrays=_arrays(replace(particles, position=state.position)))

    @property
    def _scheme(self) -> Resampling:
        return RESAMPLINGS[self.sizes.resampling]

    def _bridge(self, floor: float) -> Bridge:
        model = copy.deepcopy(self.model.model).to(self.device)
        coordinates, origin = coordinates_of(model), self.model.origin
        learned = LearnedMoleculeTarget(model, coordinates, least_noise(self.model))
        true = self.system.target(origin["state"], origin["temperature_kelvin"], torch.float64, self.device)
        start = GuardedTarget(_flat(learned, coordinates), floor)
        sizes = self.sizes
        return Bridge(
            start,
            _flat(true, coordinates),
            sizes.bridge_keeps,
            resample_below=sizes.resample_below,
            resampling=self._scheme,
        )

    def _of_the_state(self, particles: WeightedParticles) -> WeightedParticles:
        """Return the particles with the weights that they have in the state that is wanted."""
        positions = self.model.coordinates.positions(particles.position.cpu()).numpy()
        change = torch.from_numpy(change_of_weights(self.system, self._bias, positions))
        return replace(particles, log_weights=particles.log_weights + change.to(particles.log_weights))

    def _ensemble(self, particles: WeightedParticles, before: Float[np.ndarray, " roots"]) -> WeightedEnsemble:
        whole, particles = particles, self._of_the_state(particles)
        wrong = whole.log_weights.isfinite() & ~particles.log_weights.isfinite()
        origin = self.model.origin
        state = origin["state"] if self._bias is None else self._bias.sources[0]
        positions = self.model.coordinates.positions(particles.position.cpu()).float()
        target = self.system.target(state, origin["temperature_kelvin"], torch.float64)
        frames = ReferenceEnsemble(
            provenance=Provenance(
                system=self.system.name,
                state=state,
                temperature_kelvin=origin["temperature_kelvin"],
                system_hash=self.system.system_hash(state),
                seed=self.seed,
                settings={"sampler": "reverse process and bridge, weighted", **asdict(self.sizes)},
            ),
            positions=positions,
            energies=evaluate(target, positions),
            group=particles.root.cpu(),
            frame=torch.arange(len(positions)),
        )
        mirrored = float(whole.log_weights.softmax(0)[wrong].sum())
        return WeightedEnsemble(frames, particles.log_weights.cpu().numpy(), before, particles.families, mirrored)


def change_of_weights(
    system: MolecularSystem, bias: FavouredState | None, positions: Float[np.ndarray, "frames atoms 3"]
) -> Float[np.ndarray, " frames"]:
    """Return what the log weights of frames at their true energy lack.

    Mirror images, whose energy is the same and whose name is another, have no weight, and a bias is taken away.

    Args:
        system: the molecule.
        bias: in their energy; None where there is none.
        positions: [nm].
    """
    found = integrity(positions, system.positions.numpy(), system.elements, system.bonds)
    without = (
        np.zeros(len(positions)) if bias is None else bias.log_weights_without(torch.from_numpy(positions)).numpy()
    )
    return np.where(found.mirrored, -np.inf, without)


def _flat(target: Target, coordinates: CentredCoordinates) -> Target:
    return InBatches(TransformedTarget(target, coordinates, coordinates.dimension), ROWS)


def _arrays(particles: WeightedParticles) -> dict[str, np.ndarray]:
    tensors = {"position": particles.position, "log_weights": particles.log_weights, "root": particles.root}
    return {**{name: tensor.cpu().numpy() for name, tensor in tensors.items()}, "n_roots": np.array(particles.n_roots)}


def _particles(stage: StageResult, device: torch.device) -> WeightedParticles:
    position, log_weights, root = (
        torch.from_numpy(stage.arrays[name]).to(device) for name in ("position", "log_weights", "root")
    )
    return WeightedParticles(position, log_weights, root, int(stage.arrays["n_roots"]))
