"""Small data sets and defenses that train within milliseconds, shared by tests of training."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import torch
from torch import Generator, Tensor, nn
from torch.nn.functional import cross_entropy

from bench.api import Defense, Examples, Recipe, Schedule
from bench.data import Dataset, Split, open_dataset
from bench.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Callable

    from bench.train import Progress, Trained


class Stripes(Dataset):
    """Two classes of square images: bright above, or bright below."""

    name = "stripes"

    def __init__(
        self,
        family: str | None = "digits",
        splits: tuple[str, ...] = ("train", "test"),
        side: int = 4,
    ) -> None:
        self._family = family
        self.splits = splits
        self.side = side

    @property
    def family(self) -> str | None:
        """Any family will do."""
        return self._family

    def load(self, split: Split) -> Examples:
        """90 noisy images, the same for both splits."""
        if split not in self.splits:
            raise DataError(f"stripes has no {split} split")
        side, half = self.side, self.side // 2
        inputs = torch.rand(90, 1, side, side, generator=Generator().manual_seed(0)) / 2
        labels = torch.arange(90) % 2
        inputs[labels == 0, :, :half] += 0.4
        inputs[labels == 1, :, half:] += 0.4
        return Examples.of(inputs, labels, ["above", "below"], self.name)


class FewDigits(Dataset):
    """The first 128 training and 64 test examples of digits."""

    name = "few-digits"
    family = "digits"

    def load(self, split: Split) -> Examples:
        """Real digits, (1, 8, 8)."""
        return few_digits(split)


@functools.cache
def few_digits(split: Split) -> Examples:
    """Read once in a process."""
    return open_dataset("digits").load(split).take(range(128 if split == "train" else 64))


class Noisy(Recipe):
    """Cross-entropy on inputs with noise; can be made to fail at a batch."""

    name = "noisy"

    def __init__(self, schedule: Schedule, stop: BaseException | None, at: int) -> None:
        self.schedule = schedule
        self.stop = stop
        self.at = at
        self.batches = 0

    def loss(
        self, model: nn.Module, inputs: Tensor, labels: Tensor, generator: Generator
    ) -> Tensor:
        """The mean cross-entropy."""
        self.batches += 1
        if self.stop and self.batches == self.at:
            raise self.stop
        return cross_entropy(
            model(inputs + 0.1 * torch.rand(inputs.shape, generator=generator)), labels
        )


class Toy(Defense):
    """A network with batch normalisation, and dropout that draws from the global generator."""

    summary = "for tests"
    name = "toy"

    def __init__(self, stop: BaseException | None = None, at: int = 0, **schedule: Any) -> None:
        settings = {"epochs": 4, "batch_size": 32, "learning_rate": 0.1, "milestones": (3,)}
        self.schedule = Schedule(**{**settings, **schedule})
        self.noisy = Noisy(self.schedule, stop, at)
        self.built: nn.Module = nn.Identity()
        """What `build` made last."""

    def network(self, *, shape: tuple[int, int, int]) -> str:
        """A name for it."""
        return "toy"

    def build(self, *, network: str, shape: tuple[int, int, int], classes: int) -> nn.Module:
        """Two layers."""
        self.built = nn.Sequential(
            nn.Flatten(),
            nn.Linear(16, 8),
            nn.BatchNorm1d(8),
            nn.ReLU(),
            nn.Dropout(0.2),
            nn.Linear(8, classes),
        )
        return self.built

    def recipe(self, family: str) -> Recipe | None:
        """Noisy training."""
        return self.noisy


def digest(trained: Trained) -> str:
    """Of the weights."""
    return trained.record.weights_digest


def interrupt_in(epoch: int) -> Callable[[Progress], None]:
    """For `on_progress`: as if Ctrl-C came in this epoch, counted from 1."""

    def interrupt(progress: Progress) -> None:
        if progress.epoch == epoch:
            raise KeyboardInterrupt

    return interrupt
