"""Tables on their way into a page: cells of text that the template ``blocks.html`` lays out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Line:
    """One line of a table.

    Attributes:
        cells: texts, the first of which is its heading.
        kind: class of its style, ``published`` or ``headline``.
        source: who printed it, beside the heading.
    """

    cells: Sequence[str]
    kind: str = ""
    source: str = ""


@dataclass(frozen=True)
class Table:
    """A table of texts.

    Attributes:
        caption: above it.
        columns: their headings.
        lines: from top to bottom.
        words: how many of the first columns are words; the others are numbers.
    """

    caption: str
    columns: Sequence[str]
    lines: Sequence[Line]
    words: int = 1
