"""A workflow called as a library leaves the processor to its caller as it was."""

from __future__ import annotations

import pytest
import torch

from workflows.processor import flushes_denormals, processor_settings


def test_threads_and_denormals_are_given_back_also_after_an_error() -> None:
    before = torch.get_num_threads()
    assert not flushes_denormals()

    def fail() -> None:
        with processor_settings(before + 1):
            assert torch.get_num_threads() == before + 1
            assert flushes_denormals()
            raise ValueError("on the way")

    with pytest.raises(ValueError, match="on the way"):
        fail()
    assert torch.get_num_threads() == before
    assert not flushes_denormals()
