"""The page and the terminal table of Ramachandran maps."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TextIO

from boltzgen_diffclf.files import atomic_path
from boltzgen_diffclf.observables.ramachandran import FreeEnergySurface
from workflows.molecule_settings import OBJECTIVES
from workflows.ramachandran import ALL_SEEDS, RamachandranResult, RamachandranRow
from workflows.report import rounding
from workflows.report.page import environment, picture
from workflows.report.ramachandran_figure import maps_figure

CAPTION = (
    "{about}, first seed. Above: potential of mean force of φ and ψ on one colour scale, zero at each minimum; grey "
    "was never visited. Below: what is too high (red) or too low (blue), where both were visited."
)


def write_page(result: RamachandranResult, maps: Mapping[str, Mapping[str, FreeEnergySurface]]) -> Path:
    """Write ``report.html`` and ``figures/*.png`` into the run folder and return the page's path.

    Raises:
        RunFailedError: the disk refused.
    """
    pictures = [
        picture(f"maps-{objective}", objective, CAPTION.format(about=OBJECTIVES[objective]), maps_figure(surfaces))
        for objective, surfaces in maps.items()
    ]
    for one in pictures:
        with atomic_path(result.folder / "figures" / f"{one.name}.png") as path:
            path.write_bytes(one.png)
    page = result.folder / "report.html"
    text = (
        environment()
        .get_template("ramachandran.html")
        .render(result=result, pictures=pictures, lines=_means(result), objectives=OBJECTIVES)
    )
    with atomic_path(page) as path:
        path.write_text(text, encoding="utf-8")
    return page


def print_table(result: RamachandranResult, page: Path, stream: TextIO | None = None) -> None:
    """Print the mean of every metric over the seeds, its noise floor, what is published, and where the page lies."""
    out = stream or sys.stdout
    lines = [("objective", "metric", "value", "noise floor", "published")]
    for row in _means(result):
        numbers = (rounding.plain(number).replace("–", "-") for number in (row.value, row.noise_floor, row.published))
        value, floor, published = numbers
        lines.append((row.objective, row.metric, value, floor, published))
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip(), file=out)
    print(f"\n{page}", file=out)


def _means(result: RamachandranResult) -> list[RamachandranRow]:
    return [row for row in result.rows if row.seed == ALL_SEEDS]
