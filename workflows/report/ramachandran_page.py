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
from workflows.ramachandran import ALL_SEEDS, REFERENCE, RamachandranResult
from workflows.ramachandran_distributions import distributions
from workflows.ramachandran_published import are_of
from workflows.ramachandran_run import Shown
from workflows.ramachandran_slow import SlowPlane
from workflows.report import molecule_tables, rounding
from workflows.report import ramachandran_tables as map_tables
from workflows.report import ramachandran_texts as texts
from workflows.report.folding_figure import contacts_figure, starts_figure
from workflows.report.page import Picture, environment, picture, save_pictures
from workflows.report.ramachandran_figure import (
    TORSIONS,
    Frame,
    distributions_figure,
    maps_figure,
    residue_maps_figure,
    weights_figure,
)
from workflows.report.ramachandran_numbers import NAMES, Numbers, numbers_of
from workflows.report.tables import Table
from workflows.report.viewer import Viewer, conformations, viewer

TITLES = {**NAMES, "reference": "reference", "langevin": "Langevin on $U_\\theta$", "smc": "$\\exp(-U_\\theta)$"}
"""Of the maps."""


@dataclass(frozen=True)
class Section:
    """A part of the page under one heading."""

    heading: str
    pictures: Sequence[Picture] = ()
    tables: Sequence[Table] = ()
    paragraphs: Sequence[str] = ()
    viewer: Viewer | None = None


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
    save_pictures((section.viewer.fallback for section in sections if section.viewer is not None), result.folder)
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
            f"{config.overweight_factor:g} times too likely: generated samples and dynamics repeat that, and "
            + ("weights have to put it right." if config.beads == "all" else "nothing here can put it right.")
        )
    if config.favour:
        deeper = ", ".join(f"'{where}' is {depth:g} kT deeper" for where, depth in config.favours)
        yield (
            f"The networks have learned from frames of a state in which {deeper}; of all that is shown of them, "
            "weights have taken this bias away again."
        )
    if config.favour and config.reference is None:
        of = f" ({config.frames})" if config.frames is not None else ""
        yield (
            f"The reference is the other half of these frames{of}, drawn again by the weights that take the bias away. "
            "Slow coordinates, their limits and who is folded are those of the walkers as they went, with the bias."
        )
    elif config.frames is not None:
        yield f"The networks have learned from {config.frames}, and are judged by the reference."
    if config.beads != "all":
        yield texts.NO_ENERGY


def _sections(result: RamachandranResult, shown: Mapping[str, Shown]) -> Iterator[Section]:
    numbers, config = numbers_of(result), result.config
    first = next(iter(shown.values()))
    yield from _map_sections(result, shown, numbers)
    yield from _chain_sections(result, shown, numbers)
    conformers = list(
        molecule_tables.conformer_tables(numbers, first.judge.beads, config.state, config.temperature_kelvin)
    )
    if len(first.judge.residues) > 1:
        conformers = [molecule_tables.conformer_overview(numbers, first.judge.beads)]
    if conformers:
        yield Section("Conformers", tables=conformers)
    weighted = {name: one.weighted for name, one in shown.items() if one.weighted is not None}
    if weighted:
        drawn = weights_figure({name: (one.before, one.after) for name, one in weighted.items()})
        limit = largest_pareto_k(config.particles)
        yield Section(
            "Weights",
            [picture("weights", "Weights of families", texts.WEIGHTS, drawn)],
            [molecule_tables.weight_table(numbers)],
            [texts.WORTH.format(limit=limit)],
        )
    pictures = [
        picture(
            f"distributions-{name}",
            f"Energies, a bond and an angle of {name}",
            texts.DISTRIBUTIONS.format(about=OBJECTIVES[name]),
            distributions_figure(distributions(one.judge, one.samples), NAMES),
        )
        for name, one in shown.items()
    ]
    yield Section("Energies, bonds and angles", pictures, [molecule_tables.molecule_table(numbers)], [texts.WHOLE])
    yield Section("Configurations", viewer=_viewer(shown))


