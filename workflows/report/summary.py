"""The short summary on the terminal: the same numbers as the page, in a rich table or in plain lines."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TextIO

from workflows.progress import duration
from workflows.report.advice import answer, main_leg, recommend
from workflows.report.rounding import plain, with_error
from workflows.results import LegResult, SolvationResult

COLUMNS = ("estimator", "kind", "F_B - F_A [kT]", "overlap", "n_eff", "seconds")


def print_summary(result: SolvationResult, page: Path, stream: TextIO | None = None) -> None:
    """Print the verdict, a table a leg, the advice and where the page lies.

    Args:
        result: what to say.
        page: path of the HTML page, named at the end.
        stream: standard output where None; tables are drawn when it is a terminal, plain columns otherwise.
    """
    out, main = stream or sys.stdout, main_leg(result)
    print("\n".join(verdict_lines(result)), file=out)
    for name, leg in result.legs.items():
        title = f"{name}: F({leg.states[1]}) - F({leg.states[0]})"
        if out.isatty():
            _print_table(title, leg, out)
        else:
            _print_plain(title, leg, out)
    advice = _ascii(recommend(main, result.legs[main]))
    print(f"\n{advice}\n\n{time_in_words(result)}\n\n{page}", file=out)


def time_in_words(result: SolvationResult) -> str:
    """Return how long a run took, whatever process did what."""
    spent = duration(result.seconds_total)
    return f"computed in {spent}, stages of earlier starts included (what n_eff counts: foot of the page's tables)"


def verdict_lines(result: SolvationResult) -> list[str]:
    """Return the first lines: the answer of each leg in three units, or why none is named."""
    lines = [f"{result.system} at {result.temperature_kelvin} K, preset {result.preset}, seed {result.seed}"]
    for name, leg in result.legs.items():
        units = answer(result, name)
        difference = f"{name}: F({leg.states[1]}) - F({leg.states[0]})"
        if units is None:
            lines.append(f"{difference}: no value is named")
        else:
            lines.append(difference + " = " + " = ".join(f"{text} {unit}" for unit, text in units.items()))
    if not result.trustworthy:
        lines.append("NOT TRUSTWORTHY:")
        lines += [f"  - {reason}" for reason in result.reasons]
    return [_ascii(line) for line in lines]


def table_rows(leg: LegResult) -> list[tuple[str, ...]]:
    """Return a leg's table: estimators first, published figures last."""
    rows: list[tuple[str, ...]] = [
        (
            name,
            row.role,
            with_error(row.value_kT, row.stderr_kT),
            plain(row.overlap),
            plain(row.n_effective),
            f"{row.seconds:.1f}",
        )
        for name, row in leg.estimators.items()
    ]
    dash = plain(None)
    rows += [
        (one.label, "published", with_error(one.value_kT, one.stderr_kT), dash, dash, dash) for one in leg.published
    ]
    return [tuple(_ascii(cell) for cell in row) for row in rows]


def _print_plain(title: str, leg: LegResult, out: TextIO) -> None:
    rows = [COLUMNS, *table_rows(leg)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(COLUMNS))]
    print(f"\n{title}", file=out)
    for row in rows:
        left = [cell.ljust(width) for cell, width in zip(row[:2], widths[:2], strict=True)]
        right = [cell.rjust(width) for cell, width in zip(row[2:], widths[2:], strict=True)]
        print("  ".join([*left, *right]).rstrip(), file=out)


def _print_table(title: str, leg: LegResult, out: TextIO) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title, title_justify="left", title_style="bold", box=SIMPLE_HEAD)
    for column in COLUMNS:
        right = column not in ("estimator", "kind")
        table.add_column(column, justify="right" if right else "left", no_wrap=right)
    styles = {"classical": "blue", "learned": "dark_orange", "ablation": "dim", "published": "bold"}
    for row in table_rows(leg):
        table.add_row(*row, style=styles[row[1]])
    Console(file=out).print(table)


def _ascii(text: str) -> str:
    """Return text that any log and any encoding can hold."""
    for fancy, simple in (("±", "+-"), ("−", "-"), ("–", "-"), ("“", '"'), ("”", '"'), ("→", "->")):
        text = text.replace(fancy, simple)
    return text
