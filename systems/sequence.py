"""Sequences of amino acids as a user writes them: one-letter codes, or names with dashes, with or without caps."""

from __future__ import annotations

from collections.abc import Mapping

from boltzgen_diffclf.errors import InputError, nearest_name

ONE_LETTER: Mapping[str, str] = {
    "A": "ALA", "R": "ARG", "N": "ASN", "D": "ASP", "C": "CYS", "Q": "GLN", "E": "GLU", "G": "GLY", "H": "HIS",
    "I": "ILE", "L": "LEU", "K": "LYS", "M": "MET", "F": "PHE", "P": "PRO", "S": "SER", "T": "THR", "W": "TRP",
    "Y": "TYR", "V": "VAL",
}  # fmt: skip
"""The twenty amino acids."""

VARIANTS: Mapping[str, str] = {
    "HID": "HIS", "HIE": "HIS", "HIP": "HIS", "ASH": "ASP", "GLH": "GLU", "LYN": "LYS",
}  # fmt: skip
"""Other protonations, and the amino acid that each is of."""

FIRST_CAP, LAST_CAP = "ACE", "NME"
"""Acetyl before the first residue, N-methyl amide behind the last."""

CAPS = (FIRST_CAP, LAST_CAP)

_HANDS = ("D", "L")

_NAMES = (*ONE_LETTER.values(), *VARIANTS, *CAPS)


def parse_sequence(text: str) -> tuple[str, ...]:
    """Return the names of the residues of a sequence, caps included.

    Args:
        text: one-letter codes (``YYDPETGTWY``), or names with dashes between (``ACE-ALA-HIE-NME``); a part between
            dashes may be several one-letter codes (``ACE-YYDP-NME``), but not three: they would name a residue.
            Capitals or not. What may be meant for a D-amino acid (``dALA``, ``D-ALA``) is refused.

    Raises:
        InputError: an unknown residue, a cap that is not at its end, or too few residues; the line names it.

    >>> parse_sequence("ACE-ag-nme")
    ('ACE', 'ALA', 'GLY', 'NME')
    """
    if not text.isascii():  # capitals of others are other letters
        strange = next(letter for letter in text if not letter.isascii())
        raise InputError(f"sequence '{text}': {strange} is no letter of an amino acid, and no plain hyphen")
    _refuse_hands(text.strip().split("-"), text)
    parts = text.strip().upper().split("-")
    if len(parts) == 1 and parts[0] in _NAMES:
        raise InputError(f"'{text}' is a single residue{_as_codes(parts[0])}: {_with_neighbours(parts[0])}")
    residues = tuple(name for part in parts for name in _residues_of(part, text, is_alone=len(parts) == 1))
    _require_caps_at_ends(residues, text)
    if len(residues) < 2:
        raise InputError(f"'{text}' is a single residue with two free ends, and few force fields have one: add caps")
    return residues


def _residues_of(part: str, text: str, *, is_alone: bool) -> tuple[str, ...]:
    if part in _NAMES:
        return (part,)
    if not part:
        raise InputError(f"'{text}' has nothing before, behind or between dashes where a residue should be")
    names = [part[first : first + 3] for first in range(0, len(part), 3)]
    if all(name in _NAMES for name in names):
        raise InputError(
            f"sequence '{text}': {part} is {len(names)} residues{_as_codes(part)}: write {'-'.join(names)}"
        )
    unknown = [letter for letter in part if letter not in ONE_LETTER]
    if unknown or (len(part) == 3 and not is_alone):
        what = f"'{part}'" if len(part) == 3 else f"'{unknown[0]}' in '{part}'"
        raise InputError(
            f"sequence '{text}': unknown residue {what}{_as_codes(part)}; known are {' '.join(_NAMES)} and the "
            f"one-letter codes {''.join(ONE_LETTER)}{nearest_name(part, list(_NAMES))}"
        )
    return tuple(ONE_LETTER[letter] for letter in part)


def _refuse_hands(parts: list[str], text: str) -> None:
    """Refuse D and L where they may be meant for a hand and not for aspartate and leucine: ``D-ALA`` and ``dALA``."""
    names = tuple(ONE_LETTER.values())
    for part, following in zip(parts, [*parts[1:], ""], strict=True):
        is_apart = part.upper() in _HANDS and following.upper() in names
        if is_apart or (part[:1] in ("d", "l") and part[1:] in names):
            letter, name = part[0].upper(), (following if is_apart else part[1:]).upper()
            raise InputError(
                f"sequence '{text}': {f'{part}-{following}' if is_apart else part} may be a hand and {name}, and "
                f"D-amino acids are not built: write {name}, or {ONE_LETTER[letter]} for the residue"
            )


def _as_codes(part: str) -> str:
    """Return how letters are written that were meant as one-letter codes, where they may have been."""
    return f" (as one-letter codes {'-'.join(part)})" if all(letter in ONE_LETTER for letter in part) else ""


def _with_neighbours(name: str) -> str:
    return "a cap needs residues beside it" if name in CAPS else f"it needs caps, ACE-{name}-NME"


def _require_caps_at_ends(residues: tuple[str, ...], text: str) -> None:
    for position, name in enumerate(residues):
        if name == FIRST_CAP and position != 0:
            raise InputError(f"sequence '{text}': {name} is residue {position + 1}, and it can only be the first")
        if name == LAST_CAP and position != len(residues) - 1:
            raise InputError(f"sequence '{text}': {name} is residue {position + 1}, and it can only be the last")
