"""The systems that a command can name, one line each; their modules are imported only when asked for."""

from __future__ import annotations

import importlib
import inspect
from typing import TYPE_CHECKING

from boltzgen_diffclf.errors import InputError, nearest_name

if TYPE_CHECKING:
    from systems.molecular import MolecularSystem

_BUILDERS = {
    "aldp": "systems.aldp:alanine_dipeptide",
    "aldp-ildn": "systems.aldp:alanine_dipeptide_ildn",
    "chignolin": "systems.chignolin:chignolin",
    "chignolin-capped": "systems.chignolin:chignolin_capped",
}


def names() -> tuple[str, ...]:
    """Return the valid names of :func:`load`.

    >>> names()
    ('aldp', 'aldp-ildn', 'chignolin', 'chignolin-capped')
    """
    return tuple(_BUILDERS)


def load(name: str, **options: object) -> MolecularSystem:
    """Return the system of this name.

    Args:
        name: one of :func:`names`.
        options: passed to the system's builder; see its docstring.

    Raises:
        InputError: unknown name or option; the message lists the valid ones.
    """
    if name not in _BUILDERS:
        raise InputError(
            f"unknown system '{name}': choose one of {', '.join(names())}{nearest_name(name, list(names()))}"
        )
    module, function = _BUILDERS[name].split(":")
    builder = getattr(importlib.import_module(module), function)
    valid = list(inspect.signature(builder).parameters)
    for option in options:
        if option not in valid:
            known = ", ".join(valid) or "none"
            raise InputError(
                f"system '{name}' has no option '{option}' (its options: {known}){nearest_name(option, valid)}"
            )
    return builder(**options)
