"""Square attack (Andriushchenko et al., ECCV 2020): random search over squares, a radius a row.

In L1 as AutoAttack has it (Croce and Hein, ICML 2021). Each row has its own squares, which may
touch every border. Where few rows are left, several proposals of a row are asked about in one
call and the first that is better is kept: the same search for fewer calls.
"""

from __future__ import annotations

import bisect
import functools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from bench.api.attacks import margins
from bench.attacks.blocks.ball import Ball, Streams
from bench.attacks.blocks.batches import State, at_once
from bench.attacks.blocks.keeping import first_lowest, pace, put
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
        moves = Stripes if norm is Norm.LINF else ShiftedPatches
        self._every = _sides(queries, inputs.shape[2], inputs.shape[3], moves.smallest)
        self.moves = moves(self.ball, self._every)
        self.most = at_once(inputs)
        self._sides = torch.tensor(self._every, device=inputs.device)
        self._block = min(BLOCK, queries)
        # What each row's block of proposals is, as its moves tell it; of no row at first.
        nobody = torch.arange(0, device=inputs.device)
        numbers = inputs.new_zeros(0, self._block, self.moves.each)
        none = self.moves.planned(nobody, numbers, nobody.new_zeros(0, self._block))
        self._plans = none.new_zeros(len(inputs), *none.shape[1:])

    def enter(self, rows: Tensor) -> Tries:
        """See `Stepwise`; asks about the starts."""
        draws = self.streams.uniform(rows, self.moves.first)
        x = self.moves.start(rows, draws)
        low = self._ask(x, rows)[0]
        return Tries(rows, torch.zeros_like(rows), torch.zeros_like(rows), x, low)

    def ended(self, state: Tries) -> Tensor:
        """See `Stepwise`. Where the defense is randomised, one wrong answer ends its row."""
        catch, rows = self.catch, state.rows
        done = catch.found if self.problem.randomised else catch.settled
        return done.index_select(0, rows) | (state.clock >= self.queries)

    def step(self, state: Tries) -> None:
        """Ask about the next proposals of each row, and keep the first that is better."""
        counts = self._ahead(state)
        total, sides = self._told(state, counts)
        if not total:
            return
        rows, x, clock, best = state.rows, state.x, state.clock, state.low
        if counts is not None:
            who = torch.arange(len(counts), device=counts.device)
            who = who.repeat_interleave(counts, output_size=total)
            rows, x, clock, best = (each.index_select(0, who) for each in (rows, x, clock, best))
            before = (counts.cumsum(dim=0) - counts).index_select(0, who)
            clock = clock + torch.arange(total, device=clock.device) - before
        plans = self._plans.flatten(0, 1).index_select(0, rows * self._block + clock % self._block)
        moved = self.moves.moved(rows, x, plans, sides)
        low, logits = self._asked(moved, rows)
        if counts is None:
            state.clock = clock + 1
            won = place = torch.where(low < best)[0]
            kept = None
        else:
            state.clock = state.clock + counts
            won, kept, place = first_lowest(who, clock, low < best, len(counts))
        if len(won):
            x, low, clock = (each.index_select(0, place) for each in (moved, low, clock + 1))
            rows, logits = state.rows.index_select(0, won), logits.index_select(0, place)
            self.catch.offer(rows, x, logits, kept)
            put(state.x, won, kept, x)
            put(state.low, won, kept, low)
            put(state.clock, won, kept, clock)
            put(state.better, won, kept, clock)

    def _ask(self, x: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        low, logits = self._asked(x, rows)
        self.catch.offer(rows, x, logits)
        return low, logits

    def _asked(self, x: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            logits = self.problem.model(x)
        return margins(logits, self.problem.labels.index_select(0, rows)), logits

    def _ahead(self, state: Tries) -> Tensor | None:
        """How many proposals of each row are asked about: int64 (M,), none of what has ended.

        Squares are kept ever more rarely: half as many are asked about as since the last one.
        None where it is one of each, as no more fit into a call.
        """
        most = min(AHEAD, self.most // len(state.rows))
        if most <= 1 and self.pace == 1:
            return None
        counts = torch.ones_like(state.clock)
        if most > 1:
            block = self._block - state.clock % self._block
            left = torch.minimum(block, self.queries - state.clock)
            often = 1 + (state.clock - state.better) // 2
            counts = torch.minimum(often.clamp(max=most), left)
        return counts if self.pace == 1 else torch.where(self.ended(state), 0, counts)

    def _told(self, state: Tries, counts: Tensor | None) -> tuple[int, list[int]]:
        """What the host has to know, in one wait: of all proposals their number and their sides.

        New random numbers are drawn where a block of them begins.
        """
        due = state.clock % self._block == 0
        asked = [due.sum()]
        if self.moves.sized:
            last = state.clock if counts is None else state.clock + counts - 1
            asked += [state.clock.min(), last.max()]
        if counts is not None:
            asked.append(counts.sum())
        begins, *ends = torch.stack(asked).tolist()
        total = len(due) if counts is None else ends.pop()
        if begins:
            (which,) = torch.where(due)
            rows, clock = (each.index_select(0, which) for each in (state.rows, state.clock))
            numbers = self.streams.uniform(rows, (self._block, self.moves.each))
            clock = clock[:, None] + torch.arange(self._block, device=rows.device)
            sides = self._sides[clock.clamp(max=self.queries - 1)]
            self._plans.index_copy_(0, rows, self.moves.planned(rows, numbers, sides))
        return total, sorted(set(self._every[ends[0] : ends[1] + 1])) if ends else []


class Stripes:
    """In Linf: vertical stripes first, and then squares of one colour, all of the ball's corners.

    Args:
        ball: of the rows.
        sides: all that squares have.
    """

    smallest, sized = 1, False

    def __init__(self, ball: Ball, sides: Sequence[int]) -> None:
        channels, height, width = ball.inputs.shape[1:]
        self.ball = ball
        self.first = (channels, 1, width)
        """The shape of the random numbers of a start."""
        self.each = 2 + channels
        """How many random numbers a proposal needs."""
        device = ball.inputs.device
        self._lengths = torch.tensor([height, width], device=device)
        self._channels = torch.arange(channels, device=device)
        self._ranked = torch.tensor(sorted(set(sides)), device=device)
        place = torch.arange(max(height, width), device=device)
        behind = place[:, None] - place
        # By the rank of a side and the first line of a square: 1 in its lines, 0 beside it.
        self._lines = ((behind <= 0) & (behind + self._ranked[:, None, None] > 0)).float()

    @functools.cached_property
    def _corners(self) -> Tensor:
        """The lowest that each channel of each row may be, and then the highest: (2·N·C, H·W)."""
        return torch.cat(self.ball.ends).flatten(2).flatten(0, 1)

    def start(self, rows: Tensor, draws: Tensor) -> Tensor:
        """A sign for each column and channel."""
        low, high = self.ball.ends
        return torch.where(draws < 0.5, low[rows], high[rows])

    def planned(self, rows: Tensor, draws: Tensor, sides: Tensor) -> Tensor:
        """What proposals are: int32 (M, B, 2 + C).

        Which lines are a square's rows, which its columns, and which corner each channel gets.

        Args:
            rows: int64 (M,).
            draws: of B proposals of each, (M, B, `each`).
            sides: of their squares, int64 (M, B).
        """
        sides = sides[..., None]
        first = (draws[..., :2] * (self._lengths - sides + 1)).long()
        lines = torch.searchsorted(self._ranked, sides) * self._lines.shape[1] + first
        count, channels = self.ball.inputs.shape[:2]
        which = ((draws[..., 2:] >= 0.5) * count + rows[:, None, None]) * channels + self._channels
        return torch.cat([lines, which], dim=2).int()

    def moved(self, rows: Tensor, x: Tensor, plans: Tensor, _: Sequence[int]) -> Tensor:
        """A square of each, with a sign for each channel."""
        (height, width), every = x.shape[2:], self._lines.flatten(0, 1)
        down, across = (every.index_select(0, plans[:, axis]) for axis in (0, 1))
        inside = down[:, None, :height, None] * across[:, None, None, :width]
        colour = self._corners.index_select(0, plans[:, 2:].flatten()).reshape(x.shape)
        return torch.lerp(x, colour, inside)  # exact where the weight is 0 or 1


def _sides(queries: int, height: int, width: int, smallest: int) -> list[int]:
    """The side of the square of each query: section 3.2; odd outside Linf."""
    sides = []
    for query in range(queries):
        share = COVERED / 2 ** bisect.bisect_left(HALVED, query)
        side = max(round(math.sqrt(share * height * width)), smallest)
        side += smallest > 1 and side % 2 == 0
        sides.append(min(side, height, width))
    return sides
