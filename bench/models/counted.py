"""The model as attacks and the judge see it: frozen, counted, split to fit in memory.

Global state that attack libraries change, fixed on entry and put back on exit.
"""

from __future__ import annotations

import contextlib
import math
import random
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from bench.api import Cost
from bench.errors import ModelError, NonFiniteLogitsError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor


@dataclass(slots=True)
class _Count:
    """What a model has done. No attribute of the module itself: setting those is slow."""

    forwards: int = 0
    backwards: int = 0
    largest: int = 0


class CountedModel(nn.Module):
    """A defense's module, wrapped so that no attack can harm or miscount it.

    The module is moved to the device, put in eval mode for good, and its parameters are frozen; it
    is changed in place. Rows of the input that are not finite never reach it: black images take
    their place, so that they cannot spoil the rest of the batch, and their logits are NaN.

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
        self.module = module.to(device).requires_grad_(False)
        self.classes = classes
        self.batch_size = batch_size
        self.device = torch.device(device)
        self._count = _Count()
        self.eval()

    def train(self, mode: bool = True) -> Self:
        """Stay in eval mode, whatever a library asks for."""
        return super().train(False)

    def forward(self, x: Tensor) -> Tensor:
        """Logits, float32, (N, classes).

        Args:
            x: (N, C, H, W) on the model's device; made float32 and contiguous.

        Raises:
            ModelError: the module's output is not of shape (N, classes).
            NonFiniteLogitsError: it answered finite inputs with NaN or infinity.
        """
        rows, count = x.shape[0], self._count
        if rows == 0:  # Square may ask for what is left when nothing is
            return x.new_zeros((0, self.classes), dtype=torch.float32)
        x = x.float().contiguous()
        count.forwards += rows
        count.largest = max(count.largest, rows)
        if torch.is_grad_enabled() and x.requires_grad:
            x = _CountBackward.apply(x, count)
        if _surely_finite(x):
            logits = self._logits(x).float()
            if _surely_finite(logits):
                return logits
            usable = torch.ones(len(x), dtype=torch.bool, device=x.device)
        else:
            usable = torch.isfinite(x).flatten(1).all(dim=1)
            black = torch.where(usable.reshape(-1, *[1] * (x.ndim - 1)), x, 0.0)
            logits = self._logits(black).float()
        finite = torch.isfinite(logits).all(dim=1)
        if bool((usable & ~finite).any()):
            raise NonFiniteLogitsError(
                f"the model answered {int((usable & ~finite).sum())} of {len(x)} finite inputs "
                "with NaN or infinity"
            )
        return logits.masked_fill(~usable[:, None], float("nan"))

    def _logits(self, x: Tensor) -> Tensor:
        size = self.batch_size
        rows = x.shape[0]
        if size is None or rows <= size:
            return self._checked(self.module(x), rows)
        keep = torch.is_grad_enabled() and x.requires_grad
        return torch.cat(
            [
                self._checked(
                    checkpoint(self.module, part, use_reentrant=False)
                    if keep
                    else self.module(part),
                    len(part),
                )
                for part in torch.split(x, size)
            ]
        )

    def _checked(self, logits: Any, rows: int) -> Tensor:
        if not isinstance(logits, torch.Tensor) or logits.shape != (rows, self.classes):
            got = tuple(logits.shape) if isinstance(logits, torch.Tensor) else type(logits).__name__
            raise ModelError(
                f"the model has to return logits of shape ({rows}, {self.classes}), one row per "
                f"input and one column per class; got {got}"
            )
        return logits

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
        """Start counting passes again at 0."""
        self._count.forwards = self._count.backwards = 0

    def charge(self, other: CountedModel) -> None:
        """Count another model's passes as its own."""
        self._count.forwards += other.forwards
        self._count.backwards += other.backwards

    def halve(self) -> bool:
        """Halve the largest batch that the module gets; False when it gets single examples."""
        largest = self._count.largest or self.batch_size or 1
        current = min(self.batch_size or largest, largest)
        if current <= 1:
            return False
        self.batch_size = (current + 1) // 2
        return True


def _surely_finite(x: Tensor) -> bool:
    """False where a value is not finite, or where their sum is too large to tell: one reduction."""
    return math.isfinite(x.detach().sum().item())


class _CountBackward(torch.autograd.Function):
    """The identity; each backward pass through it counts every example of the batch once."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, count: _Count) -> Tensor:
        ctx.count = count
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Tensor, None]:
        (gradient,) = gradients
        ctx.count.backwards += gradient.shape[0]
        return gradient, None


@contextlib.contextmanager
def full_precision() -> Iterator[None]:
    """Compute in float32 as IEEE defines it: TensorFloat-32 is off inside, and put back after."""
    convolutions = torch.backends.cudnn.allow_tf32
    products = torch.get_float32_matmul_precision()
    torch.backends.cudnn.allow_tf32 = False
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = convolutions
        torch.set_float32_matmul_precision(products)


@contextlib.contextmanager
def isolated_generators(seed: int) -> Iterator[None]:
    """Seed every global generator, and leave no trace of what happens inside.

    On exit, after an exception as well, the states of the generators of torch (CPU and CUDA),
    numpy and random, the trace function (coverage and debuggers live there), torch's default
    dtype and its grad mode are what they were.

    Args:
        seed: any integer from 0; numpy gets its lowest 32 bits.
    """
    cpu = torch.get_rng_state()
    gpus = None
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        gpus = torch.cuda.get_rng_state_all()
    arrays = np.random.get_state()  # noqa: NPY002 - libraries draw from the global generator
    plain = random.getstate()
    trace = sys.gettrace()
    dtype = torch.get_default_dtype()
    gradients = torch.is_grad_enabled()
    torch.manual_seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002
    random.seed(seed)
    try:
        yield
    finally:
        torch.set_rng_state(cpu)
        if gpus is not None:
            torch.cuda.set_rng_state_all(gpus)
        np.random.set_state(arrays)  # noqa: NPY002
        random.setstate(plain)
        sys.settrace(trace)
        torch.set_default_dtype(dtype)
        torch.set_grad_enabled(gradients)


@contextlib.contextmanager
def one_thread(device: str) -> Iterator[None]:
    """Compute with one CPU thread, and put the number back."""
    import torch

    before = torch.get_num_threads()
    if device == "cpu":
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
