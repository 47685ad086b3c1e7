"""The model as attacks and the judge see it: frozen, counted, split to fit in memory."""

from __future__ import annotations

import contextlib
import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from bench.api import Cost
from bench.api.attacks import surely_finite
from bench.errors import ModelError, NonFiniteLogitsError, is_out_of_memory
from bench.models import outputs
from bench.models.guests import evaluating, frozen
from bench.models.manner import Manner, manner_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from torch import Tensor

#: Answers on a GPU that are asked at once whether they are finite, where nobody needs to know.
TOGETHER = 16


#: Numbers the calls of all models in the order in which they came.
_TURNS = itertools.count(1)


@dataclass(slots=True)
class _Count:
    """What a model has done. No attribute of the module itself: setting those is slow."""

    forwards: int = 0
    backwards: int = 0
    latest: int = 0
    """Examples of the latest call, and of the largest."""
    largest: int = 0
    turn: int = 0
    """Of the latest call, among those of all models."""
    single: bool = False
    """Whether it answers with one logit for two classes."""
    together: int = 1
    """So many answers on a GPU are asked together whether they are finite."""
    pending: int = 0
    """Answers that were not yet."""
    rows: int = 0
    """Of these."""
    bad: Tensor | int = 0
    """Rows among them that are not finite, of inputs that are."""


