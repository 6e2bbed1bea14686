"""Samples of a trained model of all atoms at the true energy of its state, as ``workflows.sample`` leaves them."""

from __future__ import annotations

from dataclasses import asdict

import torch

from boltzgen_diffclf.errors import NotTrustworthyError, OtherRunError
from boltzgen_diffclf.training.molecule_model import MoleculeModel
from systems.conformers import basin_free_energy
from systems.ensemble import ReferenceEnsemble
from systems.store import load_ensemble
from workflows.learned_molecule import molecule_of
from workflows.molecule_sampling import plausible_positions
from workflows.run_folder import RunFolder
from workflows.sampling_settings import SamplingSettings
from workflows.trust import Check
from workflows.trust_generators import check_weights, no_weights
from workflows.weighted_sampling import WeightedSampling, WeightedSizes


def reweighted(
    folder: RunFolder, name: str, model: MoleculeModel, settings: SamplingSettings, seed: int, device: torch.device
) -> tuple[ReferenceEnsemble, list[str], Check]:
    """Return samples with weight, what to tell of them and of their weights, and whether to believe these.

    Leaves ``NAME.h5``, and the weights in ``u_kn.npz``.

    Args:
        folder: of the run, whose plan holds :func:`~workflows.weighted_sampling.stages_of` this name.
        name: of the stages and the file.
        model: of all atoms.
        settings: how many samples, through how many levels.
        seed: of the noise and the moves.
        device: where they are made.

    Raises:
        OtherRunError: the folder was reweighted with other settings.
        RunFailedError: the sampler cannot go on, or the disk refuses.
    """
    system, levels = molecule_of(model), settings.reverse_levels
    sizes = WeightedSizes(
        settings.samples,
        levels,
        settings.bridge_keeps,
        settings.end_moves,
        settings.resampling,
        settings.resample_below,
    )
    kept = folder.remember(name, lambda: asdict(sizes))
    for option, value in asdict(sizes).items():
        if kept[option] != value:
            raise OtherRunError(
                f"{folder.path} was reweighted with {option} = {kept[option]}, and now {option} = {value}: repeat the "
                "first command to resume it, or choose another --out"
            )
    where = plausible_positions(model, levels, seed, device)
    found = WeightedSampling(model, system, where, sizes, seed, device).run(folder, name)
    file = folder.path / f"{name}.h5"
    found.save(file, folder.path / "u_kn.npz", system)
    worth = found.worth.get("after")
    if worth is None:
        none = found.frames.select(torch.empty(0, dtype=torch.long))
        return none, [f"{file}: not written"], no_weights(name, len(found.after))
    lines = [
        f"{file}: {worth.n_samples - worth.n_zero} families of samples of {system.name}, state "
        f"{found.frames.provenance.state}, with weights in u_kn.npz",
        f"weights: worth {worth.n_effective:.0f} of {worth.n_samples} samples, Pareto shape {worth.pareto_k:.2f}, the "
        f"largest {100 * worth.maximum_weight:.2g} %",
    ]
    for basin in system.basins if found.n_families > 1 else ():  # of one family alone there is no error
        try:
            value = basin_free_energy(
                system, basin, found.frames.positions.numpy(), found.frames.group.numpy(), found.log_w
            )
        except NotTrustworthyError as error:
            lines.append(f"free energy of {basin}: {error}")
        else:
            lines.append(f"free energy of {basin} against the rest: {value.value:.2f} ± {value.stderr:.2f} kT")
    return load_ensemble(file), lines, check_weights(name, worth)
