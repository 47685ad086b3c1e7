"""The epochs of a training: stochastic gradient descent, saved after each.

Initialisation and every epoch draw from generators derived from the seed, and the learning rate
follows from the epoch's number: on the CPU, a training that was interrupted ends in the same
weights, bit for bit.

Random crop and flip of a whole batch, on its device.
"""

from __future__ import annotations

import hashlib
import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Generator, Tensor, nn
from torch.nn.functional import pad

from bench.errors import ModelError, UsageError
from bench.train.history import Epoch, History, load_state, save_state

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from bench.api import Examples, Recipe

#: Seconds between two reports within an epoch; each report waits for the device.
REPORT_EVERY = 0.5


#: How many training examples the accuracy in the progress is read from.
PROBE = 1000


#: How many examples are evaluated at once.
BATCH = 500


#: Pixels from which images lie channels last on the CPU as well.
CHANNELS_LAST_FROM = 28 * 28


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
) -> History:
    """Run all epochs that are not done yet.

    Args:
        model: with its initial weights, on the device.
        recipe: its loss and schedule.
        examples: to train on; kept on the device.
        seed: of the training.
        device: as in `train`.
        state: the file of the state; written after every epoch but the last, read if it is there.
        on_progress: see `train`.

    Returns:
        What was measured, those epochs included that an earlier call did.

    Raises:
        UsageError: the training diverged.
        ModelError: the model does not take these inputs.
        CheckpointError: the state is not one of this training.
        StoreError: the state cannot be written.
    """
    schedule = recipe.schedule
    examples, validation = held_out(examples, schedule.validation)
    optimizer = torch.optim.SGD(
        model.parameters(),
        lr=schedule.learning_rate,
        momentum=schedule.momentum,
        weight_decay=schedule.weight_decay,
    )
    history = load_state(state, model=model, optimizer=optimizer) if state.exists() else History()
    layout = memory_format(device, examples.shape)
    inputs = examples.inputs.to(device, memory_format=layout)
    labels = examples.labels.to(device)
    right = history.curve[-1].train_accuracy if history.curve else None
    if not history.curve:
        accuracy(model, examples, device, limit=1)  # a model that does not fit is not divergence
    for epoch in range(history.epochs_done, schedule.epochs):
        started = time.monotonic()
        recipe.begin_epoch(model, epoch)
        generator = torch.Generator().manual_seed(derived_seed(seed, epoch))
        torch.manual_seed(derived_seed(seed, epoch))  # for modules such as dropout
        order = torch.randperm(len(inputs), generator=generator)
        batches = math.ceil(len(order) / schedule.batch_size)
        total, steps = torch.zeros((), device=device), 0
        reported = time.monotonic()
        for batch in range(1, batches + 1):
            chosen = order[(batch - 1) * schedule.batch_size :][: schedule.batch_size].to(device)
            rate = schedule.rate(epoch + (batch - 1) / batches)
            for loss in _steps(
                model, recipe, optimizer, inputs[chosen], labels[chosen], generator, epoch, rate
            ):
                total += loss
                steps += 1
            if batch == batches or time.monotonic() - reported >= REPORT_EVERY:
                reported = time.monotonic()
                mean = float(total) / max(1, steps)
                if not math.isfinite(mean):
                    raise _diverged(epoch, f"the loss is {mean}")
                on_progress(
                    Progress(epoch + 1, schedule.epochs, epoch + batch / batches, mean, right)
                )
        right = accuracy(model, examples, device, limit=PROBE)
        clean, robust = _validate(model, recipe, validation, seed, device)
        seconds = time.monotonic() - started
        history.add(Epoch(epoch + 1, rate, mean, right, clean, robust, seconds), model)
        on_progress(Progress(epoch + 1, schedule.epochs, epoch + 1, mean, right))
        if epoch + 1 < schedule.epochs:
            save_state(state, model=model, optimizer=optimizer, history=history)
    return history


