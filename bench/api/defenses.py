"""What a defense says that brings models of its own: where weights are, and what was published.

`Recipe` and `Schedule`: how a defense is trained.

`Defense`: a classifier that claims to withstand adversarial examples.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from bench.api.plugins import Plugin

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from torch import Generator, Tensor, nn

    from bench.threat import Norm


@dataclass(frozen=True)
class Weights:
    """Where the weights of a defense are that brings its own."""

    origin: str
    """For records and tables; it holds no path of this machine."""
    files: tuple[Path, ...] = ()
    """safetensors, or torch files that load with `weights_only=True`; none where the module that
    `build` returns has its weights already."""
    class_names: tuple[str, ...] = ()
    """Of the logits, in their order, where they are known; data in another order are refused."""


class Offer(NamedTuple):
    """A model that a scheme offers."""

    name: str
    """As on the command line, options and all."""
    shape: tuple[int, int, int]
    """(C, H, W) of one input."""
    classes: int


@dataclass(frozen=True)
class Published:
    """What others published of a defense, accuracies as fractions of 1; None where they did not."""

    by: str
    """Who published it."""
    norm: str
    epsilon: str
    """As written there."""
    clean_accuracy: float | None = None
    reported: float | None = None
    """Robust accuracy according to the defense's authors."""
    autoattack: float | None = None
    """Robust accuracy under AutoAttack."""
    best_known: float | None = None
    """The lowest robust accuracy that anybody found."""
    unreliable: bool = False
    """Whether AutoAttack's figure is marked as one not to be relied on."""

    def to_json(self) -> dict[str, Any]:
        """For `run.json` and `summary.json`."""
        fields = dict(vars(self))
        return {"source": fields.pop("by"), **fields}


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


class Defense(Plugin):
    """A classifier that claims to withstand adversarial examples.

    Raw images in [0, 1] go in and logits come out: standardisation or any other preprocessing is
    part of the module that `build` returns, so that epsilon means the same for every defense.

    Its weights are trained by Winnow or named by `--checkpoint`, unless it says in `weights` that
    it brings its own.
    """

    executes: ClassVar[bool] = False
    """Whether `build` executes a file that its name points to. Nobody but the user may ask for
    that: verifying a run, whose names come from a file, does not."""
    twin: str | None = None
    """The same architecture and training with ReLU, the control it is compared with: a canonical
    name."""
    weights_of: str | None = None
    """The defense, as written, whose weights it takes where it has none of its own: for one that
    is put around a network that was trained without it. The names in its `state_dict` have to be
    the same."""

    @abstractmethod
    def network(self, *, shape: tuple[int, int, int]) -> str:
        """The architecture used for inputs of this shape, as in tables and checkpoints.

        Raises:
            UsageError: there is none for this shape.
        """

    @abstractmethod
    def build(self, *, network: str, shape: tuple[int, int, int], classes: int) -> nn.Module:
        """A new module with untrained weights.

        Args:
            network: what `network` returned.
            shape: (C, H, W) of one input.
            classes: the number of logits.

        Returns:
            A module from float32 (N, C, H, W) in [0, 1] to logits (N, classes). Weights are loaded
            into it by its `state_dict`, it is put in eval mode, and its parameters are frozen.
        """

    def surrogates(
        self, *, network: str, shape: tuple[int, int, int], classes: int
    ) -> dict[str, nn.Module]:
        """Modules that answer as `build`'s does and have kinder gradients (BPDA).

        Backward-pass differentiable approximation (Athalye et al., ICML 2018): what makes a
        defense's gradient useless is replaced in the backward pass alone. Each module, by a short
        name, takes the same `state_dict`, and its logits have to equal those of `build`'s bit for
        bit; attacks search with its gradients. None by default.
        """
        return {}

    def recipe(self, family: str) -> Recipe | None:
        """How to train it on a data set of this family (`digits`, `mnist`, `cifar10`, …).

        None means that Winnow cannot train it: its weights come from `--checkpoint`.
        """
        return None

    def settled(
        self, *, family: str | None, shape: tuple[int, int, int], classes: int, norm: Norm
    ) -> str:
        """The canonical name once the run is known: what the name leaves to the run, filled in.

        Args:
            family: of the data set, such as `cifar10`; None where it is of none.
            shape: (C, H, W) of one input.
            classes: the number of classes.
            norm: of the threat model.

        Raises:
            UsageError: it is not made for such data.
        """
        return self.name

    def weights(self, *, network: str, shape: tuple[int, int, int], classes: int) -> Weights | None:
        """Where its own weights are, downloaded if need be; None where it brings none.

        Not asked for where the user named a file with `--checkpoint`.

        Raises:
            CheckpointError: they are not where they have to be, and cannot be downloaded.
            UsageError: they are made for other data.
        """
        return None

    def dependencies(self) -> Mapping[str, str]:
        """What its outcomes depend on besides weights, parameters and this class.

        Such as the version of the library that holds the architecture. Stored outcomes with other
        ones are not reused.
        """
        return {}

    def files(self) -> tuple[Path, ...]:
        """What of its code lies in files that a name of it names: they go with it elsewhere.

        Modules of the package and of the working directory's `defenses/` are none of it.
        """
        return ()

    def adapt(self, contents: Sequence[Any], module: nn.Module) -> Any:
        """From what its weights' files hold to the `state_dict` of `build`'s module.

        A single file's content as it is by default: then the `state_dict` that fits is looked for
        in it, under any key, and prefixes that all its names have are taken off.

        Args:
            contents: of each file in turn, read without executing anything in it.
            module: made by `build`; parts of it may be loaded on the way.

        Raises:
            CheckpointError: they do not fit the module.
        """
        (content,) = contents
        return content

    def published(self, *, family: str | None, norm: Norm) -> Published | None:
        """What others published of it for this data and norm; None where nothing is known."""
        return None

    @classmethod
    def models(cls) -> Iterable[Offer]:
        """The models that a scheme offers; none where they cannot be counted."""
        return ()
