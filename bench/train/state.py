"""The state of an unfinished training, stored after every epoch."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import torch

from bench.errors import CheckpointError
from bench.record.files import write_bytes

if TYPE_CHECKING:
    from pathlib import Path

    from torch import nn


def save_state(
    path: Path, *, model: nn.Module, optimizer: torch.optim.Optimizer, epochs_done: int
) -> None:
    """Write everything that the next epoch needs, atomically.

    Random numbers are no part of it: each epoch draws from a generator of its own.

    Raises:
        StoreError: the folder cannot be written.
    """
    buffer = io.BytesIO()
    state = {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "epochs_done": epochs_done,
    }
    torch.save(state, buffer)
    write_bytes(path, buffer.getvalue())


def load_state(path: Path, *, model: nn.Module, optimizer: torch.optim.Optimizer) -> int:
    """Put model and optimizer where they were; returns how many epochs were done.

    Raises:
        CheckpointError: it is not the state of a training.
    """
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        return int(state["epochs_done"])
    except Exception as error:
        raise CheckpointError(
            f"{path} is not the state of this training; remove it, or use --fresh"
        ) from error
