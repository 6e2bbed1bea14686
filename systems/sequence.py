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

_NAMES = (*ONE_LETTER.values(), *VARIANTS, FIRST_CAP, LAST_CAP)


def parse_sequence(text: str) -> tuple[str, ...]:
    """Return the names of the residues of a sequence, caps included.

    Args:
        text: one-letter codes (``YYDPETGTWY``), or names with dashes between (``ACE-ALA-HIE-NME``); a part between
            dashes may be several one-letter codes (``ACE-YYDP-NME``). Capitals or not.

    Raises:
        InputError: an unknown residue, a cap that is not at its end, or too few residues; the line names it.

    >>> parse_sequence("ACE-ag-nme")
    ('ACE', 'ALA', 'GLY', 'NME')
    """
    parts = text.strip().upper().split("-")
    if len(parts) == 1 and parts[0] in _NAMES:
        raise InputError(
            f"'{text}' may be one residue or three letters of a sequence: write {'-'.join(parts[0])} for the "
            f"sequence; a single residue needs caps, ACE-{parts[0]}-NME"
        )
    residues = tuple(name for part in parts for name in _residues_of(part, text))
    _require_caps_at_ends(residues, text)
    if len(residues) < 2:
        raise InputError(f"'{text}' is a single residue, and no force field has one with two free ends: add caps")
    return residues


def _residues_of(part: str, text: str) -> tuple[str, ...]:
    if part in _NAMES:
        return (part,)
    if not part:
        raise InputError(f"'{text}' has nothing before, behind or between dashes where a residue should be")
    unknown = [letter for letter in part if letter not in ONE_LETTER]
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
