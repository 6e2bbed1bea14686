"""Every optimiser steps every parameter once, at its own rate."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from boltzgen_diffclf.errors import InputError
from boltzgen_diffclf.training.muon import Muon, orthogonalised
from boltzgen_diffclf.training.optimisers import OPTIMISERS, named_optimisers


class WithCurve(nn.Module):
    """A network and a parameter beside it."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(12, 16), nn.Linear(16, 1))
        self.curve = nn.Parameter(torch.zeros(5))


@pytest.mark.parametrize("name", list(OPTIMISERS))
def test_every_parameter_is_stepped_once_at_its_own_peak(name: str) -> None:
    model = WithCurve()
    groups = [group for one in named_optimisers(name, model, (1e-3, 1e-1), 1e-4) for group in one.param_groups]
    stepped = [id(parameter) for group in groups for parameter in group["params"]]
    assert sorted(stepped) == sorted(id(parameter) for parameter in model.parameters())
    (curve,) = [group for group in groups if any(parameter is model.curve for parameter in group["params"])]
    assert (curve["peak"], curve["weight_decay"]) == (1e-1, 0.0)


def test_muon_steps_as_far_along_weak_directions_as_along_strong_ones() -> None:
    model = WithCurve()
    before = model.net[0].weight.detach().clone()
    # Of entries that are all as large: AdamW, which steps by their signs, does not see the weak one at all.
    flat, alternating = torch.ones(16), 1.0 - 2 * (torch.arange(16) % 2)
    strong, weak = torch.outer(flat, flat[:12]), 0.01 * torch.outer(alternating, alternating[:12])
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    model.net[0].weight.grad = strong + weak
    for one in named_optimisers("muon", model, (1e-2, 1e-2), 0.0):
        for group in one.param_groups:
            group["lr"] = group["peak"]
        one.step()
    step = (model.net[0].weight - before).detach()
    assert float((alternating @ step @ alternating[:12]) / (flat @ step @ flat[:12])) > 0.3


def test_an_unknown_optimiser_is_refused() -> None:
    with pytest.raises(InputError, match=r"no optimiser 'mun' .*muon"):
        named_optimisers("mun", WithCurve(), (1e-3, 1e-1), 0.0)


@pytest.mark.parametrize("shape", [(12, 20), (20, 12), (16, 16)])
def test_muon_moves_singular_values_to_about_one_and_leaves_singular_vectors(shape: tuple[int, int]) -> None:
    matrix = torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    left, _, right = torch.linalg.svd(matrix, full_matrices=False)
    turned = left.T @ orthogonalised(matrix) @ right.T
    assert torch.allclose(turned, turned.diag().diag(), atol=1e-10)
    assert bool(((turned.diag() > 0.6) & (turned.diag() < 1.3)).all())


def test_muon_takes_the_steps_of_the_implementation_of_pytorch() -> None:
    ours, theirs = (nn.Parameter(torch.zeros(24, 16)) for _ in range(2))
    settings = {"lr": 0.1, "weight_decay": 0.01}
    optimisers = (
        Muon([{"params": [ours], **settings}], 0.0),
        torch.optim.Muon([theirs], **settings, adjust_lr_fn="match_rms_adamw"),
    )
    stream = torch.Generator().manual_seed(1)
    for _ in range(3):
        gradient = torch.randn(24, 16, generator=stream)
        for parameter, optimiser in zip((ours, theirs), optimisers, strict=True):
            parameter.grad = gradient.clone()
            optimiser.step()
    # Theirs is rounded to eight bits.
    assert float((ours - theirs).detach().norm() / theirs.detach().norm()) < 0.02
