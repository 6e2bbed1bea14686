"""Every metric that a suite emits has a definition, and a page has those of its own metrics."""

from __future__ import annotations

import ast
import csv
import re
from collections.abc import Iterator
from dataclasses import replace
from html import unescape
from pathlib import Path

import pytest

from workflows.benchmark import BenchmarkConfig, BenchmarkResult
from workflows.benchmark_suites import SUITES
from workflows.benchmark_suites.definitions import DEFINITIONS, definitions
from workflows.benchmark_suites.suite import ALL_SEEDS, TableRow
from workflows.report.benchmark_page import write_page

ROOT = Path(__file__).parents[1]
KEPT = [path for path in sorted((ROOT / "benchmarks" / "results").glob("*.csv")) if "ramachandran" not in path.name]


@pytest.mark.parametrize("path", KEPT, ids=lambda path: path.stem)
def test_metrics_of_the_kept_results_are_defined(path: Path) -> None:
    with path.open(encoding="utf-8") as handle:
        names = {row["metric"].partition("@")[0] for row in csv.DictReader(handle)}
    assert names
    assert not [name for name in names if not definitions([name])]


def emitted() -> Iterator[str]:
    """Yield a pattern for the name of every metric that is written in the source of a suite."""
    for path in sorted((ROOT / "workflows" / "benchmark_suites").glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Name)
                and node.func.id == "Metric"
                and node.args
            ):
                parts = node.args[0].values if isinstance(node.args[0], ast.JoinedStr) else [node.args[0]]
                texts = [re.escape(str(part.value)) if isinstance(part, ast.Constant) else ".*" for part in parts]
                yield "".join(texts).partition("@")[0]


def test_metrics_in_the_source_of_the_suites_are_defined() -> None:
    patterns = set(emitted())
    assert {"delta_f_classifier", ".*_region_total_variation", r"gradient_burst\..*"} <= patterns
    assert not [pattern for pattern in patterns if not any(re.fullmatch(pattern, name) for name in DEFINITIONS)]


def test_a_definition_is_one_sentence() -> None:
    assert all(re.fullmatch(r"[^\n]*[^.]\.", about) and ". " not in about for about in DEFINITIONS.values())


def test_a_page_defines_its_own_metrics_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SUITES, "rings", replace(SUITES["rings"], figures=lambda rows: []))
    names = ["fisher", "fisher@0.01", "gradient_norm.denoising", "gradient_norm.classification", "smc_sliced_w2", "new"]
    rows = tuple(TableRow("rings", "rings", 2, "dsm", ALL_SEEDS, name, 1.0, None, None, "") for name in names)
    page = write_page(BenchmarkResult(BenchmarkConfig(suite="rings", out=tmp_path), rows, tmp_path, 1.0))
    text = unescape(page.read_text(encoding="utf-8"))
    assert [name for name, about in DEFINITIONS.items() if about in text] == [
        "fisher",
        "smc_sliced_w2",
        "gradient_norm.",
    ]
    assert "What the metrics are" in text
