"""What numpy sees of a tensor on the CPU whose units compete: a group in each row.

Numpy takes a few microseconds less for a call than torch does, and finds the k-th largest sooner.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

#: By what units compete.
SCORES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "value": lambda rows: rows,
    "magnitude": np.abs,
    "smallness": lambda rows: -np.abs(rows),
}
#: Up to so many threads numpy on one is the fastest; beyond, torch on all.
THREADS = 4


def serves(x: Tensor) -> bool:
    """Whether this is the fastest way to k-WTA of such an input; a compiler sees torch alone."""
    if torch.compiler.is_compiling():
        return False
    usual = x.device.type == "cpu" and x.dtype in (torch.float32, torch.float64)
    return usual and torch.get_num_threads() <= THREADS


def lies_in_channels_last(x: Tensor) -> bool:
    """Whether the channels of each place lie together in memory, as kernels of a CPU like it.

    Those of a GPU read an example where it lies, in any order.
    """
    if x.ndim != 4 or x.device.type != "cpu" or is_transformed() or x.is_contiguous():
        return False
    return x.is_contiguous(memory_format=torch.channels_last)


def is_transformed() -> bool:
    """Whether a transform of `torch.func` is at work: it hides values, and sees torch's own calls.

    It differentiates and batches what torch computes, so that numpy and kernels stay out.
    """
    return bool(torch._C._are_functorch_transforms_active())


def rows_of(x: Tensor, units: int, last: bool) -> np.ndarray:
    """Groups of so many units, (N, units), in the order of memory; without a copy if it has one.

    Args:
        x: (N, ...), on the CPU.
        units: of a group.
        last: whether the order is that of channels_last; each example is then one group.
    """
    values = x.detach().numpy()
    return (values.transpose(0, 2, 3, 1) if last else values).reshape(-1, units)


def tensor_of(rows: np.ndarray, shape: torch.Size, last: bool) -> Tensor:
    """The tensor of this shape whose `rows_of` they are, in the same memory."""
    if not last:
        return torch.from_numpy(rows.reshape(shape))
    count, channels, height, width = shape
    placed = rows.reshape(count, height, width, channels)
    return torch.from_numpy(placed.transpose(0, 3, 1, 2))
