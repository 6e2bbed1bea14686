"""The page and the terminal table of ``workflows.ramachandran``."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from boltzgen_diffclf.estimators.reweighting import largest_pareto_k
from boltzgen_diffclf.files import atomic_path
from workflows.molecule_settings import OBJECTIVES
from workflows.ramachandran import ALL_SEEDS, RamachandranResult
from workflows.ramachandran_distributions import distributions
from workflows.ramachandran_published import MOLECULES
from workflows.ramachandran_run import Shown
from workflows.report import ramachandran_tables as tables
from workflows.report import rounding
from workflows.report.page import Picture, environment, picture, save_pictures
from workflows.report.ramachandran_figure import (
    TORSIONS,
    distributions_figure,
    maps_figure,
    residue_maps_figure,
    weights_figure,
)
from workflows.report.tables import Table

TITLES = {**tables.NAMES, "reference": "reference", "langevin": "Langevin on $U_\\theta$"}
"""Of the maps."""

NO_ENERGY = (
    "Reweighting is not applicable: it takes the true energy of every configuration, and a force field knows none of "
    "some atoms without the others. --beads all has weights."
)
"""Said of coarse beads."""

MAPS = (
    "{about}, first seed. Above: potential of mean force of φ and ψ on one colour scale, zero at each minimum; grey "
    "was never visited. Middle: what is too high (red) or too low (blue), where both were visited. Below: the same in "
    "standard errors, those of both together."
)
RESIDUE_MAPS = (
    "{about}, first seed; a row for each residue that has φ and ψ. Left: potential of mean force of φ and ψ on one "
    "colour scale, zero at each minimum; grey was never visited. Right: what is too high (red) or too low (blue), "
    "where both were visited."
)
DISTRIBUTIONS = (
    "{about}, first seed: energies, and the bond and the angle whose generated distribution is farthest off. Bins are "
    "those of the reference; the legend tells what lies beyond them."
)
WEIGHTS = (
    "How much of the whole weight the heaviest families carry, first seed. The nearer to the dashed line, the more "
    "samples the weights are worth; a step at the left is a family that carries everything."
)
DISTANCES = (
    "JS is the Jensen-Shannon divergence of 64 × 64 bins [nats], with limits [−π, π] and, as it is published, with "
    "those of both sets pooled; the PMF error is the squared difference of the free energies weighted by population "
    "[kT²]. Both shrink with the number of samples: compare with the floor, one half of the reference in place "
    "of the samples, equally many. What is above the floor comes with its scatter over halvings of the reference."
)
PUBLISHED = "Published numbers are of another force field, of more samples, and of three seeds."
WORTH = (
    "The reverse process is run as sequential Monte Carlo under the learned energies, whose particles stand for the "
    "learned energy at the least noise; at one stroke is importance sampling of the true energy from there, and the "
    "bridge leads there in small steps with Monte Carlo moves between. The effective fraction is (Σw)² / (n Σw²) over "
    "families, of n at the start. A Pareto shape above {limit:.2f} has no error bar to be believed. Mirror images have "
    "no weight: a force field cannot tell them from the molecule."
)
ERRORS = (
    "Errors are those of independent draws: generated frames each one, a chain or a walker with all its frames one, a "
    "family of weighted frames one."
)
WHOLE = (
    "Stretched: a bond is off by a quarter of its length; clashing: two atoms without a bond are so close that they "
    "would be drawn as bonded; mirrored: a stereocentre that the beads show has the wrong hand."
)


@dataclass(frozen=True)
class Section:
    """A part of the page under one heading."""

    heading: str
    pictures: Sequence[Picture] = ()
    tables: Sequence[Table] = ()
    paragraphs: Sequence[str] = ()


def write_page(result: RamachandranResult, shown: Mapping[str, Shown]) -> Path:
    """Write ``report.html`` and ``figures/*.png`` into the run folder and return the page's path.

    Args:
        result: the table and how far to believe it.
        shown: by objective, what pictures are made of.

    Raises:
        RunFailedError: the disk refused.
    """
    sections = list(_sections(result, shown))
    save_pictures((one for section in sections for one in section.pictures), result.folder)
    weighted = result.config.beads == "all"
    text = (
        environment()
        .get_template("ramachandran.html")
        .render(
            result=result,
            sections=sections,
            verdict="The weights can be believed" if weighted else "Samples and dynamics of a coarse-grained energy",
            notes=_notes(result),
            objectives={name: OBJECTIVES[name] for name in result.config.objectives},
        )
    )
    page = result.folder / "report.html"
    with atomic_path(page) as path:
        path.write_text(text, encoding="utf-8")
    return page


def _notes(result: RamachandranResult) -> Iterator[str]:
    config = result.config
    if config.overweight is not None:
        yield (
            f"On purpose, the networks have learned from frames in which '{config.overweight}' is "
            f"{config.overweight_factor:g} times too likely: generated samples and dynamics repeat that, weights have "
            "to put it right."
        )
    if config.frames is not None:
        yield f"The networks have learned from {config.frames}, and are judged by the reference."
    if config.beads != "all":
        yield NO_ENERGY


def _sections(result: RamachandranResult, shown: Mapping[str, Shown]) -> Iterator[Section]:
    numbers, config = tables.numbers_of(result), result.config
    first = next(iter(shown.values()))
    residues = [plane.residue for plane in first.judge.residues]
    if len(residues) == 1:
        published = config.beads == "backbone" and first.judge.system.name in MOLECULES
        yield Section("Maps", list(map(_maps, shown, shown.values())), [tables.agreement_table(numbers)], [ERRORS])
        yield Section(
            "Distances from the reference",
            tables=[tables.distance_table(numbers, published)],
            paragraphs=[DISTANCES, *([PUBLISHED] if published else [])],
        )
    elif residues:
        pictures = list(map(_residue_maps, shown, shown.values()))
        yield Section("Maps", pictures, list(tables.residue_tables(numbers, residues)), [ERRORS, DISTANCES])
    conformers = list(tables.conformer_tables(numbers, first.judge.beads, config.state))
    if len(residues) > 1:
        conformers = [tables.conformer_overview(numbers, first.judge.beads)]
    if conformers:
        yield Section("Conformers", tables=conformers)
    weighted = {name: one.weighted for name, one in shown.items() if one.weighted is not None}
    if weighted:
        drawn = weights_figure({name: (one.before, one.after) for name, one in weighted.items()})
        limit = largest_pareto_k(config.particles)
        yield Section(
            "Weights",
            [picture("weights", "Weights of families", WEIGHTS, drawn)],
            [tables.weight_table(numbers)],
            [WORTH.format(limit=limit)],
        )
    pictures = [
        picture(
            f"distributions-{name}",
            f"Energies, a bond and an angle of {name}",
            DISTRIBUTIONS.format(about=OBJECTIVES[name]),
            distributions_figure(distributions(one.judge, one.samples), tables.NAMES),
        )
        for name, one in shown.items()
    ]
    yield Section("Energies, bonds and angles", pictures, [tables.molecule_table(numbers)], [WHOLE])


def _maps(name: str, one: Shown) -> Picture:
    surfaces = {label: found.surfaces[0] for label, found in one.findings.items()}
    caption = MAPS.format(about=OBJECTIVES[name])
    return picture(f"maps-{name}", f"Ramachandran maps of {name}", caption, maps_figure(surfaces, TITLES, TORSIONS))


def _residue_maps(name: str, one: Shown) -> Picture:
    surfaces = {
        plane.residue: {label: found.surfaces[index] for label, found in one.findings.items()}
        for index, plane in enumerate(one.judge.residues)
    }
    caption = RESIDUE_MAPS.format(about=OBJECTIVES[name])
    drawn = residue_maps_figure(surfaces, TITLES)
    return picture(f"maps-{name}", f"Ramachandran maps of every residue, {name}", caption, drawn)


def print_table(result: RamachandranResult, page: Path, stream: TextIO | None = None) -> None:
    """Print the mean of every metric over the seeds, its noise floor, what is published, and where the page lies."""
    out = stream or sys.stdout
    lines = [["objective", "metric", "value", "noise floor", "published"]]
    for row in result.rows:
        if row.seed == ALL_SEEDS:
            value = rounding.plain(row.value) if row.stderr is None else rounding.with_error(row.value, row.stderr)
            numbers = (value, rounding.plain(row.noise_floor), rounding.plain(row.published))
            lines.append([row.objective, row.metric, *(text.replace("±", "+-").replace("–", "-") for text in numbers)])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip(), file=out)
    print(f"\n{page}", file=out)
