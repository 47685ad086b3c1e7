"""k-WTA on the CPU: its winners by numpy, and an activation that keeps them by their bits.

Floats that are not negative have the order of their bits, read as integers, and of integers numpy
finds the k-th largest in about half the time. The sign bit of a difference, spread over the whole
word, is a mask that no branch waits for. It leaves winners as they are, bit by bit, and makes +0 of
all else, of infinite gradients as well, where a product with 0 would be NaN.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

if TYPE_CHECKING:
    from torch import Tensor

#: Of a float's bytes, the integer of the same size.
_INTEGERS = {torch.float32: torch.int32, torch.float64: torch.int64}
#: Units that are looked at together, which a core's own cache holds.
_UNITS = 2**16
#: Up to so many threads numpy on one is the fastest; beyond, torch on all.
THREADS = 4


def serves(x: Tensor) -> bool:
    """Whether this is the fastest way to k-WTA of such an input."""
    threads = torch.get_num_threads()
    return x.device.type == "cpu" and x.dtype in _INTEGERS and threads <= THREADS


def kwta(x: Tensor, scores: Tensor, first: int, k: int) -> Tensor | None:
    """The winners of each group and +0 elsewhere; the choice counts as constant for the gradient.

    Args:
        x: float32 or float64, on the CPU, (N, ...).
        scores: by which units compete, without a gradient, shape and dtype of `x`.
        first: a group lies along the dimensions from here on.
        k: winners of each group, and all that tie with the last of them.

    Returns:
        Shape, dtype and memory format of `x`; None where a score is not finite, or so large that
        their sum is not.
    """
    if not math.isfinite(scores.sum().item()):
        return None
    kept = torch.from_numpy(_bits(scores.flatten(first).numpy(), k)).reshape(x.shape)
    if kept.stride() != x.stride():
        kept = torch.empty_like(x, dtype=kept.dtype).copy_(kept)
    if torch.is_grad_enabled() and x.requires_grad:
        masked: Tensor = _Masked.apply(x, kept)
        return masked
    kept &= x.view(kept.dtype)
    return kept.view(x.dtype)


def _bits(groups: np.ndarray, k: int) -> np.ndarray:
    """All bits set for those of each group that reach its k-th largest, none for the others.

    Args:
        groups: finite, float32 or float64, (..., M).
        k: of M.

    Returns:
        Integers of the same size, shape of `groups`.
    """
    integer = np.dtype(f"i{groups.itemsize}")
    units = groups.shape[-1]
    rows = groups.reshape(-1, units)
    kept = np.empty(rows.shape, integer)
    together = max(1, _UNITS // units)
    for begin in range(0, len(rows), together):
        some, bits = rows[begin : begin + together], kept[begin : begin + together]
        # Just below the k-th largest, so that the difference of winners is negative, and not 0.
        below = np.nextafter(_kth(some, k, integer), groups.dtype.type(-np.inf))
        with np.errstate(over="ignore"):  # to infinity, which has the sign as well
            np.subtract(below, some, out=bits.view(groups.dtype))
        np.right_shift(bits, 8 * groups.itemsize - 1, out=bits)
    return kept.reshape(groups.shape)


def _kth(rows: np.ndarray, k: int, integer: np.dtype[Any]) -> np.ndarray:
    """The k-th largest of each row, (N, 1)."""
    rest = rows.shape[1] - k
    found = rows.view(integer).copy()
    found.partition(rest, axis=1)
    kth = found[:, rest : rest + 1]
    # Of negative floats the order is the other way round.
    negative = kth[:, 0] < 0
    values: np.ndarray = kth.view(rows.dtype)
    if negative.any():
        values[negative] = np.partition(rows[negative], rest, axis=1)[:, rest : rest + 1]
    return values


class _Masked(torch.autograd.Function):
    """The values whose bits a mask keeps, and +0 elsewhere; their gradient likewise."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, kept: Tensor) -> Tensor:
        ctx.save_for_backward(kept)
        return (x.view(kept.dtype) & kept).view(x.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Tensor, None]:
        (gradient,) = gradients
        (kept,) = ctx.saved_tensors
        return _Masked.apply(gradient, kept), None
