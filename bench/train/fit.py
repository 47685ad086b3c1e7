"""The epochs of a training: stochastic gradient descent, saved after each.

Initialisation and every epoch draw from generators derived from the seed, and the learning rate
follows from the epoch's number: on the CPU, a training that was interrupted ends in the same
weights, bit for bit.
"""

from __future__ import annotations

import hashlib
import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from bench.errors import ModelError, UsageError
from bench.train.augment import crop_and_flip
from bench.train.state import load_state, save_state

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from bench.api import Examples, Recipe

#: Seconds between two reports within an epoch; each report waits for the device.
REPORT_EVERY = 0.5
#: How many training examples the accuracy in the progress is read from.
PROBE = 1000

#: How many examples are evaluated at once.
BATCH = 500


@dataclass(frozen=True)
class Progress:
    """Where a training stands."""

    epoch: int
    """The running epoch, from 1."""
    epochs: int
    done: float
    """Epochs done, the running one in part."""
    loss: float
    """Mean over the running epoch."""
    accuracy: float | None
    """On unperturbed training examples (at most `PROBE`) after the last whole epoch."""


def fit(
    model: nn.Module,
    recipe: Recipe,
    examples: Examples,
    seed: int,
    device: str,
    state: Path,
    on_progress: Callable[[Progress], None],
) -> None:
    """Run all epochs that are not done yet.

    Args:
        model: with its initial weights, on the device.
        recipe: its loss and schedule.
        examples: to train on; kept on the device.
        seed: of the training.
        device: as in `train`.
        state: the file of the state; written after every epoch but the last, read if it is there.
        on_progress: see `train`.

    Raises:
        UsageError: the training diverged.
        CheckpointError: the state is not one of this training.
        StoreError: the state cannot be written.
    """
    schedule = recipe.schedule
    optimizer = torch.optim.SGD(
        model.parameters(),
        lr=schedule.learning_rate,
        momentum=schedule.momentum,
        weight_decay=schedule.weight_decay,
    )
    done = load_state(state, model=model, optimizer=optimizer) if state.exists() else 0
    kind = torch.device(device).type
    inputs = examples.inputs.to(device, memory_format=memory_format(kind))
    labels = examples.labels.to(device)
    right: float | None = None
    for epoch in range(done, schedule.epochs):
        rate = schedule.learning_rate * schedule.factor ** sum(
            epoch >= milestone for milestone in schedule.milestones
        )
        for group in optimizer.param_groups:
            group["lr"] = rate
        generator = torch.Generator().manual_seed(derived_seed(seed, epoch))
        torch.manual_seed(derived_seed(seed, epoch))  # for modules such as dropout
        order = torch.randperm(len(inputs), generator=generator)
        batches = math.ceil(len(order) / schedule.batch_size)
        total = torch.zeros((), device=device)
        reported = time.monotonic()
        for batch in range(1, batches + 1):
            chosen = order[(batch - 1) * schedule.batch_size :][: schedule.batch_size].to(device)
            loss = _step(model, recipe, optimizer, inputs[chosen], labels[chosen], generator, epoch)
            total += loss
            if batch == batches or time.monotonic() - reported >= REPORT_EVERY:
                reported = time.monotonic()
                mean = float(total) / batch
                if not math.isfinite(mean):
                    raise _diverged(epoch, f"the loss is {mean}")
                on_progress(
                    Progress(epoch + 1, schedule.epochs, epoch + batch / batches, mean, right)
                )
        right = accuracy(model, examples, device, limit=PROBE)
        on_progress(Progress(epoch + 1, schedule.epochs, epoch + 1, mean, right))
        if epoch + 1 < schedule.epochs:
            save_state(state, model=model, optimizer=optimizer, epochs_done=epoch + 1)


def _step(
    model: nn.Module,
    recipe: Recipe,
    optimizer: torch.optim.Optimizer,
    inputs: Tensor,
    labels: Tensor,
    generator: torch.Generator,
    epoch: int,
) -> Tensor:
    """One step of descent; returns the loss, detached."""
    if recipe.schedule.augment:
        inputs = crop_and_flip(inputs, generator)
    kind = inputs.device.type
    try:
        with torch.autocast(kind, dtype=torch.bfloat16, enabled=kind == "cuda"):
            loss = recipe.loss(model, inputs, labels, generator)
    except ModelError as error:  # k-WTA refuses NaN
        raise _diverged(epoch, str(error)) from error
    optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    return loss.detach()


def _diverged(epoch: int, why: str) -> UsageError:
    return UsageError(
        f"the training diverged in epoch {epoch + 1}: {why}; try another --seed, or a recipe "
        "with a lower learning rate"
    )


def memory_format(kind: str) -> torch.memory_format:
    """The layout of images in memory that is fast on a kind of device."""
    return torch.channels_last if kind == "cuda" else torch.contiguous_format


@torch.no_grad()
def accuracy(model: nn.Module, examples: Examples, device: str, limit: int | None = None) -> float:
    """The fraction of the first `limit` examples (all by default) that a model gets right.

    In float32 and eval mode; the model is left in the mode it came in.
    """
    training = model.training
    model.eval()
    right = 0
    n = min(len(examples), limit or len(examples))
    for start in range(0, n, BATCH):
        part = slice(start, min(start + BATCH, n))
        predicted = model(examples.inputs[part].to(device)).argmax(dim=1).cpu()
        right += int((predicted == examples.labels[part]).sum())
    model.train(training)
    return right / n


def derived_seed(seed: int, part: object) -> int:
    """A seed for one part of a training, independent of those of the others."""
    digest = hashlib.sha256(repr(("train", seed, part)).encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1
