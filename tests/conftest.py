"""Fixtures that several files of tests share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest


@pytest.fixture
def eager_mode(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nothing is compiled: a test is over before a compiler would be."""
    from boltzgen_diffclf.compilation import can_fuse

    monkeypatch.setenv("BOLTZGEN_EAGER", "1")
    can_fuse.cache_clear()
    yield
    can_fuse.cache_clear()
