"""`Recipe` and `Schedule`: how a defense is trained."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Generator, Tensor, nn


class Recipe(ABC):
    """How a defense is trained: a loss, and the schedule that goes with a data set.

    Most recipes write `loss` alone. One instance serves one training, whose epochs may be spread
    over several calls: what it keeps between batches has to be made anew by `begin_epoch`.
    """

    name: ClassVar[str]
    """As in checkpoints' records, such as `pgd-at`."""

    schedule: Schedule
    start: str | None = None
    """The defense, as written, whose weights the training starts from; None for fresh ones."""

    @abstractmethod
    def loss(
        self, model: nn.Module, inputs: Tensor, labels: Tensor, generator: Generator
    ) -> Tensor:
        """The training loss of one batch, a scalar that gradients flow through.

        Args:
            model: in training mode on entry, and to be left so.
            inputs: float32 in [0, 1], (N, C, H, W), on the model's device.
            labels: int64, (N,).
            generator: on the CPU; the only source of randomness, so that a seed fixes a training.
        """

    def losses(
        self, model: nn.Module, inputs: Tensor, labels: Tensor, generator: Generator
    ) -> Iterator[Tensor]:
        """The losses of one batch, one for each step of descent; `loss` alone by default.

        After each, its gradient is computed and a step is taken before the next one is asked for.
        """
        yield self.loss(model, inputs, labels, generator)

    def begin_epoch(self, model: nn.Module, epoch: int) -> None:  # noqa: B027 - a hook
        """Called before each epoch (counted from 0), the first one after a resume included."""

    def attack(
        self, model: nn.Module, inputs: Tensor, labels: Tensor, generator: Generator
    ) -> Tensor:
        """What the robust accuracy on validation examples is measured on, with shape of the inputs.

        The inputs themselves by default: then the clean accuracy chooses the best epoch.
        """
        return inputs

    def describe(self) -> dict[str, Any]:
        """Every setting, ready for JSON; kept in the checkpoint's record."""
        start = {"start": self.start} if self.start else {}
        return {"recipe": self.name, **vars(self.schedule), **start}


@dataclass(frozen=True)
class Schedule:
    """Stochastic gradient descent with momentum, and a learning rate that changes with time."""

    epochs: int
    batch_size: int
    learning_rate: float
    milestones: tuple[int, ...] = ()
    """Epochs after which the learning rate is multiplied by `factor`."""
    factor: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 0.0
    augment: bool = False
    """Random crop with 4 pixels of padding, and horizontal flip."""
    cyclic: bool = False
    """Instead of milestones: the rate rises from 0 to `learning_rate` over the first 2/5 of the
    training and falls to 0 again, a little with every batch (Wong et al., ICLR 2020)."""
    validation: int = 0
    """Training examples held out to choose the best epoch by, at most a fifth; 0 for none."""

    def rate(self, done: float) -> float:
        """The learning rate after so many epochs, the running one in part."""
        if self.cyclic:
            part = done / self.epochs
            return self.learning_rate * min(part / 0.4, (1 - part) / 0.6)
        passed = sum(int(done) >= milestone for milestone in self.milestones)
        return self.learning_rate * self.factor**passed

    def with_epochs(self, epochs: int) -> Schedule:
        """The same schedule, longer or shorter: its milestones move in proportion."""
        milestones = tuple(round(m * epochs / self.epochs) for m in self.milestones)
        return replace(self, epochs=epochs, milestones=milestones)
