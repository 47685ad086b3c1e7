"""What is kept of rows that are searched together, without asking a GPU which of them these are.

An index of booleans makes the host wait until it is known how many are true. Here every row is
written, most of them with what they had. A search that lets rows go has to ask; on a GPU it does so
every few steps, and what has ended is left as it was until then.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

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


def perhaps(which: Tensor) -> Tensor:
    """The places that may be true, int64 (M,): those that are; all on a GPU, which is not asked."""
    if which.is_cuda:
        return torch.arange(len(which), device=which.device)
    return torch.where(which)[0]


def _wide(values: Tensor, like: Tensor) -> Tensor:
    """One value a row, (M,), to be combined with (M, ...)."""
    return values.reshape(-1, *[1] * (like.ndim - 1))


def put(into: Tensor, rows: Tensor, which: Tensor, values: Tensor) -> None:
    """Let rows have these values where `which` is true.

    Args:
        into: (N, ...), changed.
        rows: int64 (M,); where one is there several times, all its values and `which` are equal.
        which: bool (M,).
        values: (M, ...), dtype of `into`.
    """
    if not some(which):
        return
    before = into.index_select(0, rows)
    into.index_copy_(0, rows, torch.where(_wide(which, values), values, before))


def marked(rows: Tensor, which: Tensor, count: int) -> Tensor:
    """Of so many rows, those that are named where `which` is true; bool (count,)."""
    return rows.new_zeros(count).index_add_(0, rows, which.to(rows.dtype)) > 0


def first_lowest(rows: Tensor, values: Tensor, among: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """For each place, where the lowest value of its row is; the first of equal ones.

    Args:
        rows: int64 (M,), of `count`; a row may be there several times.
        values: floating point, (M,).
        among: bool (M,), which places count.
        count: of all rows.

    Returns:
        Whether there is one for the row, bool (M,), and its place, int64 (M,).
    """
    places = torch.arange(len(rows), device=rows.device)
    values = torch.where(among, values, torch.inf)
    low = values.new_full((count,), torch.inf).scatter_reduce_(0, rows, values, "amin")
    places = torch.where(among & (values == low[rows]), places, len(rows))
    first = rows.new_full((count,), len(rows)).scatter_reduce_(0, rows, places, "amin")[rows]
    return first < len(rows), first.clamp(max=len(rows) - 1)
