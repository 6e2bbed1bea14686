"""The frames that a molecule's generator learns from and is judged by: a user's own, the package's, or sampled here."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from boltzgen_diffclf.errors import InputError, OtherRunError
from boltzgen_diffclf.training.noised_losses import BEYOND, BY_FORCE
from boltzgen_diffclf.training.noised_problem import NoisedObjective
from boltzgen_diffclf.training.objectives import named_objective
from systems.beads import are_beads_alone, bead_atoms
from systems.ensemble import ReferenceEnsemble
from systems.favoured import region_of
from systems.molecular import MolecularSystem
from systems.packaged import packaged_frames
from systems.user_trajectory import read_frames
from workflows.molecule_settings import MoleculeSettings

_log = logging.getLogger(__name__)


def state_frames(settings: MoleculeSettings, objectives: Sequence[str]) -> ReferenceEnsemble:
    """Return frames of the state itself: the user's ``--reference``, those of the package, or new ones.

    Args:
        settings: of the molecule and its state.
        objectives: that learn from them; frames of the package have no forces.

    Raises:
        InputError: the file or the state is wrong.
        RunFailedError: the sampling could not go on.
    """
    return _frames(settings, settings.source.load(), settings.reference, settings.state, {}, objectives)


def sampled_frames(settings: MoleculeSettings, file: Path | None, objectives: Sequence[str]) -> ReferenceEnsemble:
    """Return frames of the state that is sampled, with the bias where there is one: a file, or as above.

    Raises:
        InputError: the file, the state or the basin is wrong.
        RunFailedError: the sampling could not go on.
    """
    system = settings.source.load()
    seen = set(bead_atoms(system, settings.beads))
    for where in settings.favour:
        if not seen.issuperset(region_of(system, where).atoms):
            raise InputError(
                f"--favour '{where}' is of a torsion that --beads {settings.beads} does not have: the bias could not "
                "be taken away again; choose other beads"
            )
    favour = {"favour": settings.favour, "favour_kt": settings.favour_kt}
    return _frames(settings, system, file, settings.sampled_state, favour, objectives)


def _frames(
    settings: MoleculeSettings,
    system: MolecularSystem,
    file: Path | None,
    state: str,
    favour: dict[str, Any],
    objectives: Sequence[str],
) -> ReferenceEnsemble:
    from workflows.reference import ReferenceConfig, ensemble_of

    system.require_state(settings.state)
    if file is None:
        packaged = packaged_frames(system, settings.beads, state, settings.temperature_kelvin)
        forced = [name for name in objectives if _learns_from_forces(name)]
        if packaged is not None and forced:
            _log.warning(
                "%s learns from forces, which the frames that come with the package do not have: all atoms are sampled "
                "now, which takes long; leave it out for those frames, in an --out of their own",
                ", ".join(forced),
            )
        elif packaged is not None:
            _log.info(
                "the frames are those that come with the package, %s (--reference FILE for others)", packaged.name
            )
            file = packaged
    if file is not None:
        return read_frames(file, system, settings.beads, state, settings.temperature_kelvin)
    # The usual ladder has to lead somewhere.
    highest = max(ReferenceConfig().highest_temperature_kelvin, 1.5 * settings.temperature_kelvin)
    reference = ReferenceConfig(
        **settings.molecule,
        **favour,
        state=settings.state,
        preset=settings.preset,
        temperature_kelvin=settings.temperature_kelvin,
        device=settings.device,
        threads=settings.threads,
        highest_temperature_kelvin=highest,
    )
    try:
        return ensemble_of(reference)
    except OtherRunError as error:
        raise InputError(
            f"{str(error).split(': ')[0]}: where its frames are of this molecule at {settings.temperature_kelvin:g} K, "
            f"give {reference.folder / state}.h5 as your own to learn from them; else move that folder away"
        ) from error


def check_frames(settings: MoleculeSettings, frames: ReferenceEnsemble, objectives: Sequence[str]) -> None:
    """Check that frames of beads alone are not asked for forces, which are of all atoms.

    Raises:
        InputError: an objective asks for forces, on the frames or on hotter ones.
    """
    if not are_beads_alone(frames, settings.source.load()):
        return
    for name in objectives:
        if _learns_from_forces(name):
            raise InputError(
                f"objective {name} learns from forces, which frames of {frames.provenance.system} alone do not have: "
                "give frames of all atoms, or choose another objective"
            )


def _learns_from_forces(objective: str) -> bool:
    chosen = named_objective(objective)
    return isinstance(chosen, NoisedObjective) and not (BY_FORCE | BEYOND).isdisjoint(chosen.weights)
