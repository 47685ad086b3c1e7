"""What is kept of rows that are searched together, without asking a GPU which of them these are.

An index of booleans makes the host wait until it is known how many are true. Here every row is
written, most of them with what they had. A search that lets rows go has to ask; on a GPU it does so
every few steps, and what has ended is left as it was until then.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

if TYPE_CHECKING:
    from torch import Tensor

#: Steps on a GPU from one look at what has ended to the next: each makes the host wait.
PACE = 4


def pace(x: Tensor) -> int:
    """Steps between two looks at what has ended."""
    return PACE if x.is_cuda else 1


def some(which: Tensor) -> bool:
    """Whether any may be true: a GPU is not asked, for which the work costs less than to wait."""
    return which.is_cuda or bool(which.any())


def _wide(values: Tensor, like: Tensor) -> Tensor:
    """One value a row, (M,), to be combined with (M, ...)."""
    return values.reshape(-1, *[1] * (like.ndim - 1))


def put(into: Tensor, rows: Tensor, which: Tensor | None, values: Tensor) -> None:
    """Let rows have these values where `which` is true.

    Args:
        into: (N, ...), changed.
        rows: int64 (M,); where one is there several times, all its values and `which` are equal.
        which: bool (M,); None for all.
        values: (M, ...), dtype of `into`.
    """
    if which is None:
        into.index_copy_(0, rows, values)
        return
    if which.is_cuda:
        before = into.index_select(0, rows)
        into.index_copy_(0, rows, torch.where(_wide(which, values), values, before))
        return
    (few,) = torch.where(which)
    if len(few) < len(which):
        rows, values = rows.index_select(0, few), values.index_select(0, few)
    if len(few):
        into.index_copy_(0, rows, values)


def marked(rows: Tensor, which: Tensor, count: int) -> Tensor:
    """Of so many rows, those that are named where `which` is true; bool (count,)."""
    return rows.new_zeros(count).index_add_(0, rows, which.to(rows.dtype)) > 0


class Lowest(NamedTuple):
    """Where the lowest value of each row is, to be `put`: on a GPU of all places, else of those."""

    rows: Tensor
    """Int64 (K,); all places of a row have the same of the rest."""
    which: Tensor | None
    """Whether there is one for the row, bool (K,); None where there is for all."""
    place: Tensor
    """Where, int64 (K,)."""


def first_lowest(rows: Tensor, values: Tensor, among: Tensor, count: int) -> Lowest:
    """Where the lowest value of each row is; the first of equal ones.

    Args:
        rows: int64 (M,), of `count`; a row may be there several times.
        values: floating point, (M,).
        among: bool (M,), which places count.
        count: of all rows.
    """
    if not rows.is_cuda:  # mostly few, of which each row is there once
        (place,) = torch.where(among)
        own = rows.index_select(0, place)
        if len(set(own.tolist())) < len(own):
            order = np.lexsort((values.index_select(0, place).numpy(), own.numpy()))
            starts = np.unique(own.numpy()[order], return_index=True)[1]
            place = place.index_select(0, torch.from_numpy(order[starts]))
            own = rows.index_select(0, place)
        return Lowest(own, None, place)
    places = torch.arange(len(rows), device=rows.device)
    values = torch.where(among, values, torch.inf)
    low = values.new_full((count,), torch.inf).scatter_reduce_(0, rows, values, "amin")
    places = torch.where(among & (values == low[rows]), places, len(rows))
    first = rows.new_full((count,), len(rows)).scatter_reduce_(0, rows, places, "amin")[rows]
    return Lowest(rows, first < len(rows), first.clamp(max=len(rows) - 1))
