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

_NAMES = (*ONE_LETTER.values(), *VARIANTS, *CAPS)


def parse_sequence(text: str) -> tuple[str, ...]:
    """Return the names of the residues of a sequence, caps included.

    Args:
        text: one-letter codes (``YYDPETGTWY``), or names with dashes between (``ACE-ALA-HIE-NME``); a part between
            dashes may be several one-letter codes (``ACE-YYDP-NME``), but not three: they would name a residue.
            Capitals or not.

    Raises:
        InputError: an unknown residue, a cap that is not at its end, or too few residues; the line names it.

    >>> parse_sequence("ACE-ag-nme")
    ('ACE', 'ALA', 'GLY', 'NME')
    """
    parts = text.strip().upper().split("-")
    if len(parts) == 1:
        _require_one_reading(parts[0], text)
    residues = tuple(name for part in parts for name in _residues_of(part, text, is_whole=len(parts) == 1))
    _require_caps_at_ends(residues, text)
    if len(residues) < 2:
        raise InputError(f"'{text}' is a single residue, and no force field has one with two free ends: add caps")
    return residues


def _require_one_reading(letters: str, text: str) -> None:
    """Refuse letters without a dash that are names of residues as well as one-letter codes."""
    names = [letters[first : first + 3] for first in range(0, len(letters), 3)]
    if not all(name in _NAMES for name in names):
        return
    codes = "-".join(letters)
    if len(names) > 1:
        raise InputError(
            f"'{text}' may be {len(names)} residues or {len(letters)} one-letter codes: write {'-'.join(names)} or "
            f"{codes}"
        )
    needs = "is a cap, and needs a residue behind or before it" if letters in CAPS else f"needs caps, ACE-{letters}-NME"
    raise InputError(
        f"'{text}' may be one residue or three letters of a sequence: write {codes} for the sequence; a single "
        f"{letters} {needs}"
    )


def _residues_of(part: str, text: str, *, is_whole: bool) -> tuple[str, ...]:
    if part in _NAMES:
        return (part,)
    if not part:
        raise InputError(f"'{text}' has nothing before, behind or between dashes where a residue should be")
    unknown = [letter for letter in part if letter not in ONE_LETTER]
    is_name = len(part) == 3 and not is_whole
    if is_name and not unknown:
        raise InputError(
            f"sequence '{text}': {part} is no residue known here ({' '.join(_NAMES)}), and as one-letter codes it is "
            f"written {'-'.join(part)}{nearest_name(part, list(_NAMES))}"
        )
    if unknown:
        what = f"'{part}'" if len(part) == 3 else f"'{unknown[0]}' in '{part}'"
        raise InputError(
            f"sequence '{text}': unknown residue {what}; known are {' '.join(_NAMES)} and the one-letter codes "
            f"{''.join(ONE_LETTER)}{nearest_name(part, list(_NAMES))}"
        )
    return tuple(ONE_LETTER[letter] for letter in part)


def _require_caps_at_ends(residues: tuple[str, ...], text: str) -> None:
    for position, name in enumerate(residues):
        if name == FIRST_CAP and position != 0:
            raise InputError(f"sequence '{text}': {name} is residue {position + 1}, and it can only be the first")
        if name == LAST_CAP and position != len(residues) - 1:
            raise InputError(f"sequence '{text}': {name} is residue {position + 1}, and it can only be the last")
