"""Fusing: what a killed compiler left behind does not stop the next run; no compiler means eager, said once."""

from __future__ import annotations

import logging
import os
import shutil
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
