"""Fusing: what a killed compiler left behind stops no run; fused is what it was, or eager."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from boltzgen_diffclf.compilation import can_fuse, fuse, remove_truncated_libraries


@pytest.fixture(autouse=True)
def _fresh() -> None:
    can_fuse.cache_clear()
    yield
    can_fuse.cache_clear()


def test_half_written_libraries_are_removed(tmp_path: Path) -> None:
    whole = tmp_path / "ab" / "whole.so"
    whole.parent.mkdir()
    shutil.copy(next(Path(torch.__file__).parent.glob("lib/libtorch_python.so")), whole)
    content = whole.read_bytes()
    for name, length in {"empty": 0, "short": 40, "half": len(content) // 2, "almost": len(content) - 100}.items():
        (tmp_path / "ab" / f"{name}.so").write_bytes(content[:length])
    for path in tmp_path.glob("**/*.so"):
        os.utime(path, (1.0, 1.0))
    (tmp_path / "growing.so").write_bytes(content[:100])
    assert remove_truncated_libraries(tmp_path) == 4
    (tmp_path / "growing.so").unlink()
    assert list(tmp_path.glob("**/*.so")) == [whole]


def test_without_a_compiler_it_runs_eagerly_and_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delenv("BOLTZGEN_EAGER", raising=False)
    monkeypatch.setenv("PATH", "")

    def double(x: torch.Tensor) -> torch.Tensor:
        return 2 * x

    with caplog.at_level(logging.WARNING):
        assert fuse(double, "cpu") is double
        assert fuse(double, "cpu") is double
    assert [record.message for record in caplog.records] == [
        "no C++ compiler found: energies run eagerly, several times slower (install g++)"
    ]


FUSED_BIAS = """
import torch
from boltzgen_diffclf.coordinates import Arc, TorsionArc
from boltzgen_diffclf.favouring import ArcBias, FavouredTarget
from boltzgen_diffclf.target import Target

class HarmonicAtoms(Target):
    event_shape, dimension, dtype, device = (4, 3), 12, torch.float64, torch.device("cpu")
    def energy(self, x):
        return 0.5 * x.square().sum((1, 2))
    def energy_and_force(self, x):
        return self.energy(x), -x

arcs = Arc(0.2, 2.0), Arc(-1.0, 0.4)
biases = [ArcBias(TorsionArc((0, 1, 2, 3), arc), depth) for arc, depth in zip(arcs, (2.5, -9.0))]
target = FavouredTarget(HarmonicAtoms(), biases)
assert target._of_biases != target._bias_and_gradient
for n in (6, 40, 40):
    x = torch.randn(n, 4, 3, generator=torch.Generator().manual_seed(n), dtype=torch.float64).requires_grad_()
    (slope,) = torch.autograd.grad(target.energy(x).sum(), x)
    energy, force = target.energy_and_force(x.detach())
    torch.testing.assert_close(energy, target.energy(x).detach())
    torch.testing.assert_close(force, -slope)
assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1
"""


def test_a_fused_bias_is_the_bias_and_compiled_once_for_all_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a process of its own: the run-time type checks of pytest would cut the compiled graph to pieces."""
    monkeypatch.delenv("BOLTZGEN_EAGER", raising=False)
    if not can_fuse("cpu"):
        pytest.skip("no C++ compiler")
    done = subprocess.run([sys.executable, "-c", FUSED_BIAS], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
