"""Checkpoints: one safetensors file that holds weights, averages, optimiser, stream and history, or nothing."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from boltzgen_diffclf.errors import InputError, UnreadableError
from boltzgen_diffclf.files import atomic_path

FORMAT = "boltzgen-diffclf checkpoint 2"

_NOT_TOLD_ONCE: Mapping[str, Any] = MappingProxyType(
    {"classes": "levels", "levels of a group": None, "topology_hash": None, "hands": None}
)
"""What older checkpoints do not say of their training, and what it was; None where it was what is asked for."""


def save_checkpoint(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> None:
    """Write ``tensors`` and JSON-able ``metadata`` to ``path``, whole or not at all.

    Raises:
        RunFailedError: the disk refuses.
    """
    # One storage each: safetensors refuses tensors that share memory.
    flat = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    with atomic_path(path) as temporary:
        try:
            save_file(flat, temporary, metadata={"format": FORMAT, "contents": json.dumps(metadata)})
        except SafetensorError as error:
            raise OSError(None, str(error)) from error


def load_checkpoint(path: Path, identity: Mapping[str, Any]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read a checkpoint and check that it belongs to this training.

    Args:
        path: the file.
        identity: what must be the same: every key of it is compared with the stored ``identity``.

    Returns:
        Tensors by name, and the metadata.

    Raises:
        InputError: not a checkpoint, truncated, or of another network, system or setting.
    """
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise UnreadableError(
            f"checkpoint {path} cannot be read ({error}): delete it to train again, or restore it"
        ) from error
    if header.get("format") != FORMAT:
        raise InputError(f"{path} is not a checkpoint of this version ({FORMAT}): delete it to train again")
    metadata = json.loads(header["contents"])
    expected = json.loads(json.dumps(dict(identity)))
    for key, value in expected.items():
        found = metadata["identity"].get(key)
        if found is None and key in _NOT_TOLD_ONCE:
            found = _NOT_TOLD_ONCE[key] or value
        if found != value:
            name, stored, wanted = _first_difference(key, found, value)
            raise InputError(
                f"checkpoint {path} is of another training: its {name} is {stored}, this one's is {wanted}; "
                "choose another --out or delete it"
            )
    return tensors, metadata


def _first_difference(name: str, found: Any, wanted: Any) -> tuple[str, Any, Any]:
    """Return the innermost entry that differs, so that a message names one setting and not all of them."""
    if isinstance(found, dict) and isinstance(wanted, dict):
        key = next(key for key in [*wanted, *found] if found.get(key) != wanted.get(key))
        return _first_difference(f"{name} {key}", found.get(key), wanted.get(key))
    return name, found, wanted


def optimiser_tensors(optimisers: Sequence[torch.optim.Optimizer]) -> dict[str, Tensor]:
    """Return the per-parameter state of all optimisers as flat named tensors."""
    return {
        f"optimiser.{place}.{index}.{key}": value
        for place, optimiser in enumerate(optimisers)
        for index, state in optimiser.state_dict()["state"].items()
        for key, value in state.items()
    }


def restore_optimisers(optimisers: Sequence[torch.optim.Optimizer], tensors: Mapping[str, Tensor]) -> None:
    """Put back what :func:`optimiser_tensors` took out."""
    for place, optimiser in enumerate(optimisers):
        content, states = optimiser.state_dict(), dict[int, dict[str, Tensor]]()
        for name, value in tensors.items():
            if name.startswith(f"optimiser.{place}."):
                index, key = name.split(".", 3)[2:]
                states.setdefault(int(index), {})[key] = value
        content["state"] = states
        optimiser.load_state_dict(content)
