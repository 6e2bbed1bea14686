"""One way to say no."""

from __future__ import annotations

from typing import NoReturn

import openmm

from boltzgen_diffclf.errors import UnsupportedSystemError


def refuse(index: int, force: openmm.Force, reason: str) -> NoReturn:
    """Raise the error that names a force and what to do instead.

    Raises:
        UnsupportedSystemError: always.
    """
    raise UnsupportedSystemError(
        f"force {index} ({type(force).__name__}) {reason}; evaluate the System with "
        "systems.forcefield.OpenMMWorkerTarget, or choose a model that can be compiled"
    )
