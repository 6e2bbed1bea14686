"""Samples of a trained energy of a molecule, in the format of the trajectory store."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType

import torch
from jaxtyping import Float
from torch import Tensor

from boltzgen_diffclf.compilation import fuse
from boltzgen_diffclf.coordinates import CentredCoordinates
from boltzgen_diffclf.free_energy.boltzmann_generator import ROWS, guarded_descent
from boltzgen_diffclf.molecule_target import LearnedMoleculeTarget
from boltzgen_diffclf.noised_energy import NoisedEnergyModel
from boltzgen_diffclf.paths import PATHS, DiffusionPath, log_snr_levels
from boltzgen_diffclf.samplers import RESAMPLINGS, SOLVERS, ReverseSmcState, ReverseSolver, sample_reverse
from boltzgen_diffclf.samplers.state import TensorState
from boltzgen_diffclf.streams import named_generator
from boltzgen_diffclf.training.molecule_model import MoleculeModel, coordinates_of
from systems.chains import ChainDynamics, ChainSettings
from systems.ensemble import ReferenceEnsemble, evaluate
from systems.recording import record
from systems.store import write_ensemble
from workflows.learned_molecule import (
    beads_of,
    learned_target,
    least_noise,
    provenance_of,
    reach_nm,
    single_precision,
    whole_samples,
)
from workflows.resumable import carry_on
from workflows.sampling_settings import TIMESTEPS_FS, SamplingSettings

CANDIDATES = 256
"""Samples of the reversed noising, of which the one of median energy is where chains begin that all begin at one: that
of least may lie in a hole of the energy."""

Advance = Callable[[float], None]


def reverse_samples(
    model: MoleculeModel,
    n: int,
    n_levels: int,
    seed: int,
    device: torch.device,
    unfinished: Path | None = None,
    advance: Advance = lambda amount: None,
    *,
    solver: str = "ddpm",
) -> ReferenceEnsemble:
    """Return independent samples of the reversed noising, each a group of its own, with their learned energies [kT].

    Killed, the same call goes on from the file of what is unfinished, which the caller removes.

    Args:
        model: trained.
        n: samples.
        n_levels: that they pass through, evenly spaced in log-SNR.
        seed: of the noise.
        device: where they are made.
        unfinished: where the samples done are kept; None keeps none.
        advance: told of the samples done.
        solver: one of :data:`~boltzgen_diffclf.samplers.SOLVERS`.
    """
    identity = {"model": model.fingerprint, "samples": n, "levels": n_levels, "seed": seed, "solver": solver}
    fast = single_precision(model, device)
    positions = _reversed(fast, model.spec.path, n, n_levels, seed, advance, unfinished, identity, solver)
    ensemble = ReferenceEnsemble(
        provenance=provenance_of(model, seed, {"sampler": "reverse process", "levels": n_levels, "solver": solver}),
        positions=positions,
        energies=evaluate(learned_target(model), positions),
        group=torch.arange(n),
        frame=torch.zeros(n, dtype=torch.long),
    )
    whole = ensemble.select(whole_samples(model, positions, ensemble.energies))
    return whole.with_diagnostics({"samples": n, "broken_samples": n - len(whole)})


def plausible_positions(model: MoleculeModel, n_levels: int, seed: int, device: torch.device) -> Tensor:
    """Return positions [nm] of a few whole samples of the reversed noising, where no frames of the data are at hand.

    Raises:
        FallenApartError: there are none.
    """
    fast = single_precision(model, device)
    candidates = _reversed(fast, model.spec.path, CANDIDATES, n_levels, seed, lambda amount: None)
    return candidates[whole_samples(model, candidates, evaluate(learned_target(model), candidates))]


def smc_samples(
    model: MoleculeModel,
    n: int,
    seed: int,
    device: torch.device,
    unfinished: Path | None = None,
    advance: Advance = lambda amount: None,
    *,
    resampling: str = "systematic",
    resample_below: float = 0.5,
) -> ReferenceEnsemble:
    """Return samples of ``exp(-U)`` at the least noise, by sequential Monte Carlo down the levels of the model.

    Samples of the reversed noising follow scores, which do not know how much one basin weighs beside another; dynamics
    on the energy wait for rare crossings. The weights of these compare energies at every level, and no barrier is met.
    Energies below any that reversed samples come near are mirrored: a hole has no weight. The group of a sample is its
    family: those that descend from one particle at the most noise.

    Killed, the same call goes on from the file of what is unfinished, which the caller removes.

    Args:
        model: trained.
        n: particles, and samples.
        seed: of the noise.
        device: where they are made.
        unfinished: where the particles are kept; None keeps none.
        advance: told of the share done, of ``n``.
        resampling: one of :data:`~boltzgen_diffclf.samplers.RESAMPLINGS`, at the end too.
        resample_below: effective fraction of the particles below which they are resampled.

    Raises:
        FallenApartError: all that have a weight have fallen into a hole of the energy.
        RunFailedError: no particle has a weight.
    """
    fast = single_precision(model, device)
    times, coordinates, noising = fast.curve.levels, coordinates_of(fast), PATHS[model.spec.path]
    data = plausible_positions(model, len(times), seed, device)
    stream = named_generator(seed, "smc floors", device)
    guarded, _ = guarded_descent(fast, noising, times, coordinates.from_cartesian(data.to(times)), stream)
    scheme = RESAMPLINGS[resampling]
    descent = replace(guarded, resampling=scheme, resample_below=resample_below)
    rule: dict[str, object] = {"resampling": resampling, "resample_below": resample_below}
    done = carry_on(
        descent,
        ReverseSmcState,
        lambda generator: descent.init(n, coordinates.dimension, generator),
        named_generator(seed, "smc", device),
        unfinished,
        {"model": model.fingerprint, "particles": n, "seed": seed, **rule},
        lambda state, info: advance(n / (len(times) - 1)),
    )
    chosen = scheme(done.whole_log_weights, named_generator(seed, "smc at the end", device))
    positions = coordinates.positions(done.position[chosen]).cpu()
    ensemble = ReferenceEnsemble(
        provenance=provenance_of(model, seed, {"sampler": "sequential Monte Carlo", "levels": len(times), **rule}),
        positions=positions,
        energies=evaluate(learned_target(model), positions),
        group=done.root[chosen].cpu(),
        frame=torch.arange(n),
    )
    whole = ensemble.select(whole_samples(model, positions, ensemble.energies))
    return whole.with_diagnostics({"samples": n, "broken_samples": n - len(whole), "families": whole.n_groups})


def langevin_samples(
    model: MoleculeModel,
    settings: SamplingSettings,
    seed: int,
    device: torch.device,
    path: Path,
    advance: Advance = lambda amount: None,
) -> ReferenceEnsemble:
    """Return frames of Langevin chains on the energy at the least noise; killed, the same call goes on.

    Args:
        model: trained.
        settings: sizes, and whether all chains begin at one configuration or each at a sample of the reversed noising.
        seed: of the dynamics.
        device: where they run.
        path: the trajectory file.
        advance: told of the frames done, of ``equilibration_frames + frames_per_chain``.
    """
    beads, temperature = beads_of(model), float(model.origin["temperature_kelvin"])
    fast, exact = single_precision(model, device), learned_target(model)
    chains = ChainSettings(
        settings.chains,
        settings.frames_per_chain,
        settings.steps_per_frame,
        settings.equilibration_frames,
        settings.timestep_fs or TIMESTEPS_FS[model.origin["beads"]],
        settings.friction_per_ps,
        seed,
    )
    n = CANDIDATES if settings.chains_begin == "one" else max(CANDIDATES, settings.chains)
    candidates = _reversed(fast, model.spec.path, n, settings.reverse_levels, seed, lambda amount: None)
    energies = evaluate(exact, candidates)
    whole = whole_samples(model, candidates, energies)
    if settings.chains_begin == "one":
        whole = whole[energies[whole].argsort()[len(whole) // 2]][None]
    start = candidates[whole[torch.arange(settings.chains) % len(whole)]]  # taken again where there are too few
    target = LearnedMoleculeTarget(fast, coordinates_of(fast), least_noise(model))
    source = ChainDynamics(target, exact, start, beads.masses, temperature, reach_nm(model), chains)
    sizes = {key: value for key, value in vars(chains).items() if key != "seed"}
    made = {"sampler": "Langevin", "chains_begin": settings.chains_begin, **sizes}
    return record(source, beads, provenance_of(model, seed, made), path, advance)


def save_samples(path: Path, model: MoleculeModel, ensemble: ReferenceEnsemble) -> None:
    """Write samples of a model, whole or not at all."""
    write_ensemble(path, ensemble, beads_of(model).topology)


@dataclass(frozen=True, eq=False)
class Reversed(TensorState):
    """Samples of the reversed noising.

    Attributes:
        positions: of those done [nm].
    """

    positions: Float[Tensor, "done beads 3"]


@dataclass(frozen=True, eq=False)
class _Reversal:
    """Whole batches of samples, so that fused code meets one shape, until there are enough."""

    denoiser: Callable[[Tensor, Tensor], Tensor]
    path: DiffusionPath
    times: Float[Tensor, " levels"]
    coordinates: CentredCoordinates
    n: int
    solver: ReverseSolver

    def step(self, state: Reversed, generator: torch.Generator) -> tuple[Reversed, int]:
        """Return one batch more, and how many that is."""
        times = self.times
        shape = min(ROWS, self.n), self.coordinates.dimension
        spread = torch.hypot(self.path.alpha(times[-1:]), self.path.sigma(times[-1:]))
        noise = torch.randn(shape, generator=generator, dtype=times.dtype, device=times.device)
        y = sample_reverse(self.denoiser, self.path, times, spread * noise, generator, solver=self.solver)
        return Reversed(torch.cat([state.positions, self.coordinates.positions(y)])), len(y)

    def arrived(self, state: Reversed) -> bool:
        """Whether there are enough."""
        return len(state.positions) >= self.n


def _reversed(
    model: NoisedEnergyModel,
    path: str,
    n: int,
    n_levels: int,
    seed: int,
    advance: Advance,
    unfinished: Path | None = None,
    identity: Mapping[str, object] = MappingProxyType({}),
    solver: str = "ddpm",
) -> Float[Tensor, "samples beads 3"]:
    levels, noising, coordinates = model.curve.levels, PATHS[path], coordinates_of(model)
    times = log_snr_levels(noising, n_levels, float(levels[0]), float(levels[-1])).to(levels)
    reversal = _Reversal(fuse(model.denoiser, levels.device), noising, times, coordinates, n, SOLVERS[solver])
    none = levels.new_empty(0, coordinates.n_atoms, 3)
    done = carry_on(
        reversal,
        Reversed,
        lambda generator: Reversed(none),
        named_generator(seed, "reverse", levels.device),
        unfinished,
        identity,
        lambda state, made: advance(float(made)),
    )
    return done.positions[:n].cpu()
