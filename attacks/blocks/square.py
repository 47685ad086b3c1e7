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
from bench.attacks.blocks.keeping import first_lowest, pace, put
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
        self._sides = torch.tensor(self._every, dtype=torch.float32, device=inputs.device)
        self._block = min(BLOCK, queries)
        # Of each row the random numbers for its block of proposals, in [0, 1).
        self._draws = inputs.new_zeros(len(inputs), self._block, self.moves.each)

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
        who = torch.arange(len(counts), device=counts.device)
        rows, x, clock, best = state.rows, state.x, state.clock, state.low
        if self.pace > 1 or total > len(counts):  # else one of each
            who = who.repeat_interleave(counts, output_size=total)
            rows, x, clock, best = (each.index_select(0, who) for each in (rows, x, clock, best))
            before = (counts.cumsum(dim=0) - counts).index_select(0, who)
            clock = clock + torch.arange(total, device=clock.device) - before
        draws = self._draws.flatten(0, 1).index_select(0, rows * self._block + clock % self._block)
        moved = self.moves.moved(rows, x, draws, self._sides.index_select(0, clock), sides)
        low, logits = self._asked(moved, rows)
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

    def _ahead(self, state: Tries) -> Tensor:
        """How many proposals of each row are asked about: int64 (M,), none of what has ended.

        Squares are kept ever more rarely: half as many are asked about as since the last one.
        """
        most = min(AHEAD, self.most // len(state.rows))
        counts = torch.ones_like(state.clock)
        if most > 1:
            block = self._block - state.clock % self._block
            left = torch.minimum(block, self.queries - state.clock)
            often = 1 + (state.clock - state.better) // 2
            counts = torch.minimum(often.clamp(max=most), left)
        return counts if self.pace == 1 else torch.where(self.ended(state), 0, counts)

    def _told(self, state: Tries, counts: Tensor) -> tuple[int, list[int]]:
        """What the host has to know, in one wait: of all proposals their number and their sides.

        New random numbers are drawn where a block of them begins.
        """
        due = state.clock % self._block == 0
        asked = [counts.sum(), due.sum()]
        if self.moves.sized:
            asked += [state.clock.min(), (state.clock + counts).max()]
        total, begins, *ends = torch.stack(asked).tolist()
        if begins:
            rows = state.rows[due]
            self._draws.index_copy_(0, rows, self.streams.uniform(rows, self._draws.shape[1:]))
        return total, sorted(set(self._every[slice(*ends)])) if ends else []


class Stripes:
    """In Linf: vertical stripes first, and then squares of one colour, all of the ball's corners.

    Args:
        ball: of the rows.
    """

    smallest, sized = 1, False

    def __init__(self, ball: Ball) -> None:
        _, channels, height, width = ball.inputs.shape
        self.ball = ball
        self.first = (channels, 1, width)
        """The shape of the random numbers of a start."""
        self.each = 2 + channels
        """How many random numbers a proposal needs."""
        device = ball.inputs.device
        self._beyond = torch.tensor([height + 1.0, width + 1.0], device=device)
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
        first = (draws[:, :2] * (self._beyond - sides)).floor()
        inside = windows(first, sides, x.shape[2:])
        high = draws[:, 2:] >= 0.5
        which = (high * count + rows[:, None]) * channels + self._channels
        colour = self._corners.index_select(0, which.flatten()).reshape(x.shape)
        return torch.lerp(x, colour, inside)


def _sides(queries: int, height: int, width: int, smallest: int) -> list[int]:
    """The side of the square of each query: section 3.2; odd outside Linf."""
    sides = []
    for query in range(queries):
        share = COVERED / 2 ** sum(query > after for after in HALVED)
        side = max(round(math.sqrt(share * height * width)), smallest)
        side += smallest > 1 and side % 2 == 0
        sides.append(min(side, height, width))
    return sides
