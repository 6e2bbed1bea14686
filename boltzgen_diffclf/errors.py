"""The one error tree: every message says what happened, the value seen, and what to do next."""

from __future__ import annotations


class BoltzgenError(Exception):
    """Base of every error that a user may see; the command line shows it in one line.

    ``exit_code`` is what a command returns: 2 bad input, 3 result not trustworthy, 4 run failed.
    """

    exit_code: int = 4


class InputError(BoltzgenError):
    """Something the user gave is wrong: an option, a file, a system."""

    exit_code = 2


class OtherRunError(InputError):
    """A folder or a file is there already, of a run with other settings."""


class UnreadableError(InputError):
    """A file is not of the kind that it was taken for, or is damaged."""


class UnsupportedSystemError(InputError):
    """The force-field compiler met something that it does not compute; the message names it."""


class NotTrustworthyError(BoltzgenError):
    """A result exists, and its own diagnostics say not to believe it."""

    exit_code = 3


class RunFailedError(BoltzgenError):
    """A run could not go on: the disk is full, energies became NaN, a worker died."""

    exit_code = 4


class FallenApartError(RunFailedError):
    """Samples of a learned energy are no molecules any more."""


class TrainingDivergedError(RunFailedError):
    """A training left the finite numbers."""


def first_line(error: BaseException) -> str:
    r"""Return the first line of what another package's error says, or its name where it says nothing.

    >>> first_line(ValueError("too short\nsee the manual")), first_line(EOFError())
    ('too short', 'EOFError')
    """
    lines = str(error).splitlines()
    return lines[0] if lines else type(error).__name__


def nearest_name(name: str, valid: list[str]) -> str:
    """Return ``; did you mean 'x'?`` for the valid name closest to ``name``, or an empty string.

    >>> nearest_name("aldq", ["aldp", "chignolin"])
    "; did you mean 'aldp'?"
    """
    from difflib import get_close_matches

    close = get_close_matches(name, valid, n=1, cutoff=0.5)
    return f"; did you mean '{close[0]}'?" if close else ""
