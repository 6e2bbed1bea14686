"""Samplers that go on where they were killed: their state and their stream of random numbers lie in a file."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol, TypeVar

import torch

from boltzgen_diffclf.errors import InputError
from boltzgen_diffclf.samplers.state import TensorState
from boltzgen_diffclf.training.checkpoint import load_checkpoint, save_checkpoint

SECONDS = 20.0
"""Between two savings: what a kill costs at most."""

State = TypeVar("State", bound=TensorState)
Info = TypeVar("Info")
Told = TypeVar("Told", covariant=True)


class Stepper(Protocol[State, Told]):
    """A sampler that takes steps until it has arrived."""

    def step(self, state: State, generator: torch.Generator) -> tuple[State, Told]:
        """Return the state after one step, and what happened."""
        ...

    def arrived(self, state: State) -> bool:
        """Whether no step is left."""
        ...


def carry_on(
    sampler: Stepper[State, Info],
    kind: type[State],
    begin: Callable[[torch.Generator], State],
    generator: torch.Generator,
    file: Path | None,
    identity: Mapping[str, object],
    told: Callable[[State, Info], None] = lambda state, info: None,
) -> State:
    """Return the state at the end; the same call after a kill ends in the same state, bit for bit.

    Args:
        sampler: takes the steps.
        kind: class of its state, whose fields are all tensors.
        begin: makes the first state.
        generator: of everything; on the device of the state.
        file: holds the last saved state, and is removed by the caller once the result is safe; None keeps nothing.
        identity: what a saved state must be of.
        told: of each state and what happened on the way to it.

    Raises:
        InputError: the file is damaged, or of another run.
        RunFailedError: the disk refuses, or the sampler cannot go on.
    """
    if file is not None and file.exists():
        tensors, _ = load_checkpoint(file, identity)
        try:
            generator.set_state(tensors.pop("generator"))
        except (RuntimeError, TypeError) as error:  # a state of another size
            raise InputError(
                f"{file} was saved on another kind of device than {generator.device.type}: go on with --device as "
                "before, or delete it"
            ) from error
        state = kind(**{name: tensor.to(generator.device) for name, tensor in tensors.items()})
    else:
        state = begin(generator)

    def save(file: Path) -> None:
        save_checkpoint(file, {**state.tensors(), "generator": generator.get_state()}, {"identity": dict(identity)})

    saved = time.monotonic()
    while not sampler.arrived(state):
        state, info = sampler.step(state, generator)
        told(state, info)
        if file is not None and time.monotonic() - saved > SECONDS:
            save(file)
            saved = time.monotonic()
    if file is not None:
        save(file)
    return state
