"""The smooth backward pass of `smooth` on the CPU: its formula in few buffers, most of it by numpy.

A call of torch takes a small layer as long as its arithmetic, and every result is a new buffer. All
operations on what the gradient is made of are those of the formula in its order: no bit differs.
"""

from __future__ import annotations

import numpy as np
import torch

from bench.defenses.activations.numpy_rows import SCORES


def gradient(
    values: np.ndarray,
    out: np.ndarray,
    incoming: np.ndarray,
    *,
    score: str,
    tau: float,
    jump: float,
) -> np.ndarray:
    """See `smooth._SmoothChoice`.

    Args:
        values: of the units of each group, float32 or float64, (N, M).
        out: those of the winners, and 0; shape and dtype of `values`.
        incoming: the gradient of what was chosen, likewise.
        score: by what units compete.
        tau: see `smooth.Smoothness`.
        jump: likewise.

    Returns:
        The gradient of the values, shape and dtype of `values`.
    """
    scores = SCORES[score](values)
    chosen: np.ndarray = np.empty_like(scores)
    both = np.empty_like(scores, shape=(2, *scores.shape))
    weight, push = both
    with np.errstate(over="ignore", invalid="ignore"):
        width = np.maximum(tau * _spread(scores), scores.dtype.type(1e-12))
        np.subtract(scores, _threshold(scores, out, weight, push), out=chosen)
        chosen /= width
        torch.from_numpy(chosen).sigmoid_()
        np.subtract(1, chosen, out=weight)
        weight *= chosen
        weight /= width
        np.multiply(incoming, values, out=push)
        push *= weight
        # In the order in which torch adds.
        some, pushed = torch.from_numpy(both).sum(dim=2, keepdim=True).numpy()
        weight *= pushed / np.maximum(some, scores.dtype.type(1e-12))
        push -= weight
        push *= jump if score == "value" else jump * _slope(score, values)
        chosen *= incoming
        chosen += push
    return chosen


def _slope(score: str, values: np.ndarray) -> np.ndarray:
    sign: np.ndarray = np.sign(values)
    return sign if score == "magnitude" else -sign


def _spread(scores: np.ndarray) -> np.ndarray:
    """See `smooth.Competition.spread`: (N, 1)."""
    away = scores.astype(np.float64)
    away -= np.add.reduce(away, axis=1, keepdims=True) / away.shape[1]
    square = np.vecdot(away, away)[:, None] / away.shape[1]
    found: np.ndarray = np.sqrt(square).astype(scores.dtype)
    return found


def _threshold(
    scores: np.ndarray, out: np.ndarray, far: np.ndarray, moved: np.ndarray
) -> np.ndarray:
    """See `smooth.threshold`: (N, 1); both buffers are written to."""
    most = np.finfo(scores.dtype).max
    np.not_equal(out, 0, out=far, casting="unsafe")
    far *= -most
    np.add(scores, far, out=moved)
    high = np.maximum.reduce(moved, axis=1, keepdims=True)
    far += most
    np.add(scores, far, out=moved)
    low = np.minimum.reduce(moved, axis=1, keepdims=True)
    middle: np.ndarray = (low + high) / 2
    if np.maximum.reduce(np.abs(middle), axis=None) < most / 8:  # in each group some won, some lost
        return middle
    return np.where(low > most / 2, 0, np.where(high < -most / 2, low, middle))
