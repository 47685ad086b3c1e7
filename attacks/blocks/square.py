"""Square attack (Andriushchenko et al., ECCV 2020): random search over squares, a radius a row.

In L1 as AutoAttack has it (Croce and Hein, ICML 2021). Each row has its own squares, which may
touch every border. Where few rows are left, several proposals of a row are asked about in one
call and the first that is better is kept: the same search for fewer calls.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from bench.api.attacks import margins
from bench.attacks.blocks.ball import Ball, Streams
from bench.attacks.blocks.batches import State, at_once
from bench.attacks.blocks.keeping import pace, perhaps, put, some
from bench.attacks.blocks.moves import windows
from bench.attacks.blocks.patches import ShiftedPatches
from bench.threat import Norm

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from bench.attacks.blocks.catch import Catch

#: The share of the image that the first squares cover, and the queries after which it halves.
COVERED = 0.8
HALVED = (10, 50, 200, 500, 1_000, 2_000, 4_000, 6_000, 8_000)
#: Queries for which the random numbers of a row are drawn at once.
BLOCK = 500
#: At most so many proposals of a row in one call.
AHEAD = 50


@dataclass
class Tries(State):
    """Where the search is with each row."""

    clock: Tensor
    """Int64 (M,): proposals that were decided upon."""
    better: Tensor
    """Int64 (M,): the clock at the last one that was kept."""
    x: Tensor
    """(M, C, H, W): the best point."""
    low: Tensor
    """(M,): its margin."""
    draws: Tensor
    """(M, BLOCK, K): the random numbers of this block of proposals, in [0, 1)."""


class SquareSearch:
    """Searches for rows by squares: see `bench.attacks.blocks.batches.Stepwise`.

    Args:
        catch: of a problem with an epsilon; what is found is kept there.
        purpose: searches of different purposes are independent.
        queries: of each row, beside its start.
    """

    copies = 1

    def __init__(self, catch: Catch, purpose: str, queries: int) -> None:
        self.catch, self.problem, self.queries = catch, catch.problem, queries
        inputs, norm = self.problem.inputs, self.problem.norm
        self.pace = pace(inputs)
        self.ball = Ball(norm, inputs, catch.radii)
        self.streams = Streams(self.problem, purpose)
        self.moves = Stripes(self.ball) if norm is Norm.LINF else ShiftedPatches(self.ball)
        self.most = at_once(inputs)
        self._every = _sides(queries, inputs.shape[2], inputs.shape[3], self.moves.smallest)
        self._sides = torch.tensor(self._every, device=inputs.device)

    def enter(self, rows: Tensor) -> Tries:
        """See `Stepwise`; asks about the starts."""
        draws = self.streams.uniform(rows, self.moves.first)
        x = self.moves.start(rows, draws)
        low = self._ask(x, rows)[0]
        zero = torch.zeros_like(rows)
        block = x.new_zeros(len(rows), min(BLOCK, self.queries), self.moves.each)
        return Tries(rows, zero, zero, x, low, block)

    def ended(self, state: Tries) -> Tensor:
        """See `Stepwise`. Where the defense is randomised, one wrong answer ends its row."""
        catch, rows = self.catch, state.rows
        done = catch.found if self.problem.randomised else catch.settled
        return done[rows] | (state.clock >= self.queries)

    def step(self, state: Tries) -> None:
        """Ask about the next proposals of each row, and keep the first that is better."""
        counts = self._ahead(state)
        total, sides = self._told(state, counts)
        if not total:
            return
        places = torch.arange(total, device=counts.device)
        who, rows, x, clock, best = places, state.rows, state.x, state.clock, state.low
        one_each = self.pace == 1 and total == len(counts)
        if not one_each:
            who = torch.arange(len(counts), device=counts.device)
            who = who.repeat_interleave(counts, output_size=total)
            rows, x, clock, best = rows[who], x[who], clock[who], best[who]
            clock = clock + places - (counts.cumsum(dim=0) - counts)[who]
        draws = state.draws[who, clock % state.draws.shape[1]]
        moved = self.moves.moved(rows, x, draws, self._sides[clock], sides)
        low, logits = self._asked(moved, rows)
        kept, place = low < best, places
        if not one_each:
            better = torch.where(kept, places, total)
            first = torch.full_like(state.rows, total).scatter_reduce_(0, who, better, "amin")
            kept, place = first < total, first.clamp(max=total - 1)
        if some(kept):
            few = perhaps(kept)
            found, there = kept[few], place[few]
            x = moved[there]
            self.catch.offer(state.rows[few], x, logits[there], found)
            put(state.x, few, found, x)
            put(state.low, few, found, low[there])
        state.clock = torch.where(kept, clock[place] + 1, state.clock + counts)
        state.better = torch.where(kept, state.clock, state.better)

    def _ask(self, x: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        low, logits = self._asked(x, rows)
        self.catch.offer(rows, x, logits)
        return low, logits

    def _asked(self, x: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            logits = self.problem.model(x)
        return margins(logits, self.problem.labels[rows]), logits

    def _ahead(self, state: Tries) -> Tensor:
        """How many proposals of each row are asked about: int64 (M,), none of what has ended.

        Squares are kept ever more rarely: half as many are asked about as since the last one.
        """
        most = min(AHEAD, self.most // len(state.rows))
        counts = torch.ones_like(state.clock)
        if most > 1:
            block = state.draws.shape[1]
            left = torch.minimum(block - state.clock % block, self.queries - state.clock)
            often = 1 + (state.clock - state.better) // 2
            counts = torch.minimum(often.clamp(max=most), left)
        return counts if self.pace == 1 else torch.where(self.ended(state), 0, counts)

    def _told(self, state: Tries, counts: Tensor) -> tuple[int, list[int]]:
        """What the host has to know, in one wait: of all proposals their number and their sides.

        New random numbers are drawn where a block of them begins.
        """
        due = (state.clock % state.draws.shape[1] == 0) & (counts > 0)
        ends = (state.clock.min(), (state.clock + counts).max())
        asked = torch.stack([counts.sum(), due.sum(), *ends])
        total, begins, first, last = asked.tolist()
        if begins:
            (rows,) = torch.where(due)
            drawn = self.streams.uniform(state.rows[rows], state.draws.shape[1:])
            state.draws = state.draws.index_copy(0, rows, drawn)
        return total, sorted(set(self._every[first:last]))


class Stripes:
    """In Linf: vertical stripes first, and then squares of one colour, all of the ball's corners.

    Args:
        ball: of the rows.
    """

    smallest = 1

    def __init__(self, ball: Ball) -> None:
        _, channels, height, width = ball.inputs.shape
        self.ball = ball
        self.first = (channels, 1, width)
        """The shape of the random numbers of a start."""
        self.each = 2 + channels
        """How many random numbers a proposal needs."""
        device = ball.inputs.device
        self._lengths = torch.tensor([height, width], device=device)
        self._channels = torch.arange(channels, device=device)

    @functools.cached_property
    def _corners(self) -> Tensor:
        """The lowest that each channel of each row may be, and then the highest: (2·N·C, H·W)."""
        return torch.cat(self.ball.ends).flatten(2).flatten(0, 1)

    def start(self, rows: Tensor, draws: Tensor) -> Tensor:
        """A sign for each column and channel."""
        low, high = self.ball.ends
        return torch.where(draws < 0.5, low[rows], high[rows])

    def moved(
        self, rows: Tensor, x: Tensor, draws: Tensor, sides: Tensor, _: Sequence[int]
    ) -> Tensor:
        """A square of each, with a sign for each channel."""
        count, channels = self.ball.inputs.shape[:2]
        sides = sides[:, None]
        first = (draws[:, :2] * (self._lengths - sides + 1)).long()
        inside = windows(first, sides, x.shape[2:])
        high = draws[:, 2:] >= 0.5
        which = (high * count + rows[:, None]) * channels + self._channels
        colour = self._corners.index_select(0, which.flatten()).reshape(x.shape)
        return torch.where(inside, colour, x)


def _sides(queries: int, height: int, width: int, smallest: int) -> list[int]:
    """The side of the square of each query: section 3.2; odd outside Linf."""
    sides = []
    for query in range(queries):
        share = COVERED / 2 ** sum(query > after for after in HALVED)
        side = max(round(math.sqrt(share * height * width)), smallest)
        side += smallest > 1 and side % 2 == 0
        sides.append(min(side, height, width))
    return sides