def _map_sections(result: RamachandranResult, shown: Mapping[str, Shown], numbers: Numbers) -> Iterator[Section]:
    """Yield the maps of phi and psi: one in full, or a row for each of several residues."""
    judge = next(iter(shown.values())).judge
    residues = [plane.residue for plane in judge.residues]
    if len(residues) == 1:
        config = result.config
        published = are_of(judge.system, config.state, config.beads, config.temperature_kelvin)
        pictures = list(map(_maps, shown, shown.values()))
        yield Section("Maps", pictures, [map_tables.agreement_table(numbers)], [texts.ERRORS])
        yield Section(
            "Distances from the reference",
            tables=[map_tables.distance_table(numbers, published)],
            paragraphs=[texts.DISTANCES, *([texts.PUBLISHED] if published else [])],
        )
    elif residues:
        pictures = list(map(_residue_maps, shown, shown.values()))
        made = [*map_tables.residue_tables(numbers, residues), map_tables.training_table(numbers)]
        yield Section("Maps", pictures, made, [texts.ERRORS, texts.DISTANCES])


def _chain_sections(result: RamachandranResult, shown: Mapping[str, Shown], numbers: Numbers) -> Iterator[Section]:
    """Yield the slow coordinates, where there are any, and who is folded, where that means something."""
    first = next(iter(shown.values()))
    slow, fold = first.judge.slow, first.judge.beads.fold
    alone = not first.judge.residues
    if slow is not None:
        theirs = any(row.published is not None for row in result.rows if row.metric.endswith("_tica_js"))
        said = [
            slow.about,
            texts.SLOW,
            *([texts.PUBLISHED_CHAIN] if theirs else []),
            *([texts.ERRORS] if alone else []),
        ]
        made = [map_tables.slow_table(numbers), *([map_tables.training_table(numbers)] if alone else [])]
        yield Section("Slow coordinates", [_slow_maps(name, one, slow) for name, one in shown.items()], made, said)
    if fold is not None:
        pictures = [*_starts(first), *(_contacts(name, one, len(fold.atoms)) for name, one in shown.items())]
        yield Section("Folding", pictures, [molecule_tables.folding_table(numbers, fold.folded_nm)], [texts.FOLDING])


def _maps(name: str, one: Shown) -> Picture:
    surfaces = {label: found.surfaces[0] for label, found in one.findings.items()}
    caption = texts.MAPS.format(about=OBJECTIVES[name])
    return picture(f"maps-{name}", f"Ramachandran maps of {name}", caption, maps_figure(surfaces, TITLES, TORSIONS))


def _residue_maps(name: str, one: Shown) -> Picture:
    surfaces = {
        plane.residue: {label: found.surfaces[index] for label, found in one.findings.items()}
        for index, plane in enumerate(one.judge.residues)
    }
    caption = texts.RESIDUE_MAPS.format(about=OBJECTIVES[name])
    drawn = residue_maps_figure(surfaces, TITLES)
    return picture(f"maps-{name}", f"Ramachandran maps of every residue, {name}", caption, drawn)


def _viewer(shown: Mapping[str, Shown]) -> Viewer:
    first = next(iter(shown.values()))
    samples = {NAMES[REFERENCE]: first.samples[REFERENCE]}
    for name, one in shown.items():
        several = {label: sample for label, sample in one.samples.items() if label != REFERENCE}
        samples |= {f"{NAMES[label]}, {name}": sample for label, sample in several.items()}
    drawn = conformations(first.judge.beads, samples, by_residue=first.judge.selection == "ca")
    return viewer("configurations", texts.CONFIGURATIONS, drawn)


def _slow_maps(name: str, one: Shown, slow: SlowPlane) -> Picture:
    surfaces = {label: found.surfaces[-1] for label, found in one.findings.items()}
    (left, right), (bottom, top) = slow.limits
    drawn = maps_figure(surfaces, TITLES, Frame(("TIC 1", "TIC 2"), (left, right, bottom, top)))
    return picture(f"slow-{name}", f"Slow coordinates of {name}", texts.SLOW_MAPS.format(about=OBJECTIVES[name]), drawn)


def _starts(one: Shown) -> Iterator[Picture]:
    if one.starts is not None:
        drawn = starts_figure(one.starts.by_start, one.starts.frame_interval_ps)
        yield picture("folded-fraction", "Folded fraction against time", texts.STARTS, drawn)


def _contacts(name: str, one: Shown, n_beads: int) -> Picture:
    maps = {label: found.folding.contact_map for label, found in one.findings.items() if found.folding is not None}
    drawn = contacts_figure(maps, TITLES, n_beads)
    return picture(f"contacts-{name}", f"Contact maps of {name}", texts.CONTACTS.format(about=OBJECTIVES[name]), drawn)


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
