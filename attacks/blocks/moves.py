"""Moves of a search from point to point in the ball: between two points, and near one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from bench.attacks.blocks.ball import unit
from bench.threat import Norm

if TYPE_CHECKING:
    from torch import Tensor

    from bench.attacks.blocks.ball import Ball, Streams

#: The first step of the descent that follows a hop, relative to epsilon.
STEP = (0.25, 0.6)


class Moves:
    """Draws moves for examples, each from its own stream.

    Args:
        ball: that points stay in, of all examples.
        streams: one per example.
    """

    def __init__(self, ball: Ball, streams: Streams) -> None:
        self.ball, self.streams = ball, streams
        self._latest: tuple[Tensor, Ball] | None = None

    def _at(self, rows: Tensor) -> Ball:
        """The balls of these rows, which are asked about again and again."""
        if self._latest is None or self._latest[0] is not rows:
            self._latest = rows, self.ball.at(rows)
        return self._latest[1]

    def between(self, x: Tensor, other: Tensor, rows: Tensor, share: tuple[float, float]) -> Tensor:
        """Some pixels of one point in the place of another's: uniform crossover (Syswerda, 1989).

        Args:
            x: points, (M, C, H, W).
            other: as many points, from which pixels are taken.
            rows: which example each is, int64 (M,).
            share: of the pixels taken, at least and at most; each point draws its own.
        """
        drawn, few = self.streams.uniform(rows), self.streams.uniform(rows, (1,))
        taken = share[0] + few[:, 0] * (share[1] - share[0])
        return self._at(rows).project(torch.where(drawn < wide_as(taken, drawn), other, x))

    def steps(self, rows: Tensor) -> Tensor:
        """The size of the first step of a descent after a hop, relative to epsilon, (M,)."""
        return STEP[0] + self.streams.uniform(rows, (1,))[:, 0] * (STEP[1] - STEP[0])

    def choice(self, rows: Tensor, count: int) -> Tensor:
        """One of so many numbers for each of these rows, int64 (M,)."""
        return (self.streams.uniform(rows, (1,))[:, 0] * count).long()

    def near(self, x: Tensor, rows: Tensor, number: int) -> Tensor:
        """Some pixels at an end of their interval, or a rectangle of them; in L2 and L1 a move.

        Args:
            x: points near which to look, (M, C, H, W).
            rows: which example each is, int64 (M,).
            number: of the candidate: fewer and fewer pixels, and again; every second one a
                rectangle.
        """
        drawn, ball = self.streams.uniform(rows), self._at(rows)
        share = 0.25 / 2 ** (number % 5)
        if ball.norm is not Norm.LINF:
            signs = (drawn < share).float() - (drawn > 1 - share).float()
            return ball.project(x + _step(ball, signs) / 2)
        low, high = ball.ends
        if number % 2 and min(x.shape[2:]) > 1:
            up = wide_as(drawn.flatten(1)[:, -1], drawn) < 0.5
            return torch.where(_rectangle(drawn), torch.where(up, high, low), x)
        return torch.where(drawn < share, torch.where(drawn < share / 2, low, high), x)


def _step(ball: Ball, signs: Tensor) -> Tensor:
    """A move of size epsilon along these signs."""
    if ball.norm is Norm.LINF:
        return ball.radius * signs
    if ball.norm is Norm.L2:
        return ball.radius * unit(signs)
    count = signs.abs().flatten(1).sum(dim=1).clamp(min=1)
    return ball.radius * signs / wide_as(count, signs)


def wide_as(values: Tensor, like: Tensor) -> Tensor:
    """One value an example, to be multiplied with `like`."""
    return values.reshape(-1, *[1] * (like.ndim - 1)).to(like.dtype)


def _rectangle(drawn: Tensor) -> Tensor:
    """True in a random rectangle of each example, at most half as high and wide; (N, 1, H, W)."""
    height, width = drawn.shape[2:]
    # Made there: a GPU would be waited for to bring it.
    lengths = height + (width - height) * torch.arange(2, device=drawn.device)
    of_size, of_place = drawn.flatten(1)[:, :4].reshape(-1, 2, 2).unbind(dim=1)
    size = 1 + (of_size * (lengths / 2)).floor()
    return windows((of_place * (lengths - size + 1)).floor(), size, drawn.shape[2:])


def windows(first: Tensor, size: Tensor, shape: torch.Size) -> Tensor:
    """True in a rectangle of each row, bool (M, 1, H, W).

    Args:
        first: its upper row and its left column, (M, 2).
        size: its height and width, (M, 2), or the side of a square, (M, 1).
        shape: (H, W).
    """
    height, width = shape
    place = torch.arange(max(shape), device=first.device)
    first, last = first[:, :, None], (first + size)[:, :, None]
    within = (place >= first) & (place < last)
    return within[:, 0, None, :height, None] & within[:, 1, None, None, :width]
