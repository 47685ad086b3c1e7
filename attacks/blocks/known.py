"""What a search keeps of each example: the lowest point, and the ends of its chains."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

from bench.attacks.blocks.keeping import first_lowest, put

if TYPE_CHECKING:
    from torch import Tensor


class Known:
    """Points of N examples, and how low the model's margin is there.

    Args:
        inputs: where all begin, (N, C, H, W).
        chains: ends that each example keeps.
    """

    def __init__(self, inputs: Tensor, chains: int) -> None:
        n, device = len(inputs), inputs.device
        self.chains = chains
        self.best = inputs.clone()
        """The lowest point of each example, (N, C, H, W)."""
        self.lowest = torch.full((n,), math.inf, dtype=torch.float64, device=device)
        """The margin there, (N,)."""
        self.broken = torch.zeros(n, dtype=torch.bool, device=device)
        """Whether the model is wrong of it, in each draw, (N,)."""
        self.ends = torch.stack([inputs] * chains, dim=1)
        """Of its chains, (N, chains, C, H, W)."""
        self.heights = torch.full((n, chains), math.inf, dtype=torch.float64, device=device)
        """The margins there, (N, chains); infinite where no chain has begun."""

    def move(self, rows: Tensor, place: Tensor, points: Tensor, low: Tensor) -> None:
        """Let chains end in these points where they are lower."""
        which = rows * self.chains + place
        better = low < self.heights[rows, place]
        put(self.heights.flatten(), which, better, low)
        put(self.ends.flatten(0, 1), which, better, points)

    def keep(self, rows: Tensor, points: Tensor, low: Tensor, broken: Tensor) -> None:
        """Keep the lowest points of examples, of several equally low ones the first."""
        better = low < self.lowest.index_select(0, rows)
        rows, kept, place = first_lowest(rows, low, better, len(self.lowest))
        put(self.best, rows, kept, points.index_select(0, place))
        put(self.lowest, rows, kept, low.index_select(0, place))
        put(self.broken, rows, kept, broken.index_select(0, place))

    def enchain(self, rows: Tensor, points: Tensor, low: Tensor, broken: Tensor) -> None:
        """Put points in the place of the highest end of each example, where they are lower."""
        self.move(rows, self.heights[rows].argmax(dim=1), points, low)
        self.keep(rows, points, low, broken)

    def agree(self, share: float) -> Tensor:
        """Whether the two lowest ends of each example differ by less than a share, bool (N,)."""
        first, second = self.heights.topk(2, dim=1, largest=False).values.unbind(dim=1)
        return second - first < share * first.abs()

    def forget(self, which: Tensor) -> None:
        """Have the chains of some examples, bool (N,), begin again; their lowest point is kept."""
        self.heights[which] = math.inf

    def recall(self) -> None:
        """Have a chain end in the lowest point of each example, where none does any more."""
        rows = torch.arange(len(self.lowest), device=self.lowest.device)
        past = torch.where(self.lowest < self.heights.min(dim=1).values, self.lowest, math.inf)
        self.move(rows, self.heights.argmax(dim=1), self.best, past)
