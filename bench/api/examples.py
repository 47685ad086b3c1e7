"""`Examples`: labelled inputs, checked."""

from __future__ import annotations

import functools
import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from bench.errors import DataError
from bench.threat import TOLERANCE

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch import Tensor


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
            advice = {3: "[:, None] makes one channel of gray images", 2: "reshape rows to images"}
            raise DataError(
                f"inputs have to be (N, C, H, W); got shape {tuple(inputs.shape)}"
                + (f" ({advice[inputs.ndim]})" if inputs.ndim in advice else "")
            )
        if len(inputs) == 0:
            raise DataError("no examples: there is nothing to evaluate")
        last = channels_last(inputs)
        if not inputs.is_floating_point():
            raise DataError(
                f"inputs have to be floating point in [0, 1]; got {inputs.dtype} "
                f"(divide 8-bit images by 255{', after ' + last if last else ''})"
            )
        if last:
            raise DataError(
                f"inputs have to be (N, C, H, W); got shape {tuple(inputs.shape)}, with the "
                f"channels last: {last} puts them first"
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
            levels = low >= 0 and 2 <= high <= 255
            raise DataError(
                f"inputs have to be in [0, 1]; got {low:.4g} to {high:.4g} "
                f"({'divide by 255' if levels else 'put standardisation inside the defense'})"
            )
        labels = labels.long()
        if int(labels.min()) < 0 or int(labels.max()) >= len(class_names):
            raise DataError(
                f"labels have to be in 0 … {len(class_names) - 1} for {len(class_names)} classes; "
                f"got {int(labels.min())} to {int(labels.max())}"
                + " (subtract 1 where they count from 1)"
                * (int(labels.min()) == 1)
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
        digest = hashlib.sha256(repr(((len(self), *self.shape), self.classes)).encode())
        for block in self.blocks():
            digest.update(block.inputs.cpu().numpy().data)
        digest.update(self.labels.cpu().numpy().data)
        return digest.hexdigest()

    def blocks(self, size: int = 64) -> Iterator[Examples]:
        """All of them in order, so many at a time: there may be more than memory holds."""
        for start in range(0, len(self), size):
            yield self.take(range(start, min(start + size, len(self))))

    def take(self, indices: Sequence[int] | Tensor) -> Examples:
        """The examples at these indices, in this order."""
        import torch

        chosen = torch.as_tensor(indices, dtype=torch.long)
        return Examples(
            self.inputs[chosen].contiguous(), self.labels[chosen], self.class_names, self.name
        )


def channels_last(inputs: Tensor) -> str:
    """What puts the channels first, where they can only be last; empty elsewhere.

    Only what no image could be otherwise: a net on (N, 40, 7, 1) or (N, 64, 1, 1) is not hindered.
    """
    _, first, middle, last = inputs.shape
    colour = last == 3 and min(first, middle) >= 8
    gray = last == 1 and first == middle >= 8
    return "permute(0, 3, 1, 2)" if colour or gray else ""


def _examples_from_arrays(
    cls: type[Examples], inputs: Any, labels: Any, class_names: tuple[str, ...], name: str
) -> Examples:
    import torch

    return cls(torch.from_numpy(inputs), torch.from_numpy(labels), class_names, name)
