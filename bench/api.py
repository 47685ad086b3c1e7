"""All that the author of a plugin has to read: `Examples`, `Defense`, `Recipe`, `Attack`.

A plugin is a class with a registered name. Its parameters are the keyword-only arguments of its
`__init__`, each annotated (`bool`, `int`, `float`, `str` or a `Literal`) and with a default;
`kwta[gamma=0.2]` on the command line is then `KWTA(gamma=0.2)`. Import torch inside methods, not
at the top of a plugin's module: listing plugins has to be instant.

    from bench.api import Defense
    from bench.registry import register_defense

    @register_defense("my-defense")
    class MyDefense(Defense):
        summary = "What it does, in one line"
        twin = "relu"

        def network(self, *, shape): ...

        def build(self, *, network, shape, classes): ...

`defenses.networks.NetworkDefense` does the rest for a defense that is one of our networks with
another activation, and the files in `defenses/` and `attacks/` are meant to be read as examples.
"""

from __future__ import annotations

import functools
import hashlib
from abc import ABC, abstractmethod
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from bench.errors import DataError
from bench.threat import TOLERANCE, Norm

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from torch import Generator, Tensor, nn


@dataclass(frozen=True, eq=False)
class Examples:
    """Labelled inputs, checked. Make one with `Examples.of`."""

    inputs: Tensor
    """float32 in [0, 1], contiguous, shape (N, C, H, W)."""
    labels: Tensor
    """int64 in [0, classes), shape (N,)."""
    class_names: tuple[str, ...]
    """One name per class; its length is the number of classes."""
    name: str
    """The data set, as in tables."""

    @classmethod
    def of(cls, inputs: Tensor, labels: Tensor, class_names: Sequence[str], name: str) -> Self:
        """Check inputs and labels, and clip the rounding of float32 at the borders of the box.

        Raises:
            DataError: no examples, wrong shapes or dtypes, NaN, inputs outside [0, 1], labels
                outside [0, classes).
        """
        import torch

        inputs, labels = torch.as_tensor(inputs).detach(), torch.as_tensor(labels).detach()
        if inputs.ndim != 4:
            raise DataError(f"inputs have to be (N, C, H, W); got shape {tuple(inputs.shape)}")
        if len(inputs) == 0:
            raise DataError("no examples: there is nothing to evaluate")
        if not inputs.is_floating_point():
            raise DataError(
                f"inputs have to be floating point in [0, 1]; got {inputs.dtype} "
                "(divide 8-bit images by 255)"
            )
        if labels.shape != (len(inputs),):
            raise DataError(
                f"labels have to be of shape ({len(inputs)},), one per input; "
                f"got {tuple(labels.shape)}"
            )
        if labels.is_floating_point() or labels.dtype is torch.bool:
            raise DataError(f"labels have to be whole numbers; got {labels.dtype}")
        inputs = inputs.float()
        if not bool(torch.isfinite(inputs).all()):
            raise DataError("inputs contain NaN or infinity; they have to be finite in [0, 1]")
        low, high = float(inputs.min()), float(inputs.max())
        if low < -TOLERANCE or high > 1 + TOLERANCE:
            raise DataError(
                f"inputs have to be in [0, 1]; got {low:.4g} to {high:.4g} "
                "(put standardisation inside the defense)"
            )
        labels = labels.long()
        if int(labels.min()) < 0 or int(labels.max()) >= len(class_names):
            raise DataError(
                f"labels have to be in 0 … {len(class_names) - 1} for {len(class_names)} classes; "
                f"got {int(labels.min())} to {int(labels.max())}"
            )
        return cls(inputs.clamp(0, 1).contiguous(), labels, tuple(class_names), name)

    def __len__(self) -> int:
        return len(self.inputs)

    def __reduce__(self) -> tuple[Any, ...]:
        # As plain arrays: a worker process must not depend on memory shared with its parent.
        arrays = self.inputs.cpu().numpy(), self.labels.cpu().numpy()
        return _examples_from_arrays, (type(self), *arrays, self.class_names, self.name)

    @property
    def classes(self) -> int:
        """The number of classes."""
        return len(self.class_names)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of one input."""
        _, channels, height, width = self.inputs.shape
        return channels, height, width

    @functools.cached_property
    def digest(self) -> str:
        """SHA-256 over shape, input bytes and labels: what was evaluated, whatever its name."""
        digest = hashlib.sha256(repr((tuple(self.inputs.shape), self.classes)).encode())
        digest.update(self.inputs.cpu().numpy().tobytes())
        digest.update(self.labels.cpu().numpy().tobytes())
        return digest.hexdigest()

    def take(self, indices: Sequence[int] | Tensor) -> Self:
        """The examples at these indices, in this order."""
        import torch

        chosen = torch.as_tensor(indices, dtype=torch.long)
        return type(self)(
            self.inputs[chosen].contiguous(), self.labels[chosen], self.class_names, self.name
        )


def _examples_from_arrays(
    cls: type[Examples], inputs: Any, labels: Any, class_names: tuple[str, ...], name: str
) -> Examples:
    import torch

    return cls(torch.from_numpy(inputs), torch.from_numpy(labels), class_names, name)


class Plugin(ABC):
    """What defenses and attacks have in common. The registry fills in `name` and `parameters`."""

    summary: ClassVar[str]
    """One line for `python -m bench list`."""
    version: ClassVar[int] = 1
    """Raise it when results change: stored outcomes of another version are not reused."""

    name: str = ""
    """The canonical name, such as `kwta[gamma=0.2]`: keys sorted, defaults left out."""
    parameters: dict[str, bool | int | float | str]
    """Every parameter with its value, defaults included."""


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
    """

    twin: str | None = None
    """The same architecture and training with ReLU, the control it is compared with: a canonical
    name."""

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

    def activation(self) -> Callable[[], nn.Module] | None:
        """What makes the activation function that the defense lies in; None where there is none.

        Only figures ask for it, to draw the activation by itself.
        """
        return None

    def recipe(self, family: str) -> Recipe | None:
        """How to train it on a data set of this family (`digits`, `mnist`, `cifar10`, …).

        None means that Winnow cannot train it: its weights come from `--checkpoint`.
        """
        return None


