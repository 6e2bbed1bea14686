"""Names of objectives that state a size, ``nce_RATIO`` and ``cd_STEPS``: read without loading anything heavy."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

from boltzgen_diffclf.errors import InputError


class SizedName(NamedTuple):
    """A name and the size in it.

    Attributes:
        base: of the objective that leaves the size to the settings.
        size: noise samples a datum of ``nce``, chain steps of ``cd``.
    """

    base: str
    size: float


LARGEST = 10_000
"""Of the sizes: a step costs as many evaluations."""

_WHOLE = r"[1-9]\d*"
_FORMS: Mapping[str, tuple[str, str]] = {
    "nce": (
        rf"{_WHOLE}|(0|{_WHOLE})\.\d*[1-9]",
        "how many noise samples there are to a datum, such as nce_4 or nce_0.5",
    ),
    "cd": (_WHOLE, "how many steps its chains take, at least one, such as cd_10"),
}
"""What may stand behind the names, one spelling a size, and what it says."""


def sized_name(name: str) -> SizedName | None:
    """Return what a name with a size says; None where it is of no such form.

    Raises:
        InputError: the size makes no sense.

    >>> sized_name("nce_0.5"), sized_name("cd_3"), sized_name("pcd"), sized_name("nce")
    (SizedName(base='nce', size=0.5), SizedName(base='cd', size=3.0), None, None)
    """
    base, separator, size = name.partition("_")
    if base not in _FORMS or not separator:
        return None
    form, meaning = _FORMS[base]
    if not re.fullmatch(form, size, re.ASCII):
        raise InputError(f"there is no objective {name!r}: behind {base}_ stands {meaning}")
    if float(size) > LARGEST:
        raise InputError(f"objective {name[:40]!r} is too large: behind {base}_ stands a number up to {LARGEST}")
    return SizedName(base, float(size))
