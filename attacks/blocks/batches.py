"""Searches over many rows at once: a batch that is refilled as rows leave.

A search that goes step by step knows nothing of its batch. Rows enter it together with all their
copies (targets, restarts), each at its own clock, and leave when they are done.
"""

from __future__ import annotations

import dataclasses
from collections import deque
from typing import TYPE_CHECKING, Protocol, Self, TypeVar

import torch

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

#: At most so many rows on a CPU, and so many values of theirs: of small networks a step costs
#: little more with more rows; in larger ones a few dozen fill the caches (measured at 64 to 3,072
#: values, where 600 rows of 64 take a tenth less than 300). `FEWEST` suit any.
ROWS, VALUES, FEWEST = 600, 40_000, 50
#: The same on a GPU, which a batch has to fill.
GPU_ROWS, GPU_VALUES = 9_600, 2**22


@dataclasses.dataclass
class State:
    """What a search knows of the rows in its batch: a tensor for each fact, (M, ...)."""

    rows: Tensor
    """Int64 (M,): which row of the problem."""

    def at(self, keep: Tensor) -> Self:
        """Those at some places, int64 (K,)."""
        names = [field.name for field in dataclasses.fields(self)]
        return type(self)(**{name: getattr(self, name).index_select(0, keep) for name in names})

    def joined(self, other: Self) -> Self:
        """These, and behind them those of another batch."""
        names = [field.name for field in dataclasses.fields(self)]
        return type(self)(
            **{name: torch.cat([getattr(self, name), getattr(other, name)]) for name in names}
        )


S = TypeVar("S", bound=State)


class Stepwise(Protocol[S]):
    """A search that goes step by step."""

    copies: int
    """So many of each row are searched together."""
    pace: int
    """Steps between two looks at which rows are done; until then these are left as they are."""

    def enter(self, rows: Tensor) -> S:
        """All copies of these rows, int64 (M,), at their start."""

    def step(self, state: S) -> None:
        """Go a step with each row, in place."""

    def ended(self, state: S) -> Tensor:
        """Which rows are done; the same for all copies of one. Bool (M,)."""


def drive(
    search: Stepwise[S],
    rows: Tensor,
    inputs: Tensor,
    then: Callable[[Tensor], list[int]] | None = None,
) -> None:
    """Search for all rows to their end.

    Args:
        search: goes the steps.
        rows: int64 (M,), in the order in which they enter.
        inputs: of the problem: their size and device say how many rows go into a batch.
        then: which rows are to be searched as well, once these, int64 (K,), have left.
    """
    waiting, most = deque(rows.tolist()), max(1, at_once(inputs) // search.copies)
    state: S | None = None
    steps = 0
    while waiting or state is not None:
        room = most - (0 if state is None else len(state.rows) // search.copies)
        if waiting and room > 0:
            fresh = [waiting.popleft() for _ in range(min(room, len(waiting)))]
            entered = search.enter(torch.tensor(fresh, device=inputs.device))
            state = entered if state is None else state.joined(entered)
        assert state is not None
        search.step(state)
        steps += 1
        if steps % search.pace:
            continue
        ended = search.ended(state)
        (stay,) = torch.where(~ended)
        if len(stay) < len(ended):
            gone = None if then is None else torch.unique(state.rows[ended])
            state = state.at(stay) if len(stay) else None
            if then is not None and gone is not None:
                waiting.extend(then(gone))


def at_once(inputs: Tensor) -> int:
    """How many rows of inputs (N, C, H, W) one call of the model gets."""
    rows, values = (GPU_ROWS, GPU_VALUES) if inputs.is_cuda else (ROWS, VALUES)
    return max(FEWEST, min(rows, values // inputs[0].numel()))
