"""One way to say no."""

from __future__ import annotations

from typing import NoReturn

import openmm

from boltzgen_diffclf.errors import UnsupportedSystemError

INSTEAD = (
    "sample it by workflows.reference --engine openmm (as a library: systems.forcefield.OpenMMWorkerTarget), or build "
    "it without"
)
"""What may be done with a System that the compiler refuses."""


def refuse(index: int, force: openmm.Force, reason: str) -> NoReturn:
    """Raise the error that names a force and what to do instead.

    Raises:
        UnsupportedSystemError: always.
    """
    raise UnsupportedSystemError(f"force {index} ({type(force).__name__}) {reason}; {INSTEAD}")
