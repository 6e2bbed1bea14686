"""Samples of a trained energy of a molecule, in the format of the trajectory store."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor

from boltzgen_diffclf.compilation import fuse
from boltzgen_diffclf.errors import InputError, RunFailedError
from boltzgen_diffclf.molecule_target import LearnedMoleculeTarget
from boltzgen_diffclf.noised_energy import NoisedEnergyModel
from boltzgen_diffclf.paths import PATHS, log_snr_levels
from boltzgen_diffclf.samplers import sample_reverse
from boltzgen_diffclf.streams import named_generator
from boltzgen_diffclf.training.molecule_model import MoleculeModel, coordinates_of
from systems.beads import bead_system
from systems.chains import ChainDynamics, ChainSettings, radius
from systems.ensemble import Provenance, ReferenceEnsemble, evaluate
from systems.loading import SystemSource
from systems.molecular import MolecularSystem
from systems.recording import record
from systems.store import write_ensemble
from workflows.sampling_settings import SamplingSettings

ROWS = 1024
"""Samples that are carried back at once."""

CANDIDATES = 256
"""Samples of the reversed noising, of which the one of median energy is where all chains begin: the one of least may
lie in a hole of the energy."""

REACH = 20.0
"""A molecule has fallen apart where an atom is so many units of length from the centroid; about 1.7 are usual."""

Advance = Callable[[float], None]


def beads_of(model: MoleculeModel) -> MolecularSystem:
    """Return what a model is of, as a system without forces.

    Raises:
        InputError: a file that the molecule came from is gone, or has changed since the training.
    """
    origin = model.origin
    # Models older than other sources of molecules are of registered ones.
    system = SystemSource.from_plain(origin.get("source", {"system": origin["system"]})).load()
    if system.system_hash(origin["state"]) != origin["system_hash"]:
        raise InputError(f"the files of {origin['system']} have changed since the model was trained: put them back")
    return bead_system(system, origin["beads"])


def least_noise(model: MoleculeModel) -> float:
    """Return the earliest time that the model knows."""
    return float(model.model.curve.levels[0])


def learned_target(model: MoleculeModel) -> LearnedMoleculeTarget:
    """Return the energy at the least noise as a target on positions [nm], in double precision."""
    return LearnedMoleculeTarget(model.model, model.coordinates, least_noise(model))


def reverse_samples(
    model: MoleculeModel, n: int, n_levels: int, seed: int, device: torch.device, advance: Advance = lambda amount: None
) -> ReferenceEnsemble:
    """Return independent samples of the reversed noising, each a group of its own, with their learned energies [kT].

    Args:
        model: trained.
        n: samples.
        n_levels: that they pass through, evenly spaced in log-SNR.
        seed: of the noise.
        device: where they are made.
        advance: told of the samples done.
    """
    positions = _reversed(_single_precision(model, device), model.spec.path, n, n_levels, seed, advance)
    ensemble = ReferenceEnsemble(
        provenance=_provenance(model, seed, {"sampler": "reverse process", "levels": n_levels}),
        positions=positions,
        energies=evaluate(learned_target(model), positions),
        group=torch.arange(n),
        frame=torch.zeros(n, dtype=torch.long),
    )
    whole = ensemble.select(_whole(model, positions, ensemble.energies))
    return whole.with_diagnostics({"samples": n, "broken_samples": n - len(whole)})


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
        settings: sizes; all chains begin at one configuration, so that they have to find the other basins.
        seed: of the dynamics.
        device: where they run.
        path: the trajectory file.
        advance: told of the frames done, of ``equilibration_frames + frames_per_chain``.
    """
    beads, temperature = beads_of(model), float(model.origin["temperature_kelvin"])
    fast, exact = _single_precision(model, device), learned_target(model)
    chains = ChainSettings(
        settings.chains,
        settings.frames_per_chain,
        settings.steps_per_frame,
        settings.equilibration_frames,
        settings.timestep_fs,
        settings.friction_per_ps,
        seed,
    )
    candidates = _reversed(fast, model.spec.path, CANDIDATES, settings.reverse_levels, seed, lambda amount: None)
    energies = evaluate(exact, candidates)
    whole = _whole(model, candidates, energies)
    start = candidates[whole[energies[whole].argsort()[len(whole) // 2]]]
    target = LearnedMoleculeTarget(fast, coordinates_of(fast), least_noise(model))
    source = ChainDynamics(
        target, exact, start.expand(settings.chains, -1, -1), beads.masses, temperature, _reach_nm(model), chains
    )
    made = {"sampler": "Langevin", **{key: value for key, value in vars(chains).items() if key != "seed"}}
    return record(source, beads, _provenance(model, seed, made), path, advance)


def _reach_nm(model: MoleculeModel) -> float:
    return REACH * model.statistics.length_nm


def _whole(
    model: MoleculeModel, positions: Float[Tensor, "samples beads 3"], energies: Float[Tensor, " samples"]
) -> Int[Tensor, " whole"]:
    """Return the indices of samples that have an energy and have not fallen apart.

    Raises:
        RunFailedError: there is none.
    """
    whole = (energies.isfinite() & (radius(positions) < _reach_nm(model))).nonzero()[:, 0]
    if not len(whole):
        raise RunFailedError(f"all {len(positions)} samples of the model have fallen apart: train for more steps")
    return whole


def save_samples(path: Path, model: MoleculeModel, ensemble: ReferenceEnsemble) -> None:
    """Write samples of a model, whole or not at all."""
    write_ensemble(path, ensemble, beads_of(model).topology)


def _reversed(
    model: NoisedEnergyModel, path: str, n: int, n_levels: int, seed: int, advance: Advance
) -> Float[Tensor, "samples beads 3"]:
    levels, noising, coordinates = model.curve.levels, PATHS[path], coordinates_of(model)
    generator = named_generator(seed, "reverse", levels.device)
    times = log_snr_levels(noising, n_levels, float(levels[0]), float(levels[-1])).to(levels)
    spread = torch.hypot(noising.alpha(times[-1:]), noising.sigma(times[-1:]))
    denoiser = fuse(model.denoiser, levels.device)
    parts: list[Tensor] = []
    shape = min(ROWS, n), coordinates.dimension
    while sum(len(part) for part in parts) < n:
        # Whole batches, so that fused code meets one shape; what is too much is left out at the end.
        noise = torch.randn(shape, generator=generator, dtype=levels.dtype, device=levels.device)
        y = sample_reverse(denoiser, noising, times, spread * noise, generator)
        parts.append(coordinates.positions(y).cpu())
        advance(float(len(y)))
    return torch.cat(parts)[:n]


def _single_precision(model: MoleculeModel, device: torch.device) -> NoisedEnergyModel:
    return copy.deepcopy(model.model).float().to(device)


def _provenance(model: MoleculeModel, seed: int, settings: dict[str, object]) -> Provenance:
    beads, origin = beads_of(model), model.origin
    return Provenance(
        system=beads.name,
        state=origin["state"],
        temperature_kelvin=origin["temperature_kelvin"],
        system_hash=beads.system_hash(origin["state"]),
        seed=seed,
        settings={**settings, "model": f"{origin['objective']} seed {origin['seed']}", "model_hash": model.fingerprint},
    )
