"""The model as attacks and the judge see it: frozen, counted, split to fit in memory."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from bench.api import Cost
from bench.errors import ModelError, NonFiniteLogitsError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor


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
        self.forwards = 0
        self.backwards = 0
        self._largest = 0
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
        if len(x) == 0:  # Square may ask for what is left when nothing is
            return x.new_zeros((0, self.classes), dtype=torch.float32)
        x = x.float().contiguous()
        self.forwards += len(x)
        self._largest = max(self._largest, len(x))
        if torch.is_grad_enabled() and x.requires_grad:
            x = _CountBackward.apply(x, self)
        usable = torch.isfinite(x).flatten(1).all(dim=1)
        all_usable = bool(usable.all())
        if not all_usable:
            x = torch.where(usable.reshape(-1, *[1] * (x.ndim - 1)), x, 0.0)
        logits = self._logits(x).float()
        finite = torch.isfinite(logits).all(dim=1)
        if not bool(finite.all()) and bool((usable & ~finite).any()):
            raise NonFiniteLogitsError(
                f"the model answered {int((usable & ~finite).sum())} of {len(x)} finite inputs "
                "with NaN or infinity"
            )
        return logits if all_usable else logits.masked_fill(~usable[:, None], float("nan"))

    def _logits(self, x: Tensor) -> Tensor:
        size = self.batch_size
        if size is None or len(x) <= size:
            return self._checked(self.module(x), len(x))
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
    def passes(self) -> Cost:
        """Forwards and backwards since the last `reset_counts`, summed over examples."""
        return Cost(self.forwards, self.backwards)

    def reset_counts(self) -> None:
        """Start counting passes again at 0."""
        self.forwards = self.backwards = 0

    def halve(self) -> bool:
        """Halve the largest batch that the module gets; False when it gets single examples."""
        largest = self._largest or self.batch_size or 1
        current = min(self.batch_size or largest, largest)
        if current <= 1:
            return False
        self.batch_size = (current + 1) // 2
        return True


class _CountBackward(torch.autograd.Function):
    """The identity; each backward pass through it counts every example of the batch once."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, model: CountedModel) -> Tensor:
        ctx.model = model
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Tensor, None]:
        (gradient,) = gradients
        ctx.model.backwards += len(gradient)
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
