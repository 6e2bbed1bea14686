"""One self-contained HTML page of a result, its figures inlined, and the same figures as PNG files beside it."""

from __future__ import annotations

import base64
import io
import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from boltzgen_diffclf.files import atomic_path
from boltzgen_diffclf.units import thermal_energy_kj_per_mol
from workflows.progress import duration
from workflows.report import advice, figures, rounding
from workflows.report.data import LegFigures, ReportData
from workflows.results import LegResult
from workflows.solvation_estimators import yardstick

if TYPE_CHECKING:
    from jinja2 import Environment
    from matplotlib.figure import Figure

CAPTIONS = {
    "comparison": "Every estimate with one standard error; small ticks are its replicates. The blue bands are one "
    "and three standard errors of the classical yardstick.",
    "work": "Work in both directions. The two densities cross where the work equals F(B) − F(A); where they "
    "hardly touch, no error bar can be believed.",
    "overlap": "What each pair of states shares: the MBAR overlap element of the two alone at equal numbers of "
    "samples, ½ where they are the same. The table quotes the weakest link of the way from one end to the other.",
    "integrand": "The integrand of thermodynamic integration with a band of two standard errors; its area is "
    "F(B) − F(A).",
    "training": "Loss on training batches and on held-out frames, the single losses, and the learned difference "
    "of the end free energies. A held-out loss that turns up is overfitting; one still falling is undertraining.",
    "ramachandran": "Potential of mean force of φ and ψ in both states on one colour scale, zero at each minimum, "
    "and its standard error below. Grey: never visited.",
}


@dataclass(frozen=True)
class Picture:
    """A figure on its way into the page."""

    name: str
    alt: str
    caption: str
    png: bytes
    wide: bool

    @property
    def uri(self) -> str:
        """The picture itself, as a data URI."""
        return "data:image/png;base64," + base64.b64encode(self.png).decode()


def write_report(data: ReportData, folder: Path) -> Path:
    """Write ``report.html`` and ``figures/*.png`` into ``folder`` and return the page's path.

    Raises:
        RunFailedError: the disk refused.
    """
    pictures = {name: list(drawn) for name, drawn in _drawn(data).items()}
    save_pictures([picture for several in pictures.values() for picture in several], folder)
    page = folder / "report.html"
    with atomic_path(page) as path:
        path.write_text(render(data, pictures), encoding="utf-8")
    return page


def render(data: ReportData, pictures: dict[str, list[Picture]]) -> str:
    """Return the page as HTML text.

    Args:
        data: what to say.
        pictures: leg name to its figures; those of no leg under ``training`` and ``ramachandran``.
    """
    result = data.result
    main = advice.main_leg(result)
    return (
        environment()
        .get_template("report.html")
        .render(
            result=result,
            notes=data.notes,
            pictures=pictures,
            main=main,
            answers={name: advice.answer(result, name) for name in result.legs},
            subject=advice.subject(result),
            conventions=advice.conventions(result),
            yardstick=yardstick(main),
            sign=advice.sign_in_words(result.legs[main]),
            recommendations={name: advice.recommend(name, leg) for name, leg in result.legs.items()},
            yardsticks={name: advice.yardstick_row(name, leg) for name, leg in result.legs.items()},
            in_units=lambda value, stderr: rounding.in_units(value, stderr, result.temperature_kelvin),
            effective_samples=advice.EFFECTIVE_SAMPLES,
            finite=math.isfinite,
            kt_kj=thermal_energy_kj_per_mol(result.temperature_kelvin),
            json_text=result.to_json(),
        )
    )


def environment() -> Environment:
    """Return the templates of this room, with the filters and functions that they use."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    templates = Environment(
        loader=PackageLoader("workflows", "report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.filters |= {"minus": _with_minus_signs, "duration": duration}
    templates.globals |= {"with_error": rounding.with_error, "plain": rounding.plain, "count": rounding.count}
    return templates


def _with_minus_signs(text: str) -> str:
    """Return the text with a true minus sign before each negative number; hyphens stay."""
    return re.sub(r"(?<![\w-])-(?=\d)", "−", text)


def _drawn(data: ReportData) -> dict[str, Iterator[Picture]]:
    pictures = {
        name: _leg_pictures(name, leg, data.legs.get(name, LegFigures())) for name, leg in data.result.legs.items()
    }
    return {**pictures, "training": _training_pictures(data), "ramachandran": _ramachandran_pictures(data)}


def _leg_pictures(name: str, leg: LegResult, arrays: LegFigures) -> Iterator[Picture]:
    yardstick = advice.yardstick_row(name, leg)
    if leg.estimators:
        drawn = figures.estimator_comparison(leg.estimators, yardstick, leg.published)
        yield picture(f"{name}-comparison", f"Estimates of the {name} leg", CAPTIONS["comparison"], drawn)
    value = leg.estimators[yardstick].value_kT if yardstick is not None else None
    # States that share no configuration have infinite works alone, which no axis holds.
    works = [one for one in arrays.work if np.isfinite(one.forward).any() and np.isfinite(one.reverse).any()]
    if works:
        drawn = figures.work_distributions(works, value)
        yield picture(f"{name}-work", f"Work distributions of the {name} leg", CAPTIONS["work"], drawn, len(works) > 1)
    if arrays.overlap is not None:
        drawn = figures.overlap_matrix(arrays.overlap, arrays.overlap_labels)
        yield picture(f"{name}-overlap", f"Overlap matrix of the {name} leg", CAPTIONS["overlap"], drawn, False)
    if arrays.integrands:
        drawn = figures.thermodynamic_integrand(arrays.integrands)
        yield picture(f"{name}-integrand", f"TI integrand of the {name} leg", CAPTIONS["integrand"], drawn)


def _training_pictures(data: ReportData) -> Iterator[Picture]:
    if data.training:
        drawn = figures.training_curves(data.training)
        yield picture("training", "Training curves", CAPTIONS["training"], drawn)


def _ramachandran_pictures(data: ReportData) -> Iterator[Picture]:
    if data.ramachandran:
        drawn = figures.ramachandran(data.ramachandran)
        yield picture("ramachandran", "Ramachandran free-energy maps", CAPTIONS["ramachandran"], drawn)


def picture(name: str, alt: str, caption: str, figure: Figure, wide: bool = True) -> Picture:
    """Return a figure on its way into the page."""
    buffer = io.BytesIO()
    # Without the Software tag the same numbers give the same bytes.
    figure.savefig(buffer, format="png", dpi=150, metadata={"Software": None})
    return Picture(name, alt, caption, buffer.getvalue(), wide)


def save_pictures(pictures: Iterable[Picture], folder: Path) -> None:
    """Write figures as ``figures/NAME.png`` into a folder.

    Raises:
        RunFailedError: the disk refused.
    """
    for one in pictures:
        with atomic_path(folder / "figures" / f"{one.name}.png") as path:
            path.write_bytes(one.png)
