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

from bench.defenses.activations.numpy_rows import (
    SCORES,
    lies_in_channels_last,
    rows_of,
    tensor_of,
)

if TYPE_CHECKING:
    from torch import Tensor

#: By a float's bytes, the integer of the same size, and minus infinity.
_SAME_SIZE: dict[int, np.dtype[Any]] = {4: np.dtype("i4"), 8: np.dtype("i8")}
_LOWEST: dict[int, Any] = {4: np.float32(-np.inf), 8: np.float64(-np.inf)}
#: Units that are looked at together, which a core's own cache holds.
_UNITS = 2**16


def kwta(x: Tensor, score: str, first: int, k: int) -> Tensor | None:
    """The winners of each group and +0 elsewhere; the choice counts as constant for the gradient.

    Args:
        x: float32 or float64, on the CPU, (N, ...).
        score: by what units compete.
        first: a group lies along the dimensions from here on.
        k: winners of each group, and all that tie with the last of them.

    Returns:
        Shape, dtype and memory format of `x`; None where a value is not finite, or so large that
        their sum is not.
    """
    passes = torch.is_grad_enabled() and x.requires_grad
    last = first == 1 and lies_in_channels_last(x)
    rows = rows_of(x, math.prod(x.shape[first:]), last)
    bits = _bits(SCORES[score](rows), k)
    if bits is None:
        return None
    if not passes:
        bits &= rows.view(bits.dtype)
    kept = tensor_of(bits, x.shape, last)
    if kept.stride() != x.stride():
        kept = torch.empty_like(x, dtype=kept.dtype, requires_grad=False).copy_(kept)
    if passes:
        masked: Tensor = _Masked.apply(x, kept)
        return masked
    return kept.view(x.dtype)


def _bits(rows: np.ndarray, k: int) -> np.ndarray | None:
    """All bits set for those of each row that reach its k-th largest, none for the others.

    Args:
        rows: float32 or float64, (N, M).
        k: of M.

    Returns:
        Integers of the same size, shape of `rows`; None where one of them is not finite, or their
        sum is not.
    """
    kept = np.empty_like(rows)
    bits = kept.view(_SAME_SIZE[rows.itemsize])
    together = max(1, _UNITS // rows.shape[1])
    # What is beyond the largest float is infinite, and has the sign as well.
    with np.errstate(over="ignore", invalid="ignore"):
        if not math.isfinite(np.add.reduce(rows, axis=None)):
            return None
        for begin in range(0, len(rows), together):
            some = rows[begin : begin + together]
            # Just below the k-th largest, so that the difference of winners is negative, and not 0.
            below = np.nextafter(_kth(some, k), _LOWEST[rows.itemsize])
            np.subtract(below, some, out=kept[begin : begin + together])
            part = bits[begin : begin + together]
            np.right_shift(part, 8 * rows.itemsize - 1, out=part)
    return bits


def _kth(rows: np.ndarray, k: int) -> np.ndarray:
    """The k-th largest of each row, (N, 1)."""
    rest = rows.shape[1] - k
    found = rows.view(_SAME_SIZE[rows.itemsize]).copy()
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