class CountedModel(nn.Module):
    """A defense's module, wrapped so that no attack can harm or miscount it.

    The module is moved to the device, put in eval mode for good, and its parameters are frozen; it
    is changed in place. It gets memory of its own each time and what it returns is copied, so that
    it may change its input, or keep its output and change that. Rows of the input that are not
    finite never reach it: black images take their place, so that they cannot spoil the rest of the
    batch, and their logits are NaN.

    What the module does not take as it is, `bench.models.manner` finds another way to ask.

    Args:
        module: float32 (N, C, H, W) to logits (N, classes).
        classes: the number of logits.
        batch_size: the largest batch that the module gets at once; None for no limit. A larger
            one is split, and under autograd each part is computed again in the backward pass
            instead of being kept, so that memory stays bounded. This changes no count.
        device: where the module runs and where inputs have to be.
    """

    def __init__(
        self, module: nn.Module, classes: int, batch_size: int | None, device: torch.device | str
    ) -> None:
        super().__init__()
        self.module = frozen(module.to(device))
        self.classes = classes
        self.batch_size = batch_size
        self.device = torch.device(device)
        self._count = _Count()
        self._manner = Manner.at_first(self.module, self.device)
        self._answered: set[int] = set()
        self.training = False

    def train(self, mode: bool = True) -> Self:
        """Stay in eval mode, whatever a library asks for."""
        evaluating(self.module.modules())
        return self

    def forward(self, x: Tensor) -> Tensor:
        """Logits, float32, (N, classes).

        Args:
            x: (N, C, H, W) on the model's device; made float32 and contiguous.

        Raises:
            ModelError: the module's output is no logits of shape (N, classes), nor what
                `bench.models.outputs` makes them of, or it cannot be asked.
            NonFiniteLogitsError: it answered finite inputs with NaN or infinity; -inf for some of
                the classes is taken (`bench.models.outputs.without_masks`).
        """
        rows, count = x.shape[0], self._count
        if rows == 0:  # Square may ask for what is left when nothing is
            return x.new_zeros((0, self.classes), dtype=torch.float32)
        x = x.float().contiguous()
        count.forwards += rows
        count.latest, count.largest = rows, max(count.largest, rows)
        count.turn = next(_TURNS)
        if torch.is_grad_enabled() and x.requires_grad:
            x = _CountBackward.apply(x, count)
        if not x.is_cuda and surely_finite(x):
            logits = self._logits(x)
            if surely_finite(logits):
                return logits
            usable = torch.ones(rows, dtype=torch.bool, device=x.device)
        else:
            usable = torch.isfinite(x).flatten(1).all(dim=1)
            logits = self._logits(torch.where(usable.reshape(-1, *[1] * (x.ndim - 1)), x, 0.0))
        logits = outputs.without_masks(logits)
        finite = torch.isfinite(logits).all(dim=1)
        count.bad = count.bad + (usable & ~finite).sum()
        count.pending, count.rows = count.pending + 1, count.rows + rows
        if count.pending >= count.together:
            self.check_finite()
        return logits.masked_fill(~usable[:, None], float("nan"))

    def singly(self, x: Tensor) -> Tensor:
        """Logits as `forward` gives them, each input in a pass of its own.

        Args:
            x: as for `forward`.

        Raises:
            ModelError, NonFiniteLogitsError: as `forward` does.
        """
        size, self.batch_size = self.batch_size, 1
        try:
            logits: Tensor = self(x)
        finally:
            self.batch_size = size
            self._count.latest = 1
        return logits

    def check_finite(self) -> None:
        """Ask whether the answers since the last time were finite; a GPU is waited for once.

        Raises:
            NonFiniteLogitsError: some were not, of finite inputs.
        """
        count = self._count
        bad, rows = int(count.bad), count.rows
        count.bad = count.pending = count.rows = 0
        if bad:
            raise NonFiniteLogitsError(
                f"the model answered {bad} of {rows} finite inputs with NaN or infinity"
            )

    @contextlib.contextmanager
    def unhurried(self) -> Iterator[None]:
        """On a GPU, notice answers that are not finite some calls later, at the end at the latest.

        To ask at once makes the host wait for every answer. Whoever catches the error to go on with
        other inputs needs it at once. On a CPU nothing changes.

        Raises:
            NonFiniteLogitsError: as `forward` does.
        """
        self._count.together = TOGETHER if self.device.type == "cuda" else 1
        try:
            yield
        except Exception as error:
            if not is_out_of_memory(error):
                self.check_finite()  # what made of NaN something else comes second
            raise
        else:
            self.check_finite()
        finally:
            self._count.together = 1

    def probe(self, x: Tensor) -> None:
        """Ask, without counting, what a run will: a whole batch, and a single image.

        Args:
            x: (N, C, H, W) on the model's device.

        Raises:
            ModelError: the module cannot answer one of them; the message says what was given.
        """
        with torch.no_grad():
            self._logits(x.float())
            self._logits(x[:1].float())

    def _logits(self, x: Tensor) -> Tensor:
        rows = x.shape[0]
        size = self.batch_size or rows
        if rows <= size:
            return self._ask(x)
        # Under autograd each part is computed again later, and has to be given its own copy again.
        keep = torch.is_grad_enabled() and x.requires_grad
        return torch.cat(
            [
                checkpoint(self._ask, part, use_reentrant=False) if keep else self._ask(part)
                for part in torch.split(x, size)
            ]
        )

    def _ask(self, x: Tensor) -> Tensor:
        """The module's answer to a copy, as it likes to be asked, float32 and in its own memory."""
        rows = len(x)
        try:
            output = self._manner.ask(self.module, x)
        except Exception as error:
            if rows in self._answered or is_out_of_memory(error):
                raise
            self._manner = manner_of(self.module, x, error, self.batch_size)
            output = self._manner.ask(self.module, x)
        plain = (  # as nearly all are: a small network notices what more is asked
            type(output) is torch.Tensor
            and output.dtype is torch.float32
            and output.shape == (rows, self.classes)
            and output.device == self.device
            and output.layout is torch.strided
        )
        logits = output if plain else outputs.logits_of(output, rows, self.classes, self.device)
        self._count.single = not plain and outputs.is_single(output, rows)
        self._answered.add(rows)
        return logits.clone() if plain else logits.to(torch.float32, copy=True)

    def check_single(self, parts: Iterable[Tensor]) -> None:
        """Refuse a model of one logit that gives the probability instead.

        Args:
            parts: of the clean inputs; no further one is asked about once an answer is a logit.

        Raises:
            ModelError: all its answers lie in [0, 1].
        """
        if self.classes != 2:
            return
        for inputs in parts:
            with torch.no_grad():
                logits = self(inputs)
            if not (self._count.single and outputs.is_sigmoid(logits)):
                return
        raise ModelError(
            "the model's one output for each input lies in [0, 1] for all of them, as behind a "
            "sigmoid, where class 1 is z > 0: return the logit in front of it"
        )

    @property
    def forwards(self) -> int:
        """Of all examples together, since the last `reset_counts`."""
        return self._count.forwards

    @property
    def backwards(self) -> int:
        """Of all examples together, since the last `reset_counts`."""
        return self._count.backwards

    @property
    def passes(self) -> Cost:
        """Forwards and backwards since the last `reset_counts`, summed over examples."""
        return Cost(self.forwards, self.backwards)

    def reset_counts(self) -> None:
        """Start counting again at 0, as if it had never been asked."""
        self._count.forwards = self._count.backwards = 0
        self._count.latest = self._count.largest = self._count.turn = 0

    def charge(self, other: CountedModel) -> None:
        """Count another model's passes as its own."""
        self._count.forwards += other.forwards
        self._count.backwards += other.backwards

    @property
    def turn(self) -> int:
        """When it was asked last, to be compared with other models; 0 for never."""
        return self._count.turn

    @property
    def asked(self) -> int:
        """The batch in which memory ended, if it did: that which the module got last.

        A larger one before it fitted. Where it was a single example, what is kept of earlier calls
        fills the memory, and it is the largest. 0 where nothing was asked since `reset_counts`.
        """
        count = self._count
        rows = count.latest if count.latest > 1 else count.largest
        return min(self.batch_size or rows, rows)

    def halve(self) -> bool:
        """Halve the batch in which memory ended; False where that was a single example."""
        if self.asked <= 1:
            return False
        self.batch_size = (self.asked + 1) // 2
        return True


class _CountBackward(torch.autograd.Function):
    """The identity; each backward pass through it counts every example of the batch once.

    A gradient lies as inputs do, however the module was asked: attacks may `view` it.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, count: _Count) -> Tensor:
        ctx.count = count
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Tensor, None]:
        (gradient,) = gradients
        ctx.count.backwards += gradient.shape[0]
        return gradient.contiguous(), None