@dataclass(frozen=True)
class Cost:
    """An upper estimate of the passes that one example costs: for plans, progress and budgets."""

    forwards: float
    backwards: float = 0.0

    def __mul__(self, times: float) -> Cost:
        return Cost(self.forwards * times, self.backwards * times)

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.forwards + other.forwards, self.backwards + other.backwards)

    @property
    def total(self) -> float:
        """Passes, forwards and backwards together."""
        return self.forwards + self.backwards


@dataclass(frozen=True, eq=False)
class Problem:
    """What an attack is asked to break."""

    model: nn.Module
    """Float32 inputs (N, C, H, W) to float32 logits (N, classes); frozen, in eval mode. It counts
    its passes, splits large batches by itself, and raises on logits that are not finite."""
    inputs: Tensor
    """Float32 in [0, 1], contiguous, (N, C, H, W), N at least 1; the model gets every one right."""
    labels: Tensor
    """Int64, (N,)."""
    norm: Norm
    """The norm of the threat model."""
    epsilon: float | None
    """The radius; None for a minimum-norm attack, which searches the smallest perturbation."""
    classes: int
    """The number of logits."""
    seed: int
    """Of this shard. torch, numpy and random are already seeded with it, and are put back
    afterwards; it is for libraries that seed themselves."""
    surrogates: dict[str, nn.Module] = field(default_factory=dict)
    """What the defense declares for its backward pass (`Defense.surrogates`), weights loaded, by
    name; passes count as the model's own. Empty unless the attack `needs` them."""
    source: nn.Module | None = None
    """Another defense's model for a transfer attack, or None."""


@dataclass(frozen=True, eq=False)
class Proposal:
    """What an attack found. The judge decides what it is worth."""

    candidates: Tensor
    """Shape of the inputs. Where nothing was found anything may stand; best is the input."""
    flags: tuple[str, ...] = ()
    """What a reader of the table should know, a short sentence each."""
    extra: dict[str, Any] = field(default_factory=dict)
    """Per-example arrays of length N, kept beside the outcomes (such as passes used)."""


class Attack(Plugin):
    """A search for adversarial examples.

    One instance serves many shards; it keeps no state between calls of `run`. An attack whose
    result depends on its batch (most do: they draw random numbers for all of it) need not worry,
    because shards are fixed by the plan.
    """

    kind: ClassVar[Literal["fixed", "minimum"]] = "fixed"
    """`fixed`: searches within epsilon, run once for each. `minimum`: searches the smallest
    perturbation, run once for all epsilons, and read in the threat model's norm."""
    norms: ClassVar[frozenset[Norm]] = frozenset(Norm)
    """The norms it searches in. A minimum-norm attack can be read in another as well."""
    access: ClassVar[Literal["white-box", "black-box", "noise"]] = "white-box"
    """What it uses: gradients, outputs, or nothing but chance."""
    scope: ClassVar[Literal["all", "remaining", "evidence"]] = "all"
    """`remaining`: runs last, only on what no other attack of the run broke, and adds to the worst
    case without being a row. `evidence`: measures the defense instead of attacking it, in columns
    of `Proposal.extra`; neither a row nor part of the worst case."""
    needs: ClassVar[Literal["nothing", "surrogates", "source"]] = "nothing"
    """`surrogates`: runs only where the defense declares some. `source`: gets the model of the
    defense that its parameter `source` names (`twin`: the defense's own)."""
    libraries: ClassVar[tuple[str, ...]] = ()
    """Distributions whose version can change its outcomes."""

    def why_not(self, *, norm: Norm, shape: tuple[int, int, int], classes: int) -> str | None:
        """The reason why it cannot run here, or None. Called before anything is attacked."""
        if self.kind == "fixed" and norm not in self.norms:
            return f"searches in {' and '.join(sorted(self.norms))} only"
        return None

    @abstractmethod
    def cost(self, *, norm: Norm, shape: tuple[int, int, int], classes: int) -> Cost:
        """Passes per example of one computation when nothing is broken early."""

    @abstractmethod
    def run(self, problem: Problem) -> Proposal:
        """Search. May raise: the cell is then recorded as failed with the reason."""
