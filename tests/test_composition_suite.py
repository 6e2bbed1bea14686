"""Suite ``composition``: exact members give the exact composition, and only by the weights of the annealing."""

from __future__ import annotations

import csv
import dataclasses
import math
from collections import Counter
from pathlib import Path

import pytest
import torch

from boltzgen_diffclf.streams import named_generator
from systems.analytic import GaussianMixture, MixtureMarginals, crossing_ellipses
from workflows.benchmark import BenchmarkConfig, run
from workflows.benchmark_suites import composed
from workflows.benchmark_suites.composed import PATH, composed_row, exact_composition
from workflows.benchmark_suites.composition import COMPOSITION, RULES
from workflows.benchmark_suites.definitions import definitions
from workflows.benchmark_suites.suite import Metric, RowContext, RowSpec
from workflows.report.composition_figure import composition_figure

SIZES = {"levels": 16, "particles": 500, "measured": 1000}


@pytest.fixture(autouse=True)
def _eager(monkeypatch: pytest.MonkeyPatch) -> None:
    from boltzgen_diffclf.compilation import can_fuse

    monkeypatch.setenv("BOLTZGEN_EAGER", "1")
    can_fuse.cache_clear()
    yield
    can_fuse.cache_clear()


def exact_row(rule: str) -> dict[str, Metric]:
    context = RowContext(SIZES, Path("never written"), lambda part: None, "cpu")
    metrics = composed_row(RowSpec("composition", rule, 2, "exact", 0), context)
    found = {metric.name: metric for metric in metrics}
    assert len(found) == len(metrics)
    return found


def misses(metrics: dict[str, Metric], name: str) -> list[float]:
    """Return how many standard errors each number of that name is from the exact one."""
    chosen = [metric for key, metric in metrics.items() if key.partition("@")[0] == name]
    return [abs(one.value - one.limit) / max(one.stderr, 1e-3) for one in chosen]


def log_overlap(one: GaussianMixture, other: GaussianMixture) -> float:
    """Return the log integral of the product of two mixtures, in closed form."""
    variances = one.variances[:, None] + other.variances
    squares = (one.means[:, None] - other.means).square() / variances
    terms = -0.5 * (squares + (2 * math.pi * variances).log()).sum(-1)
    return float((terms + one.weights.log()[:, None] + other.weights.log()).flatten().logsumexp(0))


def test_quadrature_of_product_and_mixture_is_their_closed_form() -> None:
    one, other = (MixtureMarginals(member, PATH).at(PATH.t_min) for member in crossing_ellipses())
    assert exact_composition("product").log_normaliser == pytest.approx(log_overlap(one, other), abs=1e-9)
    assert exact_composition("mixture").log_normaliser == pytest.approx(0.0, abs=1e-9)
    mixture = exact_composition("mixture")
    assert (mixture.probabilities @ mixture.points - 0.25 * one.mean - 0.75 * other.mean).abs().max() < 1e-9
    samples = mixture.sample(20_000, named_generator(0, "samples"))
    deviation = (samples.mean(0) - mixture.probabilities @ mixture.points) / samples.std(0) * math.sqrt(20_000)
    assert deviation.abs().max() < 4


@pytest.mark.parametrize("rule", RULES)
def test_exact_members_give_the_exact_composition(rule: str) -> None:
    metrics = exact_row(rule)
    assert max(misses(metrics, "log_normaliser") + misses(metrics, "smc_region_weight")) < 4.5
    assert metrics["log_normaliser"].stderr < 0.1
    curve = [metric for name, metric in metrics.items() if name.startswith("density@")]
    cell = (2 * composed.WINDOW[0] / composed.WINDOW[1]) ** 2
    assert sum(one.limit for one in curve) * cell == pytest.approx(1.0, abs=0.01)
    assert sum(one.value for one in curve) * cell == pytest.approx(1.0, abs=0.02)


def test_without_the_weights_the_regions_are_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither reverse diffusion along the sum of exact scores nor the moves alone know the composition."""

    def unweighted(annealing, ladder, start, generator, log_weights):
        moved = dataclasses.replace(annealing, resample_below=None)
        result = original(moved, ladder, start, generator)
        return dataclasses.replace(result, log_weights=torch.zeros_like(result.log_weights))

    original = composed.anneal
    monkeypatch.setattr(composed, "anneal", unweighted)
    wrong = exact_row("product")
    assert max(misses(wrong, "smc_region_weight")) > 8
    assert max(misses(wrong, "reverse_region_weight")) > 6


def test_rules_share_their_members_and_a_row_is_short(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny = {"levels": 9, "groups": 8, "hidden": 8, "layers": 1, "level_pool": 4, "measured": 60, "particles": 20}
    monkeypatch.setattr(composed, "POPULATIONS", 2)
    for preset in COMPOSITION.presets.values():
        monkeypatch.setitem(preset.__dict__, "sizes", {**preset.sizes, **tiny})
    config = BenchmarkConfig(
        suite="composition", objectives=("exact", "dsm"), steps=4, samples=100, out=tmp_path, threads=1
    )
    result = run(config)
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == [
        f"composition-member_{name}-d2-dsm-seed0.safetensors" for name in "ab"
    ]
    with (tmp_path / "results.csv").open(encoding="utf-8") as handle:
        lines = list(csv.DictReader(handle))
    counts = Counter((line["target"], line["objective"], line["seed"]) for line in lines)
    assert {rule for rule, _, _ in counts} == set(RULES)
    assert max(counts.values()) < 3000
    assert all(math.isfinite(row.value) for row in result.rows)
    assert all(definitions([name]) for name in {row.metric for row in result.rows})
    assert len(composition_figure(result.rows).axes) == 4 * 4
    assert "density@" not in (tmp_path / "report.html").read_text(encoding="utf-8")
    assert (tmp_path / "figures" / "composition.png").stat().st_size > 10_000
