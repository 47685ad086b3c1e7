"""The state of an unfinished training, stored after every epoch."""

from __future__ import annotations

import dataclasses
import io
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from bench.errors import CheckpointError
from bench.record.files import write_bytes
from bench.train.curve import Epoch

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor, nn


@dataclass
class History:
    """What a training has measured so far, and the best weights it came by."""

    curve: list[Epoch] = field(default_factory=list)
    best: Epoch | None = None
    """The first of the epochs with the highest score; None without validation examples."""
    best_weights: dict[str, Tensor] = field(default_factory=dict)
    """Its `state_dict`, on the CPU."""

    @property
    def epochs_done(self) -> int:
        """How many whole epochs were done."""
        return len(self.curve)

    def add(self, epoch: Epoch, model: nn.Module) -> None:
        """Note an epoch, and the weights if it is the best one."""
        self.curve.append(epoch)
        if epoch.score is not None and (
            self.best is None or epoch.score > (self.best.score or 0.0)
        ):
            self.best = epoch
            weights = model.state_dict().items()
            self.best_weights = {name: w.detach().cpu().clone() for name, w in weights}


def save_state(
    path: Path, *, model: nn.Module, optimizer: torch.optim.Optimizer, history: History
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
        "curve": [dataclasses.asdict(epoch) for epoch in history.curve],
        "best": dataclasses.asdict(history.best) if history.best else None,
        "best_weights": history.best_weights,
    }
    torch.save(state, buffer)
    write_bytes(path, buffer.getvalue())


def load_state(path: Path, *, model: nn.Module, optimizer: torch.optim.Optimizer) -> History:
    """Put model and optimizer where they were; returns what had been measured.

    Raises:
        CheckpointError: it is not the state of a training.
    """
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        best = Epoch(**state["best"]) if state["best"] else None
        curve = [Epoch(**epoch) for epoch in state["curve"]]
        return History(curve, best, state["best_weights"])
    except Exception as error:
        raise CheckpointError(
            f"{path} is not the state of this training; remove it, or use --fresh"
        ) from error
