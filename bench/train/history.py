"""What a training measures after each epoch: its state on the way, and its curve in the end."""

from __future__ import annotations

import csv
import dataclasses
import io
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from bench.errors import CheckpointError
from bench.record.files import write_bytes

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from torch import Tensor, nn


@dataclass(frozen=True)
class Epoch:
    """One line of the curve; accuracies are fractions of 1."""

    epoch: int
    """From 1."""
    learning_rate: float
    """At its end."""
    loss: float
    """Mean over its steps."""
    train_accuracy: float
    """On unperturbed training examples (at most `fit.PROBE`)."""
    validation_accuracy: float | None = None
    """On the held-out examples; None where there are none."""
    validation_robust_accuracy: float | None = None
    """Under the recipe's own attack; None where it has none."""
    seconds: float = 0.0

    @property
    def score(self) -> float | None:
        """What the best epoch is chosen by: robust accuracy, or clean where there is no attack."""
        robust = self.validation_robust_accuracy
        return self.validation_accuracy if robust is None else robust


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


def write_curve(folder: Path, stem: str, curve: Sequence[Epoch], title: str) -> None:
    """Write `STEM.csv` and `STEM.png`.

    Raises:
        StoreError: the folder cannot be written.
    """
    write_bytes(folder / f"{stem}.csv", to_csv(curve).encode())
    picture = io.BytesIO()
    draw(curve, title).savefig(picture, format="png", dpi=120)
    write_bytes(folder / f"{stem}.png", picture.getvalue())


def to_csv(curve: Sequence[Epoch]) -> str:
    """A line for each epoch below a header; what was not measured is empty."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(field.name for field in dataclasses.fields(Epoch))
    for epoch in curve:
        writer.writerow("" if v is None else f"{v:.6g}" for v in dataclasses.astuple(epoch))
    return text.getvalue()


def draw(curve: Sequence[Epoch], title: str) -> Any:
    """A matplotlib figure: the loss above, the accuracies below."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(6, 5), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True)
    epochs = [each.epoch for each in curve]
    marker = "o" if len(curve) < 30 else None
    above.plot(epochs, [each.loss for each in curve], marker=marker, markersize=3)
    above.set_title(title, parse_math=False)  # a folder of data may be called anything
    above.set(ylabel="training loss")
    for column, label in (
        ("train_accuracy", "training examples"),
        ("validation_accuracy", "validation"),
        ("validation_robust_accuracy", "validation, under attack"),
    ):
        values = [getattr(each, column) for each in curve]
        if None not in values:
            below.plot(epochs, values, marker=marker, markersize=3, label=label)
    below.set(xlabel="epoch", ylabel="accuracy", ylim=(0, 1))
    below.xaxis.set_major_locator(MaxNLocator(integer=True))
    below.legend()
    return figure