def held_out_count(n: int, count: int) -> int:
    """How many of n training examples are held out where so many are asked for."""
    return min(count, n // 5)


def held_out(examples: Examples, count: int) -> tuple[Examples, Examples | None]:
    """The examples to train on, and those to choose the best epoch by: the same for every seed.

    At most a fifth is held out, however many are asked for, so that little data can be trained on.
    """
    count = held_out_count(len(examples), count)
    if not count:
        return examples, None
    generator = torch.Generator().manual_seed(derived_seed(0, "validation"))
    order = torch.randperm(len(examples), generator=generator)
    return examples.take(order[count:].sort().values), examples.take(order[:count].sort().values)


def _validate(
    model: nn.Module, recipe: Recipe, validation: Examples | None, seed: int, device: str
) -> tuple[float | None, float | None]:
    """Accuracy on the held-out examples, and under the recipe's attack where it has one."""
    if validation is None:
        return None, None
    generator = torch.Generator().manual_seed(derived_seed(seed, "validation"))
    right = 0
    attacked = False
    for start in range(0, len(validation), BATCH):
        inputs = validation.inputs[start : start + BATCH].to(device)
        labels = validation.labels[start : start + BATCH].to(device)
        moved = recipe.attack(model, inputs, labels, generator)
        attacked |= moved is not inputs
        right += _right(model, moved.detach(), labels)
    robust = right / len(validation) if attacked else None
    return accuracy(model, validation, device), robust


def _steps(
    model: nn.Module,
    recipe: Recipe,
    optimizer: torch.optim.Optimizer,
    inputs: Tensor,
    labels: Tensor,
    generator: torch.Generator,
    epoch: int,
    rate: float,
) -> Iterator[Tensor]:
    """The steps of descent of one batch; yields the loss of each, detached."""
    if recipe.schedule.augment:
        inputs = crop_and_flip(inputs, generator)
    kind = inputs.device.type
    for group in optimizer.param_groups:
        group["lr"] = rate
    losses = recipe.losses(model, inputs, labels, generator)
    while True:
        try:
            with torch.autocast(kind, dtype=torch.bfloat16, enabled=kind == "cuda"):
                loss = next(losses, None)
        except ModelError as error:  # k-WTA refuses NaN
            raise _diverged(epoch, str(error)) from error
        if loss is None:
            return
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        yield loss.detach()


def _diverged(epoch: int, why: str) -> UsageError:
    return UsageError(
        f"the training diverged in epoch {epoch + 1}: {why}; try another --seed, or a recipe "
        "with a lower learning rate"
    )


def memory_format(device: str, shape: tuple[int, int, int]) -> torch.memory_format:
    """The layout of images (C, H, W) in memory that is fast on a device.

    Channels last, but for small images on the CPU: measured there on one core, forward and
    backward, 1.3 times as fast on 28×28 and 32×32.
    """
    small = device == "cpu" and shape[1] * shape[2] < CHANNELS_LAST_FROM
    return torch.contiguous_format if small else torch.channels_last


@torch.no_grad()
def accuracy(model: nn.Module, examples: Examples, device: str, limit: int | None = None) -> float:
    """The fraction of the first `limit` examples (all by default) that a model gets right.

    In float32 and eval mode; the model is left in the mode it came in.
    """
    n = min(len(examples), limit or len(examples))
    right = 0
    for start in range(0, n, BATCH):
        part = slice(start, min(start + BATCH, n))
        right += _right(model, examples.inputs[part].to(device), examples.labels[part].to(device))
    return right / n


@torch.no_grad()
def _right(model: nn.Module, inputs: Tensor, labels: Tensor) -> int:
    """How many of a batch a model gets right, in eval mode."""
    training = model.training
    model.eval()
    right = int((model(inputs).argmax(dim=1) == labels).sum())
    model.train(training)
    return right


def derived_seed(seed: int, part: object) -> int:
    """A seed for one part of a training, independent of those of the others."""
    digest = hashlib.sha256(repr(("train", seed, part)).encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


PADDING = 4


def crop_and_flip(inputs: Tensor, generator: Generator) -> Tensor:
    """Shift each image by up to 4 pixels over zeros, and mirror half of them.

    Args:
        inputs: (N, C, H, W).
        generator: on the CPU.

    Returns:
        Same shape and device.
    """
    n, _, height, width = inputs.shape
    span = 2 * PADDING + 1
    top, left = torch.randint(span, (2, n), generator=generator)
    mirrored = torch.rand(n, generator=generator) < 0.5
    columns = torch.arange(width).expand(n, width)
    columns = torch.where(mirrored[:, None], columns.flip(1), columns) + left[:, None]
    rows = torch.arange(height) + top[:, None]
    image = torch.arange(n)
    device = inputs.device
    # Indices (N, H, W) around the slice of channels give (N, H, W, C).
    moved = pad(inputs, [PADDING] * 4)[
        image[:, None, None].to(device), :, rows[:, :, None].to(device), columns[:, None].to(device)
    ]
    return moved.permute(0, 3, 1, 2)
