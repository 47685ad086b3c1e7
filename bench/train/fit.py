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
from torch import Generator, Tensor, nn
from torch.nn.functional import pad

from bench.errors import ModelError, PluginError
from bench.train.faults import check_loss, diverged, told
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

#: By how many pixels augmentation shifts at most.
PADDING = 4


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


@dataclass(frozen=True)
class Training:
    """What is trained, on what, and how."""

    model: nn.Module
    """With its initial weights, on the device."""
    recipe: Recipe
    examples: Examples
    """All there are, those included that its schedule holds out; kept on the device."""
    seed: int
    device: str = "cpu"


def fit(
    training: Training, state: Path, on_progress: Callable[[Progress], None] = lambda progress: None
) -> History:
    """Run all epochs that are not done yet.

    Args:
        training: its model is trained in place.
        state: the file of the state; written after every epoch but the last, read if it is there.
        on_progress: see `train`.

    Returns:
        What was measured, those epochs included that an earlier call did.

    Raises:
        UsageError: the training diverged.
        ModelError: the model does not take these inputs.
        PluginError: the recipe or the model raised something, or there is nothing to train.
        CheckpointError: the state is not one of this training.
        StoreError: the state cannot be written.
    """
    model, device = training.model, training.device
    epochs = training.recipe.schedule.epochs
    examples, validation = held_out(training.examples, training.recipe.schedule.validation)
    descent = _Descent(training, examples)
    optimizer = descent.optimizer
    history = load_state(state, model=model, optimizer=optimizer) if state.exists() else History()
    right = history.curve[-1].train_accuracy if history.curve else None
    if not history.curve:
        with told():  # a model that does not fit is not divergence
            accuracy(model, examples, device, limit=1)
    for epoch in range(history.epochs_done, epochs):
        started = time.monotonic()
        for done, loss in descent.epoch(epoch):
            on_progress(Progress(epoch + 1, epochs, epoch + done, loss, right))
        if not _is_finite(model):
            raise diverged(epoch, "the weights are not finite")
        with told():
            right = accuracy(model, examples, device, limit=PROBE)
            clean, robust = _validate(training, validation)
        rate, seconds = descent.rate, time.monotonic() - started
        history.add(Epoch(epoch + 1, rate, loss, right, clean, robust, seconds), model)
        on_progress(Progress(epoch + 1, epochs, epoch + 1, loss, right))
        if epoch + 1 < epochs:
            save_state(state, model=model, optimizer=optimizer, history=history)
    return history


class _Descent:
    """The optimizer of a training, and the examples on its device."""

    def __init__(self, training: Training, examples: Examples) -> None:
        self.training = training
        schedule, device = training.recipe.schedule, training.device
        parameters = list(training.model.parameters())
        if not parameters:
            raise PluginError("the model has no parameters to train")
        self.optimizer = torch.optim.SGD(
            parameters,
            lr=schedule.learning_rate,
            momentum=schedule.momentum,
            weight_decay=schedule.weight_decay,
        )
        layout = memory_format(device, examples.shape)
        self.inputs = examples.inputs.to(device, memory_format=layout)
        self.labels = examples.labels.to(device)

    @property
    def rate(self) -> float:
        """The learning rate of the last step."""
        return float(self.optimizer.param_groups[0]["lr"])

    def epoch(self, epoch: int) -> Iterator[tuple[float, float]]:
        """Every batch once; yields the part that is done and the mean loss, at the end at least.

        Raises:
            UsageError: the training diverged.
        """
        recipe, device = self.training.recipe, self.training.device
        seed = derived_seed(self.training.seed, epoch)
        with told():
            recipe.begin_epoch(self.training.model, epoch)
        generator = torch.Generator().manual_seed(seed)
        torch.manual_seed(seed)  # for modules such as dropout
        order = torch.randperm(len(self.inputs), generator=generator)
        batches = batches_of(order, recipe.schedule.batch_size)
        total, steps = torch.zeros((), device=device), 0
        reported = time.monotonic()
        for number, batch in enumerate(batches):
            for group in self.optimizer.param_groups:
                group["lr"] = recipe.schedule.rate(epoch + number / len(batches))
            try:
                with told():
                    for loss in self._steps(batch.to(device), generator):
                        total += loss
                        steps += 1
            except ModelError as error:  # k-WTA refuses NaN
                raise diverged(epoch, str(error)) from error
            if number + 1 == len(batches) or time.monotonic() - reported >= REPORT_EVERY:
                reported = time.monotonic()
                mean = float(total) / max(1, steps)
                if not math.isfinite(mean):
                    raise diverged(epoch, f"the loss is {mean}")
                yield (number + 1) / len(batches), mean

    def _steps(self, batch: Tensor, generator: Generator) -> Iterator[Tensor]:
        """The steps of descent of one batch, given by its indices; yields each loss, detached."""
        model, recipe = self.training.model, self.training.recipe
        inputs, labels = self.inputs[batch], self.labels[batch]
        if recipe.schedule.augment:
            inputs = crop_and_flip(inputs, generator)
        kind = inputs.device.type
        losses = recipe.losses(model, inputs, labels, generator)
        while True:
            with torch.autocast(kind, dtype=torch.bfloat16, enabled=kind == "cuda"):
                loss = next(losses, None)
            if loss is None:
                return
            check_loss(loss, recipe.name)
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            self.optimizer.step()
            yield loss.detach()


def batches_of(order: Tensor, size: int) -> list[Tensor]:
    """An order of examples in batches; a single one left over goes with those before it.

    Batch normalisation has no spread to divide by in a batch of one, and refuses it.
    """
    batches = list(torch.split(order, size))
    if len(batches) > 1 and len(batches[-1]) == 1:
        batches[-2:] = [torch.cat(batches[-2:])]
    return batches


def _is_finite(model: nn.Module) -> bool:
    """Whether all weights are: the loss of a step tells nothing of what the step makes of them."""
    return all(bool(p.isfinite().all()) for p in model.parameters() if p.requires_grad)


def _validate(training: Training, validation: Examples | None) -> tuple[float | None, float | None]:
    """Accuracy on the held-out examples, and under the recipe's attack where it has one."""
    if validation is None:
        return None, None
    model, device = training.model, training.device
    generator = torch.Generator().manual_seed(derived_seed(training.seed, "validation"))
    right = 0
    attacked = False
    for start in range(0, len(validation), BATCH):
        inputs = validation.inputs[start : start + BATCH].to(device)
        labels = validation.labels[start : start + BATCH].to(device)
        moved = training.recipe.attack(model, inputs, labels, generator)
        attacked |= moved is not inputs
        right += _right(model, moved.detach(), labels)
    robust = right / len(validation) if attacked else None
    return accuracy(model, validation, device), robust


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


def crop_and_flip(inputs: Tensor, generator: Generator) -> Tensor:
    """Shift each image by up to `PADDING` pixels over zeros, and mirror half of them.

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
